"""The networks that published figures of a space refer to."""

import dataclasses
from dataclasses import dataclass
from typing import Any

from cdarts.errors import ConfigurationError
from cdarts.spaces import SPACES, DartsSpace, Space, ToySpace

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
