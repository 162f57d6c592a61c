"""What the settings of every search algorithm have in common. No torch until a search is built."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, TypeVar

import tyro

from cdarts.engine.optimizers import Sgd
from cdarts.errors import ConfigurationError
from cdarts.limits import Limits
from cdarts.settings import STRICT
from cdarts.spaces import AnySpace, DartsSpace

if TYPE_CHECKING:
    import torch

    from cdarts.algorithms.base import SearchAlgorithm
    from cdarts.data import Augmentation, ImageData

Config = TypeVar("Config", bound="SearchConfig")


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """What several algorithms must share to be compared: images, space, network, epochs, batches, weight optimizer."""

    data: str
    """A data set's name."""
    image_size: int | None
    """Side that images are brought to; None keeps theirs."""
    space: AnySpace
    channels: int
    cells: int
    batch_size: int
    epochs: int
    """Passes over the half of the images that network weights learn from."""
    still_epochs: int
    """Of these, epochs before alpha begins to move."""
    weights: Sgd
    """For network weights, in every algorithm."""
    alpha_rate: float
    """Factor on each algorithm's own learning rate of alpha: a shorter search takes larger steps."""


@dataclass(frozen=True, kw_only=True)
class SearchConfig(ABC):
    """Base of the settings of all search algorithms. A subclass has a `name` and stands in `cdarts.algorithms`."""

    __pydantic_config__: ClassVar = STRICT

    name: str
    space: AnySpace = field(default_factory=DartsSpace)
    channels: int = 16
    """Channels of the first stage."""
    batch_size: int = 64
    """Images a step takes from each half."""
    epoch_fraction: float = 1.0
    """Part of the images that an epoch takes, other ones in every epoch: for sets so large that a search need not see
    all of them every time."""
    least_area: float | None = None
    """Least part of an image's area that a random training crop shows, e.g. 0.08; None: what suits the data, which is
    0.25 for photos of 64 pixels and more, and padding and cropping for smaller images."""
    colour_jitter: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    """Largest random changes of training images' brightness, contrast, saturation and hue, e.g. 0.4 0.4 0.4 0.2."""
    limits: Annotated[Limits, tyro.conf.arg(name="")] = field(default_factory=Limits)
    """What the found network may cost."""

    def augmentation(self, usual: "Augmentation") -> "Augmentation":
        """What happens to training images, given what is usual for the data. Raises `ConfigurationError`."""
        if self.least_area is not None:
            usual = replace(usual, crop_padding=0, least_area=self.least_area)
        return replace(usual, jitter=self.colour_jitter)

    def check(self, data: "ImageData") -> None:
        """Raise `ConfigurationError` if the settings contradict each other or do not fit the data."""
        self.limits.check()
        self.at_least("batch_size", 2)  # BatchNorm needs two
        self.augmentation(data.augmentation)
        if not 0 < self.epoch_fraction <= 1:
            raise ConfigurationError(f"--epoch-fraction {self.epoch_fraction}: must be more than 0 and at most 1")
        half = math.ceil(self.epoch_fraction * (len(data.train) // 2))
        if self.batch_size > half:
            raise ConfigurationError(
                f"--batch-size {self.batch_size}: a step takes that many images from each half of the training images, "
                f"and {'an epoch of ' if self.epoch_fraction < 1 else ''}a half of {data.name} has {half}; "
                f"choose at most {half}"
            )

    @abstractmethod
    def build(self, data: "ImageData", *, seed: int, device: "torch.device", execution: str) -> "SearchAlgorithm":
        """The search as a task for the engine. Raises `ConfigurationError`, `DataError`."""

    def with_batch_size(self: Config, batch_size: int) -> Config:
        """The same with other batches, learning rates of network weights in proportion (Goyal et al., 2017)."""
        factor = batch_size / self.batch_size
        weights: dict[str, Any] = {
            name: replace(value, lr=factor * value.lr)
            for name, value in ((field.name, getattr(self, field.name)) for field in fields(self))
            if isinstance(value, Sgd)
        }
        return replace(self, batch_size=batch_size, **weights)

    @abstractmethod
    def under(self: Config, protocol: Protocol) -> Config:
        """The same algorithm with the sizes of a protocol."""

    def at_least(self, name: str, least: int | float) -> None:
        """Raise `ConfigurationError` unless a field is that large."""
        value = getattr(self, name)
        if not value >= least:  # so that NaN is refused too
            raise ConfigurationError(f"--{name.replace('_', '-')} {value}: must be at least {least}")

    def at_most(self, name: str, most: int | float) -> None:
        """Raise `ConfigurationError` if a field is larger."""
        value = getattr(self, name)
        if not value <= most:
            raise ConfigurationError(f"--{name.replace('_', '-')} {value}: must be at most {most}")

    def finite(self, name: str) -> None:
        """Raise `ConfigurationError` unless a field is finite and not negative; NaN is refused too."""
        value = getattr(self, name)
        if not 0 <= value < math.inf:
            raise ConfigurationError(f"--{name.replace('_', '-')} {value}: must be at least 0 and finite")
