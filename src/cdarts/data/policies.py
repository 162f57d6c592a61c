"""Augmentation policies: random changes of colour and shape, drawn for each training image by itself.

A policy turns a row of uniforms into what happens to one image, so that this depends neither on the batch size nor on
the device. What is done to pixels is torchvision's; images that a batch changes in the same way are changed together.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float32
from torch import Tensor
from torchvision.transforms.v2 import functional as transforms

from cdarts.data.images import Pixels, Policy
from cdarts.errors import ConfigurationError

LEVELS = 31
"""Strengths that a transform is graded into, as in the code of both papers."""

# -- transforms --------------------------------------------------------------------------------------------------------


def _sheared(pixels: Tensor, x: float, y: float) -> Tensor:
    degrees = [math.degrees(math.atan(x)), math.degrees(math.atan(y))]
    moved: Tensor = transforms.affine(pixels, angle=0.0, translate=[0, 0], scale=1.0, shear=degrees, center=[0, 0])
    return moved


def _translated(pixels: Tensor, x: float, y: float) -> Tensor:
    moved: Tensor = transforms.affine(pixels, angle=0.0, translate=[int(x), int(y)], scale=1.0, shear=[0.0, 0.0])
    return moved


def _blended(pixels: Tensor, other: Tensor, strength: float | Tensor) -> Tensor:
    """From `other` at -1 over the image itself at 0 to beyond it, rounded down as torchvision does."""
    return (other + (1.0 + strength) * (pixels - other)).clamp(0, 255).to(torch.uint8)


def _contrasted(pixels: Tensor, strength: float | Tensor) -> Tensor:
    grey = (transforms.rgb_to_grayscale(pixels) if pixels.shape[1] == 3 else pixels).long()
    # whole numbers add up to the same sum in any order, so that an image's mean is the same in any batch
    mean = grey.sum(dim=(1, 2, 3), keepdim=True).float() / grey[0].numel()
    return _blended(pixels, mean, strength)


def _sharpened(pixels: Tensor, strength: float) -> Tensor:
    if min(pixels.shape[2:]) < 3:
        return pixels
    wide = pixels.long()
    rows = wide[:, :, :-2] + wide[:, :, 1:-1] + wide[:, :, 2:]
    sums = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:] + 4 * wide[:, :, 1:-1, 1:-1]
    smooth = pixels.float()
    smooth[:, :, 1:-1, 1:-1] = (sums.float() / 13).round()
    return _blended(pixels, smooth, strength)


Transform = Callable[[Tensor, float], Tensor]

SIGNED: Mapping[str, Transform] = {
    "shear_x": lambda pixels, strength: _sheared(pixels, strength, 0.0),
    "shear_y": lambda pixels, strength: _sheared(pixels, 0.0, strength),
    "translate_x": lambda pixels, strength: _translated(pixels, strength, 0.0),
    "translate_y": lambda pixels, strength: _translated(pixels, 0.0, strength),
    "rotate": lambda pixels, strength: transforms.rotate(pixels, strength),
    "brightness": lambda pixels, strength: transforms.adjust_brightness(pixels, 1.0 + strength),
    "color": lambda pixels, strength: transforms.adjust_saturation(pixels, 1.0 + strength),
    "contrast": _contrasted,
    "sharpness": _sharpened,
}
"""By name; half of the images get the opposite strength. Lengths in pixels, angles in degrees."""

UNSIGNED: Mapping[str, Transform] = {
    "posterize": lambda pixels, strength: transforms.posterize(pixels, round(strength)),
    "solarize": lambda pixels, strength: transforms.solarize(pixels, 255.0 * strength),
    "auto_contrast": lambda pixels, _: transforms.autocontrast(pixels),
    "equalize": lambda pixels, _: transforms.equalize(pixels),
    "identity": lambda pixels, _: pixels,
}
"""Bits that are kept, brightness from which pixels are inverted; the others have no strength."""

TRANSFORMS: Mapping[str, Transform] = {**SIGNED, **UNSIGNED}

Range = tuple[float, float]
"""Strength of a transform at the lowest and at the highest level."""

WITHOUT_STRENGTH: Mapping[str, Range] = dict.fromkeys(("auto_contrast", "equalize", "identity"), (0.0, 0.0))


def _strength(name: str, ranges: Mapping[str, Range], level: int, mirrored: bool) -> float:
    low, high = ranges[name]
    strength = low + (high - low) * level / (LEVELS - 1)
    return -strength if mirrored and name in SIGNED else strength


def _transformed(pixels: Tensor, chosen: Sequence[tuple[str, float]]) -> Tensor:
    """Each image by its own transform and strength; those that share both are changed together."""
    groups: dict[tuple[str, float], list[int]] = {}
    for position, choice in enumerate(chosen):
        groups.setdefault(choice, []).append(position)
    result = pixels.clone()
    for (name, strength), members in groups.items():
        index = torch.tensor(members, device=pixels.device)
        result[index] = TRANSFORMS[name](pixels[index], strength)
    return result


def _drawn(uniforms: Tensor, number: int) -> list[int]:
    """Whole numbers below `number`, each as likely."""
    return (uniforms * number).long().clamp(max=number - 1).tolist()


# -- policies ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RandAugment(Policy):
    """Some transforms one after another, each drawn from 14, all of one strength.

    Source: Cubuk et al., "RandAugment: Practical automated data augmentation with a reduced search space" (CVPR-W
    2020); strengths as torchvision grades them, which its `RandAugment` takes from AutoAugment.

    Raises `ConfigurationError` for numbers that cannot be.
    """

    name: ClassVar[str] = "rand_augment"
    operations: int = 2
    """Transforms an image goes through."""
    magnitude: int = 9
    """Level of their strength, 0 to 30."""

    def __post_init__(self) -> None:
        if self.operations < 1 or not 0 <= self.magnitude < LEVELS:
            raise ConfigurationError(
                f"--rand-augment {self.operations} {self.magnitude}: give a number of transforms, at least 1, and "
                f"their level, 0 to {LEVELS - 1}"
            )

    @property
    def columns(self) -> int:
        return 2 * self.operations

    def ranges(self, side: int) -> dict[str, Range]:
        """For images of this side."""
        distance = (0.0, 150 / 331 * side)
        return {
            **dict.fromkeys(("shear_x", "shear_y"), (0.0, 0.3)),
            **dict.fromkeys(("translate_x", "translate_y"), distance),
            "rotate": (0.0, 30.0),
            **dict.fromkeys(("brightness", "color", "contrast", "sharpness"), (0.0, 0.9)),
            "posterize": (8.0, 4.0),
            "solarize": (1.0, 0.0),
            **WITHOUT_STRENGTH,
        }

    def __call__(self, pixels: Pixels, uniforms: Float32[Tensor, "B columns"]) -> Pixels:
        ranges = self.ranges(pixels.shape[3])
        names = list(ranges)
        for which, sign in zip(uniforms[:, ::2].unbind(1), uniforms[:, 1::2].unbind(1), strict=True):
            chosen = [names[number] for number in _drawn(which, len(names))]
            mirrored = (sign < 0.5).tolist()
            strengths = [
                _strength(name, ranges, self.magnitude, minus) for name, minus in zip(chosen, mirrored, strict=True)
            ]
            pixels = _transformed(pixels, list(zip(chosen, strengths, strict=True)))
        return pixels


@dataclass(frozen=True)
class TrivialAugment(Policy):
    """One transform, drawn from 14, of a strength that is drawn too.

    Source: Müller and Hutter, "TrivialAugment: Tuning-free Yet State-of-the-Art Data Augmentation" (ICCV 2021), its
    wide ranges. Translations go up to 32 pixels whatever the side, as in the paper.
    """

    name: ClassVar[str] = "trivial_augment"
    ranges: ClassVar[Mapping[str, Range]] = {
        **dict.fromkeys(("shear_x", "shear_y"), (0.0, 0.99)),
        **dict.fromkeys(("translate_x", "translate_y"), (0.0, 32.0)),
        "rotate": (0.0, 135.0),
        **dict.fromkeys(("brightness", "color", "contrast", "sharpness"), (0.0, 0.99)),
        "posterize": (8.0, 2.0),
        "solarize": (1.0, 0.0),
        **WITHOUT_STRENGTH,
    }

    @property
    def columns(self) -> int:
        return 3

    def __call__(self, pixels: Pixels, uniforms: Float32[Tensor, "B columns"]) -> Pixels:
        names = list(self.ranges)
        drawn = zip(
            _drawn(uniforms[:, 0], len(names)),
            _drawn(uniforms[:, 1], LEVELS),
            (uniforms[:, 2] < 0.5).tolist(),
            strict=True,
        )
        chosen = [
            (names[number], _strength(names[number], self.ranges, level, minus)) for number, level, minus in drawn
        ]
        return _transformed(pixels, chosen)
