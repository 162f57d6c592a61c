"""The search of P-DARTS: stages, and skip connections that are held back by dropout and restricted in the end."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from cdarts.algorithms.bilevel import BilevelSearch
from cdarts.algorithms.p_darts import NUM_STAGES, RESTRICTED, PDartsConfig
from cdarts.data import ImageData
from cdarts.engine.checkpoint import State
from cdarts.engine.task import Epoch, Records
from cdarts.networks import Network
from cdarts.operations import Identity, Operation, Same
from cdarts.randomness import generator
from cdarts.relaxations import Softmax
from cdarts.spaces import Space
from cdarts.spaces.base import Strengths
from cdarts.topology import CellTopology, Genotype, Topology

EXCLUDED = -1e6
"""Strength of what is not to be derived; the others lie between 0 and 1."""

DECAY = 3.0
"""Dropout falls by exp(-3) while alpha moves: the authors' exp(-0.2) an epoch over their 15 epochs."""

Names = Mapping[str, Sequence[Sequence[str]]]
"""For each kind of cell the operations of each edge."""


class PDartsSearch(BilevelSearch):
    """First-order DARTS, three times."""

    config: PDartsConfig

    def __init__(
        self, config: PDartsConfig, data: ImageData, *, seed: int, device: torch.device, execution: str
    ) -> None:
        self.stage = 0
        self.topology: Topology = config.space.supernet()
        super().__init__(config, data, seed=seed, device=device, execution=execution)

    def relax(self) -> "StageSoftmax":
        return StageSoftmax(self.topology, generator(self.seed, "alpha", self.stage), self.config.space.operations)

    def make_search_net(self) -> Network:
        config = self.config
        cells = config.cells + config.added_cells[self.stage]
        network = self.make_network(self.topology, cells=cells, affine=config.affine)
        self.skip_dropout = SkipDropout()
        put_dropout(network, self.skip_dropout)
        return network

    # -- stages ------------------------------------------------------------------------------------------------------

    def plan(self) -> list[Epoch]:
        """In each stage epochs in which alpha stands still, then epochs in which both move."""
        still, both = self.config.still_epochs, min(len(self.train), len(self.val))
        epochs = []
        for stage in range(NUM_STAGES):
            _, length = self.extent(stage)
            epochs += [Epoch(f"still {stage + 1}", len(self.train))] * still
            epochs += [Epoch(f"search {stage + 1}", both)] * (length - still)
        return epochs

    def extent(self, stage: int) -> tuple[int, int]:
        """A stage's first epoch and its number of epochs."""
        first, end = self.config.first_epoch(stage), self.config.first_epoch(stage + 1)
        return first, end - first

    @property
    def progress(self) -> float:
        """Fraction of the stage's epochs that is done when this one begins."""
        first, length = self.extent(self.stage)
        return (self.epoch - first) / length

    def start_epoch(self, index: int, epoch: Epoch) -> None:
        phase, number = epoch.phase.split()
        while self.stage < int(number) - 1:
            self.open_stage(self.stage + 1)
        super().start_epoch(index, Epoch(phase, epoch.steps))
        first, length = self.extent(self.stage)
        rate = self.config.skip_dropout[self.stage]
        self.skip_dropout.rate = dropout_at(rate, index - first, self.config.still_epochs, length)

    def open_stage(self, stage: int) -> None:
        """Drop each edge's weakest operations and begin anew with the others."""
        names = strongest_operations(self.config.space, self.relaxation.strengths(), self.config.num_kept(stage))
        self.enter(stage, names)

    def enter(self, stage: int, names: Names) -> None:
        """A fresh network, alpha and optimizers for these operations."""
        self.stage = stage
        self.topology = restricted(self.config.space, names)
        self.make_networks()
        self.make_optimizers()

    def logits(self, images: Tensor, draw: torch.Generator, *, learns_alpha: bool) -> Tensor:
        self.skip_dropout.generator = torch.Generator(self.device).manual_seed(draw.initial_seed())
        return super().logits(images, draw, learns_alpha=learns_alpha)

    # -- the result --------------------------------------------------------------------------------------------------

    def genotype(self) -> Genotype:
        """Derived with at most `max_skips` skip connections in the normal cell: the weakest of more are passed over."""
        space = self.config.space
        strengths = {kind: [list(row) for row in rows] for kind, rows in self.relaxation.strengths().items()}
        edges, skip = space.all_edges(), space.operations.index("skip_connect")
        while True:
            genotype = self.derive(strengths)
            skips = [
                strengths[RESTRICTED][edges.index(choice.edge)]
                for choice in genotype.cells.get(RESTRICTED, ())
                if choice.operation == "skip_connect"
            ]
            if len(skips) <= self.config.max_skips:
                return genotype
            weakest = max(skips, key=lambda row: (row[skip] > EXCLUDED, -row[skip]))
            if weakest[skip] == EXCLUDED:  # the limits leave nothing else
                return genotype
            weakest[skip] = EXCLUDED

    def end_epoch(self, index: int, losses: Mapping[str, float]) -> Records:
        records = super().end_epoch(index, losses)
        return {**records, "metrics": {**records["metrics"], "stage": self.stage + 1}}

    def state(self) -> State:
        names = {kind: [list(names) for _, names in cell.edges] for kind, cell in self.topology.items()}
        return {**super().state(), "stage": self.stage, "operations": names}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.enter(state["stage"], state["operations"])
        super().load_state(state)


class StageSoftmax(Softmax):
    """Softmax over the operations that edges still have; the strength of the others is 0."""

    def __init__(self, topology: Topology, generator: torch.Generator, operations: Sequence[str]) -> None:
        """`operations`: the space's."""
        super().__init__(topology, generator)
        self.topology = topology
        self.operations = operations

    def strengths(self) -> Strengths:
        return {
            kind: [
                self._row(dict(zip(names, row, strict=True)))
                for (_, names), row in zip(self.topology[kind].edges, rows, strict=True)
            ]
            for kind, rows in super().strengths().items()
        }

    def _row(self, kept: Mapping[str, float]) -> list[float]:
        return [kept.get(name, 0.0) for name in self.operations]


def strongest_operations(space: Space, strengths: Strengths, count: int) -> dict[str, list[list[str]]]:
    """For each kind of cell and edge the names of so many of its strongest operations, in the order of the space."""

    def strongest(row: Sequence[float]) -> list[str]:
        ranked = sorted(range(len(row)), key=lambda column: (-row[column], column))
        return [space.operations[column] for column in sorted(ranked[:count])]

    return {kind: [strongest(row) for row in rows] for kind, rows in strengths.items()}


def restricted(space: Space, names: Names) -> Topology:
    """The space's supernet with these operations alone."""
    return {
        kind: CellTopology(
            cell.num_inputs,
            cell.num_nodes,
            tuple((edge, tuple(kept)) for (edge, _), kept in zip(cell.edges, names[kind], strict=True)),
        )
        for kind, cell in space.supernet().items()
    }


# -- dropout behind skip connections -----------------------------------------------------------------------------------


def dropout_at(rate: float, epoch: int, still_epochs: int, epochs: int) -> float:
    """The rate in an epoch of a stage: falls linearly towards 0 while alpha stands still, then again, exponentially."""
    if epoch < still_epochs:
        return rate * (epochs - epoch - 1) / epochs
    return rate * math.exp(-DECAY * (epoch - still_epochs) / (epochs - still_epochs))


class SkipDropout:
    """What all skip connections of a network share: the rate, and where the draws come from."""

    def __init__(self) -> None:
        self.rate = 0.0
        self.generator: torch.Generator | None = None
        """On the network's device."""

    def __call__(self, x: Tensor) -> Tensor:
        if not self.rate:
            return x
        assert self.generator is not None
        keep = 1.0 - self.rate
        return x * (torch.empty_like(x).bernoulli_(keep, generator=self.generator) / keep)


class DroppedIdentity(Operation):
    """``skip_connect`` at stride 1, with dropout."""

    is_identity = True

    def __init__(self, dropout: SkipDropout) -> None:
        super().__init__()
        self.prologue = Same()
        self.dropout = dropout

    def finish(self, x: Tensor) -> Tensor:
        return self.dropout(x)


def put_dropout(network: Network, dropout: SkipDropout) -> None:
    """Put dropout behind every skip connection of stride 1; those of stride 2 have weights and are left alone."""
    for edge in [module for module in network.modules() if isinstance(module, nn.ModuleDict)]:
        for name, operation in edge.items():
            if isinstance(operation, Identity):
                edge[name] = DroppedIdentity(dropout)
