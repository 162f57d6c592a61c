"""Small pictures of a data set's images: thumbnails, and one sheet with a few images of each class.

Nothing here needs torch.
"""

import base64
import binascii
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

Pixels = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]

THUMBNAIL_SIDE = 48
"""Longest side of a thumbnail, in pixels; smaller images stay as they are."""

SHEET_SIDE = 32
"""Longest side of an image in the sheet, in pixels."""
SHEET_CLASSES = 20
SHEET_COLUMNS = 8
SHEET_GAP = 2
"""Pixels between the images of a sheet."""

COLOURS = 256
"""Of a colour picture, which keeps it to a third of the bytes."""

MAX_PICTURE_BYTES = 400_000
"""Of a picture that is read back."""

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Sheet:
    """A few images of each class as one PNG: a row for each class."""

    classes: int
    """Rows: the first classes of the data set, at most `SHEET_CLASSES`."""
    columns: int
    png: bytes


def thumbnail(pixels: Pixels, side: int = THUMBNAIL_SIDE) -> bytes:
    """One image, uint8 (H, W, C) with C = 1 or 3, as a PNG of at most `side` pixels."""
    return _png(_picture(pixels, side))


def sample_sheet(take: Callable[[Labels], Pixels], labels: Labels, num_classes: int) -> Sheet:
    """The sheet of a split.

    take: positions in the split -> their pixels, uint8 (N, H, W, C). labels: of the split, (N,). The images of a class
    are drawn evenly from its first to its last, without chance.
    """
    rows = min(num_classes, SHEET_CLASSES)
    chosen = [_spread_out(np.flatnonzero(labels == label), SHEET_COLUMNS) for label in range(rows)]
    pixels = take(np.concatenate([*chosen, np.zeros(0, dtype=np.int64)]).astype(np.int64))
    tiles = [_picture(image, SHEET_SIDE) for image in pixels]
    width, height = tiles[0].size
    mode = tiles[0].mode
    columns = max(len(row) for row in chosen)
    size = (columns * (width + SHEET_GAP) - SHEET_GAP, rows * (height + SHEET_GAP) - SHEET_GAP)
    sheet = Image.new(mode, size, "white")
    waiting = iter(tiles)
    for y, row in enumerate(chosen):
        for x in range(len(row)):
            sheet.paste(next(waiting), (x * (width + SHEET_GAP), y * (height + SHEET_GAP)))
    return Sheet(rows, columns, _png(sheet))


def to_text(png: bytes) -> str:
    """A PNG as JSON holds it: base64."""
    return base64.b64encode(png).decode()


def from_text(text: Any) -> str | None:
    """Base64 of a PNG as it may stand in a page, made anew from its bytes; None for anything else."""
    if not isinstance(text, str) or len(text) > MAX_PICTURE_BYTES:
        return None
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    return to_text(data) if data.startswith(PNG_SIGNATURE) else None


def _spread_out(members: Labels, most: int) -> Sequence[int]:
    """At most so many of them, evenly spaced."""
    if len(members) <= most:
        return [int(member) for member in members]
    return [int(members[round(place)]) for place in np.linspace(0, len(members) - 1, most)]


def _picture(pixels: Pixels, side: int) -> Image.Image:
    image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    if max(image.size) > side:
        image.thumbnail((side, side), Image.Resampling.LANCZOS)
    return image


def _png(image: Image.Image) -> bytes:
    if image.mode != "L":
        image = image.quantize(COLOURS)
    file = io.BytesIO()
    image.save(file, format="PNG", optimize=True)
    return file.getvalue()
