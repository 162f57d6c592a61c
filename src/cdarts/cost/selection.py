"""The strongest genotype whose network stays within limits, found exactly.

A genotype takes one alternative of each of its space's decisions (`Space.decisions`). Its score is the sum of the
strengths of what it keeps, which `Space.derive` maximises; its cost is a sum as well (`CostTable`). So the question is
a multiple-choice knapsack problem (Kellerer, Pferschy & Pisinger, "Knapsack Problems", 2004, chapter 11). It is solved
by dynamic programming over the decisions: of partial cells with the same cost the strongest one is kept, and those that
no completion can bring within the limits are dropped. Operations come at few different costs, so there are few.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from cdarts.cost.table import Amount, CostTable
from cdarts.errors import ConfigurationError
from cdarts.spaces import Space
from cdarts.spaces.base import Strengths
from cdarts.topology import Choice, Genotype

NO_LIMIT = np.iinfo(np.int64).max


class _Partial(NamedTuple):
    """Partial cells, one a row: their costs in the limited amounts, their scores, and how each was made."""

    costs: np.ndarray
    """(cells, limited amounts), int64."""
    scores: np.ndarray
    parents: np.ndarray
    """Row of the partial cell before."""
    alternatives: np.ndarray
    """Position of the last decision's alternative."""


@dataclass(frozen=True)
class Bounds:
    """The most that a network may cost; None: no limit."""

    parameters: int | None = None
    macs: int | None = None
    nanoseconds: int | None = None

    def holds(self, cost: Amount) -> bool:
        """Whether a cost is within."""
        return all(value <= limit for value, limit in zip(cost, self.limits(), strict=True))

    def limits(self) -> list[int]:
        """In the order of `Amount`."""
        given = (self.parameters, self.macs, self.nanoseconds)
        return [NO_LIMIT if limit is None else limit for limit in given]


class Selection:
    """Derives genotypes as a space does, within bounds."""

    def __init__(self, space: Space, table: CostTable, bounds: Bounds) -> None:
        self.space = space
        self.table = table
        self.bounds = bounds
        self.decisions = space.decisions()
        self.limited = [axis for axis, limit in enumerate(bounds.limits()) if limit != NO_LIMIT]
        self.position = {
            Choice(edge, name): (row, column)
            for row, edge in enumerate(space.all_edges())
            for column, name in enumerate(space.operations)
        }
        self.costs = {
            kind: [
                np.array(
                    [
                        [sum(table.choices[kind][choice][axis] for choice in kept) for axis in self.limited]
                        for kept in alternatives
                    ],
                    dtype=np.int64,
                ).reshape(len(alternatives), len(self.limited))
                for alternatives in self.decisions
            ]
            for kind in space.kinds
        }

    def least(self) -> Amount:
        """The least that a network of the space costs, in each amount by itself."""
        total = self.table.rest
        for kind in self.space.kinds:
            for alternatives in self.decisions:
                costs = [
                    [
                        sum(self.table.choices[kind][choice][axis] for choice in kept)
                        for axis in range(len(Amount._fields))
                    ]
                    for kept in alternatives
                ]
                total = total.plus(Amount(*(min(column) for column in zip(*costs, strict=True))))
        return total

    def is_possible(self) -> bool:
        """Whether any genotype is within the bounds."""
        return self._best(self._strengths(0.0)) is not None

    def derive(self, strengths: Strengths) -> Genotype:
        """The genotype with the largest sum of strengths among those within the bounds.

        What `Space.derive` gives, if that is within. Raises `ConfigurationError` if nothing is.
        """
        free = self.space.derive(strengths)
        if self.bounds.holds(self.table.cost(free)):
            return free
        found = self._best(strengths)
        if found is None:
            raise ConfigurationError("no network of the space keeps all limits together; loosen one of them")
        return found

    def fitting(self, genotype: Genotype) -> Genotype:
        """The genotype itself if it is within the bounds, else one within that shares as many choices as can be."""
        if self.bounds.holds(self.table.cost(genotype)):
            return genotype
        strengths = self._strengths(0.0)
        for kind, choices in genotype.cells.items():
            for choice in choices:
                row, column = self.position[choice]
                strengths[kind][row][column] = 1.0
        return self.derive(strengths)

    def score(self, genotype: Genotype, strengths: Strengths) -> float:
        """The sum of the strengths of what a genotype keeps."""
        return sum(
            strengths[kind][row][column]
            for kind, choices in genotype.cells.items()
            for row, column in (self.position[choice] for choice in choices)
        )

    def _strengths(self, value: float) -> dict[str, list[list[float]]]:
        """Strengths that are all the same."""
        return {
            kind: [[value] * len(self.space.operations) for _ in self.space.all_edges()] for kind in self.space.kinds
        }

    # -- the dynamic program -------------------------------------------------------------------------------------------

    def _best(self, strengths: Strengths) -> Genotype | None:
        rest = np.array([self.table.rest[axis] for axis in self.limited], dtype=np.int64)
        limits = np.array([self.bounds.limits()[axis] for axis in self.limited], dtype=np.int64) - rest
        cheapest = {kind: sum(costs.min(axis=0) for costs in self.costs[kind]) for kind in self.space.kinds}
        # what cells of one kind may cost at most: what the cheapest cells of the others leave
        steps = {
            kind: self._cells(kind, strengths, limits - sum(cheapest[other] for other in cheapest if other != kind))
            for kind in self.space.kinds
        }
        if any(not len(partial[-1].scores) for partial in steps.values()):
            return None
        rows = _combine([partial[-1] for partial in steps.values()], limits)
        if rows is None:
            return None
        cells = {kind: self._made(partial, row) for (kind, partial), row in zip(steps.items(), rows, strict=True)}
        return Genotype(self.space.name, cells)

    def _cells(self, kind: str, strengths: Strengths, limit: np.ndarray) -> list[_Partial]:
        """The partial cells of a kind after each decision; first the empty one."""
        costs = self.costs[kind]
        # what the decisions still to come cost at least
        ahead = np.cumsum([each.min(axis=0) for each in costs[::-1]], axis=0)[::-1]
        ahead = np.concatenate([ahead[1:], np.zeros((1, len(self.limited)), dtype=np.int64)])
        empty = np.zeros(1, dtype=np.int64)
        steps = [_Partial(np.zeros((1, len(self.limited)), dtype=np.int64), np.zeros(1), empty, empty)]
        for alternatives, own, later in zip(self.decisions, costs, ahead, strict=True):
            scores = np.array(
                [
                    sum(strengths[kind][row][column] for row, column in (self.position[choice] for choice in kept))
                    for kept in alternatives
                ]
            )
            chosen = _strongest_of_each_cost(own, scores)
            before = steps[-1]
            all_costs = (before.costs[:, None, :] + own[chosen][None, :, :]).reshape(-1, len(self.limited))
            all_scores = (before.scores[:, None] + scores[chosen][None, :]).reshape(-1)
            inside = np.flatnonzero((all_costs + later <= limit).all(axis=1))
            kept_rows = inside[_strongest_of_each_cost(all_costs[inside], all_scores[inside])]
            steps.append(
                _Partial(
                    all_costs[kept_rows],
                    all_scores[kept_rows],
                    kept_rows // len(chosen),
                    chosen[kept_rows % len(chosen)],
                )
            )
        return steps

    def _made(self, steps: list[_Partial], row: int) -> tuple[Choice, ...]:
        """The cell that a row of the last step stands for."""
        choices: list[Choice] = []
        for decision, partial in reversed(list(zip(self.decisions, steps[1:], strict=True))):
            choices += decision[partial.alternatives[row]]
            row = int(partial.parents[row])
        return tuple(choices)


def _strongest_of_each_cost(costs: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Positions, in order, of the strongest of each cost, the first of equals; those that another beats in both fall.

    costs: (n, amounts); scores: (n,).
    """
    if not len(scores):
        return np.zeros(0, dtype=np.int64)
    order = np.lexsort((np.arange(len(scores)), -scores, *costs.T[::-1]))
    ranked = costs[order]
    first = np.ones(len(order), dtype=bool)
    first[1:] = (ranked[1:] != ranked[:-1]).any(axis=1)
    kept = order[first]
    if costs.shape[1] == 1:  # in the order of cost only what is stronger than all that is cheaper can be of use
        best_before = np.concatenate([[-np.inf], np.maximum.accumulate(scores[kept])[:-1]])
        kept = kept[scores[kept] > best_before]
    return np.sort(kept)


def _combine(parts: list[_Partial], limit: np.ndarray) -> list[int] | None:
    """The rows, one of each part, with the largest sum of scores within the limit; None if there are none."""
    best_score, best_rows = -np.inf, None
    if len(parts) == 1:
        (only,) = parts
        return [int(np.argmax(only.scores))]  # all rows are within
    first, second = parts
    most = second.scores.max()
    for row in np.argsort(-first.scores, kind="stable"):
        if first.scores[row] + most <= best_score:
            break
        inside = (second.costs <= limit - first.costs[row]).all(axis=1)
        if not inside.any():
            continue
        other = int(np.argmax(np.where(inside, second.scores, -np.inf)))
        score = first.scores[row] + second.scores[other]
        if score > best_score:
            best_score, best_rows = score, [int(row), other]
    return best_rows
