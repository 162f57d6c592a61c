"""What the loop drives: a task with a plan that is data."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from cdarts.engine.checkpoint import State

Losses = Mapping[str, Tensor]
"""Scalar tensors by name; the loop averages them over an epoch and logs them."""

Records = Mapping[str, Mapping[str, Any]]
"""One line for each journal: ``{"metrics": {...}}`` is appended to ``metrics.jsonl``."""


@dataclass(frozen=True)
class Epoch:
    """One line of a plan."""

    phase: str
    steps: int
    cycle: int | None = None
    opens_cycle: bool = False


class Task(ABC):
    """Something that is trained epoch by epoch: a search, a retraining."""

    @abstractmethod
    def plan(self) -> list[Epoch]:
        """All epochs, known before the first one starts."""

    @abstractmethod
    def start_epoch(self, index: int, epoch: Epoch) -> None:
        """Prepare for ``plan()[index]``; everything that depends on time is derived from `index`.

        It is called again, after `load_state`, when a run goes on within the epoch: of what an epoch changes only once,
        such as the network it begins with, the state says that it is done.
        """

    @abstractmethod
    def batches(self, index: int) -> Iterator[tuple[Any, ...]]:
        """The epoch's batches, a function of `index` alone."""

    def skipping(self) -> AbstractContextManager[None]:
        """Within it what `batches` gave moves on without making batches, where that saves work: nobody looks at them.

        A run that goes on within an epoch comes by what is done so.
        """
        return nullcontext()

    @abstractmethod
    def step(self, position: int, *batch: Any) -> Losses:
        """Train on the batch at `position` of the epoch. Raises `NonFiniteError`; then the state is used no more."""

    def samples(self) -> Mapping[str, list[int]]:
        """Which samples the last batch was made of, by where they come from; what a report on a bad batch names."""
        return {}

    @abstractmethod
    def end_epoch(self, index: int, losses: Mapping[str, float]) -> Records:
        """Close the epoch, given its mean losses; returns a line for each journal."""

    @abstractmethod
    def state(self) -> State:
        """Everything that later steps depend on."""

    @abstractmethod
    def load_state(self, state: State) -> None:
        """Take over a state, as `state` gave it."""
