"""What happens to single training images: crops brought back to size, and changed colours. All draws are given."""

from itertools import permutations
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from PIL import Image, ImageEnhance
from torch import Tensor

LEAST_RATIO, LARGEST_RATIO = 3 / 4, 4 / 3
"""Of width to height of a random resized crop (Szegedy et al. 2015, "Going Deeper with Convolutions")."""

_ORDERS = tuple(permutations(range(4)))


class Crop(NamedTuple):
    """Windows of images, in pixels; numbers, or arrays of them."""

    left: np.ndarray
    top: np.ndarray
    width: np.ndarray
    height: np.ndarray


def resized_crop(width: int, height: int, draws: Float[np.ndarray, "*B 4"], least_area: float) -> Crop:
    """Random windows of an image of ``width`` x ``height`` pixels, to be brought to one size (Szegedy et al. 2015).

    The area is uniform from ``least_area`` to 1 of the image's, the ratio of the sides log-uniform from 3/4 to 4/3, the
    place uniform. ``draws``: uniforms for area, ratio, and the place across and down. A side longer than the image is
    clipped to it, where torchvision's RandomResizedCrop would draw again.
    """
    area = (least_area + (1 - least_area) * draws[..., 0]) * (width * height)
    low, high = np.log(LEAST_RATIO), np.log(LARGEST_RATIO)
    ratio = np.exp(low + (high - low) * draws[..., 1])
    crop_width = np.clip(np.sqrt(area * ratio), 1, width)
    crop_height = np.clip(np.sqrt(area / ratio), 1, height)
    return Crop(draws[..., 2] * (width - crop_width), draws[..., 3] * (height - crop_height), crop_width, crop_height)


def resampled(pixels: UInt8[Tensor, "B C H W"], crops: Float[Tensor, "B 4"], flips: Tensor) -> UInt8[Tensor, "B C H W"]:
    """The window (left, top, width, height) of each image brought to the images' size, mirrored where ``flips``.

    Bilinear. Windows lie within their images, so that they only grow and need no antialiasing.
    """
    _, _, height, width = pixels.shape
    left, top, crop_width, crop_height = crops.float().unbind(1)
    across = (torch.arange(width, device=pixels.device) + 0.5) / width
    down = (torch.arange(height, device=pixels.device) + 0.5) / height
    across = torch.where(flips[:, None], across.flip(0), across)
    x = 2 * (left[:, None] + across * crop_width[:, None]) / width - 1
    y = 2 * (top[:, None] + down * crop_height[:, None]) / height - 1
    grid = torch.stack([x[:, None, :].expand(-1, height, -1), y[:, :, None].expand(-1, -1, width)], dim=-1)
    sampled = F.grid_sample(pixels.float(), grid, mode="bilinear", padding_mode="border", align_corners=False)
    return sampled.round().clamp(0, 255).to(torch.uint8)


def jittered(
    pixels: UInt8[np.ndarray, "H W C"], strengths: tuple[float, float, float, float], draws: Float[np.ndarray, "5"]
) -> UInt8[np.ndarray, "H W C"]:
    """Brightness, contrast, saturation and hue changed at random, in a random order: torchvision's ColorJitter.

    ``strengths``: of the four, in that order. The first three are multiplied by a factor uniform from 1 - strength (at
    least 0) to 1 + strength; the hue is turned by up to that part of the circle, at most 0.5. ``draws``: a uniform for
    each of the four, and one for the order. Grey images (C = 1) have neither saturation nor hue.
    """
    brightness, contrast, saturation, hue = _factors(strengths, draws)
    grey = pixels.shape[2] == 1
    image = Image.fromarray(pixels[..., 0] if grey else pixels)
    for change in _ORDERS[min(int(draws[4] * len(_ORDERS)), len(_ORDERS) - 1)]:
        if not strengths[change] or (grey and change >= 2):
            continue
        match change:
            case 0:
                image = ImageEnhance.Brightness(image).enhance(brightness)
            case 1:
                image = ImageEnhance.Contrast(image).enhance(contrast)
            case 2:
                image = ImageEnhance.Color(image).enhance(saturation)
            case _:
                image = _turned(image, hue)
    return np.asarray(image).reshape(pixels.shape)


def _factors(strengths: tuple[float, ...], draws: np.ndarray) -> list[float]:
    """Three factors, and the turn of the hue as a part of the circle."""
    lows = [max(0.0, 1 - strength) for strength in strengths[:3]] + [-strengths[3]]
    highs = [1 + strength for strength in strengths[:3]] + [strengths[3]]
    return [low + (high - low) * float(draw) for low, high, draw in zip(lows, highs, draws[:4], strict=True)]


def _turned(image: Image.Image, part: float) -> Image.Image:
    hue, saturation, value = image.convert("HSV").split()
    levels = np.asarray(hue).astype(np.int64) + int(part * 255)
    turned = Image.fromarray((levels % 256).astype(np.uint8))
    return Image.merge("HSV", (turned, saturation, value)).convert("RGB")
