"""A tenth of CIFAR-10, the same for everybody: what a search of minutes on a CPU learns from."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from cdarts.data.downloads import load_cifar10
from cdarts.data.images import ImageData, Split, channel_statistics
from cdarts.data.npz import load_npz
from cdarts.errors import DataError

NAME = "cifar10-5k"
ARCHIVE = "cifar10_5k1k.npz"
"""The same images by themselves, for machines without CIFAR-10's own files; looked for in the data root."""

TRAIN_IMAGES, TEST_IMAGES = 500, 100
"""Of each class."""


def load_cifar10_5k(root: Path) -> ImageData:
    """The first 500 training and 100 test images of each class of CIFAR-10, in the official order (A. Krizhevsky 2009).

    From `ARCHIVE` in ``root`` if it is there, else from CIFAR-10 itself, which is downloaded if need be: both give the
    same bytes. Normalised by the 5,000 images' own mean and deviation.

    Raises DataError if neither can be read, or if the archive does not hold that many images of each class.
    """
    archive = root / ARCHIVE
    return replace(_checked(load_npz(archive), archive), name=NAME) if archive.is_file() else _first_of_each_class(root)


def _first_of_each_class(root: Path) -> ImageData:
    whole = load_cifar10(root)
    train, test = first_of_each(whole.train, TRAIN_IMAGES), first_of_each(whole.test, TEST_IMAGES)
    mean, std = channel_statistics(train)
    return replace(whole, name=NAME, train=train, test=test, mean=mean, std=std)


def first_of_each(images: Split, number: int) -> Split:
    """The first so many images of each class, in the order in which they stand."""
    members = [np.flatnonzero(images.labels == label)[:number] for label in np.unique(images.labels)]
    return images.take(np.sort(np.concatenate(members)))


def _checked(data: ImageData, path: Path) -> ImageData:
    for split, images, number in (("training", data.train, TRAIN_IMAGES), ("test", data.test, TEST_IMAGES)):
        counts = np.bincount(images.labels, minlength=data.num_classes)
        if data.num_classes != 10 or set(counts.tolist()) != {number} or data.side != 32 or data.channels != 3:
            raise DataError(
                f"{path}: found {len(images)} {split} images of {data.num_classes} classes, "
                f"{data.side}x{data.side}x{data.channels}; expected {number} of each of 10 classes, 32x32x3. "
                f"Remove the file, and {NAME} is made of CIFAR-10"
            )
    return data
