"""Labelled images, in memory or in files, and mini-batches of them as a pure function of (seed, stream, epoch).

Pixels stay uint8 until a batch is made: 50,000 CIFAR images take 150 MB on the device, and augmentation is a handful of
tensor operations on a whole batch. What is too large for memory stays in its files: `cdarts.data.files`.
"""

import hashlib
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from typing import ClassVar, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float32, Int64, UInt8
from torch import Tensor

from cdarts.data.crops import jittered, resampled, resized_crop
from cdarts.errors import ConfigurationError, DataError
from cdarts.randomness import generator

Pixels = UInt8[Tensor, "B C H W"]

MINIMUM_SIDE = 8
"""The smallest image, in pixels: two reductions leave 2x2."""

PHOTO_SIDE = 64
"""From this side on images of a folder are augmented as photos."""

PHOTO_AREA = 0.25
"""Least part of a photo's area that a training crop shows: subjects at up to twice their size. ImageNet's 0.08 is made
for hundreds of epochs over a million images."""

SKEWED = 3
"""Classes are balanced if the largest has that many times the training images of the smallest."""

STATISTICS_IMAGES = 2_000
"""Images in files that mean and deviation are taken from."""

_STD_FLOOR = 1e-3
_RESIZE_CHUNK = 1024


class Split(ABC):
    """Labelled images of one size, height and width alike: `Images` in memory, or `cdarts.data.files.ImageFiles`."""

    labels: Int64[np.ndarray, "N"]
    """In 0..K-1."""

    def __len__(self) -> int:
        return len(self.labels)

    @property
    @abstractmethod
    def side(self) -> int:
        """Height and width, in pixels."""

    @property
    @abstractmethod
    def channels(self) -> int:
        """1 or 3."""

    @abstractmethod
    def take(self, index: np.ndarray | slice) -> "Split":
        """The images at these positions, in this order."""

    @abstractmethod
    def relabelled(self, labels: Int64[np.ndarray, "N"]) -> "Split":
        """The same images under other labels."""

    @abstractmethod
    def resized(self, side: int) -> "Split":
        """The same images at another size."""

    @abstractmethod
    def pixels_of(self, index: np.ndarray) -> UInt8[np.ndarray, "B side side C"]:
        """The images at these positions as they are tested: nothing about them is random. Raises `DataError`."""

    @abstractmethod
    def reader(self, device: torch.device) -> "Reader":
        """What gives training images on a device."""

    @abstractmethod
    def update(self, feed: Callable[[bytes | memoryview], None]) -> None:
        """Feed images and labels, or what stands for them, to a digest."""


@dataclass(frozen=True, eq=False)
class Images(Split):
    """One split in memory: uint8 pixels (N, H, W, C) with C = 1 or 3 and H = W, int64 labels (N,) in 0..K-1."""

    pixels: UInt8[np.ndarray, "N side side C"]
    labels: Int64[np.ndarray, "N"]

    @property
    def side(self) -> int:
        return int(self.pixels.shape[1])

    @property
    def channels(self) -> int:
        return int(self.pixels.shape[3])

    def take(self, index: np.ndarray | slice) -> "Images":
        """The images at these positions, in this order, copied."""
        return Images(self.pixels[index], self.labels[index])

    def relabelled(self, labels: Int64[np.ndarray, "N"]) -> "Images":
        return Images(self.pixels, labels)

    def resized(self, side: int) -> "Images":
        """Bilinear, antialiased."""
        pixels = np.empty((len(self), side, side, self.channels), dtype=np.uint8)
        for start in range(0, len(self), _RESIZE_CHUNK):
            chunk = slice(start, start + _RESIZE_CHUNK)
            scaled = F.interpolate(
                _channels_first(self.pixels[chunk]).float(), size=(side, side), mode="bilinear", antialias=True
            )
            pixels[chunk] = scaled.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).numpy()
        return Images(pixels, self.labels)

    def pixels_of(self, index: np.ndarray) -> UInt8[np.ndarray, "B side side C"]:
        found: np.ndarray = self.pixels[index]
        return found

    def reader(self, device: torch.device) -> "ResidentReader":
        return ResidentReader(self, device)

    def update(self, feed: Callable[[bytes | memoryview], None]) -> None:
        feed(repr(self.pixels.shape).encode())
        feed(np.ascontiguousarray(self.pixels).data)
        feed(np.ascontiguousarray(self.labels, dtype="<i8").data)


class Policy(ABC):
    """What becomes of training images, given uniforms in [0, 1)."""

    name: ClassVar[str]
    """Of the stream that its uniforms are drawn from."""

    @property
    @abstractmethod
    def columns(self) -> int:
        """Uniforms that an image takes."""

    def uniforms(self, num_images: int, seed: int, stream: str, epoch: int) -> Float32[Tensor, "N columns"]:
        """An epoch's draws, a row for each image of the split; on the CPU, whose generator is the same everywhere."""
        return torch.rand(num_images, self.columns, generator=generator(seed, stream, self.name, epoch))

    @abstractmethod
    def __call__(self, pixels: Pixels, uniforms: Float32[Tensor, "B columns"]) -> Pixels:
        """Changed images, in new memory where they have changed; `uniforms` lie on the CPU."""


@dataclass(frozen=True)
class Augmentation:
    """What happens to a training image, in this order: crop, flip, change colours, normalise, cut out.

    Raises ConfigurationError for a value out of range.
    """

    crop_padding: int = 0
    """Zero pixels added on each side before a random crop back to the original size; they are black, as in
    torchvision's RandomCrop, and normalised like any other pixel. 0 = no crop."""
    flip: bool = False
    """Mirror left to right with probability 1/2."""
    cutout: int = 0
    """Side of a square set to 0 after normalising, its centre uniform over the image, clipped at the borders
    (DeVries & Taylor 2017, "Improved Regularization of Convolutional Neural Networks with Cutout"). 0 = none."""
    least_area: float | None = None
    """Instead of padding: a random window of at least this part of the image's area, its sides 3:4 to 4:3, is brought
    back to size (Szegedy et al. 2015). None = pad and crop."""
    jitter: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    """Largest changes of brightness, contrast and saturation, as parts of themselves, and of the hue, as a part of the
    colour circle (torchvision's ColorJitter). 0 = none."""

    def __post_init__(self) -> None:
        for name, pixels in (("crop padding", self.crop_padding), ("cutout", self.cutout)):
            if pixels < 0:
                raise ConfigurationError(f"{name} {pixels}: expected a number of pixels, 0 for none")
        if self.least_area is not None and not 0 < self.least_area <= 1:
            raise ConfigurationError(f"--least-area {self.least_area}: expected more than 0 and at most 1")
        if not all(0 <= part <= limit for part, limit in zip(self.jitter, (1, 1, 1, 0.5), strict=True)):
            given = " ".join(str(part) for part in self.jitter)
            raise ConfigurationError(f"--colour-jitter {given}: expected 0 to 1 three times and 0 to 0.5 for the hue")


@dataclass(frozen=True, eq=False)
class ImageData:
    """A data set: its training and test split, the names of its classes, and how to normalise and augment it."""

    name: str
    train: Split
    test: Split
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
    balanced: bool = False
    """Training batches draw every class equally often, however many images it has."""

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def channels(self) -> int:
        return self.train.channels

    @property
    def side(self) -> int:
        """Height and width of an image, in pixels."""
        return self.train.side

    def counts(self) -> dict[str, dict[str, int]]:
        """Number of images: ``train`` and ``test`` -> class name -> images, in the order of the classes."""
        numbers = {
            split: np.bincount(images.labels, minlength=self.num_classes).tolist()
            for split, images in (("train", self.train), ("test", self.test))
        }
        return {split: dict(zip(self.class_names, counts, strict=True)) for split, counts in numbers.items()}

    def fingerprint(self) -> str:
        """SHA-256 (hexadecimal) of both splits' pixels and labels and of the class names: same digest, same data.

        Of images that stay in files, the files' names and lengths stand for the pixels.
        """
        digest = hashlib.sha256(json.dumps(self.class_names).encode())
        for split in (self.train, self.test):
            split.update(digest.update)
        return digest.hexdigest()


def default_augmentation(side: int, *, flip: bool) -> Augmentation:
    """Padding of an eighth of the side (4 pixels for CIFAR's 32), with or without mirroring."""
    return Augmentation(crop_padding=side // 8, flip=flip)


def photo_augmentation(side: int) -> Augmentation:
    """For photos: at less than 64 pixels as `default_augmentation`, else random windows; mirrored.

    A window of an image of few pixels would be blurred by being enlarged; a photo shows its subject at any size.
    """
    return (
        default_augmentation(side, flip=True) if side < PHOTO_SIDE else Augmentation(flip=True, least_area=PHOTO_AREA)
    )


def is_skewed(images: Split) -> bool:
    """Whether the largest class has `SKEWED` times the images of the smallest, or more."""
    _, counts = np.unique(images.labels, return_counts=True)
    return bool(counts.max() >= SKEWED * counts.min())


def channel_statistics(images: Split) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel of pixels scaled to 0..1.

    Of images in files, `STATISTICS_IMAGES` in even steps are looked at. A constant channel gets a small positive
    deviation, so that normalising it does not divide by zero.
    """
    if isinstance(images, Images):
        pixels = images.pixels
    else:
        chosen = np.linspace(0, len(images) - 1, min(len(images), STATISTICS_IMAGES)).round().astype(np.int64)
        pixels = images.pixels_of(np.unique(chosen))
    means, deviations = [], []
    for channel in range(pixels.shape[3]):
        values = pixels[..., channel]
        mean = int(values.sum(dtype=np.int64)) / values.size
        # 255 squared fits 16 bits; the sum of squares is exact.
        mean_of_squares = int(np.square(values, dtype=np.uint16).sum(dtype=np.int64)) / values.size
        means.append(mean / 255)
        deviations.append(max(math.sqrt(max(mean_of_squares - mean * mean, 0.0)) / 255, _STD_FLOOR))
    return tuple(means), tuple(deviations)


def held_out_fifth(images: Split, class_names: tuple[str, ...], source: str) -> tuple[Split, Split]:
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


def balanced_halves(images: Split, class_names: tuple[str, ...], seed: int) -> tuple[Split, Split]:
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
    augmentation = data.augmentation
    if augmentation.least_area is None:
        padding = default_augmentation(side, flip=False).crop_padding
        augmentation = replace(augmentation, crop_padding=padding)
    return replace(data, train=data.train.resized(side), test=data.test.resized(side), augmentation=augmentation)


# -- reading training images -------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Draws:
    """An epoch of M images in their order: which they are, and all that is random about each. On the CPU."""

    positions: Int64[Tensor, "M"]
    """In the split."""
    uniforms: Float32[Tensor, "M 5"]
    """For the shifts of a padded crop down and across, the flip, and the centre of a cutout."""
    crops: Float32[Tensor, "M 4"]
    """For `resized_crop`; anything where it is not done."""
    colours: Float32[Tensor, "M 5"]
    """For `jittered`; anything where it is not done."""

    def __len__(self) -> int:
        return len(self.positions)

    def shifts(self, augmentation: Augmentation) -> Int64[Tensor, "M 2"]:
        """Of the crops, down and across, in pixels from the corner of the padded image."""
        return (self.uniforms[:, 0:2] * (2 * augmentation.crop_padding + 1)).long()

    def flips(self, augmentation: Augmentation) -> Tensor:
        """Whether each image is mirrored, (M,)."""
        return (self.uniforms[:, 2] < 0.5) & augmentation.flip

    def centres(self, side: int) -> Int64[Tensor, "M 2"]:
        """Of the cutouts, row and column."""
        return (self.uniforms[:, 3:5] * side).long()


Read = Callable[[slice], UInt8[Tensor, "B C side side"]]
"""From a part of an epoch, in its order, to its images on the device, augmented but for what follows normalising."""


class Reader(ABC):
    """Gives a split's training images, epoch by epoch."""

    @abstractmethod
    def epoch(self, draws: Draws, augmentation: Augmentation) -> AbstractContextManager[Read]:
        """Within it, the epoch can be read part by part, in order; parts may be left out. It may raise `DataError`."""


class ResidentReader(Reader):
    """All pixels lie on the device, and whole batches are augmented there; changes of colour alone go by the CPU."""

    def __init__(self, images: Images, device: torch.device) -> None:
        self.pixels = _channels_first(images.pixels).to(device)
        self.device = device

    @contextmanager
    def epoch(self, draws: Draws, augmentation: Augmentation) -> Iterator[Read]:
        side = self.pixels.shape[-1]
        positions = draws.positions.to(self.device)
        shifts, flips = draws.shifts(augmentation).to(self.device), draws.flips(augmentation).to(self.device)
        crops = None
        if augmentation.least_area is not None:
            windows = resized_crop(side, side, draws.crops.double().numpy(), augmentation.least_area)
            crops = torch.tensor(np.stack(windows, axis=1), dtype=torch.float32, device=self.device)

        def read(part: slice) -> Tensor:
            pixels = self.pixels[positions[part]]
            if crops is not None:
                pixels = resampled(pixels, crops[part], flips[part])
            elif augmentation.crop_padding or augmentation.flip:
                pixels = _cropped(pixels, augmentation.crop_padding, shifts[part], flips[part])
            if any(augmentation.jitter):
                changed = [
                    jittered(image, augmentation.jitter, colours)
                    for image, colours in zip(
                        pixels.permute(0, 2, 3, 1).cpu().numpy(), draws.colours[part].numpy(), strict=True
                    )
                ]
                pixels = _channels_first(np.stack(changed)).to(self.device)
            return pixels

        yield read


class Batch(NamedTuple):
    """A mini-batch on the device: normalised float32 images (B, C, H, W), contiguous, and int64 labels (B,)."""

    images: Float32[Tensor, "B C H W"]
    labels: Int64[Tensor, "B"]


class Batches:
    """Mini-batches of one split, a pure function of (seed, stream, epoch).

    ``batches(epoch)`` shuffles the split and augments every image by a row of uniforms drawn for that (seed, stream,
    epoch) and indexed by sample, so an image's augmentation depends neither on the batch size nor on the device nor on
    who reads it. The last, smaller batch is kept if it has two images or more: batch normalisation needs two.

    Of `ImageData.balanced` data an epoch is as long as otherwise, but every class comes equally often, give or take
    one: images of large classes take turns, those of small ones come several times, each time augmented anew.

    ``fraction``: the part of its images that an epoch takes, other ones in every epoch.

    Raises ConfigurationError if ``batch_size`` is below 2 or above the number of images an epoch takes.
    """

    def __init__(
        self,
        images: Split,
        data: ImageData,
        *,
        batch_size: int,
        seed: int,
        stream: str,
        augmentation: Augmentation | None,
        device: torch.device,
        fraction: float = 1.0,
        policies: Sequence[Policy] = (),
    ) -> None:
        """`policies`: what else becomes of an image, in this order, after crop, flip and colours and before it is
        normalised."""
        if not 0 < fraction <= 1:
            raise ConfigurationError(f"--epoch-fraction {fraction}: expected more than 0 and at most 1")
        if batch_size < 2:
            raise ConfigurationError(f"--batch-size {batch_size}: batch normalisation needs at least 2 images")
        num_images = math.ceil(fraction * len(images))
        if batch_size > num_images:
            raise ConfigurationError(
                f"--batch-size {batch_size}: only {num_images} images to draw from; choose at most {num_images}"
            )
        self.batch_size = batch_size
        self.seed = seed
        self.stream = stream
        self.augmentation = Augmentation() if augmentation is None else augmentation
        self.device = device
        self.policies = policies
        self.num_images = num_images
        """In an epoch."""
        self.balanced = data.balanced
        self.idle = False
        """While it is set, batches are counted but not made: their images are empty."""
        self.side = images.side
        self.reader = images.reader(device)
        self.labels = torch.tensor(images.labels, device=device)
        self.mean, self.std = _statistics(data, device)
        self._current: Tensor | None = None

    def __len__(self) -> int:
        """Batches in an epoch."""
        full, rest = divmod(self.num_images, self.batch_size)
        return full + (rest >= 2)

    def current(self) -> list[int]:
        """Positions in the split of the images that the last batch holds; none before an epoch and after it."""
        return [] if self._current is None else self._current.tolist()

    def __call__(self, epoch: int) -> Iterator[Batch]:
        """The batches of one epoch, in order."""
        order = self._order(epoch)
        draws, cutout = self._draws(epoch, order), self.augmentation.cutout
        rows = [
            (policy, policy.uniforms(len(self.labels), self.seed, self.stream, epoch)[order])
            for policy in self.policies
        ]
        positions = draws.positions.to(self.device)
        centres = draws.centres(self.side).to(self.device)
        with self.reader.epoch(draws, self.augmentation) as read:
            for start in range(0, len(self) * self.batch_size, self.batch_size):
                part = slice(start, min(start + self.batch_size, self.num_images))
                index = self._current = positions[part]
                if self.idle:
                    yield Batch(torch.empty(0, len(self.mean), self.side, self.side), self.labels[index[:0]])
                    continue
                pixels = read(part)
                for policy, uniforms in rows:
                    pixels = policy(pixels, uniforms[part])
                images = _normalised(pixels, self.mean, self.std)
                if cutout:
                    images.masked_fill_(_square(self.side, cutout, centres[part]), 0.0)
                yield Batch(images, self.labels[index])
        self._current = None

    def _order(self, epoch: int) -> Int64[Tensor, "M"]:
        return torch.randperm(len(self.labels), generator=self._generator("order", epoch))[: self.num_images]

    def _draws(self, epoch: int, order: Int64[Tensor, "M"]) -> Draws:
        # Drawn on the CPU, whose generator gives the same numbers to every device. All columns are always drawn, so
        # that switching one augmentation on leaves the others' draws as they were.
        num_images, augmentation = len(self.labels), self.augmentation
        uniforms = torch.rand(num_images, 5, generator=self._generator("augmentation", epoch))[order]
        crops, colours = torch.zeros(self.num_images, 4), torch.zeros(self.num_images, 5)
        if augmentation.least_area is not None:
            crops = torch.rand(num_images, 4, generator=self._generator("crops", epoch))[order]
        if any(augmentation.jitter):
            colours = torch.rand(num_images, 5, generator=self._generator("colours", epoch))[order]
        positions = self._balanced_positions(epoch)[order] if self.balanced else order
        return Draws(positions, uniforms, crops, colours)

    def _balanced_positions(self, epoch: int) -> Int64[Tensor, "N"]:
        """The images of an epoch, as many as there are, equally many of each class, give or take one."""
        labels = self.labels.cpu().numpy()
        classes = np.unique(labels)
        share, rest = divmod(len(labels), len(classes))
        draw = self._generator("balance", epoch)
        chosen = []
        for place, label in enumerate(classes):
            members = np.flatnonzero(labels == label)
            # the classes take turns in having one image more
            wanted = share + ((place + epoch) % len(classes) < rest)
            rounds = [torch.randperm(len(members), generator=draw) for _ in range(-(-wanted // len(members)))]
            chosen.append(torch.from_numpy(members)[torch.cat(rounds)[:wanted]] if rounds else torch.empty(0).long())
        return torch.cat(chosen)

    def _generator(self, what: str, epoch: int) -> torch.Generator:
        return generator(self.seed, self.stream, what, epoch)


@contextmanager
def idle(*batches: Batches) -> Iterator[None]:
    """Within the block, iterators over these batches move on without reading an image; what they give is empty."""
    for each in batches:
        each.idle = True
    try:
        yield
    finally:
        for each in batches:
            each.idle = False


def evaluation_batches(images: Split, data: ImageData, batch_size: int, device: torch.device) -> Iterator[Batch]:
    """Every image once, in order, without augmentation; the last batch may hold a single image.

    Raises ConfigurationError if ``batch_size`` is below 1.
    """
    if batch_size < 1:
        raise ConfigurationError(f"--batch-size {batch_size}: expected at least 1")
    return _evaluation_batches(images, data, batch_size, device)


def _evaluation_batches(images: Split, data: ImageData, batch_size: int, device: torch.device) -> Iterator[Batch]:
    # A generator of its own, so that a wrong batch size is reported at the call rather than at the first batch.
    mean, std = _statistics(data, device)
    for start in range(0, len(images), batch_size):
        chunk = np.arange(start, min(start + batch_size, len(images)))
        pixels = _channels_first(images.pixels_of(chunk)).to(device)
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
