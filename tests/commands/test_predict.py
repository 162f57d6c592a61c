"""`cdarts predict`: classes of image files."""

import json
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
