"""Images from files: a folder per class, or ``train/`` and ``test/`` (else ``val/``) of such; and a single image."""

import statistics
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np

from cdarts.data.decoding import Header, decode, header, quiet, read_image, reason_of
from cdarts.data.files import ImageFiles, usual_workers
from cdarts.data.images import (
    MINIMUM_SIDE,
    ImageData,
    Images,
    Split,
    channel_statistics,
    held_out_fifth,
    photo_augmentation,
)
from cdarts.data.preflight import entries, is_named_like_an_image, listed, survey
from cdarts.errors import DataError

__all__ = ["LARGEST_SIDE", "MOST_BYTES", "Glance", "find_images", "glance", "load_folder", "read_image"]

LARGEST_SIDE = 64
"""The largest side that a folder's images are brought to where none is asked for."""

MOST_BYTES = 2 * 2**30
"""Pixels of a folder that are kept in memory, in bytes; where there are more, images stay in their files."""

Result = TypeVar("Result")


def load_folder(
    path: Path,
    side: int | None = None,
    *,
    skip_bad_images: bool = False,
    largest_side: int = LARGEST_SIDE,
    most_bytes: int | float = MOST_BYTES,
    workers: int | None = None,
) -> ImageData:
    """Read a folder of images, brought to ``side`` x ``side`` pixels.

    Layouts: ``path/CLASS/*.jpg``, a fifth of which is held out as test split; or ``path/train/CLASS/*.jpg`` with
    ``path/test`` (or, without one, ``path/val``). Classes and files are sorted by name; hidden ones are ignored. Grey
    files throughout give one channel, else three. Default side: the median of the images' shorter sides, rounded down
    to a multiple of 8, at least 8 and at most ``largest_side``.

    ``skip_bad_images``: what cannot be read is left out, as if it were not there, and listed in `ImageData.skipped`.
    ``most_bytes``: where all pixels would take more, they stay in their files and ``workers`` threads decode them when
    they are needed (`ImageFiles`; None: as many as usual). Then only the files' headers are looked at here: an image
    that is damaged behind its header ends a training when it is met.

    Raises DataError for a folder that holds no such layout, fewer than two classes, a class without images, a class
    that only the test split has, and for images that cannot be read: all that is wrong, in one message.
    """
    found = survey(path)
    class_names = tuple(found.train)
    train_files, test_files = (
        {file: label for label, name in enumerate(class_names) for file in split.get(name, [])}
        for split in (found.train, found.test or {})
    )
    found_images, unreadable = _read_all(
        path,
        [*train_files, *test_files],
        _Wanted(side, largest_side, most_bytes, usual_workers() if workers is None else workers),
    )
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
    images = found_images.relabelled(np.concatenate([train_labels, test_labels]))
    train = images.take(slice(len(train_labels)))
    if found.test is None:
        train, test = held_out_fifth(train, class_names, str(path))
    else:
        test = images.take(slice(len(train_labels), None))
    mean, std = channel_statistics(train)
    augmentation = photo_augmentation(train.side)
    notes = (*_about_skipped(bad, total), *found.notes)
    return ImageData(path.resolve().name, train, test, class_names, mean, std, augmentation, bad, notes)


@dataclass(frozen=True)
class Glance:
    """A folder of images by its files' headers."""

    num_images: int
    median_side: int
    """Of the images' shorter sides, in pixels."""
    channels: int


def glance(path: Path) -> Glance:
    """Look at the headers of a folder's images, of those that have one.

    Raises DataError for a folder that `load_folder` refuses by its layout, or without any image that can be opened.
    """
    found = survey(path)
    paths = [file for split in (found.train, found.test or {}) for files in split.values() for file in files]
    headers = [head for head in _headers(paths).values() if not isinstance(head, str)]
    if not headers:
        raise DataError(f"{path}: not one image in its class folders can be read")
    channels = 1 if all(head.grey for head in headers) else 3
    return Glance(len(headers), int(statistics.median(head.shorter_side for head in headers)), channels)


def _headers(paths: list[Path]) -> dict[Path, Header | str]:
    """Of each file its header, or why it cannot be read."""
    with quiet(), ThreadPoolExecutor() as pool:
        return dict(zip(paths, pool.map(partial(_try, header), paths), strict=True))


def find_images(path: Path) -> list[Path]:
    """The image files directly in a folder, sorted by name. Raises `DataError` if it cannot be listed."""
    return [entry for entry in entries(path) if is_named_like_an_image(entry) and entry.is_file()]


def _about_skipped(bad: Mapping[str, str], total: int) -> Iterator[str]:
    if bad:
        name, reason = next(iter(bad.items()))
        yield f"{len(bad)} of {total} images cannot be read and are left out, first {_shown(name)} ({reason})"


def _shown(name: str) -> str:
    """A file's name as it can be printed: it may hold line breaks, or bytes that are no text."""
    return name if name.isprintable() else repr(name)


@dataclass(frozen=True)
class _Wanted:
    side: int | None
    largest_side: int
    most_bytes: int | float
    workers: int

    def shape(self, headers: Collection[Header]) -> tuple[int, int]:
        """Side and channels that suit these images; a side that is given stays."""
        side = self.side
        if side is None:
            median = int(statistics.median(head.shorter_side for head in headers))
            side = max(MINIMUM_SIDE, min(self.largest_side, median // 8 * 8))
        return side, 1 if all(head.grey for head in headers) else 3


def _read_all(root: Path, paths: list[Path], wanted: _Wanted) -> tuple[Split, dict[Path, str]]:
    """The images that can be read, in order and without labels, and why the others cannot be.

    Only files that can be read have a say in the size and the number of channels. Of what stays in files headers alone
    are looked at.
    """
    headers = _headers(paths)
    bad = {path: head for path, head in headers.items() if isinstance(head, str)}
    readable = {path: head for path, head in headers.items() if not isinstance(head, str)}
    while readable:
        side, channels = wanted.shape(readable.values())
        if len(readable) * side**2 * channels > wanted.most_bytes:
            names = np.array([str(path.relative_to(root)) for path in readable], dtype=object)
            return ImageFiles(root, names, np.zeros(len(names), np.int64), side, channels, wanted.workers), bad
        pixels = np.empty((len(readable), side, side, channels), dtype=np.uint8)
        whole = []
        with quiet(), ThreadPoolExecutor() as pool:
            found = pool.map(partial(_try, partial(decode, side=side, channels=channels)), readable)
            for position, (path, decoded) in enumerate(zip(readable, found, strict=True)):
                if isinstance(decoded, str):
                    bad[path] = decoded
                else:
                    pixels[position] = decoded
                    whole.append(position)
        if len(whole) == len(readable):
            return _unlabelled(pixels), bad
        readable = {path: head for path, head in readable.items() if path not in bad}
        if readable and wanted.shape(readable.values()) == (side, channels):
            return _unlabelled(pixels[whole]), bad
    return _unlabelled(np.empty((0, MINIMUM_SIDE, MINIMUM_SIDE, 1), dtype=np.uint8)), bad


def _unlabelled(pixels: np.ndarray) -> Images:
    return Images(pixels, np.zeros(len(pixels), np.int64))


def _try(read: Callable[[Path], Result], path: Path) -> Result | str:
    """What is read, or why it cannot be. Raises DataError if memory is short: that is no fault of the file."""
    try:
        return read(path)
    except MemoryError as error:
        raise DataError(f"{path}: not enough memory to read this image") from error
    except Exception as error:  # damaged files make the decoders fail in ways of every kind
        return reason_of(path, error)
