"""Folders of photos as people have them, made of a data set's images: many sizes, shapes, modes, formats and names."""

from pathlib import Path

import numpy as np
from PIL import Image

MODES = ("RGB", "L", "P", "RGBA")
"""Of the files, in turn; in grey, palette and transparent files too the picture can be told."""

NAMES = ("photo", "Straße", "naïve café", "猫と犬", "zażółć", "снимок", "صورة", "IMG 0001 (copy)")
"""How file names begin, in turn."""


def write_photos(
    folder: Path,
    pixels: np.ndarray,
    labels: np.ndarray,
    class_names: tuple[str, ...],
    *,
    sides: tuple[int, int],
    seed: int = 0,
    modes: tuple[str, ...] = MODES,
    jpeg_only: bool = False,
) -> None:
    """Write uint8 images (N, H, W, 3) as JPEG and PNG files, a folder for each class.

    ``sides``: the least and the largest width and height in pixels, drawn for each image. Files of the modes that JPEG
    knows are JPEG at quality 90, the others PNG. The same arguments give the same files.
    """
    draw = np.random.default_rng(seed)
    for name in class_names:
        (folder / name).mkdir(parents=True, exist_ok=True)
    for number, (image, label) in enumerate(zip(pixels, labels, strict=True)):
        width, height = (int(side) for side in draw.integers(sides[0], sides[1] + 1, size=2))
        mode = modes[number % len(modes)]
        photo = Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC)
        if mode == "RGBA":
            # a corner of one pixel is see-through, as after a careless edit
            photo = photo.convert("RGBA")
            photo.putpixel((0, 0), (255, 255, 255, 0))
        else:
            photo = photo.convert(mode)
        jpeg = mode in ("RGB", "L") or jpeg_only
        path = folder / class_names[label] / f"{NAMES[number % len(NAMES)]} {number:05}.{'jpg' if jpeg else 'png'}"
        if jpeg:
            photo.convert("L" if mode == "L" else "RGB").save(path, quality=90)
        else:
            photo.save(path)
