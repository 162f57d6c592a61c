"""Every named data set, and how names, folders and files are told apart."""

import pickle
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import sklearn.datasets
import torch
import torchvision

from cdarts.data import DATASETS, Augmentation, Batches, ImageData, evaluation_batches, load
from cdarts.errors import ConfigurationError, DataError

WITHOUT_DOWNLOAD = ("digits", "synthetic")
TORCHVISION = {
    "cifar10": torchvision.datasets.CIFAR10,
    "cifar100": torchvision.datasets.CIFAR100,
    "fashion-mnist": torchvision.datasets.FashionMNIST,
}
PARTS = {"cifar10-5k": "cifar10"}
"""Sets made of another set's files."""


class Published:
    """Stands in for a torchvision class: its attributes, and a little random data in its layout."""

    def __init__(self, original: Any, shape: tuple[int, ...], tensors: bool) -> None:
        self.original, self.shape, self.tensors = original, shape, tensors

    def __getattr__(self, name: str) -> Any:
        return getattr(self.original, name)

    def __call__(self, root: Path, train: bool, download: bool) -> Any:
        generator = np.random.default_rng(int(train))
        self.data: Any = generator.integers(0, 256, (60 if train else 20, *self.shape), dtype=np.uint8)
        self.targets: Any = [index % 10 for index in range(len(self.data))]
        if self.tensors:
            self.data, self.targets = torch.tensor(self.data), torch.tensor(self.targets)
        self.classes = [f"class {index}" for index in range(10)]
        self.asked = (root, download)
        split = type("Split", (), {})()
        split.data, split.targets, split.classes = self.data, self.targets, self.classes
        return split


@pytest.fixture(params=sorted(DATASETS))
def dataset(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ImageData:
    name = request.param
    original = TORCHVISION.get(PARTS.get(name, name))
    if original is not None:
        shape = (28, 28) if name == "fashion-mnist" else (32, 32, 3)
        stand_in = Published(original, shape, tensors=name == "fashion-mnist")
        monkeypatch.setattr(torchvision.datasets, original.__name__, stand_in)
    return load(name, root=tmp_path)


def test_every_named_set_is_fit_for_training(dataset: ImageData) -> None:
    assert dataset.name in DATASETS
    for split in (dataset.train, dataset.test):
        assert split.pixels.dtype == np.uint8 and split.labels.dtype == np.int64
        assert split.pixels.shape[1:] == (dataset.side, dataset.side, dataset.channels)
        assert set(split.labels.tolist()) == set(range(dataset.num_classes))
    assert len(dataset.mean) == len(dataset.std) == dataset.channels
    assert dataset.augmentation.crop_padding == dataset.side // 8
    batches = Batches(
        dataset.train,
        dataset,
        batch_size=20,
        seed=0,
        stream="train",
        augmentation=dataset.augmentation,
        device=torch.device("cpu"),
    )
    assert all(torch.isfinite(images).all() for images, _ in batches(0))
    evaluated = torch.cat([images for images, _ in evaluation_batches(dataset.test, dataset, 64, torch.device("cpu"))])
    assert evaluated.shape == (len(dataset.test), dataset.channels, dataset.side, dataset.side)


@pytest.mark.parametrize("name", WITHOUT_DOWNLOAD)
def test_sets_without_download_are_the_same_each_time(name: str, tmp_path: Path) -> None:
    assert load(name).fingerprint() == load(name, root=tmp_path / "absent").fingerprint()
    assert not (tmp_path / "absent").exists()


def test_digits_are_those_of_scikit_learn() -> None:
    data = load("digits")
    assert (len(data.train), len(data.test)) == (1437, 360)
    original = sklearn.datasets.load_digits()
    expected = {
        (np.round(image * 255 / 16).astype(np.uint8).tobytes(), int(target))
        for image, target in zip(original.images, original.target, strict=True)
    }
    ours = {
        (pixels.tobytes(), int(label))
        for split in (data.train, data.test)
        for pixels, label in zip(split.pixels, split.labels, strict=True)
    }
    assert ours == expected
    assert data.augmentation == Augmentation(crop_padding=1, flip=False)
    per_class = np.bincount(data.test.labels) / np.bincount(original.target)
    assert per_class == pytest.approx([0.2] * 10, abs=0.01)


def test_synthetic_is_small_balanced_and_survives_flips_and_shifts() -> None:
    data = load("synthetic")
    assert (len(data.train), len(data.test), data.side, data.channels) == (256, 64, 8, 3)
    assert np.bincount(data.train.labels).tolist() == [64] * 4
    means = np.stack([data.train.pixels[data.train.labels == label].mean((0, 1, 2)) for label in range(4)])
    for pixels in (data.test.pixels, data.test.pixels[:, :, ::-1], np.roll(data.test.pixels, 1, axis=1)):
        distances = ((pixels.mean((1, 2))[:, None] - means[None]) ** 2).sum(-1)
        # The colour alone, which no flip or shift changes, tells the four classes apart.
        assert (distances.argmin(1) == data.test.labels).mean() > 0.9


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_cifar_keeps_the_published_normalisation(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stand_in = Published(TORCHVISION[name], (32, 32, 3), tensors=False)
    monkeypatch.setattr(torchvision.datasets, TORCHVISION[name].__name__, stand_in)
    data = load(name, root=tmp_path)
    assert data.mean == (0.49139968, 0.48215827, 0.44653124)
    assert data.std == (0.24703233, 0.24348505, 0.26158768)
    assert data.augmentation == Augmentation(crop_padding=4, flip=True)
    assert stand_in.asked == (tmp_path, True)


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("cifar10", "cifar-10-python.tar.gz"),
        ("cifar100", "cifar-100-python.tar.gz"),
        ("fashion-mnist", "train-images-idx3-ubyte.gz"),
    ],
)
def test_a_failed_download_says_how_to_place_the_files(
    name: str, file: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def offline(_: object) -> None:
        raise URLError("no route to host")

    monkeypatch.setattr(TORCHVISION[name], "download", offline)
    with pytest.raises(DataError) as raised:
        load(name, root=tmp_path)
    message = str(raised.value)
    for part in (f"--data {name}", str(tmp_path), "no route to host", file, "http", "CDARTS_DATA"):
        assert part in message


def test_cifar_files_on_disk_need_no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    original = TORCHVISION["cifar10"]
    rows = np.random.default_rng(0).integers(0, 256, (20, 3072), dtype=np.uint8)
    for name, _ in original.train_list + original.test_list:
        (folder / name).write_bytes(pickle.dumps({"data": rows, "labels": [row % 10 for row in range(20)]}))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": [f"name {label}" for label in range(10)]}))
    # The stand-in files cannot have the published checksums.
    monkeypatch.setattr(torchvision.datasets.cifar, "check_integrity", lambda path, _: Path(path).is_file())
    data = load("cifar10", root=tmp_path)
    assert (len(data.train), len(data.test)) == (100, 20)
    assert np.array_equal(data.test.pixels[3, :, :, 1], rows[3].reshape(3, 32, 32)[1])
    assert data.test.labels[3] == 3 and data.class_names[3] == "name 3"


@pytest.mark.parametrize(
    ("typed", "nearest"),
    [("cfar10", "cifar10"), ("CIFAR-100", "cifar100"), ("digit", "digits"), ("mnist", "fashion-mnist")],
)
def test_an_unknown_name_gets_the_nearest_and_the_list(typed: str, nearest: str) -> None:
    with pytest.raises(DataError) as raised:
        load(typed)
    assert f"--data {typed}: no such data set" in str(raised.value)
    assert f"Did you mean {nearest}?" in str(raised.value)
    assert all(name in str(raised.value) for name in DATASETS)


def test_a_missing_path_gets_no_far_fetched_guess() -> None:
    with pytest.raises(DataError, match=r"^--data \./photos/2026: no such data set, folder or \.npz file\. Data sets"):
        load("./photos/2026")


def test_a_file_that_is_no_archive(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("1,2")
    with pytest.raises(DataError, match="a file of unknown kind; expected a name, a folder of images or an"):
        load(str(path))


def test_root_comes_from_the_environment_else_the_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[Path] = []

    def remember(root: Path) -> ImageData:
        asked.append(root)
        return load("synthetic", root=root)

    monkeypatch.setitem(DATASETS, "mine", remember)
    monkeypatch.setenv("CDARTS_DATA", str(tmp_path))
    load("mine")
    load("mine", root=tmp_path / "given")
    monkeypatch.delenv("CDARTS_DATA")
    load("mine")
    assert asked == [tmp_path, tmp_path / "given", Path.home() / ".cache" / "cdarts"]


def test_image_size_applies_to_named_sets() -> None:
    data = load("digits", image_size=16)
    assert data.side == 16
    assert data.augmentation == Augmentation(crop_padding=2, flip=False)
    assert load("digits", image_size=8).fingerprint() == load("digits").fingerprint()


def test_image_size_is_checked_at_the_door() -> None:
    with pytest.raises(ConfigurationError, match="--image-size 4: expected at least 8"):
        load("digits", image_size=4)
