"""The networks that published figures of a space refer to."""

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from cdarts.errors import ConfigurationError
from cdarts.spaces import SPACES, DartsSpace, Space, ToySpace
from cdarts.topology import Genotype, Topology

if TYPE_CHECKING:
    from cdarts.networks import Network

IMAGE_CHANNELS = 3
SMALLEST_IMAGE = 8


@dataclass(frozen=True)
class UsualNetwork:
    """The network that published figures of a space refer to."""

    space: Space
    cells: int
    channels: int
    classes: int
    image_size: int

    def build(self, topology: Topology) -> "Network":
        """On torch's ``meta`` device, which has shapes and no numbers; BatchNorm with weights, no auxiliary head."""
        import torch

        from cdarts.networks import Network

        with torch.device("meta"):
            return Network(
                self.space,
                topology,
                cells=self.cells,
                channels=self.channels,
                num_classes=self.classes,
                image_channels=IMAGE_CHANNELS,
                affine=True,
                execution="plain",
            )


def _usual(space: Space, image_size: int) -> UsualNetwork:
    return UsualNetwork(space, space.usual_cells, space.usual_channels, 10, image_size)


USUAL: dict[tuple[str, str], UsualNetwork] = {
    **{(name, "cifar"): _usual(kind(), 32) for name, kind in SPACES.items()},  # type: ignore[call-arg]
    ("darts", "half"): _usual(DartsSpace(stem_name="half"), 32),
    ("darts", "imagenet"): UsualNetwork(DartsSpace(stem_name="imagenet"), 14, 48, 1000, 224),
    ("toy", "cifar"): _usual(ToySpace(), 8),
}
"""By space and stem."""


def usual_network(
    space: str,
    stem: str,
    *,
    cells: int | None,
    channels: int | None,
    classes: int | None,
    image_size: int | None,
) -> UsualNetwork:
    """The sizes asked for, else the usual ones of a space and stem.

    Raises `ConfigurationError` for those that cannot be.
    """
    if (space, stem) not in USUAL:
        stems = ", ".join(stem for name, stem in USUAL if name == space)
        raise ConfigurationError(f"--stem {stem}: networks of space {space} have this one: {stems}")
    given = {"cells": cells, "channels": channels, "classes": classes, "image_size": image_size}
    asked: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    network = dataclasses.replace(USUAL[space, stem], **asked)
    if network.classes < 1:
        raise ConfigurationError(f"--classes {network.classes}: must be at least 1")
    if network.image_size < SMALLEST_IMAGE:
        raise ConfigurationError(f"--image-size {network.image_size}: must be at least {SMALLEST_IMAGE}")
    network.space.layout(network.cells, network.channels)
    return network


@dataclass(frozen=True, kw_only=True)
class OfGenotype:
    """What commands about the network of a genotype are told: the genotype, and sizes other than the usual ones."""

    target: tyro.conf.Positional[Annotated[str, tyro.conf.arg(metavar="NAME_OR_FILE")]]
    """A published cell (cdarts show genotypes), a genotype file, a run directory, or a text form in quotes."""
    cells: int | None = None
    """Searched cells in the network: 20, with stem imagenet 14, in NAS-Bench-201 15."""
    channels: int | None = None
    """Channels of the first stage: 36, with stem imagenet 48, in NAS-Bench-201 16."""
    classes: int | None = None
    """Classes that the network tells apart: 10, with stem imagenet 1000."""
    stem: Literal["cifar", "half", "imagenet"] = "cifar"
    """What stands before the first cell (DARTS space): stride 1, stride 2, or three convolutions of stride 2."""
    image_size: int | None = None
    """Side of the images, in pixels: 32, with stem imagenet 224."""

    def network(self, genotype: Genotype) -> UsualNetwork:
        """Of the genotype, in these sizes. Raises `ConfigurationError` for those that cannot be."""
        return usual_network(
            genotype.space,
            self.stem,
            cells=self.cells,
            channels=self.channels,
            classes=self.classes,
            image_size=self.image_size,
        )
