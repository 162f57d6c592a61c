"""The tenth of CIFAR-10, from its own archive and from CIFAR-10; labels that are shuffled."""

from pathlib import Path

import numpy as np
import pytest

from cdarts.data import ImageData, Images, balanced_halves, load, with_shuffled_labels
from cdarts.data import subset as module
from cdarts.data.images import Augmentation
from cdarts.data.subset import ARCHIVE, first_of_each
from cdarts.errors import DataError

NAMES = tuple(f"class {label}" for label in range(10))


def whole_cifar10(train: int, test: int) -> ImageData:
    """Stands in for CIFAR-10: so many random images of each class, classes in random order."""
    draw = np.random.default_rng(0)
    splits = []
    for number in (train, test):
        labels = draw.permutation(np.repeat(np.arange(10, dtype=np.int64), number))
        splits.append(Images(draw.integers(0, 256, (len(labels), 32, 32, 3), dtype=np.uint8), labels))
    return ImageData("cifar10", *splits, NAMES, (0.1,) * 3, (0.2,) * 3, Augmentation(crop_padding=4, flip=True))


def save(path: Path, train: Images, test: Images) -> None:
    np.savez(
        path,
        x_train=train.pixels,
        y_train=train.labels.astype(np.uint8),
        x_test=test.pixels,
        y_test=test.labels.astype(np.uint8),
        class_names=np.array(NAMES),
    )


def test_from_the_archive_or_from_cifar10_it_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cifar10 = whole_cifar10(520, 110)
    monkeypatch.setattr(module, "load_cifar10", lambda _: cifar10)
    made = load("cifar10-5k", root=tmp_path)
    # image by image, as the definition reads
    for split, whole, number in ((made.train, cifar10.train, 500), (made.test, cifar10.test, 100)):
        seen = dict.fromkeys(range(10), 0)
        kept = []
        for position, label in enumerate(whole.labels.tolist()):
            seen[label] += 1
            if seen[label] <= number:
                kept.append(position)
        assert np.array_equal(split.pixels, whole.pixels[kept])
        assert np.array_equal(split.labels, whole.labels[kept])
    save(tmp_path / ARCHIVE, made.train, made.test)
    read = load("cifar10-5k", root=tmp_path)
    assert read.fingerprint() == made.fingerprint()
    assert (read.name, read.mean, read.std, read.augmentation) == (made.name, made.mean, made.std, made.augmentation)
    assert read.name == "cifar10-5k"


@pytest.mark.parametrize(("train", "test", "split"), [(499, 100, "4990 training"), (500, 99, "990 test")])
def test_an_archive_of_something_else_is_refused(tmp_path: Path, train: int, test: int, split: str) -> None:
    other = whole_cifar10(train, test)
    save(tmp_path / ARCHIVE, other.train, other.test)
    with pytest.raises(DataError, match=f"{ARCHIVE}: found {split} images of 10 classes, 32x32x3; expected"):
        load("cifar10-5k", root=tmp_path)


def test_the_real_archive(cdarts_data: Path) -> None:
    data = load("cifar10-5k", root=cdarts_data, image_size=16)
    assert (len(data.train), len(data.test), data.side) == (5000, 1000, 16)
    assert data.class_names[:3] == ("airplane", "automobile", "bird")
    # CIFAR-10's first training images: a frog, two trucks, a deer
    assert data.train.labels[:4].tolist() == [6, 9, 9, 4]
    assert data.test.labels[:4].tolist() == [3, 8, 8, 0]


def test_first_of_each_keeps_the_order() -> None:
    labels = np.array([1, 0, 1, 1, 0, 0], dtype=np.int64)
    pixels = np.arange(6, dtype=np.uint8)[:, None, None, None] * np.ones((1, 8, 8, 1), dtype=np.uint8)
    kept = first_of_each(Images(pixels, labels), 2)
    assert kept.labels.tolist() == [1, 0, 1, 0]
    assert kept.pixels[:, 0, 0, 0].tolist() == [0, 1, 2, 4]


def test_shuffled_labels_say_nothing_and_follow_from_the_seed() -> None:
    data = load("digits")
    shuffled = with_shuffled_labels(data, 3)
    assert np.array_equal(shuffled.train.pixels, data.train.pixels)
    assert np.array_equal(np.bincount(shuffled.train.labels), np.bincount(data.train.labels))
    assert np.array_equal(shuffled.test.labels, data.test.labels)
    right = (shuffled.train.labels == data.train.labels).mean()
    assert 0.05 < right < 0.15  # a tenth by chance, standard deviation 0.008
    assert with_shuffled_labels(data, 3).fingerprint() == shuffled.fingerprint()
    assert with_shuffled_labels(data, 4).fingerprint() != shuffled.fingerprint() != data.fingerprint()
    first, second = balanced_halves(shuffled.train, shuffled.class_names, 0)
    assert abs(len(first) - len(second)) <= 1
