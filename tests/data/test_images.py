"""Statistics, held-out fifths, balanced halves, resizing and fingerprints."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torchvision.transforms.v2.functional as reference
from hypothesis import given, settings
from hypothesis import strategies as st

from cdarts.data import Augmentation, Images, balanced_halves, load
from cdarts.data.images import channel_statistics, held_out_fifth, resized
from cdarts.errors import ConfigurationError, DataError


def numbered(counts: list[int]) -> Images:
    """One-channel 8x8 images, ``counts[k]`` of class k, each filled with its own position (below 65,536)."""
    labels = np.repeat(np.arange(len(counts), dtype=np.int64), counts)
    pixels = np.zeros((len(labels), 8, 8, 1), dtype=np.uint8)
    pixels[:, 0, 0, 0], pixels[:, 0, 1, 0] = np.divmod(np.arange(len(labels)), 256)
    return Images(pixels, labels)


def names_of(counts: list[int]) -> tuple[str, ...]:
    return tuple(f"class {label}" for label in range(len(counts)))


def positions(images: Images) -> list[int]:
    return [int(high) * 256 + int(low) for high, low in images.pixels[:, 0, :2, 0]]


def test_take_keeps_pixels_and_labels_together() -> None:
    images = numbered([3, 4])
    taken = images.take(np.array([6, 0, 3]))
    assert positions(taken) == [6, 0, 3]
    assert taken.labels.tolist() == [1, 0, 1]
    assert len(taken) == 3


@given(counts=st.lists(st.integers(2, 9), min_size=1, max_size=12), seed=st.integers(0, 2**31))
@settings(max_examples=60, deadline=None)
def test_halves_partition_the_images_and_balance_each_class_and_the_total(counts: list[int], seed: int) -> None:
    images = numbered(counts)
    first, second = balanced_halves(images, names_of(counts), seed)
    assert sorted(positions(first) + positions(second)) == list(range(len(images)))
    assert abs(len(first) - len(second)) <= 1
    for label, count in enumerate(counts):
        in_first, in_second = (int((half.labels == label).sum()) for half in (first, second))
        assert in_first + in_second == count
        assert abs(in_first - in_second) <= 1


def test_halves_depend_on_the_seed_alone() -> None:
    data = load("digits")
    once, again, other = (balanced_halves(data.train, data.class_names, seed)[0].pixels for seed in (3, 3, 4))
    assert np.array_equal(once, again)
    assert not np.array_equal(once, other)


def test_halves_are_random_within_a_class() -> None:
    images = numbered([100, 100])
    first_halves = [set(positions(balanced_halves(images, ("a", "b"), seed)[0])) for seed in range(40)]
    frequency = np.array([sum(position in half for half in first_halves) for position in range(200)]) / 40
    assert all(
        {position + 100 for position in half if position < 100} != half - set(range(100)) for half in first_halves
    )
    # Mean 1/2; a standard deviation of 0.079 each, so 0.1 and 0.9 are five of them away.
    assert frequency.min() > 0.1 and frequency.max() < 0.9


@pytest.mark.parametrize(("counts", "named"), [([4, 1, 4], "dog"), ([1, 0, 1], "cat, cow")])
def test_halves_name_the_classes_with_one_image(counts: list[int], named: str) -> None:
    with pytest.raises(DataError, match=f"^class {named} has only 1 training image"):
        balanced_halves(numbered(counts), ("cat", "dog", "cow"), 0)


@given(counts=st.lists(st.integers(2, 12), min_size=2, max_size=15))
@settings(max_examples=60, deadline=None)
def test_held_out_fifth_is_a_partition_that_leaves_every_class_in_train(counts: list[int]) -> None:
    images = numbered(counts)
    names = tuple(str(label) for label in range(len(counts)))
    train, test = held_out_fifth(images, names, "here")
    assert sorted(positions(train) + positions(test)) == list(range(len(images)))
    assert len(test) == max(-(-len(images) // 5), len(counts))
    assert set(train.labels.tolist()) == set(range(len(counts)))


def test_held_out_fifth_is_stratified() -> None:
    _, test = held_out_fifth(numbered([50, 100, 200]), ("a", "b", "c"), "here")
    assert np.bincount(test.labels).tolist() == [10, 20, 40]


def test_held_out_fifth_names_the_class_that_is_too_small() -> None:
    with pytest.raises(DataError, match=r"there: fewer than 2 images in class 'dog'"):
        held_out_fifth(numbered([5, 1]), ("cat", "dog"), "there")


def test_statistics_equal_those_of_floating_point() -> None:
    digits = load("digits").train
    scaled = digits.pixels.astype(np.float64) / 255
    mean, std = channel_statistics(digits)
    assert mean == pytest.approx([scaled.mean()], rel=1e-12)
    assert std == pytest.approx([scaled.std()], rel=1e-9)


def test_statistics_of_a_constant_channel_can_be_divided_by() -> None:
    pixels = np.zeros((4, 8, 8, 3), dtype=np.uint8)
    pixels[..., 0] = 200
    mean, std = channel_statistics(Images(pixels, np.zeros(4, dtype=np.int64)))
    assert mean == pytest.approx((200 / 255, 0, 0))
    assert min(std) > 0


def test_fingerprint_changes_with_a_pixel_a_label_and_a_class_name() -> None:
    data = load("synthetic")
    train = data.train
    pixels, labels = train.pixels.copy(), data.test.labels.copy()
    pixels[5, 3, 3, 1] ^= 1
    labels[7] = (labels[7] + 1) % 4
    variants = [
        data,
        replace(data, train=Images(pixels, train.labels)),
        replace(data, test=Images(data.test.pixels, labels)),
        replace(data, class_names=("rows", "columns", "checks", "disk")),
    ]
    assert len({variant.fingerprint() for variant in variants}) == len(variants)
    assert load("synthetic").fingerprint() == data.fingerprint()


def test_fingerprint_ignores_how_the_arrays_lie_in_memory() -> None:
    data = load("synthetic")
    turned = np.asfortranarray(data.train.pixels)
    assert replace(data, train=Images(turned, data.train.labels)).fingerprint() == data.fingerprint()


@pytest.mark.parametrize("side", [12, 20])
def test_resizing_equals_torchvision(side: int) -> None:
    data = load("digits")
    smaller = resized(data, side)
    expected = reference.resize(
        torch.tensor(data.test.pixels).permute(0, 3, 1, 2), [side, side], antialias=True
    ).permute(0, 2, 3, 1)
    # One level of difference: torchvision rounds between its two passes.
    assert np.abs(smaller.test.pixels.astype(int) - expected.numpy().astype(int)).max() <= 1
    assert smaller.test.labels is data.test.labels
    assert (smaller.side, smaller.channels, smaller.num_classes) == (side, 1, 10)


def test_resizing_scales_the_crop_and_keeps_the_rest_of_the_augmentation() -> None:
    data = replace(load("digits"), augmentation=Augmentation(crop_padding=1, flip=False, cutout=3))
    assert resized(data, 32).augmentation == Augmentation(crop_padding=4, flip=False, cutout=3)


@pytest.mark.parametrize("field", ["crop_padding", "cutout"])
def test_augmentation_refuses_negative_pixels(field: str) -> None:
    with pytest.raises(ConfigurationError, match="-1: expected a number of pixels"):
        Augmentation(**{field: -1})
