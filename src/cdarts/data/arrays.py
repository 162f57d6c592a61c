"""Images to be classed from NumPy files: one array, or an archive that holds one."""

import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Float32
from PIL import Image

from cdarts.data.decoding import fit_pixels
from cdarts.errors import DataError

ARRAYS = (".npy", ".npz")
"""How their names end."""

PREFERRED = ("images", "x_test", "x")
"""Keys of an archive that are taken, in this order, where it holds several arrays."""

_UNREADABLE = (OSError, ValueError, EOFError, KeyError, MemoryError, zipfile.BadZipFile, zlib.error)
_EXPECTED = "uint8 (N, H, W, C), or float32 (N, C, H, W) in 0 to 1"


def array_images(path: Path, *, side: int, channels: int) -> Iterator[tuple[str, Float32[np.ndarray, "C side side"]]]:
    """The images of a file in order, each with the name ``file.npy[3]``, float32 (channels, side, side) in 0 to 1.

    uint8 (N, H, W, C), C 1 or 3, is brought to the side and the channels as an image file is; float32 (N, C, H, W) in 0
    to 1 is taken as it is and must have them. Nothing pickled is ever loaded.

    Raises `DataError`, naming the file and what was found.
    """
    array, name = _read(path)
    found = f"{name}: found {array.dtype} {array.shape}"
    if array.ndim != 4 or array.dtype not in (np.uint8, np.float32):
        raise DataError(f"{found}; expected {_EXPECTED}")
    if not array.size:
        raise DataError(f"{found}; expected at least one image")
    if array.dtype == np.uint8:
        if array.shape[3] not in (1, 3):
            hint = ", channels last: transpose(0, 2, 3, 1)" if array.shape[1] in (1, 3) else ""
            raise DataError(f"{found}; expected uint8 (N, H, W, 1) or (N, H, W, 3){hint}")
        for position, pixels in enumerate(array):
            image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
            fitted = fit_pixels(image, side, channels).astype(np.float32) / np.float32(255)
            yield f"{name}[{position}]", np.ascontiguousarray(fitted.transpose(2, 0, 1))
        return
    if array.shape[1:] != (channels, side, side):
        raise DataError(f"{found}; float32 images are taken as they are: (N, {channels}, {side}, {side})")
    if not np.isfinite(array).all():
        raise DataError(f"{name}: holds values that are no numbers or infinite; float32 images lie in 0 to 1")
    low, high = float(array.min()), float(array.max())
    if not (low >= 0 and high <= 1):
        raise DataError(f"{name}: found values from {low:g} to {high:g}; float32 images lie in 0 to 1: divide by 255")
    for position, pixels in enumerate(array):
        yield f"{name}[{position}]", np.ascontiguousarray(pixels)


def _read(path: Path) -> tuple[np.ndarray, str]:
    """The array of a file, and its name: that of the file, with the key where several arrays are in it."""
    try:
        with path.open("rb") as file:  # numpy.load leaves a file that it cannot read open
            loaded = np.load(file, allow_pickle=False)
            if not isinstance(loaded, np.lib.npyio.NpzFile):
                return np.asarray(loaded), str(path)
            with loaded:
                keys = list(loaded.files)
                chosen = keys if len(keys) == 1 else [key for key in PREFERRED if key in keys][:1]
                if not chosen:
                    raise DataError(
                        f"{path}: holds {', '.join(keys[:20]) or 'nothing'}; call the array of images "
                        f"{' or '.join(PREFERRED)}"
                    )
                return np.asarray(loaded[chosen[0]]), str(path) if len(keys) == 1 else f"{path}:{chosen[0]}"
    except _UNREADABLE as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise DataError(f"{path}: not a readable NumPy file ({reason})") from error
