"""`cdarts evaluate`: the accuracy of a run, again."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cdarts.data import load
from cdarts.engine.run_dir import read_json

Call = Callable[..., Any]


@pytest.mark.parametrize("execution", ["share", "plain"])
def test_equals_the_summary_exactly(tmp_path: Path, call: Call, few_digits: Path, execution: str) -> None:
    sizes = ("--cells", "2", "--channels", "4", "--epochs", "2", "--batch-size", "16", "--execution", execution)
    assert (
        call(
            "retrain", "pc-darts-cifar10", *sizes, "--data", few_digits, "--threads", "1", "--out", tmp_path / "run"
        ).code
        == 0
    )
    result = call("evaluate", tmp_path / "run", "--json")
    assert result.code == 0
    answer = json.loads(result.out)
    summary = read_json(tmp_path / "run" / "summary.json")
    assert answer["accuracy"] == summary["test_accuracy"]
    last = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    assert answer["loss"] == last["test_loss"]
    assert (answer["data"], answer["images"]) == ("few", 20)


def test_on_real_digits(trained: Path, call: Call) -> None:
    summary = read_json(trained / "summary.json")
    result = call("evaluate", trained)
    assert result.code == 0
    assert result.out.splitlines()[0].startswith("cdarts ")
    assert f"test    accuracy {summary['test_accuracy']:.4f}" in result.out
    assert "on 360 images of digits" in result.out
    assert json.loads(call("evaluate", trained, "--json").out)["accuracy"] == summary["test_accuracy"]


def test_on_other_data_of_the_same_classes(trained: Path, call: Call, tmp_path: Path) -> None:
    for name, side in (("same", 8), ("larger", 16)):
        digits = load("digits", image_size=side)
        np.savez(
            tmp_path / f"{name}.npz",
            x_train=digits.train.pixels[:100],
            y_train=digits.train.labels[:100],
            # in another order, and normalised as the model was trained, not by these few training images
            x_test=digits.test.pixels[::-1],
            y_test=digits.test.labels[::-1],
        )
    same, larger = (
        json.loads(call("evaluate", trained, "--data", tmp_path / f"{name}.npz", "--json").out)
        for name in ("same", "larger")
    )
    assert (same["images"], larger["images"]) == (360, 360)
    assert same["accuracy"] == read_json(trained / "summary.json")["test_accuracy"]
    assert larger["accuracy"] > 0.3, "brought to the model's side, blurred"


def test_other_classes_are_refused(trained: Path, call: Call) -> None:
    result = call("evaluate", trained, "--data", "synthetic")
    assert result.code == 2
    assert result.error() == (
        "synthetic has 3 channels and 4 classes (rows, columns, checks, disc); "
        "the model was trained on 1 channels and 10 classes (0, 1, 2, 3, 4, ...)"
    )


def test_what_holds_no_model(tmp_path: Path, call: Call) -> None:
    result = call("evaluate", tmp_path / "absent")
    assert result.code == 2
    assert "there is no such folder" in result.error()
    assert call("evaluate", tmp_path, "--data", "digits").code == 4


def test_a_damaged_model(trained: Path, call: Call, tmp_path: Path) -> None:
    for name in ("config.json", "model.json"):
        (tmp_path / name).write_bytes((trained / name).read_bytes())
    data = bytearray((trained / "model.safetensors").read_bytes())
    data[-100] ^= 1
    (tmp_path / "model.safetensors").write_bytes(data)
    result = call("evaluate", tmp_path)
    assert result.code == 4
    assert "damaged" in result.error()
