"""Scikit-learn's handwritten digits: 1,797 real 8x8 images that come with the package, nothing to download."""

from pathlib import Path

import numpy as np

from cdarts.data.images import ImageData, Images, channel_statistics, default_augmentation, held_out_fifth


def load_digits(root: Path) -> ImageData:  # noqa: ARG001 - every loader takes the data root; these need no files
    """The digits, a fifth held out as test split. Grey levels 0..16 become 0..255."""
    from sklearn import datasets

    digits = datasets.load_digits()
    pixels = np.round(digits.images * (255 / 16)).astype(np.uint8)[..., np.newaxis]
    class_names = tuple(str(name) for name in digits.target_names)
    train, test = held_out_fifth(Images(pixels, digits.target.astype(np.int64)), class_names, "digits")
    mean, std = channel_statistics(train)
    # A mirrored 2 or 7 is no digit.
    augmentation = default_augmentation(pixels.shape[1], flip=False)
    return ImageData("digits", train, test, class_names, mean, std, augmentation)
