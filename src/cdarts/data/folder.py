"""Images from files: a folder per class, or ``train/`` and ``test/`` (else ``val/``) of such; and a single image."""

import statistics
import warnings
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

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
from cdarts.errors import DataError

EXTENSIONS = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"})
"""File names that count as images, in any case."""

# Only these decoders may run, whatever a file is called.
_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
_LARGEST_DEFAULT_SIDE = 64
_SIXTEEN_BIT_MODES = frozenset({"I", "I;16", "I;16B", "I;16L", "I;16N"})
_GREY_MODES = _SIXTEEN_BIT_MODES | {"1", "L", "LA"}
_MOST_NAMED = 10


def load_folder(path: Path, side: int | None = None) -> ImageData:
    """Read a folder of images, brought to ``side`` x ``side`` pixels.

    Layouts: ``path/CLASS/*.jpg``, a fifth of which is held out as test split; or ``path/train/CLASS/*.jpg`` with
    ``path/test`` (or, without one, ``path/val``). Classes and files are sorted by name; hidden ones are ignored. Grey
    files throughout give one channel, else three. Default side: the median of the images' shorter sides, rounded down
    to a multiple of 8, at least 8 and at most 64.

    Raises DataError for a folder that holds no such layout, fewer than two classes, a class without images, a class
    that only the test split has, and for unreadable images (all of them are counted, the first ten named).
    """
    train_path, test_path = _layout(path)
    train_files = _scan(train_path)
    if len(train_files) < 2:
        raise DataError(f"{train_path}: only one class folder, {next(iter(train_files))!r}; expected at least 2")
    empty = [name for name, files in train_files.items() if not files]
    if empty:
        raise DataError(
            f"{train_path}: no images directly in class folder {_listed(empty)}; "
            f"add some ({_extensions()}) or remove the folder"
        )
    class_names = tuple(train_files)
    test_files = {} if test_path is None else _test_files(test_path, class_names)
    paths = [file for files in (*train_files.values(), *test_files.values()) for file in files]
    pixels = _read_all(path, paths, side)
    num_train = sum(len(files) for files in train_files.values())
    labels = np.array(
        [
            class_names.index(name)
            for files_of in (train_files, test_files)
            for name, files in files_of.items()
            for _ in files
        ],
        dtype=np.int64,
    )
    train = Images(pixels[:num_train], labels[:num_train])
    if test_path is None:
        train, test = held_out_fifth(train, class_names, str(train_path))
    else:
        test = Images(pixels[num_train:], labels[num_train:])
    mean, std = channel_statistics(train)
    augmentation = default_augmentation(pixels.shape[1], flip=True)
    return ImageData(path.resolve().name, train, test, class_names, mean, std, augmentation)


def read_image(path: Path, *, side: int, channels: int) -> UInt8[np.ndarray, "side side channels"]:
    """One image file: its shorter side brought to ``side`` pixels, its centre cut out, uint8 (side, side, channels).

    Upright by its EXIF orientation, transparent parts on white, 16-bit grey levels scaled to 8 bits, the first frame of
    an animation. Raises DataError, naming the file, if it cannot be read.
    """
    with _quiet():
        try:
            return _decode(path, side, channels)
        except Exception as error:  # damaged files make the decoders fail in ways of every kind
            raise DataError(f"{path}: cannot be read as an image ({_reason(error)})") from error


@dataclass(frozen=True)
class _Header:
    shorter_side: int
    grey: bool


def _layout(path: Path) -> tuple[Path, Path | None]:
    """The folder that holds the training classes, and that of the test classes if there is one."""
    train = path / "train"
    # A class may be called "train": then its folder holds images, not folders.
    if not (train.is_dir() and any(entry.is_dir() for entry in _entries(train))):
        return path, None
    for name in ("test", "val"):
        if (path / name).is_dir():
            return train, path / name
    return train, None


def _entries(path: Path) -> list[Path]:
    """What a folder holds, hidden entries apart, by name."""
    try:
        visible = [entry for entry in path.iterdir() if not entry.name.startswith(".")]
    except OSError as error:
        raise DataError(f"{path}: the folder cannot be listed ({error.strerror})") from error
    return sorted(visible, key=lambda entry: entry.name)


def find_images(path: Path) -> list[Path]:
    """The image files directly in a folder, sorted by name. Raises `DataError` if it cannot be listed."""
    return [entry for entry in _entries(path) if entry.suffix.lower() in EXTENSIONS and entry.is_file()]


def _scan(path: Path) -> dict[str, list[Path]]:
    """Class name -> its image files, both sorted."""
    classes = {entry.name: find_images(entry) for entry in _entries(path) if entry.is_dir()}
    if not classes:
        loose = len(find_images(path))
        found = f"{loose} images but no class folders" if loose else "no class folders"
        raise DataError(
            f"{path}: {found}; put the images of each class into a folder of its own, e.g. {path}/cat/1.jpg"
        )
    return classes


def _test_files(path: Path, class_names: tuple[str, ...]) -> dict[str, list[Path]]:
    files = {name: images for name, images in _scan(path).items() if images}
    unknown = [name for name in files if name not in class_names]
    if unknown:
        raise DataError(
            f"{path}: class folder {_listed(unknown)} has no counterpart among the training classes, "
            f"{_listed(class_names)}"
        )
    if not files:
        raise DataError(f"{path}: no images in its class folders; add some or remove the folder")
    return files


def _read_all(root: Path, paths: list[Path], side: int | None) -> UInt8[np.ndarray, "N side side C"]:
    """Every file decoded, or one DataError for all that cannot be, whether header or pixels are damaged."""
    with _quiet(), ThreadPoolExecutor() as pool:
        headers = dict(zip(paths, pool.map(_try_header, paths), strict=True))
        readable = {path: header for path, header in headers.items() if isinstance(header, _Header)}
        bad = {path: header for path, header in headers.items() if isinstance(header, str)}
        if readable:
            chosen_side = _default_side(readable.values()) if side is None else side
            channels = 1 if all(header.grey for header in readable.values()) else 3
            pixels = np.empty((len(paths), chosen_side, chosen_side, channels), dtype=np.uint8)
            decoded = pool.map(lambda path: _try_decode(path, chosen_side, channels), readable)
            for position, (path, result) in enumerate(zip(readable, decoded, strict=True)):
                if isinstance(result, str):
                    bad[path] = result
                else:
                    pixels[position] = result
    if bad:
        named = [f"  {path.relative_to(root)}: {reason}" for path, reason in sorted(bad.items())[:_MOST_NAMED]]
        if len(bad) > _MOST_NAMED:
            named.append(f"  and {len(bad) - _MOST_NAMED} more")
        raise DataError(
            "\n".join([f"{root}: {len(bad)} of {len(paths)} images cannot be read; replace or remove them:", *named])
        )
    return pixels


def _default_side(headers: Iterable[_Header]) -> int:
    median = int(statistics.median(header.shorter_side for header in headers))
    return max(MINIMUM_SIDE, min(_LARGEST_DEFAULT_SIDE, median // 8 * 8))


def _try_header(path: Path) -> _Header | str:
    try:
        with Image.open(path, formats=_FORMATS) as image:
            return _Header(min(image.size), image.mode in _GREY_MODES)
    except Exception as error:  # damaged files make the decoders fail in ways of every kind
        return _reason(error)


def _try_decode(path: Path, side: int, channels: int) -> np.ndarray | str:
    try:
        return _decode(path, side, channels)
    except Exception as error:  # as above
        return _reason(error)


def _decode(path: Path, side: int, channels: int) -> np.ndarray:
    with Image.open(path, formats=_FORMATS) as file:
        if file.mode == "F" or (file.mode == "I" and file.format == "TIFF"):
            raise ValueError("32-bit pixels have no known range; convert the file to 8 or 16 bits")
        # A large JPEG is decoded at a half, quarter or eighth of its size where twice the wanted side remains.
        file.draft(None, (2 * side, 2 * side))
        image = ImageOps.exif_transpose(file)
    if image.mode in _SIXTEEN_BIT_MODES:
        # 65535 = 257 * 255: to the nearest of 256 levels. PIL's own conversion would saturate at 255.
        image = Image.fromarray(((np.asarray(image).astype(np.int64) + 128) // 257).astype(np.uint8))
    elif image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        white.alpha_composite(image.convert("RGBA"))
        image = white
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


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    if isinstance(error, UnidentifiedImageError):
        return "no image format that is supported"
    if isinstance(error, Image.DecompressionBombError):
        return "far too many pixels for a photograph"
    return lines[0] if lines else type(error).__name__


def _listed(names: Iterable[str]) -> str:
    quoted = [repr(name) for name in names]
    more = f" and {len(quoted) - _MOST_NAMED} more" if len(quoted) > _MOST_NAMED else ""
    return ", ".join(quoted[:_MOST_NAMED]) + more


def _extensions() -> str:
    return " ".join(sorted(extension.removeprefix(".") for extension in EXTENSIONS))
