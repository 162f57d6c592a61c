"""Images that stay in their files, too many for memory: decoded when a batch needs them, by threads that work ahead.

What is random about an image is drawn before it is read, so that who reads it, and when, changes nothing.
"""

import os
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from cdarts.data.crops import jittered
from cdarts.data.decoding import decode, decode_crop, reason_of
from cdarts.data.images import Augmentation, Draws, Read, Reader, Split
from cdarts.errors import DataError

AHEAD = 4
"""Batches that are decoded before they are asked for, so that a slow file or a slow step keeps nobody waiting."""

MOST_WORKERS = 8
"""Threads that are taken where nobody says how many."""


@dataclass(frozen=True, eq=False)
class ImageFiles(Split):
    """One split in files: their names, int64 labels (N,), and the shape that images are brought to."""

    root: Path
    names: np.ndarray
    """Paths below ``root``, (N,) strings."""
    labels: Int64[np.ndarray, "N"]
    image_side: int
    image_channels: int
    workers: int
    """Threads that decode; 0: whoever asks for a batch does it. It changes no batch."""

    @property
    def side(self) -> int:
        return self.image_side

    @property
    def channels(self) -> int:
        return self.image_channels

    def take(self, index: np.ndarray | slice) -> "ImageFiles":
        return replace(self, names=self.names[index], labels=self.labels[index])

    def relabelled(self, labels: Int64[np.ndarray, "N"]) -> "ImageFiles":
        return replace(self, labels=labels)

    def resized(self, side: int) -> "ImageFiles":
        return replace(self, image_side=side)

    def pixels_of(self, index: np.ndarray) -> UInt8[np.ndarray, "B side side C"]:
        def read(position: int) -> np.ndarray:
            path = self.path(position)
            with _naming(path):
                return decode(path, self.side, self.channels)

        _silence_decoders()
        positions = [int(position) for position in index]
        found = list(_pool(self.workers).map(read, positions) if self.workers else map(read, positions))
        return np.stack(found) if found else np.empty((0, self.side, self.side, self.channels), dtype=np.uint8)

    def reader(self, device: torch.device) -> "FileReader":
        return FileReader(self, device)

    def update(self, feed: Callable[[bytes | memoryview], None]) -> None:
        feed(repr(("files", self.side, self.channels)).encode())
        for position, name in enumerate(self.names):
            try:
                length = self.path(position).stat().st_size
            except OSError as error:
                raise DataError(f"{self.path(position)}: cannot be read ({error.strerror})") from error
            feed(f"{name}\0{length}\0".encode(errors="surrogateescape"))
        feed(np.ascontiguousarray(self.labels, dtype="<i8").data)

    def path(self, position: int) -> Path:
        """Of one image."""
        return self.root / str(self.names[position])


class FileReader(Reader):
    """Decodes, crops, mirrors and changes colours image by image, on the CPU."""

    def __init__(self, images: ImageFiles, device: torch.device) -> None:
        self.images = images
        self.device = device

    @contextmanager
    def epoch(self, draws: Draws, augmentation: Augmentation) -> Iterator[Read]:
        make = _Maker(self.images, draws, augmentation)
        pending: dict[int, Future[np.ndarray]] = {}
        submitted = 0

        def read(part: slice) -> Tensor:
            nonlocal submitted
            wanted = range(part.start, part.stop)
            if not self.images.workers:
                return self._to_device([make(position) for position in wanted])
            pool = _pool(self.images.workers)
            # what was left out is not waited for
            submitted = max(submitted, part.start)
            last = min(part.start + (1 + AHEAD) * len(wanted), len(draws))
            for position in range(submitted, last):
                pending[position] = pool.submit(make, position)
            submitted = max(submitted, last)
            return self._to_device([pending.pop(position).result() for position in wanted])

        _silence_decoders()
        try:
            yield read
        finally:
            for future in pending.values():
                future.cancel()

    def _to_device(self, images: list[np.ndarray]) -> UInt8[Tensor, "B C side side"]:
        return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous().to(self.device)


class _Maker:
    """Makes the image at a position of an epoch, uint8 (side, side, C). Raises DataError naming its file."""

    def __init__(self, images: ImageFiles, draws: Draws, augmentation: Augmentation) -> None:
        self.images = images
        self.augmentation = augmentation
        self.positions = draws.positions.numpy()
        self.shifts = draws.shifts(augmentation).numpy()
        self.flips = draws.flips(augmentation).numpy()
        self.crops = draws.crops.double().numpy()
        self.colours = draws.colours.numpy()

    def __call__(self, position: int) -> np.ndarray:
        images, augmentation = self.images, self.augmentation
        path = images.path(int(self.positions[position]))
        with _naming(path):
            if augmentation.least_area is None:
                pixels = decode(path, images.side, images.channels)
            else:
                pixels = decode_crop(
                    path,
                    images.side,
                    images.channels,
                    draws=self.crops[position],
                    least_area=augmentation.least_area,
                )
        if augmentation.least_area is None and augmentation.crop_padding:
            padding = augmentation.crop_padding
            top, left = self.shifts[position]
            padded = np.pad(pixels, ((padding, padding), (padding, padding), (0, 0)))
            pixels = padded[top : top + images.side, left : left + images.side]
        if self.flips[position]:
            pixels = pixels[:, ::-1]
        if any(augmentation.jitter):
            pixels = jittered(np.ascontiguousarray(pixels), augmentation.jitter, self.colours[position])
        return pixels


def usual_workers() -> int:
    """Threads where nobody says how many: one for each core, up to `MOST_WORKERS`."""
    return min(os.cpu_count() or 1, MOST_WORKERS)


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Whatever the decoders raise becomes a DataError that names the file."""
    try:
        yield
    except MemoryError as error:
        raise DataError(f"{path}: not enough memory to read this image") from error
    except Exception as error:  # damaged files make the decoders fail in ways of every kind
        raise DataError(
            f"{path}: cannot be read as an image ({reason_of(path, error)}); put it right and go on, or remove it and "
            "begin another run"
        ) from error


@cache
def _pool(workers: int) -> ThreadPoolExecutor:
    """One for the process: both halves of a search are read by the same threads."""
    return ThreadPoolExecutor(workers, thread_name_prefix="decoder")


@cache
def _silence_decoders() -> None:
    """PIL's warnings name no file: what is wrong with one is an exception here, or harmless. `catch_warnings` would not
    do, since it is not made for threads."""
    warnings.filterwarnings("ignore", module=r"PIL\.")
