"""The search that draws its answer."""

from collections.abc import Iterator, Mapping
from typing import Any

from cdarts.algorithms.base import SearchAlgorithm, architecture_record
from cdarts.data import Batch
from cdarts.engine.checkpoint import State
from cdarts.engine.task import Epoch, Losses, Records
from cdarts.topology import Genotype


class RandomDraw(SearchAlgorithm):
    """A function of the seed; its plan is one epoch without steps, so that the run has a record like any other."""

    def genotype(self) -> Genotype:
        return self.random_candidate("random")

    def num_parameters(self) -> dict[str, int]:
        return {}

    def plan(self) -> list[Epoch]:
        return [Epoch("draw", 0)]

    def start_epoch(self, index: int, epoch: Epoch) -> None:
        """There is nothing to prepare."""

    def batches(self, index: int) -> Iterator[tuple[Batch, ...]]:  # noqa: ARG002 - no epoch has any
        return iter(())

    def step(self, position: int, *batch: Batch) -> Losses:  # noqa: ARG002 - see `plan`
        raise AssertionError("a random draw has no steps")

    def end_epoch(self, index: int, losses: Mapping[str, float]) -> Records:  # noqa: ARG002 - there are none
        return {"metrics": {"phase": "draw"}, "genotypes": architecture_record(self.genotype(), None)}

    def state(self) -> State:
        return {}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """There is none."""
