"""`cdarts predict`: classes of image files."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from cdarts.commands import predict
from cdarts.data import evaluation_batches, load
from cdarts.model import load_model
from cdarts.retraining.task import evaluate

Call = Callable[..., Any]
NUMBER = 30


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first test digits as grey PNG files, ``<position>.png``."""
    folder = tmp_path_factory.mktemp("images")
    for position, pixels in enumerate(load("digits").test.pixels[:NUMBER, ..., 0]):
        Image.fromarray(pixels).save(folder / f"{position:03}.png")
    return folder


@pytest.fixture(scope="module")
def expected(trained: Path) -> list[str]:
    """What the model answers on the test split itself."""
    card, network = load_model(trained)
    data = load("digits")
    scores = evaluate(network, evaluation_batches(data.test, card.normalising(data), 250, torch.device("cpu")))
    return [card.class_names[index] for index in scores.predictions[:NUMBER].tolist()]


def test_the_labels_of_real_digits(trained: Path, images: Path, call: Call, expected: list[str]) -> None:
    result = call("predict", trained, images, "--json")
    assert result.code == 0
    answers = [json.loads(line) for line in result.out.splitlines()]
    assert [answer["image"] for answer in answers] == [str(images / f"{position:03}.png") for position in range(NUMBER)]
    assert [answer["class"] for answer in answers] == expected
    labels = load("digits").test.labels[:NUMBER]
    assert np.mean([answer["class"] == str(label) for answer, label in zip(answers, labels, strict=True)]) >= 0.8
    for answer in answers:
        probabilities = list(answer["probabilities"].values())
        assert len(probabilities) == 3
        assert probabilities == sorted(probabilities, reverse=True)
        assert 0 < sum(probabilities) <= 1.0001


def test_in_text(trained: Path, images: Path, call: Call, expected: list[str]) -> None:
    first, second = images / "000.png", images / "001.png"
    result = call("predict", trained, second, first, "--top", "2")
    assert result.code == 0
    lines = [line.split() for line in result.out.splitlines()]
    assert [line[:2] for line in lines] == [[str(second), expected[1]], [str(first), expected[0]]]
    assert [len(line) for line in lines] == [5, 5]


def test_all_classes_add_up_to_one(trained: Path, images: Path, call: Call) -> None:
    result = call("predict", trained, images / "000.png", "--top", "99", "--json")
    probabilities = json.loads(result.out)["probabilities"]
    assert set(probabilities) == {str(digit) for digit in range(10)}
    assert sum(probabilities.values()) == pytest.approx(1.0, abs=1e-5)


def test_a_photograph_of_another_size_and_colour(trained: Path, call: Call, tmp_path: Path) -> None:
    Image.new("RGB", (40, 30), (200, 10, 10)).save(tmp_path / "red.jpg")
    assert call("predict", trained, tmp_path / "red.jpg").code == 0


def test_images_that_are_none(trained: Path, call: Call, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no image")
    result = call("predict", trained, tmp_path / "broken.png")
    assert result.code == 3
    assert "broken.png: cannot be read as an image" in result.error()
    result = call("predict", trained, tmp_path / "absent.png")
    assert result.code == 3
    assert result.error() == f"{tmp_path / 'absent.png'}: no such file or folder"
    (tmp_path / "empty").mkdir()
    result = call("predict", trained, tmp_path / "empty")
    assert result.code == 3
    assert "no images given" in result.error()


def test_a_run_without_a_model(call: Call, images: Path, tmp_path: Path) -> None:
    result = call("predict", tmp_path, images)
    assert result.code == 4
    assert "model.json is missing" in result.error()


def test_one_broken_image_among_others(trained: Path, images: Path, call: Call, tmp_path: Path) -> None:
    for name in ("a.png", "c.png"):
        (tmp_path / name).write_bytes((images / "000.png").read_bytes())
    (tmp_path / "b.png").write_bytes(b"no image")
    result = call("predict", trained, tmp_path, "--threads", "1")
    assert result.code == 3
    assert "b.png: cannot be read as an image" in result.error()
    assert [line.split()[0] for line in result.out.splitlines()] == [str(tmp_path / "a.png"), str(tmp_path / "c.png")]
    result = call("predict", trained, tmp_path / "absent.png", tmp_path / "a.png", "--threads", "1")
    assert result.code == 3
    assert result.error() == f"{tmp_path / 'absent.png'}: no such file or folder"
    assert result.out.startswith(f"{tmp_path / 'a.png'} "), "the others are answered all the same"


def test_class_folders_and_more_than_one_chunk(
    trained: Path, images: Path, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, expected: list[str]
) -> None:
    monkeypatch.setattr(predict, "CHUNK", 7)
    for position in range(NUMBER):
        folder = tmp_path / ("one" if position < 10 else "two")
        folder.mkdir(exist_ok=True)
        (folder / f"{position:03}.png").write_bytes((images / f"{position:03}.png").read_bytes())
    result = call("predict", trained, tmp_path, "--json")
    assert result.code == 0
    assert [json.loads(line)["class"] for line in result.out.splitlines()] == expected


def test_no_classes_at_all(trained: Path, images: Path, call: Call) -> None:
    result = call("predict", trained, images, "--top", "0")
    assert result.code == 2
    assert result.error() == "--top 0: must be at least 1"


# -- arrays ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    """The first test digits, uint8 (N, 8, 8, 1)."""
    return load("digits").test.pixels[:NUMBER]


def answers(result: Any) -> list[str]:
    assert result.code == 0, result.err
    return [json.loads(line)["class"] for line in result.out.splitlines()]


def test_arrays_are_classed_as_the_images_they_hold(
    trained: Path, pixels: np.ndarray, call: Call, tmp_path: Path, expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predict, "CHUNK", 7)
    np.save(tmp_path / "bytes.npy", pixels)
    np.save(tmp_path / "floats.npy", pixels.transpose(0, 3, 1, 2).astype(np.float32) / 255)
    np.savez(tmp_path / "one.npz", anything=pixels)
    np.savez(tmp_path / "several.npz", y_test=np.zeros(3), x_test=pixels, x_train=pixels[::-1])
    for name in ("bytes.npy", "floats.npy", "one.npz", "several.npz"):
        assert answers(call("predict", trained, tmp_path / name, "--json")) == expected
    result = call("predict", trained, tmp_path / "bytes.npy", tmp_path / "bytes.npy", "--json")
    assert answers(result) == expected * 2
    names = [json.loads(line)["image"] for line in result.out.splitlines()]
    assert names == [f"{tmp_path / 'bytes.npy'}[{position}]" for position in range(NUMBER)] * 2


def test_arrays_of_another_size_are_resized_like_image_files(trained: Path, call: Call, tmp_path: Path) -> None:
    large = np.random.default_rng(0).integers(0, 256, (3, 20, 30, 3), dtype=np.uint8)
    np.save(tmp_path / "large.npy", large)
    for position, picture in enumerate(large):
        Image.fromarray(picture).save(tmp_path / f"{position}.png")
    files = [tmp_path / f"{position}.png" for position in range(3)]
    from_files = [json.loads(line) for line in call("predict", trained, *files, "--json").out.splitlines()]
    from_array = [
        json.loads(line) for line in call("predict", trained, tmp_path / "large.npy", "--json").out.splitlines()
    ]
    assert [answer["probabilities"] for answer in from_array] == [answer["probabilities"] for answer in from_files]


@pytest.mark.parametrize(
    ("array", "complaint"),
    [
        (np.zeros((2, 8, 8), dtype=np.uint8), r"found uint8 \(2, 8, 8\); expected uint8 \(N, H, W, C\)"),
        (np.zeros((2, 8, 8, 1)), "found float64"),
        (np.zeros((2, 3, 8, 8), dtype=np.uint8), r"channels last: transpose\(0, 2, 3, 1\)"),
        (np.zeros((0, 8, 8, 1), dtype=np.uint8), "at least one image"),
        (np.zeros((2, 1, 9, 9), dtype=np.float32), r"taken as they are: \(N, 1, 8, 8\)"),
        (np.full((2, 1, 8, 8), 255, dtype=np.float32), "values from 255 to 255; .* divide by 255"),
        (np.full((2, 1, 8, 8), np.nan, dtype=np.float32), "no numbers or infinite"),
        (np.array([{"a": 1}], dtype=object), "not a readable NumPy file"),
    ],
)
def test_arrays_that_are_no_images(
    trained: Path, call: Call, tmp_path: Path, array: np.ndarray, complaint: str
) -> None:
    np.save(tmp_path / "array.npy", array, allow_pickle=True)
    result = call("predict", trained, tmp_path / "array.npy")
    assert result.code == 3
    assert re.search(complaint, result.error())
    assert result.error().startswith(str(tmp_path / "array.npy"))


def test_archives_that_name_no_images(trained: Path, call: Call, tmp_path: Path, pixels: np.ndarray) -> None:
    np.savez(tmp_path / "several.npz", a=pixels, b=pixels)
    result = call("predict", trained, tmp_path / "several.npz")
    assert "holds a, b; call the array of images images or x_test or x" in result.error()
    (tmp_path / "broken.npy").write_bytes(b"nothing")
    assert "not a readable NumPy file" in call("predict", trained, tmp_path / "broken.npy").error()
