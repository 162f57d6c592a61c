"""`cdarts evaluate`: the accuracy of a run, again."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cdarts.data import DATASETS, load
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
    assert "360 images)  loss" in result.out
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


def test_data_that_is_not_what_the_run_was_trained_on(tmp_path: Path, call: Call, few_digits: Path) -> None:
    data, out = tmp_path / "few.npz", tmp_path / "run"
    data.write_bytes(few_digits.read_bytes())
    sizes = ("--cells", "2", "--channels", "2", "--epochs", "1", "--batch-size", "16", "--threads", "1")
    assert call("retrain", "darts-v2", *sizes, "--data", data, "--out", out).code == 0
    with np.load(few_digits) as archive:
        arrays = dict(archive)
    np.savez(data, **(arrays | {"x_train": arrays["x_train"][::-1]}))
    result = call("evaluate", out)
    assert result.code == 3
    assert f"is not what {out} was trained on" in result.error()
    assert call("evaluate", out, "--data", data).code == 0, "a set that is named is the user's choice"


def test_where_downloaded_data_lies(trained: Path, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CDARTS_DATA", raising=False)
    seen = []
    digits = load("digits")
    monkeypatch.setitem(DATASETS, "digits", lambda root: seen.append(root) or digits)
    for data in ((), ("--data", "digits")):
        assert call("evaluate", trained, *data, "--data-root", tmp_path).code == 0
    assert seen == [tmp_path, tmp_path]
