"""A tiny set that a network learns within seconds: for tests and for trying a command."""

from pathlib import Path

import numpy as np
import torch

from cdarts.data.images import ImageData, Images, channel_statistics, default_augmentation
from cdarts.randomness import generator

_SIDE = 8
_AMPLITUDE = 48
_NOISE = 64
_CLASS_NAMES = ("rows", "columns", "checks", "disc")
# Each class also leans to a colour of its own, so that even a linear model sees a difference.
_COLOURS = ((160, 128, 96), (96, 160, 128), (128, 96, 160), (128, 128, 128))


def load_synthetic(root: Path) -> ImageData:  # noqa: ARG001 - every loader takes the data root; these need no files
    """256 training and 64 test images, 8x8 in colour, four balanced classes of patterns under uniform noise.

    The classes are mirror-symmetric or periodic, so cropping and flipping keep them apart.
    """
    row, column = np.mgrid[:_SIDE, :_SIDE]
    centre = (_SIDE - 1) / 2
    patterns = np.stack(
        [
            row // 2 % 2,
            column // 2 % 2,
            (row // 2 + column // 2) % 2,
            (row - centre) ** 2 + (column - centre) ** 2 < 8,
        ]
    )
    signs = 2 * patterns.astype(np.int64) - 1
    prototypes = np.array(_COLOURS)[:, None, None, :] + _AMPLITUDE * signs[..., np.newaxis]
    train, test = (_noisy(prototypes, count, split) for split, count in (("train", 256), ("test", 64)))
    mean, std = channel_statistics(train)
    return ImageData("synthetic", train, test, _CLASS_NAMES, mean, std, default_augmentation(_SIDE, flip=True))


def _noisy(prototypes: np.ndarray, count: int, split: str) -> Images:
    labels = np.arange(count, dtype=np.int64) % len(prototypes)
    # Integers, so that the set is the same to the bit on every machine.
    noise = torch.randint(
        -_NOISE, _NOISE + 1, (count, *prototypes.shape[1:]), generator=generator(0, "synthetic", split)
    )
    return Images((prototypes[labels] + noise.numpy()).clip(0, 255).astype(np.uint8), labels)
