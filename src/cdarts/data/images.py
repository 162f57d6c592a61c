"""Labelled images held in memory as bytes, and mini-batches of them as a pure function of (seed, stream, epoch).

Pixels stay uint8 until a batch is made: 50,000 CIFAR images take 150 MB on the device, and augmentation is a handful of
tensor operations on a whole batch.
"""

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float32, Int64, UInt8
from torch import Tensor

from cdarts.data.policies import Policy
from cdarts.errors import ConfigurationError, DataError
from cdarts.randomness import generator

MINIMUM_SIDE = 8
"""The smallest image, in pixels: two reductions leave 2x2."""

_STD_FLOOR = 1e-3
_RESIZE_CHUNK = 1024


@dataclass(frozen=True, eq=False)
class Images:
    """One split: uint8 pixels (N, H, W, C) with C = 1 or 3 and H = W, int64 labels (N,) in 0..K-1."""

    pixels: UInt8[np.ndarray, "N side side C"]
    labels: Int64[np.ndarray, "N"]

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, index: np.ndarray) -> "Images":
        """The images at these positions, in this order, copied."""
        return Images(self.pixels[index], self.labels[index])


@dataclass(frozen=True)
class Augmentation:
    """What happens to a training image, in this order: crop, flip, normalise, cut out.

    Raises ConfigurationError for a negative number of pixels.
    """

    crop_padding: int = 0
    """Zero pixels added on each side before a random crop back to the original size; they are black, as in
    torchvision's RandomCrop, and normalised like any other pixel. 0 = no crop."""
    flip: bool = False
    """Mirror left to right with probability 1/2."""
    cutout: int = 0
    """Side of a square set to 0 after normalising, its centre uniform over the image, clipped at the borders
    (DeVries & Taylor 2017, "Improved Regularization of Convolutional Neural Networks with Cutout"). 0 = none."""

    def __post_init__(self) -> None:
        for name, pixels in (("crop padding", self.crop_padding), ("cutout", self.cutout)):
            if pixels < 0:
                raise ConfigurationError(f"{name} {pixels}: expected a number of pixels, 0 for none")


@dataclass(frozen=True, eq=False)
class ImageData:
    """A data set: its training and test split, the names of its classes, and how to normalise and augment it."""

    name: str
    train: Images
    test: Images
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    """Per channel, of pixels scaled to 0..1."""
    std: tuple[float, ...]
    """Per channel, of pixels scaled to 0..1."""
    augmentation: Augmentation
    """The default for training on this data."""
    skipped: Mapping[str, str] = field(default_factory=dict)
    """Files that were left out since they cannot be read: path inside the data folder -> reason."""
    warnings: tuple[str, ...] = ()
    """What may be wrong with it; each is a line for the user."""

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def channels(self) -> int:
        return int(self.train.pixels.shape[3])

    @property
    def side(self) -> int:
        """Height and width of an image, in pixels."""
        return int(self.train.pixels.shape[1])

    def counts(self) -> dict[str, dict[str, int]]:
        """Number of images: ``train`` and ``test`` -> class name -> images, in the order of the classes."""
        numbers = {
            split: np.bincount(images.labels, minlength=self.num_classes).tolist()
            for split, images in (("train", self.train), ("test", self.test))
        }
        return {split: dict(zip(self.class_names, counts, strict=True)) for split, counts in numbers.items()}

    def fingerprint(self) -> str:
        """SHA-256 (hexadecimal) of both splits' pixels and labels and of the class names: same digest, same data."""
        digest = hashlib.sha256(json.dumps(self.class_names).encode())
        for split in (self.train, self.test):
            digest.update(repr(split.pixels.shape).encode())
            digest.update(np.ascontiguousarray(split.pixels).data)
            digest.update(np.ascontiguousarray(split.labels, dtype="<i8").data)
        return digest.hexdigest()


def default_augmentation(side: int, *, flip: bool) -> Augmentation:
    """Padding of an eighth of the side (4 pixels for CIFAR's 32), with or without mirroring."""
    return Augmentation(crop_padding=side // 8, flip=flip)


def channel_statistics(images: Images) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel of pixels scaled to 0..1.

    A constant channel gets a small positive deviation, so that normalising it does not divide by zero.
    """
    means, deviations = [], []
    for channel in range(images.pixels.shape[3]):
        values = images.pixels[..., channel]
        mean = int(values.sum(dtype=np.int64)) / values.size
        # 255 squared fits 16 bits; the sum of squares is exact.
        mean_of_squares = int(np.square(values, dtype=np.uint16).sum(dtype=np.int64)) / values.size
        means.append(mean / 255)
        deviations.append(max(math.sqrt(max(mean_of_squares - mean * mean, 0.0)) / 255, _STD_FLOOR))
    return tuple(means), tuple(deviations)


def held_out_fifth(images: Images, class_names: tuple[str, ...], source: str) -> tuple[Images, Images]:
    """(train, test): a class-balanced fifth held out for testing, the same for every seed.

    Raises DataError, naming ``source`` and the classes, if a class has a single image.
    """
    from sklearn.model_selection import train_test_split

    counts = np.bincount(images.labels, minlength=len(class_names))
    if (counts < 2).any():
        names = ", ".join(repr(class_names[label]) for label in np.flatnonzero(counts < 2))
        raise DataError(
            f"{source}: fewer than 2 images in class {names}; "
            "a fifth is held out for testing, so every class needs at least 2 (or give a test part of your own)"
        )
    # A stratified draw needs at least one test image per class, more than a fifth where classes are tiny.
    test_size = max(math.ceil(len(images) / 5), len(class_names))
    train, test = train_test_split(
        np.arange(len(images)), test_size=test_size, stratify=images.labels, random_state=0, shuffle=True
    )
    return images.take(np.sort(train)), images.take(np.sort(test))


def balanced_halves(images: Images, class_names: tuple[str, ...], seed: int) -> tuple[Images, Images]:
    """Two random halves that share every class evenly: sizes differ by at most 1 in each class, and at most 1 in all.

    The search trains weights on the first and the architecture on the second. Which images go where depends on the seed
    alone. Raises DataError, naming the classes, if a class has fewer than 2 images.
    """
    classes, counts = np.unique(images.labels, return_counts=True)
    if (counts < 2).any():
        names = ", ".join(class_names[label] for label in classes[counts < 2])
        raise DataError(
            f"class {names} has only 1 training image; the search splits the training images into two halves, "
            "so every class needs at least 2: add images or remove the class"
        )
    first: list[np.ndarray] = []
    second: list[np.ndarray] = []
    odd_to_first = True
    for label in classes:
        members = np.flatnonzero(images.labels == label)
        order = torch.randperm(len(members), generator=generator(seed, "halves", int(label))).numpy()
        middle = len(members) // 2
        if len(members) % 2:
            # Alternating who gets the odd image keeps the totals even.
            middle += odd_to_first
            odd_to_first = not odd_to_first
        first.append(members[order[:middle]])
        second.append(members[order[middle:]])
    return images.take(np.sort(np.concatenate(first))), images.take(np.sort(np.concatenate(second)))


def resized(data: ImageData, side: int) -> ImageData:
    """The same data at another size (bilinear, antialiased), its crop padding scaled along."""
    return replace(
        data,
        train=_resized(data.train, side),
        test=_resized(data.test, side),
        augmentation=replace(data.augmentation, crop_padding=default_augmentation(side, flip=False).crop_padding),
    )


def _resized(images: Images, side: int) -> Images:
    pixels = np.empty((len(images), side, side, images.pixels.shape[3]), dtype=np.uint8)
    for start in range(0, len(images), _RESIZE_CHUNK):
        chunk = slice(start, start + _RESIZE_CHUNK)
        scaled = F.interpolate(
            _channels_first(images.pixels[chunk]).float(), size=(side, side), mode="bilinear", antialias=True
        )
        pixels[chunk] = scaled.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).numpy()
    return Images(pixels, images.labels)


class Batch(NamedTuple):
    """A mini-batch on the device: normalised float32 images (B, C, H, W), contiguous, and int64 labels (B,)."""

    images: Float32[Tensor, "B C H W"]
    labels: Int64[Tensor, "B"]


class Batches:
    """Mini-batches of one split, a pure function of (seed, stream, epoch); pixels live on the device as uint8.

    ``batches(epoch)`` shuffles the split and augments every image by a row of uniforms drawn for that (seed, stream,
    epoch) and indexed by sample, so an image's augmentation depends neither on the batch size nor on the device. The
    last, smaller batch is kept if it has two images or more: batch normalisation needs two.

    Raises ConfigurationError if ``batch_size`` is below 2 or above the number of images.
    """

    def __init__(
        self,
        images: Images,
        data: ImageData,
        *,
        batch_size: int,
        seed: int,
        stream: str,
        augmentation: Augmentation | None,
        device: torch.device,
        policies: Sequence[Policy] = (),
    ) -> None:
        """`policies`: what else becomes of an image, in this order, after crop and flip and before it is normalised."""
        if batch_size < 2:
            raise ConfigurationError(f"--batch-size {batch_size}: batch normalisation needs at least 2 images")
        if batch_size > len(images):
            raise ConfigurationError(
                f"--batch-size {batch_size}: only {len(images)} images to draw from; choose at most {len(images)}"
            )
        self.batch_size = batch_size
        self.seed = seed
        self.stream = stream
        self.augmentation = Augmentation() if augmentation is None else augmentation
        self.device = device
        self.policies = policies
        self.pixels = _channels_first(images.pixels).to(device)
        self.labels = torch.tensor(images.labels, device=device)
        self.mean, self.std = _statistics(data, device)
        self._current: Tensor | None = None

    def __len__(self) -> int:
        """Batches in an epoch."""
        full, rest = divmod(len(self.labels), self.batch_size)
        return full + (rest >= 2)

    def current(self) -> list[int]:
        """Positions in the split of the images that the last batch holds; none before an epoch and after it."""
        return [] if self._current is None else self._current.tolist()

    def __call__(self, epoch: int) -> Iterator[Batch]:
        """The batches of one epoch, in order."""
        num_images, side = len(self.labels), self.pixels.shape[-1]
        padding, cutout = self.augmentation.crop_padding, self.augmentation.cutout
        # Drawn on the CPU, whose generator gives the same numbers to every device, and moved once per epoch. All
        # columns are always drawn, so that switching one augmentation on leaves the others' draws as they were.
        order = torch.randperm(num_images, generator=generator(self.seed, self.stream, "order", epoch))
        uniforms = torch.rand(num_images, 5, generator=generator(self.seed, self.stream, "augmentation", epoch))
        rows = [(policy, policy.uniforms(num_images, self.seed, self.stream, epoch)) for policy in self.policies]
        positions, order = order, order.to(self.device)
        shifts = (uniforms[:, 0:2] * (2 * padding + 1)).long().to(self.device)
        flips = ((uniforms[:, 2] < 0.5) & self.augmentation.flip).to(self.device)
        centres = (uniforms[:, 3:5] * side).long().to(self.device)
        for start in range(0, len(self) * self.batch_size, self.batch_size):
            index = self._current = order[start : start + self.batch_size]
            pixels = self.pixels[index]
            if padding or self.augmentation.flip:
                pixels = _cropped(pixels, padding, shifts[index], flips[index])
            for policy, uniforms in rows:
                pixels = policy(pixels, uniforms[positions[start : start + self.batch_size]])
            images = _normalised(pixels, self.mean, self.std)
            if cutout:
                images.masked_fill_(_square(side, cutout, centres[index]), 0.0)
            yield Batch(images, self.labels[index])
        self._current = None


def evaluation_batches(images: Images, data: ImageData, batch_size: int, device: torch.device) -> Iterator[Batch]:
    """Every image once, in order, without augmentation; the last batch may hold a single image.

    Raises ConfigurationError if ``batch_size`` is below 1.
    """
    if batch_size < 1:
        raise ConfigurationError(f"--batch-size {batch_size}: expected at least 1")
    return _evaluation_batches(images, data, batch_size, device)


def _evaluation_batches(images: Images, data: ImageData, batch_size: int, device: torch.device) -> Iterator[Batch]:
    # A generator of its own, so that a wrong batch size is reported at the call rather than at the first batch.
    mean, std = _statistics(data, device)
    for start in range(0, len(images), batch_size):
        chunk = slice(start, start + batch_size)
        pixels = _channels_first(images.pixels[chunk]).to(device)
        yield Batch(_normalised(pixels, mean, std), torch.tensor(images.labels[chunk], device=device))


def _statistics(data: ImageData, device: torch.device) -> tuple[Tensor, Tensor]:
    """The data's mean and standard deviation, both (C, 1, 1)."""
    return (
        torch.tensor(data.mean, dtype=torch.float32, device=device)[:, None, None],
        torch.tensor(data.std, dtype=torch.float32, device=device)[:, None, None],
    )


def _channels_first(pixels: UInt8[np.ndarray, "N H W C"]) -> UInt8[Tensor, "N C H W"]:
    # torch.tensor copies, so that read-only arrays are welcome and nothing is shared with the caller.
    return torch.tensor(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)))


def _cropped(
    pixels: UInt8[Tensor, "B C H W"], padding: int, shifts: Int64[Tensor, "B 2"], flips: Tensor
) -> UInt8[Tensor, "B C H W"]:
    """A window of the original size at (row, column) ``shifts`` of each padded image, mirrored where ``flips``."""
    num_images, channels, height, width = pixels.shape
    device = pixels.device
    columns = torch.arange(width, device=device)
    columns = torch.where(flips[:, None], columns.flip(0), columns) + shifts[:, 1:2]
    rows = torch.arange(height, device=device) + shifts[:, 0:1]
    padded = F.pad(pixels, (padding, padding, padding, padding))
    return padded[
        torch.arange(num_images, device=device)[:, None, None, None],
        torch.arange(channels, device=device)[:, None, None],
        rows[:, None, :, None],
        columns[:, None, None, :],
    ]


def _normalised(pixels: UInt8[Tensor, "B C H W"], mean: Tensor, std: Tensor) -> Float32[Tensor, "B C H W"]:
    # The same operations in the same order as torchvision's ToTensor and Normalize: equal to them bit for bit.
    return pixels.float().div_(255).sub_(mean).div_(std)


def _square(side: int, length: int, centres: Int64[Tensor, "B 2"]) -> Tensor:
    """True (B, 1, side, side) inside the square around each (row, column) centre."""
    offset = torch.arange(side, device=centres.device) - (centres[:, :, None] - length // 2)
    inside = (offset >= 0) & (offset < length)
    return (inside[:, 0, :, None] & inside[:, 1, None, :])[:, None]
