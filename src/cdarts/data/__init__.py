"""Labelled images by name, from a folder or from an ``.npz`` archive, and mini-batches of them."""

import difflib
import math
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal

from cdarts.data.decoding import read_image
from cdarts.data.digits import load_digits
from cdarts.data.downloads import load_cifar10, load_cifar100, load_fashion_mnist
from cdarts.data.folder import LARGEST_SIDE, MOST_BYTES, load_folder
from cdarts.data.images import (
    MINIMUM_SIDE,
    Augmentation,
    Batch,
    Batches,
    ImageData,
    Images,
    Split,
    balanced_halves,
    evaluation_batches,
    idle,
    resized,
)
from cdarts.data.npz import load_npz
from cdarts.data.preflight import reviewed
from cdarts.data.shuffled import with_shuffled_labels
from cdarts.data.subset import load_cifar10_5k
from cdarts.data.synthetic import load_synthetic
from cdarts.errors import ConfigurationError, DataError

__all__ = [
    "DATASETS",
    "Augmentation",
    "Batch",
    "Batches",
    "ImageData",
    "Images",
    "Keep",
    "Split",
    "balanced_halves",
    "evaluation_batches",
    "idle",
    "load",
    "path_of",
    "read_image",
    "with_shuffled_labels",
]

DATASETS: dict[str, Callable[[Path], ImageData]] = {
    "digits": load_digits,
    "cifar10": load_cifar10,
    "cifar10-5k": load_cifar10_5k,
    "cifar100": load_cifar100,
    "fashion-mnist": load_fashion_mnist,
    "synthetic": load_synthetic,
}
"""Name -> loader of (the folder that holds downloaded files)."""


Keep = Literal["auto", "memory", "files"]

_MOST_BYTES: dict[Keep, int | float] = {"auto": MOST_BYTES, "memory": math.inf, "files": -1}


def path_of(data: str) -> Path:
    """Where data lie that are no data set by name; the home of a user who is not known stays as it was written."""
    return Path(os.path.expanduser(data))  # noqa: PTH111 - pathlib's raises there


def load(
    data: str,
    *,
    root: Path | None = None,
    image_size: int | None = None,
    skip_bad_images: bool = False,
    largest_side: int = LARGEST_SIDE,
    keep: Keep = "auto",
    workers: int | None = None,
    balance: bool | None = None,
) -> ImageData:
    """A data set by name (see DATASETS), from a folder of images or from an ``.npz`` archive.

    A name comes before a folder of the same name: write ``./digits`` for the folder. ``root`` holds downloaded files;
    default $CDARTS_DATA, else ~/.cache/cdarts. ``image_size``: bring the images to this side, in pixels.
    ``skip_bad_images``: leave out the files of a folder that cannot be read; otherwise they are an error that lists
    them all. What may be wrong with a folder or an archive is told in the result's ``warnings``.

    ``largest_side``: of a folder's images where no ``image_size`` is asked for. ``keep``: where a folder's images are;
    ``auto`` leaves them in their files if they would take more than 2 GiB of memory. ``workers``: threads that decode
    them then; None: one for each core, at most 8. ``balance``: whether training draws all classes equally often; None:
    of folders and archives whose largest class has three times the images of the smallest.

    Raises DataError if there is no such data or it is unfit, ConfigurationError if ``image_size`` is below 8 or
    ``workers`` below 0.
    """
    if workers is not None and workers < 0:
        raise ConfigurationError(f"--workers {workers}: must be at least 0")
    if image_size is not None and image_size < MINIMUM_SIDE:
        raise ConfigurationError(f"--image-size {image_size}: expected at least {MINIMUM_SIDE}")
    path = path_of(data)
    if data in DATASETS:
        loaded = DATASETS[data](_default_root() if root is None else root)
    elif path.is_dir():
        loaded = reviewed(
            load_folder(
                path,
                image_size,
                skip_bad_images=skip_bad_images,
                largest_side=largest_side,
                most_bytes=_MOST_BYTES[keep],
                workers=workers,
            )
        )
    elif path.is_file():
        if path.suffix.lower() != ".npz":
            raise DataError(
                f"--data {data}: a file of unknown kind; expected a name, a folder of images or an .npz file"
            )
        loaded = reviewed(load_npz(path))
    else:
        nearest = difflib.get_close_matches(data.lower(), DATASETS, n=1, cutoff=0.5)
        hint = f" Did you mean {nearest[0]}?" if nearest else ""
        raise DataError(
            f"--data {data}: no such data set, folder or .npz file.{hint} Data sets by name: {', '.join(DATASETS)}"
        )
    if balance is not None:
        loaded = replace(loaded, balanced=balance)
    return loaded if image_size in (None, loaded.side) else resized(loaded, image_size)


def _default_root() -> Path:
    named = os.environ.get("CDARTS_DATA")
    return Path(named).expanduser() if named else Path.home() / ".cache" / "cdarts"
