"""Archives: what loads, and one exact complaint for everything that does not."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cdarts.data import load
from cdarts.errors import DataError


def arrays() -> dict[str, np.ndarray]:
    """Real digits as a valid archive's content: 300 training and 100 test images."""
    digits = load("digits")
    return {
        "x_train": digits.train.pixels[:300],
        "y_train": digits.train.labels[:300],
        "x_test": digits.test.pixels[:100],
        "y_test": digits.test.labels[:100],
    }


def saved(folder: Path, content: dict[str, Any]) -> str:
    path = folder / "mine.npz"
    np.savez(path, **content)
    return str(path)


def test_a_whole_archive(tmp_path: Path) -> None:
    content = arrays()
    names = np.array([f"digit {label}" for label in range(10)])
    data = load(saved(tmp_path, content | {"class_names": names, "train_index": np.arange(300)}))
    assert data.name == "mine"
    assert np.array_equal(data.train.pixels, content["x_train"])
    assert np.array_equal(data.test.labels, content["y_test"])
    assert data.class_names == tuple(names.tolist())
    assert (data.side, data.channels, data.num_classes) == (8, 1, 10)
    assert data.augmentation.flip and data.augmentation.crop_padding == 1


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.uint64, np.int64])
def test_labels_of_any_integer_type_and_images_without_a_channel_axis(tmp_path: Path, dtype: type) -> None:
    content = arrays()
    content |= {name: content[name][..., 0] for name in ("x_train", "x_test")}
    content |= {name: content[name].astype(dtype) for name in ("y_train", "y_test")}
    data = load(saved(tmp_path, content))
    assert data.train.pixels.shape == (300, 8, 8, 1)
    assert data.train.labels.dtype == np.int64
    assert data.class_names == tuple("0123456789")


def test_without_a_test_part_the_same_fifth_is_held_out_each_time(tmp_path: Path) -> None:
    content = {name: value for name, value in arrays().items() if name.endswith("train")}
    path = saved(tmp_path, content)
    data = load(path)
    assert (len(data.train), len(data.test)) == (240, 60)
    assert load(path).fingerprint() == data.fingerprint()


def test_image_size_resizes(tmp_path: Path) -> None:
    assert load(saved(tmp_path, arrays()), image_size=16).train.pixels.shape == (300, 16, 16, 1)


def changed(name: str, value: object) -> dict[str, Any]:
    return arrays() | {name: value}


def relabelled(old: int, new: int, name: str = "y_train") -> dict[str, Any]:
    labels = arrays()[name].copy()
    labels[labels == old] = new
    return changed(name, labels)


def without(*names: str) -> dict[str, Any]:
    return {name: value for name, value in arrays().items() if name not in names}


BLANK = np.zeros((300, 8, 8, 1), dtype=np.uint8)

DEFECTS: dict[str, tuple[dict[str, Any], str]] = {
    "no x_train": (without("x_train"), "x_train is missing; found y_train, x_test, y_test"),
    "no y_train": (without("y_train"), "y_train is missing; found x_train"),
    "no y_test": (without("y_test"), "y_test is missing; found"),
    "no x_test": (without("x_test"), "x_test is missing; found"),
    "nothing": ({}, "x_train is missing; found nothing"),
    "float pixels": (changed("x_train", BLANK / 255), "x_train: found float64 (300, 8, 8, 1); expected uint8"),
    "signed pixels": (changed("x_train", BLANK.astype(np.int8)), "x_train: found int8"),
    "flat": (changed("x_train", BLANK.reshape(300, 64)), "x_train: found uint8 (300, 64); expected uint8 (N, side,"),
    "channels first": (changed("x_train", np.zeros((300, 3, 8, 8), np.uint8)), "channels last: transpose(0, 2, 3, 1)"),
    "two channels": (changed("x_train", np.zeros((300, 8, 8, 2), np.uint8)), "found uint8 (300, 8, 8, 2); expected"),
    "empty": (changed("x_train", BLANK[:0]), "x_train: found uint8 (0, 8, 8, 1); expected at least one image"),
    "oblong": (changed("x_train", np.zeros((300, 8, 12), np.uint8)), "images are 8x12; expected square ones"),
    "tiny": (changed("x_train", np.zeros((300, 6, 6), np.uint8)), "images are 6x6; at least 8x8"),
    "float labels": (changed("y_train", np.zeros(300)), "y_train: found float64 (300,); expected integers (300,)"),
    "boolean labels": (changed("y_train", np.zeros(300, bool)), "y_train: found bool (300,); expected integers"),
    "one-hot labels": (changed("y_train", np.eye(300, dtype=int)), "found int64 (300, 300); expected integers (300,)"),
    "too few labels": (
        changed("y_train", np.arange(299) % 10),
        "y_train: found int64 (299,); expected integers (300,)",
    ),
    "negative label": (relabelled(0, -1), "y_train: found label -1; expected classes counted from 0"),
    "labels from 1": (
        changed("y_train", np.arange(300) % 10 + 1),
        "y_train: no image of class 0; expected every class",
    ),
    "gap": (relabelled(4, 5), "y_train: no image of class 4; expected every class of 0 to 9"),
    "huge label": (changed("y_train", np.full(300, 2**40)), "no image of class 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 10995"),
    "one class": (changed("y_train", np.zeros(300, int)), "y_train: found a single class; expected at least 2"),
    "strange test label": (relabelled(3, 10, "y_test"), "y_test: found label 10; expected 0 to 9"),
    "other test size": (changed("x_test", np.zeros((100, 16, 16, 1), np.uint8)), "x_test: found images (16, 16, 1);"),
    "other test channels": (changed("x_test", np.zeros((100, 8, 8, 3), np.uint8)), "expected (8, 8, 1), as in x_train"),
    "few names": (changed("class_names", np.array(["a", "b"])), "found label 9; expected 0 to 1, as class_names has 2"),
    "many names": (changed("class_names", np.array(list("abcdefghijk"))), "no image of class 10 (k)"),
    "numbers as names": (changed("class_names", np.arange(10)), "class_names: found int64 (10,); expected a one-"),
    "pickled labels": (changed("y_train", np.array([object()] * 300)), "y_train: cannot be read"),
    "single image of a class": (
        {"x_train": BLANK[:5], "y_train": np.array([0, 0, 0, 0, 1])},
        "fewer than 2 images in class '1'",
    ),
}


@pytest.mark.parametrize("defect", DEFECTS)
def test_each_defect_is_named(tmp_path: Path, defect: str) -> None:
    content, complaint = DEFECTS[defect]
    path = saved(tmp_path, content)
    with pytest.raises(DataError, match=re.escape(complaint)) as raised:
        load(path)
    assert str(raised.value).startswith(path)


@pytest.mark.parametrize("kept", [0, 10, 500, 5000])
def test_a_truncated_archive(tmp_path: Path, kept: int) -> None:
    path = Path(saved(tmp_path, arrays()))
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(DataError, match=r"not a readable \.npz archive"):
        load(str(path))


def test_a_damaged_member(tmp_path: Path) -> None:
    path = Path(saved(tmp_path, arrays()))
    content = bytearray(path.read_bytes())
    content[2000] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(DataError, match="x_train: cannot be read"):
        load(str(path))


def test_a_single_array_in_disguise(tmp_path: Path) -> None:
    path = tmp_path / "single.npz"
    with path.open("wb") as file:
        np.save(file, BLANK)
    with pytest.raises(DataError, match="a single array; expected an archive"):
        load(str(path))
