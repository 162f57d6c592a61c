"""Labelled images by name, from a folder or from an ``.npz`` archive, and mini-batches of them."""

import difflib
import os
from collections.abc import Callable
from pathlib import Path

from cdarts.data.digits import load_digits
from cdarts.data.downloads import load_cifar10, load_cifar100, load_fashion_mnist
from cdarts.data.folder import load_folder, read_image
from cdarts.data.images import (
    MINIMUM_SIDE,
    Augmentation,
    Batch,
    Batches,
    ImageData,
    Images,
    balanced_halves,
    evaluation_batches,
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
    "balanced_halves",
    "evaluation_batches",
    "load",
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


def load(
    data: str, *, root: Path | None = None, image_size: int | None = None, skip_bad_images: bool = False
) -> ImageData:
    """A data set by name (see DATASETS), from a folder of images or from an ``.npz`` archive.

    A name comes before a folder of the same name: write ``./digits`` for the folder. ``root`` holds downloaded files;
    default $CDARTS_DATA, else ~/.cache/cdarts. ``image_size``: bring the images to this side, in pixels.
    ``skip_bad_images``: leave out the files of a folder that cannot be read; otherwise they are an error that lists
    them all. What may be wrong with a folder or an archive is told in the result's ``warnings``.

    Raises DataError if there is no such data or it is unfit, ConfigurationError if ``image_size`` is below 8.
    """
    if image_size is not None and image_size < MINIMUM_SIDE:
        raise ConfigurationError(f"--image-size {image_size}: expected at least {MINIMUM_SIDE}")
    path = Path(data).expanduser()
    if data in DATASETS:
        loaded = DATASETS[data](_default_root() if root is None else root)
    elif path.is_dir():
        loaded = reviewed(load_folder(path, image_size, skip_bad_images=skip_bad_images))
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
    return loaded if image_size in (None, loaded.side) else resized(loaded, image_size)


def _default_root() -> Path:
    named = os.environ.get("CDARTS_DATA")
    return Path(named).expanduser() if named else Path.home() / ".cache" / "cdarts"
