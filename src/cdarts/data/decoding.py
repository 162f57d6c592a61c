"""One image file to pixels: which formats are read, how modes become grey or colour, and why a file cannot be read."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageOps, UnidentifiedImageError

from cdarts.data.crops import resized_crop
from cdarts.data.preflight import why_not_opened
from cdarts.errors import DataError

# Only these decoders may run, whatever a file is called.
_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
_SIGNATURES = {
    b"\x89PNG": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"GIF8": "GIF",
    b"RIFF": "WebP",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
}
_SIXTEEN_BIT_MODES = frozenset({"I", "I;16", "I;16B", "I;16L", "I;16N"})
_ORIENTATION = 0x0112
_LYING = frozenset({5, 6, 7, 8})
"""Exif orientations of images that are stored on their side."""
_GREY_MODES = _SIXTEEN_BIT_MODES | {"1", "L", "LA"}


def read_image(path: Path, *, side: int, channels: int) -> UInt8[np.ndarray, "side side channels"]:
    """One image file: its shorter side brought to ``side`` pixels, its centre cut out, uint8 (side, side, channels).

    Upright by its EXIF orientation, transparent parts on white, 16-bit grey levels scaled to 8 bits, the first frame of
    an animation. Raises DataError, naming the file, if it cannot be read.
    """
    with quiet():
        try:
            return decode(path, side, channels)
        except Exception as error:  # damaged files make the decoders fail in ways of every kind
            raise DataError(f"{path}: cannot be read as an image ({reason_of(path, error)})") from error


@dataclass(frozen=True)
class Header:
    """What a file says of its image before any pixel is read."""

    shorter_side: int
    """In pixels."""
    grey: bool


def header(path: Path) -> Header:
    """Raises whatever the decoders do; `reason_of` puts it in words."""
    with Image.open(path, formats=_FORMATS) as image:
        return Header(min(image.size), image.mode in _GREY_MODES)


def decode(path: Path, side: int, channels: int) -> UInt8[np.ndarray, "side side channels"]:
    """As `read_image`, but raises whatever the decoders do; `reason_of` puts it in words."""
    with Image.open(path, formats=_FORMATS) as file:
        _check_range(file)
        # A large JPEG is decoded at a half, quarter or eighth of its size where twice the wanted side remains.
        file.draft(None, (2 * side, 2 * side))
        image = _converted(ImageOps.exif_transpose(file), channels)
    return fit_pixels(image, side, channels)


def fit_pixels(image: Image.Image, side: int, channels: int) -> UInt8[np.ndarray, "side side channels"]:
    """A picture in 8 bits with its shorter side brought to ``side`` pixels and its centre cut out."""
    image = image.convert("L" if channels == 1 else "RGB")
    # Resizing the central square equals resizing the whole and cropping, at no cost for long, thin images.
    width, height = image.size
    length = min(width, height)
    left, top = (width - length) / 2, (height - length) / 2
    square = image.resize((side, side), Image.Resampling.BILINEAR, box=(left, top, left + length, top + length))
    return np.asarray(square).reshape(side, side, channels)


def decode_crop(
    path: Path, side: int, channels: int, *, draws: Float[np.ndarray, "4"], least_area: float
) -> UInt8[np.ndarray, "side side channels"]:
    """A random window of the whole image (`resized_crop`), brought to ``side`` x ``side``. Raises as `decode`."""
    with Image.open(path, formats=_FORMATS) as file:
        _check_range(file)
        width, height = file.size
        if file.getexif().get(_ORIENTATION, 1) in _LYING:
            width, height = height, width
        crop = resized_crop(width, height, draws, least_area)
        # A large JPEG is decoded no larger than so that the window is still as large as what it becomes.
        surplus = max(float(min(crop.width, crop.height)) / side, 1.0)
        file.draft(None, (int(file.size[0] / surplus), int(file.size[1] / surplus)))
        image = _converted(ImageOps.exif_transpose(file), channels)
    across, down = image.size[0] / width, image.size[1] / height
    left, top = float(crop.left) * across, float(crop.top) * down
    right = min(left + float(crop.width) * across, image.size[0])
    bottom = min(top + float(crop.height) * down, image.size[1])
    window = image.resize((side, side), Image.Resampling.BILINEAR, box=(left, top, right, bottom))
    return np.asarray(window).reshape(side, side, channels)


def _check_range(file: Image.Image) -> None:
    """Raise ValueError for pixels that cannot be brought to 8 bits."""
    if file.mode == "F" or (file.mode == "I" and file.format == "TIFF"):
        raise ValueError("32-bit or signed pixels have no known range; convert the file to 8 or 16 bits")


def _converted(image: Image.Image, channels: int) -> Image.Image:
    """Grey or RGB, 8 bits, transparent parts on white."""
    if image.mode in _SIXTEEN_BIT_MODES:
        # 65535 = 257 * 255: to the nearest of 256 levels. PIL's own conversion would saturate at 255.
        levels = np.asarray(image).astype(np.int64)
        grey = ((levels + 128) // 257).astype(np.uint8)
        if "transparency" in image.info:
            grey[levels == image.info["transparency"]] = 255
        image = Image.fromarray(grey)
    elif image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        white.alpha_composite(image.convert("RGBA"))
        image = white
    return image.convert("L" if channels == 1 else "RGB")


@contextmanager
def quiet() -> Iterator[None]:
    """Without PIL's warnings, which name no file: what is wrong with a file is an exception here, or harmless."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def reason_of(path: Path, error: Exception) -> str:
    """Why a file cannot be read, in a line."""
    if isinstance(error, UnidentifiedImageError):
        return _what_else(path)
    if isinstance(error, Image.DecompressionBombError):
        return "far too many pixels for a photograph"
    if isinstance(error, OSError) and error.errno is not None:
        return why_not_opened(error)
    text = next(iter(str(error).strip().splitlines()), type(error).__name__)
    if "truncated" in text.lower() or "EOF" in text:
        return "truncated: the end of the file is missing"
    return f"damaged ({text})" if isinstance(error, OSError | SyntaxError) else text


def _what_else(path: Path) -> str:
    """What a file is that no decoder takes for an image."""
    try:
        with path.open("rb") as file:
            start = file.read(16)
    except OSError as error:
        return why_not_opened(error)
    for signature, name in _SIGNATURES.items():
        if start.startswith(signature):
            return f"begins like a {name} file, but is truncated or damaged"
    return "no image format that is supported" if start else "empty file"
