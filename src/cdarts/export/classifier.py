"""What goes into every export: normalising and network as one module, and the rule for images of any size."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from torch import Tensor, nn

from cdarts import __version__
from cdarts.errors import DataError
from cdarts.model import ModelCard
from cdarts.networks import Network
from cdarts.settings import STRICT, to_json

Model = Callable[[Tensor], Tensor]
"""From images (N, C, H, W) in 0 to 1 to logits (N, K)."""


@dataclass(frozen=True, kw_only=True)
class Resize:
    """How a picture of any size is brought to the network's: as `cdarts.data.read_image` does it."""

    __pydantic_config__: ClassVar = STRICT

    rule: str = "the shorter side is brought to `side` pixels, then the central square is cut out"
    filter: str = "bilinear, antialiased"
    colours: str = "RGB, or grey where channels is 1; transparent parts on white"


@dataclass(frozen=True, kw_only=True)
class ImageRule:
    """The images that a model takes."""

    __pydantic_config__: ClassVar = STRICT

    side: int
    channels: int
    layout: str = "NCHW"
    values: str = "float32, 0 to 1"
    resize: Resize = Resize()

    def check(self, images: Tensor) -> None:
        """Raise `DataError` for images of another size."""
        if images.ndim != 4 or images.shape[1:] != (self.channels, self.side, self.side):
            raise DataError(
                f"images of shape {tuple(images.shape)}: the model takes (N, {self.channels}, {self.side}, {self.side})"
            )


def as_images(pixels: UInt8[np.ndarray, "N H W C"]) -> Float32[Tensor, "N C H W"]:
    """What a model takes, from bytes."""
    return torch.tensor(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))).float() / 255


class Classifier(nn.Module):
    """Images in 0 to 1 in, logits out: normalising, then the network, in evaluation mode. What every export equals."""

    mean: Tensor
    std: Tensor

    def __init__(self, card: ModelCard, network: Network) -> None:
        super().__init__()
        self.class_names = card.class_names
        self.rule = ImageRule(side=card.side, channels=card.image_channels)
        self.network = network
        for name in ("mean", "std"):
            self.register_buffer(name, torch.tensor(getattr(card, name), dtype=torch.float32).view(1, -1, 1, 1))
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network((images - self.mean) / self.std).logits
        return logits


def metadata(card: ModelCard, classifier: Classifier) -> dict[str, str]:
    """What a file says about itself; every value is JSON."""
    return {
        "class_names": json.dumps(classifier.class_names),
        "image": json.dumps(to_json(classifier.rule)),
        "genotype": json.dumps(card.genotype),
        "cdarts": json.dumps(__version__),
    }
