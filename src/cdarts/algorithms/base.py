"""What every search gives besides being a task: its genotype, and how alpha stands. What searches with images share."""

import math
from abc import abstractmethod
from collections import Counter
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import nn

from cdarts.algorithms.config import SearchConfig
from cdarts.cost import Selection
from cdarts.data import Batches, ImageData, Split, balanced_halves, idle
from cdarts.engine.task import Task
from cdarts.networks import Network
from cdarts.operations import PARAMETER_FREE
from cdarts.randomness import generator
from cdarts.spaces import Space
from cdarts.spaces.base import Strengths
from cdarts.topology import Genotype, Topology


class SearchAlgorithm(Task):
    """A task whose result is a genotype.

    It holds the two halves of the training images: `train` for network weights, `val` for the architecture.
    """

    def __init__(
        self, config: SearchConfig, data: ImageData, *, seed: int, device: torch.device, execution: str
    ) -> None:
        """Raises `DataError` if a class has fewer than 2 images."""
        self.config = config
        self.seed = seed
        self.device = device
        self.execution = execution
        self.num_classes = data.num_classes
        self.image_channels = data.channels
        self.limited = self._limited(data)
        train, val = balanced_halves(data.train, data.class_names, seed)
        self.train = self._batches(train, data, "train")
        self.val = self._batches(val, data, "val")

    def _limited(self, data: ImageData) -> Selection | None:
        """What keeps genotypes within the limits, where there are any. Raises `ConfigurationError`."""
        limits, space = self.config.limits, self.config.space
        if not limits.are_set():
            return None
        size = limits.size(space, num_classes=data.num_classes, side=data.side, image_channels=data.channels)
        return limits.selection(space, size)

    @abstractmethod
    def genotype(self) -> Genotype:
        """The architecture as the search would answer now."""

    def derive(self, strengths: Strengths) -> Genotype:
        """The strongest genotype, within the limits where there are any."""
        return self.config.space.derive(strengths) if self.limited is None else self.limited.derive(strengths)

    def fitting(self, genotype: Genotype) -> Genotype:
        """The genotype itself, or one within the limits that shares as much with it as can be."""
        return genotype if self.limited is None else self.limited.fitting(genotype)

    def random_candidate(self, *stream: str | int) -> Genotype:
        """The strongest genotype, within the limits, of random strengths: without limits each is equally likely."""
        return self.derive(random_strengths(self.config.space, self.seed, *stream))

    def samples(self) -> Mapping[str, list[int]]:
        """Positions within each half of the training images, as `balanced_halves` made it."""
        return {"train": self.train.current(), "val": self.val.current()}

    def skipping(self) -> AbstractContextManager[None]:
        return idle(self.train, self.val)

    @abstractmethod
    def num_parameters(self) -> dict[str, int]:
        """Parameters of each network, by its name."""

    def make_network(
        self, topology: Topology, *, cells: int, affine: bool, stem: nn.Module | None = None, partial: int = 1
    ) -> Network:
        """A network of the search's space and size, on its device."""
        return Network(
            self.config.space,
            topology,
            cells=cells,
            channels=self.config.channels,
            num_classes=self.num_classes,
            image_channels=self.image_channels,
            affine=affine,
            execution=self.execution,
            stem=stem,
            partial=partial,
        ).to(self.device)

    def _batches(self, half: Split, data: ImageData, stream: str) -> Batches:
        return Batches(
            half,
            data,
            batch_size=self.config.batch_size,
            seed=self.seed,
            stream=stream,
            augmentation=self.config.augmentation(data.augmentation),
            device=self.device,
            fraction=self.config.epoch_fraction,
        )


def random_genotype(space: Space, seed: int, *stream: str | int) -> Genotype:
    """A genotype at random: every edge and every operation that the space lets a genotype have is equally likely."""
    return space.derive(random_strengths(space, seed, *stream))


def random_strengths(space: Space, seed: int, *stream: str | int) -> Strengths:
    """Strengths uniform between 0 and 1."""
    draw = generator(seed, *stream)
    return {
        kind: torch.rand((len(cell.edges), len(space.operations)), generator=draw).tolist()
        for kind, cell in space.supernet().items()
    }


def architecture_record(genotype: Genotype, strengths: Strengths | None) -> dict[str, Any]:
    """One line of ``genotypes.jsonl``: what is chosen, and for searches that have them, strengths and what they say.

    The entropy is the mean over edges, in units of the uniform distribution's: 1 where nothing is decided, 0 where
    every edge is. The margin is the mean over edges of the strongest operation's lead over the second, as a share of
    the edge's total strength.
    """
    counts = Counter(genotype.operations())
    record: dict[str, Any] = {
        "text": genotype.text(),
        "skips": counts["skip_connect"],
        "parameter_free": sum(count for name, count in counts.items() if name in PARAMETER_FREE),
    }
    if strengths is not None:
        rows = [_normalised(row) for matrix in strengths.values() for row in matrix]
        record["strengths"] = strengths
        record["entropy"] = math.fsum(map(_entropy, rows)) / len(rows)
        record["margin"] = math.fsum(_lead(row) for row in rows) / len(rows)
    return record


def _normalised(row: Any) -> list[float]:
    total = math.fsum(row)
    return [value / total for value in row] if total else [1.0 / len(row)] * len(row)


def _entropy(row: list[float]) -> float:
    return -math.fsum(p * math.log(p) for p in row if p > 0) / math.log(len(row)) if len(row) > 1 else 0.0


def _lead(row: list[float]) -> float:
    first, *rest = sorted(row, reverse=True)
    return first - rest[0] if rest else 1.0
