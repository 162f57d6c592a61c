"""Images from a NumPy archive: ``x_train, y_train`` and, optionally, ``x_test, y_test`` and ``class_names``."""

import zipfile
import zlib
from pathlib import Path

import numpy as np

from cdarts.data.images import (
    MINIMUM_SIDE,
    ImageData,
    Images,
    channel_statistics,
    held_out_fifth,
    photo_augmentation,
)
from cdarts.errors import DataError

_IMAGES_EXPECTED = "uint8 (N, side, side), (N, side, side, 1) or (N, side, side, 3)"
_KEYS = ("x_train", "y_train", "x_test", "y_test", "class_names")
_UNREADABLE = (OSError, ValueError, EOFError, KeyError, MemoryError, zipfile.BadZipFile, zlib.error)


def load_npz(path: Path) -> ImageData:
    """Read and check an archive; without a test part, a fifth of the training images is held out.

    ``x_*``: uint8, (N, side, side) or (N, side, side, 1 or 3). ``y_*``: integers (N,), classes 0..K-1, each of them
    present in ``y_train``. ``class_names``: K strings. Nothing pickled is ever loaded.

    Raises DataError naming the key, what was found and what was expected.
    """
    arrays = _read(path)
    pixels = _pixels(arrays, "x_train", path)
    labels = _labels(arrays, "y_train", len(pixels), path)
    class_names = _class_names(arrays, labels, path)
    images = Images(pixels, labels.astype(np.int64))
    train, test = (
        (images, _test(arrays, images, len(class_names), path))
        if "x_test" in arrays or "y_test" in arrays
        else held_out_fifth(images, class_names, str(path))
    )
    mean, std = channel_statistics(train)
    augmentation = photo_augmentation(images.side)
    return ImageData(path.stem, train, test, class_names, mean, std, augmentation)


def _read(path: Path) -> dict[str, np.ndarray]:
    """The known keys of an archive."""
    try:
        # Opened here, since numpy.load leaves a file that is no archive open.
        with path.open("rb") as file:
            archive = np.load(file, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise DataError(f"{path}: a single array; expected an archive made by numpy.savez: x_train, y_train")
            with archive:
                arrays = {name: _member(archive, name, path) for name in _KEYS if name in archive.files}
                found = ", ".join(archive.files) or "nothing"
    except _UNREADABLE as error:
        raise DataError(f"{path}: not a readable .npz archive ({error})") from error
    missing = _missing(arrays)
    if missing:
        raise DataError(f"{path}: {missing} is missing; found {found}")
    return arrays


def _member(archive: np.lib.npyio.NpzFile, name: str, path: Path) -> np.ndarray:
    try:
        return np.asarray(archive[name])
    except _UNREADABLE as error:
        raise DataError(f"{path}: {name}: cannot be read ({error})") from error


def _missing(arrays: dict[str, np.ndarray]) -> str | None:
    """A key that the archive needs and lacks: the training part, or the other half of a test part."""
    for name in ("x_train", "y_train"):
        if name not in arrays:
            return name
    for name, partner in (("x_test", "y_test"), ("y_test", "x_test")):
        if partner in arrays and name not in arrays:
            return name
    return None


def _pixels(arrays: dict[str, np.ndarray], name: str, path: Path) -> np.ndarray:
    """The images of one key as uint8 (N, side, side, C)."""
    pixels = arrays[name]
    found = f"{path}: {name}: found {pixels.dtype} {pixels.shape}"
    if pixels.dtype != np.uint8:
        raise DataError(f"{found}; expected {_IMAGES_EXPECTED}, pixel values 0 to 255")
    if pixels.ndim == 3:
        pixels = pixels[..., np.newaxis]
    if pixels.ndim != 4:
        raise DataError(f"{found}; expected {_IMAGES_EXPECTED}")
    if pixels.shape[3] not in (1, 3):
        hint = ", channels last: transpose(0, 2, 3, 1)" if pixels.shape[1] in (1, 3) else ""
        raise DataError(f"{found}; expected {_IMAGES_EXPECTED}{hint}")
    if len(pixels) == 0:
        raise DataError(f"{found}; expected at least one image")
    height, width = pixels.shape[1:3]
    if height != width:
        raise DataError(f"{found}; images are {height}x{width}; expected square ones, {_IMAGES_EXPECTED}")
    if height < MINIMUM_SIDE:
        raise DataError(f"{found}; images are {height}x{width}; at least {MINIMUM_SIDE}x{MINIMUM_SIDE}")
    return pixels


def _labels(arrays: dict[str, np.ndarray], name: str, count: int, path: Path) -> np.ndarray:
    """The labels of one key, in the archive's own integer type: casting first could wrap a wrong label into range."""
    labels = arrays[name]
    found = f"{path}: {name}: found {labels.dtype} {labels.shape}"
    if not np.issubdtype(labels.dtype, np.integer):
        raise DataError(f"{found}; expected integers ({count},), classes counted from 0")
    if labels.shape != (count,):
        raise DataError(f"{found}; expected integers ({count},), one for each image of {name.replace('y_', 'x_')}")
    if labels.min() < 0:
        raise DataError(f"{path}: {name}: found label {labels.min()}; expected classes counted from 0")
    return labels


def _class_names(arrays: dict[str, np.ndarray], labels: np.ndarray, path: Path) -> tuple[str, ...]:
    """The names given, or the numbers 0..K-1; checks that ``y_train`` holds each class of them and no other."""
    present = np.unique(labels)
    highest = int(present[-1])
    names = arrays.get("class_names")
    if names is None:
        num_classes = highest + 1
    else:
        if names.ndim != 1 or names.dtype.kind != "U":
            raise DataError(
                f"{path}: class_names: found {names.dtype} {names.shape}; expected a one-dimensional array of strings"
            )
        num_classes = len(names)
        if highest >= num_classes:
            raise DataError(
                f"{path}: y_train: found label {highest}; expected 0 to {num_classes - 1}, "
                f"as class_names has {num_classes} names"
            )
    num_missing = num_classes - len(present)
    if num_missing:
        # No label can be so large that the search for the first missing ones gets long: it ends after ten.
        missing: list[str] = []
        held = set(present.tolist())
        label = 0
        while len(missing) < min(num_missing, 10):
            if label not in held:
                missing.append(str(label) if names is None else f"{label} ({names[label]})")
            label += 1
        more = f" and {num_missing - len(missing)} more" if num_missing > len(missing) else ""
        raise DataError(
            f"{path}: y_train: no image of class {', '.join(missing)}{more}; "
            f"expected every class of 0 to {num_classes - 1}"
        )
    if num_classes < 2:
        raise DataError(f"{path}: y_train: found a single class; expected at least 2")
    return tuple(str(name) for name in (range(num_classes) if names is None else names))


def _test(arrays: dict[str, np.ndarray], train: Images, num_classes: int, path: Path) -> Images:
    pixels = _pixels(arrays, "x_test", path)
    if pixels.shape[1:] != train.pixels.shape[1:]:
        raise DataError(
            f"{path}: x_test: found images {pixels.shape[1:]}; expected {train.pixels.shape[1:]}, as in x_train"
        )
    labels = _labels(arrays, "y_test", len(pixels), path)
    if labels.max() >= num_classes:
        raise DataError(
            f"{path}: y_test: found label {labels.max()}; expected 0 to {num_classes - 1}, the classes of y_train"
        )
    return Images(pixels, labels.astype(np.int64))
