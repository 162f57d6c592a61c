"""CIFAR-10, CIFAR-100 and Fashion-MNIST through torchvision, which checks the files' published checksums."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np

from cdarts.data.images import ImageData, Images, channel_statistics, default_augmentation
from cdarts.errors import DataError

# The values of the DARTS and CDARTS code; both use CIFAR-10's for CIFAR-100 too.
_CIFAR_MEAN = (0.49139968, 0.48215827, 0.44653124)
_CIFAR_STD = (0.24703233, 0.24348505, 0.26158768)


def load_cifar10(root: Path) -> ImageData:
    """50,000 + 10,000 colour photographs, 32x32, ten classes (A. Krizhevsky 2009)."""
    from torchvision.datasets import CIFAR10

    place = f"put {CIFAR10.filename} from {CIFAR10.url} into {root}"
    train, test, class_names = _splits(CIFAR10, "cifar10", root, place)
    return ImageData("cifar10", train, test, class_names, _CIFAR_MEAN, _CIFAR_STD, default_augmentation(32, flip=True))


def load_cifar100(root: Path) -> ImageData:
    """50,000 + 10,000 colour photographs, 32x32, a hundred classes (A. Krizhevsky 2009)."""
    from torchvision.datasets import CIFAR100

    place = f"put {CIFAR100.filename} from {CIFAR100.url} into {root}"
    train, test, class_names = _splits(CIFAR100, "cifar100", root, place)
    return ImageData("cifar100", train, test, class_names, _CIFAR_MEAN, _CIFAR_STD, default_augmentation(32, flip=True))


def load_fashion_mnist(root: Path) -> ImageData:
    """60,000 + 10,000 grey pictures of clothes, 28x28, ten classes (Xiao, Rasul & Vollgraf 2017)."""
    from torchvision.datasets import FashionMNIST

    files = ", ".join(name for name, _ in FashionMNIST.resources)
    place = f"put {files} from {FashionMNIST.mirrors[0]} into {root / 'FashionMNIST' / 'raw'}"
    train, test, class_names = _splits(FashionMNIST, "fashion-mnist", root, place)
    mean, std = channel_statistics(train)
    return ImageData("fashion-mnist", train, test, class_names, mean, std, default_augmentation(28, flip=True))


def _splits(dataset: Any, name: str, root: Path, place: str) -> tuple[Images, Images, tuple[str, ...]]:
    """(train, test, class names), downloaded into ``root`` if they are not there.

    ``dataset`` is a torchvision class (torchvision has no type stubs). Raises DataError, saying how to place the files
    by hand, if they can be neither read nor downloaded.
    """
    try:
        with warnings.catch_warnings():
            # Pickled in 2009, the CIFAR batches write a dtype in a way that NumPy 2.4.0 to 2.4.4 warn about.
            warnings.simplefilter("ignore", np.exceptions.VisibleDeprecationWarning)
            train, test = (dataset(root, train=part, download=True) for part in (True, False))
    except Exception as error:  # sockets, archives, checksums and parsers each fail in a way of their own
        raise DataError(
            f"--data {name}: the files could neither be read from {root} nor downloaded ({_reason(error)}); "
            f"{place}, or name a folder that holds them in the environment variable CDARTS_DATA"
        ) from error
    return _images(train), _images(test), tuple(str(class_name) for class_name in train.classes)


def _images(split: Any) -> Images:
    pixels = np.asarray(split.data)
    if pixels.ndim == 3:
        pixels = pixels[..., np.newaxis]
    return Images(np.ascontiguousarray(pixels), np.asarray(split.targets, dtype=np.int64))


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
