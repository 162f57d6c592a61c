"""Images from files: a folder per class, or ``train/`` and ``test/`` (else ``val/``) of such; and a single image."""

import statistics
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps, UnidentifiedImageError

from cdarts.data.images import (
    MINIMUM_SIDE,
    ImageData,
    Images,
    channel_statistics,
    default_augmentation,
    held_out_fifth,
)
from cdarts.data.preflight import entries, is_named_like_an_image, listed, survey, why_not_opened
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
_LARGEST_DEFAULT_SIDE = 64
_SIXTEEN_BIT_MODES = frozenset({"I", "I;16", "I;16B", "I;16L", "I;16N"})
_GREY_MODES = _SIXTEEN_BIT_MODES | {"1", "L", "LA"}

Result = TypeVar("Result")


def load_folder(path: Path, side: int | None = None, *, skip_bad_images: bool = False) -> ImageData:
    """Read a folder of images, brought to ``side`` x ``side`` pixels.

    Layouts: ``path/CLASS/*.jpg``, a fifth of which is held out as test split; or ``path/train/CLASS/*.jpg`` with
    ``path/test`` (or, without one, ``path/val``). Classes and files are sorted by name; hidden ones are ignored. Grey
    files throughout give one channel, else three. Default side: the median of the images' shorter sides, rounded down
    to a multiple of 8, at least 8 and at most 64.

    ``skip_bad_images``: what cannot be read is left out, as if it were not there, and listed in `ImageData.skipped`.

    Raises DataError for a folder that holds no such layout, fewer than two classes, a class without images, a class
    that only the test split has, and for images that cannot be read: all that is wrong, in one message.
    """
    found = survey(path)
    class_names = tuple(found.train)
    train_files, test_files = (
        {file: label for label, name in enumerate(class_names) for file in split.get(name, [])}
        for split in (found.train, found.test or {})
    )
    pixels, unreadable = _read_all([*train_files, *test_files], side)
    train_labels, test_labels = (
        np.array([label for file, label in files.items() if file not in unreadable], dtype=np.int64)
        for files in (train_files, test_files)
    )
    complaints = list(found.problems)
    lost = sorted(set(train_files.values()) - set(train_labels.tolist()))
    if lost:
        complaints.append(
            f"{path}: not one training image of class {listed(class_names[label] for label in lost)} can be read"
        )
    if test_files and not len(test_labels):
        complaints.append(f"{path}: not one test image can be read")
    bad = {file.relative_to(path).as_posix(): reason for file, reason in sorted({**found.bad, **unreadable}.items())}
    total = len(train_files) + len(test_files) + len(found.bad)
    if bad and (complaints or not skip_bad_images):
        complaints.append(
            f"{path}: {len(bad)} of {total} images cannot be read; replace or remove them, or leave them out with "
            "--on-bad-image skip:"
        )
        complaints += [f"  {_shown(name)}: {reason}" for name, reason in bad.items()]
    if complaints:
        raise DataError("\n".join(complaints))
    train = Images(pixels[: len(train_labels)], train_labels)
    if found.test is None:
        train, test = held_out_fifth(train, class_names, str(path))
    else:
        test = Images(pixels[len(train_labels) :], test_labels)
    mean, std = channel_statistics(train)
    augmentation = default_augmentation(pixels.shape[1], flip=True)
    notes = (*_about_skipped(bad, total), *found.notes)
    return ImageData(path.resolve().name, train, test, class_names, mean, std, augmentation, bad, notes)


def find_images(path: Path) -> list[Path]:
    """The image files directly in a folder, sorted by name. Raises `DataError` if it cannot be listed."""
    return [entry for entry in entries(path) if is_named_like_an_image(entry) and entry.is_file()]


def read_image(path: Path, *, side: int, channels: int) -> UInt8[np.ndarray, "side side channels"]:
    """One image file: its shorter side brought to ``side`` pixels, its centre cut out, uint8 (side, side, channels).

    Upright by its EXIF orientation, transparent parts on white, 16-bit grey levels scaled to 8 bits, the first frame of
    an animation. Raises DataError, naming the file, if it cannot be read.
    """
    with _quiet():
        try:
            return _decode(path, side, channels)
        except Exception as error:  # damaged files make the decoders fail in ways of every kind
            raise DataError(f"{path}: cannot be read as an image ({_reason(path, error)})") from error


@dataclass(frozen=True)
class _Header:
    shorter_side: int
    grey: bool


def _about_skipped(bad: Mapping[str, str], total: int) -> Iterator[str]:
    if bad:
        name, reason = next(iter(bad.items()))
        yield f"{len(bad)} of {total} images cannot be read and are left out, first {_shown(name)} ({reason})"


def _shown(name: str) -> str:
    """A file's name as it can be printed: it may hold line breaks, or bytes that are no text."""
    return name if name.isprintable() else repr(name)


def _read_all(paths: list[Path], side: int | None) -> tuple[UInt8[np.ndarray, "N side side C"], dict[Path, str]]:
    """The files that can be read, in order, and why the others cannot, whether header or pixels are damaged.

    Only files that can be read have a say in the size and the number of channels.
    """
    bad: dict[Path, str] = {}
    with _quiet(), ThreadPoolExecutor() as pool:
        readable: dict[Path, _Header] = {}
        for path, header in zip(paths, pool.map(partial(_try, _header), paths), strict=True):
            if isinstance(header, str):
                bad[path] = header
            else:
                readable[path] = header
        while readable:
            chosen_side, channels = _shape(readable.values(), side)
            pixels = np.empty((len(readable), chosen_side, chosen_side, channels), dtype=np.uint8)
            decode = partial(_decode, side=chosen_side, channels=channels)
            whole = []
            for position, (path, decoded) in enumerate(
                zip(readable, pool.map(partial(_try, decode), readable), strict=True)
            ):
                if isinstance(decoded, str):
                    bad[path] = decoded
                else:
                    pixels[position] = decoded
                    whole.append(position)
            if len(whole) == len(readable):
                return pixels, bad
            readable = {path: header for path, header in readable.items() if path not in bad}
            if readable and _shape(readable.values(), side) == (chosen_side, channels):
                return pixels[whole], bad
    return np.empty((0, MINIMUM_SIDE, MINIMUM_SIDE, 1), dtype=np.uint8), bad


def _shape(headers: Collection[_Header], side: int | None) -> tuple[int, int]:
    """Side and channels that suit these images; a side that is given stays."""
    if side is None:
        median = int(statistics.median(header.shorter_side for header in headers))
        side = max(MINIMUM_SIDE, min(_LARGEST_DEFAULT_SIDE, median // 8 * 8))
    return side, 1 if all(header.grey for header in headers) else 3


def _try(read: Callable[[Path], Result], path: Path) -> Result | str:
    """What is read, or why it cannot be. Raises DataError if memory is short: that is no fault of the file."""
    try:
        return read(path)
    except MemoryError as error:
        raise DataError(f"{path}: not enough memory to read this image") from error
    except Exception as error:  # damaged files make the decoders fail in ways of every kind
        return _reason(path, error)


def _header(path: Path) -> _Header:
    with Image.open(path, formats=_FORMATS) as image:
        return _Header(min(image.size), image.mode in _GREY_MODES)


def _decode(path: Path, side: int, channels: int) -> np.ndarray:
    with Image.open(path, formats=_FORMATS) as file:
        if file.mode == "F" or (file.mode == "I" and file.format == "TIFF"):
            raise ValueError("32-bit or signed pixels have no known range; convert the file to 8 or 16 bits")
        # A large JPEG is decoded at a half, quarter or eighth of its size where twice the wanted side remains.
        file.draft(None, (2 * side, 2 * side))
        image = ImageOps.exif_transpose(file)
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


@contextmanager
def _quiet() -> Iterator[None]:
    """Without PIL's warnings, which name no file: what is wrong with a file is an exception here, or harmless."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _reason(path: Path, error: Exception) -> str:
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
