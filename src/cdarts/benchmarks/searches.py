"""Searches on NAS-Bench-201's table: the baselines of its authors, at the simulated cost of training what they ask for.

Only CIFAR-10's validation accuracy is seen by a search (the column ``c10_val``, after 12 epochs unless a search says
otherwise); what it found is reported by the 200-epoch columns. Training costs ``c10_val_traintime_200`` times epochs /
200 simulated seconds: in the benchmark an epoch takes the same time in both schedules. Its authors add the time of
validating, which the table does not hold. As in their code, a cell that is asked for again is paid for again, and the
evaluation that crosses the budget counts.
"""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import ClassVar, Literal

import numpy as np

from cdarts.benchmarks.nasbench201 import EPOCHS, NUM_CELLS, NUM_EDGES, OPERATIONS, Table
from cdarts.errors import ConfigurationError
from cdarts.randomness import key
from cdarts.settings import STRICT

SEARCHED_DATASET = "cifar10"

EDGES_BY_NODE = ((0,), (1, 2), (3, 4, 5))
"""Positions of the edges into each node, in the order of the space."""


@dataclass(frozen=True)
class Evaluation:
    """One training that a search paid for."""

    index: int
    """The cell's number in the table."""
    epochs: int
    accuracy: float
    """On CIFAR-10's validation images, in percent."""
    seconds: float
    """Simulated time at which it was known, from the start of the search."""


@dataclass(frozen=True)
class SearchTrace:
    """What a search did, in order."""

    evaluations: tuple[Evaluation, ...]

    @property
    def seconds(self) -> float:
        """Simulated time of the whole search."""
        return self.evaluations[-1].seconds

    @property
    def best(self) -> Evaluation:
        """The best by validation accuracy among those trained longest; the first of equals."""
        return max(self.evaluations, key=lambda evaluation: (evaluation.epochs, evaluation.accuracy))


class _Simulation:
    """The clock of one search, and what it has paid for."""

    def __init__(self, table: Table, budget_seconds: float) -> None:
        self._accuracies = {epochs: table.accuracies(SEARCHED_DATASET, "val", epochs) for epochs in EPOCHS}
        self._seconds = table.columns["c10_val_traintime_200"]
        self._budget_seconds = budget_seconds
        self._evaluations: list[Evaluation] = []

    def goes_on(self) -> bool:
        return not self._evaluations or self._evaluations[-1].seconds < self._budget_seconds

    def train(self, index: int, epochs: int) -> float:
        """Validation accuracy of a cell, in percent."""
        before = self._evaluations[-1].seconds if self._evaluations else 0.0
        accuracy = float(self._accuracies[epochs][index])
        seconds = before + float(self._seconds[index]) * epochs / 200
        self._evaluations.append(Evaluation(index, epochs, accuracy, seconds))
        return accuracy

    def trace(self) -> SearchTrace:
        return SearchTrace(tuple(self._evaluations))


def _generator(seed: int, name: str) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(key(seed, "table search", name)))


@dataclass(frozen=True, kw_only=True)
class TableSearch(ABC):
    """Base of the searches. A subclass is final and is listed in `TABLE_SEARCHES`."""

    __pydantic_config__: ClassVar = STRICT

    budget_seconds: float = 12_000.0
    """Simulated seconds of training after which a search ends (NAS-Bench-201, section 5)."""

    def search(self, table: Table, seed: int) -> SearchTrace:
        """Search; the same seed finds the same. Raises `ConfigurationError` for settings that cannot work."""
        if not self.budget_seconds > 0:
            raise ConfigurationError(f"budget_seconds {self.budget_seconds}: must be above 0")
        simulation = _Simulation(table, self.budget_seconds)
        self._run(table, simulation, seed)
        return simulation.trace()

    @abstractmethod
    def _run(self, table: Table, simulation: _Simulation, seed: int) -> None:
        """Train cells until the simulation's time is up."""


@dataclass(frozen=True, kw_only=True)
class RandomSearch(TableSearch):
    """Cells drawn at random, each as likely as any other (Bergstra & Bengio 2012)."""

    name: Literal["random"] = "random"
    epochs: Literal[12, 200] = 12
    """Schedule that cells are trained and compared with."""

    def _run(self, table: Table, simulation: _Simulation, seed: int) -> None:  # noqa: ARG002 (numbers are cells)
        draw = _generator(seed, self.name)
        while simulation.goes_on():
            simulation.train(int(draw.integers(NUM_CELLS)), self.epochs)


@dataclass(frozen=True, kw_only=True)
class RegularizedEvolution(TableSearch):
    """A population of the newest cells: the best of a few drawn from it has a child, the oldest dies.

    Real et al., AAAI 2019. A child differs in one operation; as in the benchmark's code, a node is drawn, then an edge
    into it.
    """

    name: Literal["regularized-evolution"] = "regularized-evolution"
    population: int = 10
    """Cells alive; as many are drawn at random to begin with."""
    sample: int = 3
    """Cells drawn, with replacement, to find a parent."""
    epochs: Literal[12, 200] = 12
    """Schedule that cells are trained and compared with."""

    def _run(self, table: Table, simulation: _Simulation, seed: int) -> None:
        if self.population < 1 or self.sample < 1:
            raise ConfigurationError(f"population {self.population}, sample {self.sample}: each must be at least 1")
        draw = _generator(seed, self.name)
        alive: deque[tuple[float, int]] = deque()
        while len(alive) < self.population:
            index = int(draw.integers(NUM_CELLS))
            alive.append((simulation.train(index, self.epochs), index))
        while simulation.goes_on():
            drawn = [alive[number] for number in draw.integers(len(alive), size=self.sample)]
            _, parent = max(drawn, key=lambda cell: cell[0])
            child = table.indices_by_operations[_mutant(table.operations[parent], draw)]
            alive.append((simulation.train(child, self.epochs), child))
            alive.popleft()


def _mutant(operations: tuple[int, ...], draw: np.random.Generator) -> tuple[int, ...]:
    """The same cell with another operation on one edge."""
    edges = EDGES_BY_NODE[draw.integers(len(EDGES_BY_NODE))]
    edge = edges[draw.integers(len(edges))]
    # one of the others: a step around the circle of operations
    other = (operations[edge] + 1 + int(draw.integers(len(OPERATIONS) - 1))) % len(OPERATIONS)
    return (*operations[:edge], other, *operations[edge + 1 :])


@dataclass(frozen=True, kw_only=True)
class Reinforce(TableSearch):
    """A softmax over the operations of every edge, trained by policy gradient (Williams 1992) with Adam."""

    name: Literal["reinforce"] = "reinforce"
    learning_rate: float = 0.01
    baseline_momentum: float = 0.9
    """Of the moving average of rewards; the reward is the accuracy in percent."""
    epochs: Literal[12, 200] = 12
    """Schedule that cells are trained and compared with."""

    def _run(self, table: Table, simulation: _Simulation, seed: int) -> None:
        if not 0 <= self.baseline_momentum < 1:
            raise ConfigurationError(f"baseline_momentum {self.baseline_momentum}: must be from 0 to below 1")
        draw = _generator(seed, self.name)
        edges = np.arange(NUM_EDGES)
        logits = 1e-3 * draw.standard_normal((NUM_EDGES, len(OPERATIONS)))
        # Adam with its usual constants: beta 0.9 and 0.999, epsilon 1e-8
        first, second = np.zeros_like(logits), np.zeros_like(logits)
        total = weight = 0.0
        step = 0
        while simulation.goes_on():
            step += 1
            policy = np.exp(logits - logits.max(axis=1, keepdims=True))
            policy /= policy.sum(axis=1, keepdims=True)
            chosen = (policy.cumsum(axis=1) < draw.random((NUM_EDGES, 1))).sum(axis=1)
            chosen = np.minimum(chosen, len(OPERATIONS) - 1)  # a sum of probabilities may end just below 1
            reward = simulation.train(table.indices_by_operations[tuple(chosen.tolist())], self.epochs)
            total = self.baseline_momentum * total + (1 - self.baseline_momentum) * reward
            weight = self.baseline_momentum * weight + 1 - self.baseline_momentum
            # gradient of -log probability times advantage
            gradient = policy
            gradient[edges, chosen] -= 1
            gradient *= reward - total / weight
            first = 0.9 * first + 0.1 * gradient
            second = 0.999 * second + 0.001 * gradient**2
            rate = self.learning_rate / (1 - 0.9**step)
            logits -= rate * first / (np.sqrt(second / (1 - 0.999**step)) + 1e-8)


@dataclass(frozen=True, kw_only=True)
class Bohb(TableSearch):
    """Hyperband's brackets over 12 and 200 epochs, filled by a tree-structured Parzen estimator (Falkner et al. 2018).

    A bracket trains `eta` cells with the 12-epoch schedule and the best of them with the 200-epoch one; the next trains
    two with the 200-epoch schedule at once; and so on in turn. The estimator is optuna's; it learns from the longer
    schedule once `min_points` cells have been trained with it, else from the shorter.

    NAS-Bench-201's authors had budgets of 1 to 12 epochs of one schedule, whose curves the table does not hold: their
    figures for BOHB are not those of this search.
    """

    name: Literal["bohb"] = "bohb"
    eta: int = 16
    """About the ratio of the two schedules: at this value Hyperband has two brackets, of 16 cells and of 2."""
    candidates: int = 4
    """Samples from which the estimator takes the most promising."""
    min_points: int = 7
    """Trainings before the estimator is asked, until which cells are random: one more than there are edges."""

    def _run(self, table: Table, simulation: _Simulation, seed: int) -> None:
        if self.eta < 2 or self.candidates < 1 or self.min_points < 1:
            raise ConfigurationError(
                f"eta {self.eta}, candidates {self.candidates}, min_points {self.min_points}: must be at least 2, 1, 1"
            )
        short, long = EPOCHS
        estimators = {epochs: _Estimator(self, seed, epochs) for epochs in EPOCHS}

        def propose() -> tuple[int, ...]:
            learned = estimators[long] if estimators[long].num_points >= self.min_points else estimators[short]
            return learned.propose()

        def train(operations: tuple[int, ...], epochs: int) -> float:
            accuracy = simulation.train(table.indices_by_operations[operations], epochs)
            estimators[epochs].learn(operations, accuracy)
            return accuracy

        while simulation.goes_on():
            tried: list[tuple[float, tuple[int, ...]]] = []
            while len(tried) < self.eta and simulation.goes_on():
                operations = propose()
                tried.append((train(operations, short), operations))
            if simulation.goes_on():
                train(max(tried, key=lambda cell: cell[0])[1], long)
            for _ in range(2):
                if simulation.goes_on():
                    train(propose(), long)


class _Estimator:
    """A tree-structured Parzen estimator over the operations of the edges, for one schedule."""

    def __init__(self, config: Bohb, seed: int, epochs: int) -> None:
        self._optuna = _import_optuna()
        self._edges = {
            f"edge {edge}": self._optuna.distributions.CategoricalDistribution(range(len(OPERATIONS)))
            for edge in range(NUM_EDGES)
        }
        sampler = self._optuna.samplers.TPESampler(
            seed=key(seed, "table search", config.name, epochs) % 2**32,
            n_startup_trials=config.min_points,
            n_ei_candidates=config.candidates,
            multivariate=True,
        )
        # its messages are for studies of its own
        verbosity = self._optuna.logging.get_verbosity()
        self._optuna.logging.set_verbosity(self._optuna.logging.WARNING)
        try:
            self._study = self._optuna.create_study(direction="maximize", sampler=sampler)
        finally:
            self._optuna.logging.set_verbosity(verbosity)
        self.num_points = 0

    def propose(self) -> tuple[int, ...]:
        trial = self._study.ask(self._edges)
        operations = self._operations(trial.params)
        # what became of it is told by `learn`, under the schedule that it was trained with
        self._study.tell(trial, state=self._optuna.trial.TrialState.FAIL)
        return operations

    def learn(self, operations: Sequence[int], accuracy: float) -> None:
        parameters = dict(zip(self._edges, operations, strict=True))
        self._study.add_trial(
            self._optuna.trial.create_trial(params=parameters, distributions=dict(self._edges), value=accuracy)
        )
        self.num_points += 1

    def _operations(self, parameters: Mapping[str, object]) -> tuple[int, ...]:
        return tuple(int(str(parameters[edge])) for edge in self._edges)


def _import_optuna() -> ModuleType:
    try:
        import optuna
    except ImportError as error:
        raise ConfigurationError(
            "BOHB needs optuna, which is not installed: pip install 'cdarts[baselines]'"
        ) from error
    module: ModuleType = optuna
    return module


TABLE_SEARCHES: dict[str, type[TableSearch]] = {
    "random": RandomSearch,
    "regularized-evolution": RegularizedEvolution,
    "reinforce": Reinforce,
    "bohb": Bohb,
}
"""By name. A new one is a class and a line here."""
