"""Images that stay in their files: the same as in memory, whoever reads them, and skipped without being read."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from cdarts.data import Augmentation, Batch, Batches, ImageData, balanced_halves, evaluation_batches, idle, load
from cdarts.data import files as files_module
from cdarts.data.crops import resized_crop
from cdarts.data.decoding import decode_crop
from cdarts.data.files import ImageFiles
from cdarts.data.folder import glance, load_folder
from cdarts.errors import ConfigurationError, DataError

CPU = torch.device("cpu")
JITTER = (0.4, 0.4, 0.4, 0.2)
AUGMENTATIONS = {
    "none": Augmentation(),
    "padded": Augmentation(crop_padding=3, flip=True, cutout=4),
    "window": Augmentation(flip=True, least_area=0.25),
    "all": Augmentation(flip=True, least_area=0.08, jitter=JITTER, cutout=4),
}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory, write_photos: Callable[..., None]) -> Path:
    """Forty enlarged digits of two classes, in colour and in grey, with sides of 20 to 90 pixels."""
    digits = load("digits").train
    chosen = np.concatenate([np.flatnonzero(digits.labels == label)[:20] for label in range(2)])
    folder = tmp_path_factory.mktemp("files") / "photos"
    pixels = digits.pixels[chosen].repeat(3, axis=3)
    write_photos(folder, pixels, digits.labels[chosen], ("nought", "one"), sides=(20, 90))
    return folder


def batches_of(data: ImageData, augmentation: Augmentation | None = None, batch_size: int = 8) -> Batches:
    return Batches(
        data.train, data, batch_size=batch_size, seed=3, stream="train", augmentation=augmentation, device=CPU
    )


def in_files(path: Path, workers: int, side: int = 24) -> ImageData:
    data = load(str(path), image_size=side, keep="files", workers=workers)
    assert isinstance(data.train, ImageFiles)
    return data


def equal(one: list[Batch], other: list[Batch]) -> bool:
    return len(one) == len(other) and all(
        torch.equal(mine, theirs) for pair in zip(one, other, strict=True) for mine, theirs in zip(*pair, strict=True)
    )


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_any_number_of_workers_gives_the_same_batches(photos: Path, name: str) -> None:
    found = [list(batches_of(in_files(photos, workers), AUGMENTATIONS[name])(2)) for workers in (0, 1, 2, 5)]
    assert len(found[0]) == 4
    assert all(equal(found[0], other) for other in found[1:])


@pytest.mark.parametrize("name", ["none", "padded"])
def test_files_and_memory_give_the_same_batches(photos: Path, name: str) -> None:
    memory, files = load(str(photos), image_size=24), in_files(photos, 2)
    assert (memory.class_names, memory.channels) == (files.class_names, files.channels)
    assert (memory.mean, memory.std) == (files.mean, files.std)
    assert equal(*(list(batches_of(data, AUGMENTATIONS[name])(0)) for data in (memory, files)))
    tested = [list(evaluation_batches(data.test, data, 3, CPU)) for data in (memory, files)]
    assert equal(*tested)
    halves = [balanced_halves(data.train, data.class_names, 0)[0] for data in (memory, files)]
    assert np.array_equal(*(half.pixels_of(np.arange(len(half))) for half in halves))


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_an_image_depends_on_neither_batch_size_nor_order_of_epochs(photos: Path, name: str) -> None:
    small, large = (batches_of(in_files(photos, 2), AUGMENTATIONS[name], size) for size in (4, 16))
    list(large(0))
    for epoch in (5, 1):
        one, other = (torch.cat([batch.images for batch in batches(epoch)]) for batches in (small, large))
        assert torch.equal(one, other)


def test_epochs_seeds_and_places_of_the_window_differ(photos: Path) -> None:
    batches = batches_of(in_files(photos, 0), AUGMENTATIONS["window"], 32)

    def by_position(epoch: int) -> Tensor:
        (batch,) = batches(epoch)
        order = torch.tensor(np.argsort(batches._draws(epoch, batches._order(epoch)).positions.numpy()))
        return batch.images[order]

    assert torch.equal(by_position(0), by_position(0))
    assert not torch.equal(by_position(0), by_position(1))


@pytest.mark.parametrize("workers", [0, 2])
def test_what_is_skipped_is_not_read_and_changes_nothing(
    photos: Path, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = batches_of(in_files(photos, workers), AUGMENTATIONS["all"], 4)
    whole = list(batches(1))
    read: list[Path] = []
    decode = files_module.decode_crop
    monkeypatch.setattr(
        files_module, "decode_crop", lambda path, *a, **k: (read.append(path), decode(path, *a, **k))[1]
    )
    going_on = batches(1)
    with idle(batches):
        for empty in islice(going_on, 5):
            assert empty.images.shape == (0, 3, 24, 24)
    assert not read
    assert equal(list(going_on), whole[5:])
    assert len(read) == 4 * 3, "no image twice"


@pytest.mark.parametrize("keep", ["memory", "files"])
def test_an_iterator_that_is_left_early_leaves_the_next_one_whole(photos: Path, keep: str) -> None:
    data = load(str(photos), image_size=24, keep=keep, workers=2)  # type: ignore[arg-type]
    batches = batches_of(data, AUGMENTATIONS["window"], 4)
    whole = list(batches(0))
    left = batches(0)
    next(left)
    left.close()
    assert equal(list(batches(0)), whole)


def test_only_what_is_too_large_stays_in_files(photos: Path) -> None:
    pixels = 40 * 24 * 24 * 3
    assert isinstance(load_folder(photos, 24, most_bytes=pixels - 1).train, ImageFiles)
    assert not isinstance(load_folder(photos, 24, most_bytes=pixels).train, ImageFiles)


def test_the_window_of_a_jpeg_on_its_side_is_that_of_the_upright_image(tmp_path: Path) -> None:
    upright = Image.effect_mandelbrot((400, 200), (-2, -1, 1, 1), 60).convert("RGB")
    lying = upright.transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by 90 degrees clockwise
    for name, image, arguments in (("plain", upright, {}), ("turned", lying, {"exif": exif})):
        for label in ("a", "b"):
            (tmp_path / name / label).mkdir(parents=True, exist_ok=True)
            for number in range(4):
                image.save(tmp_path / name / label / f"{number}.jpg", quality=100, subsampling=0, **arguments)
    plain, turned = (
        torch.cat(
            [batch.images for batch in batches_of(in_files(tmp_path / name, 0, 32), AUGMENTATIONS["window"], 2)(0)]
        )
        for name in ("plain", "turned")
    )
    torch.testing.assert_close(plain, turned, atol=0.15, rtol=0)


def test_a_large_jpeg_is_decoded_small_only_as_far_as_the_window_allows(tmp_path: Path) -> None:
    photo = Image.effect_mandelbrot((1600, 1200), (-2, -1.5, 1, 1.5), 80).convert("RGB")
    photo.save(tmp_path / "photo.jpg", quality=95)
    for draws in np.random.default_rng(0).random((10, 4)):
        small = decode_crop(tmp_path / "photo.jpg", 48, 3, draws=draws, least_area=0.08).astype(int)
        with Image.open(tmp_path / "photo.jpg") as file:
            left, top, width, height = (float(x) for x in resized_crop(1600, 1200, draws, 0.08))
            box = (left, top, left + width, top + height)
            whole = np.asarray(file.resize((48, 48), Image.Resampling.BILINEAR, box=box)).astype(int)
        assert np.abs(small - whole).mean() < 3


def test_a_file_that_is_damaged_behind_its_header_is_named_when_it_is_met(photos: Path, tmp_path: Path) -> None:
    shutil.copytree(photos, tmp_path / "photos")
    data = in_files(tmp_path / "photos", 2)
    assert isinstance(data.train, ImageFiles)
    victim = next(data.train.path(i) for i in range(len(data.train)) if data.train.path(i).suffix == ".jpg")
    victim.write_bytes(victim.read_bytes()[:400])
    with pytest.raises(DataError, match=r"cannot be read as an image \(.*\); put it right and go on") as raised:
        list(batches_of(data)(0))
    assert str(victim) in str(raised.value)


def test_the_fingerprint_knows_names_lengths_and_labels(photos: Path, tmp_path: Path) -> None:
    shutil.copytree(photos, tmp_path / "photos")
    data = in_files(tmp_path / "photos", 0)
    first = data.fingerprint()
    assert in_files(tmp_path / "photos", 2).fingerprint() == first == in_files(photos, 0).fingerprint()
    assert in_files(photos, 0, side=32).fingerprint() != first
    assert replace(data, train=data.train.relabelled(1 - data.train.labels)).fingerprint() != first
    assert isinstance(data.train, ImageFiles)
    with data.train.path(0).open("ab") as file:
        file.write(b"\0")
    assert in_files(tmp_path / "photos", 0).fingerprint() != first


def test_workers_are_checked_at_the_door(photos: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"^--workers -1: must be at least 0"):
        load(str(photos), workers=-1)


def test_a_glance_tells_number_and_size(photos: Path) -> None:
    seen = glance(photos)
    assert (seen.num_images, seen.channels) == (40, 3)
    assert 30 < seen.median_side < 60
