"""Whatever is wrong with what a user gives: one clear error, its exit code, and nothing half-written."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from cdarts import zoo
from cdarts.data import load

Call = Callable[..., Any]

TINY = ("--channels", "2", "--search-cells", "2", "--eval-cells", "2", "--cycles", "1")
COMMANDS: dict[str, tuple[str, ...]] = {
    "search": ("search", "smoke"),
    "retrain": ("retrain", "darts-v2", "--cells", "2", "--channels", "2", "--epochs", "1"),
    "run": ("run", "--budget", "60s"),
}


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "runs" / "new"


def refused(result: Any, code: int, out: Path, *words: str) -> None:
    """One line, the right code, every word in it, and not even a folder left."""
    assert result.code == code, result.err
    error = result.error()
    for word in words:
        assert word in error
    assert "Traceback" not in result.err
    assert not out.exists()


# -- data --------------------------------------------------------------------------------------------------------------


def write_images(folder: Path, classes: dict[str, int]) -> Path:
    """Real digits, so many of each class."""
    digits = load("digits").train
    for label, (name, count) in enumerate(classes.items()):
        (folder / name).mkdir(parents=True)
        for position, pixels in enumerate(digits.pixels[digits.labels == label][:count, ..., 0]):
            Image.fromarray(pixels).save(folder / name / f"{position}.png")
    return folder


def archive(path: Path, **changes: Any) -> Path:
    digits = load("digits").train
    arrays: dict[str, Any] = {"x_train": digits.pixels[:100], "y_train": digits.labels[:100]}
    arrays |= changes
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    return path


@pytest.mark.parametrize("command", COMMANDS)
def test_an_unknown_data_set(call: Call, out: Path, command: str) -> None:
    result = call(*COMMANDS[command], "--data", "cifar11", "--out", out)
    refused(result, 3, out, "--data cifar11", "Did you mean cifar10?")


@pytest.mark.parametrize("command", COMMANDS)
def test_a_folder_with_one_class(call: Call, out: Path, tmp_path: Path, command: str) -> None:
    folder = write_images(tmp_path / "photos", {"cat": 8})
    refused(call(*COMMANDS[command], "--data", folder, "--out", out), 3, out, "only one class folder, 'cat'")


def test_a_class_without_images(call: Call, out: Path, tmp_path: Path) -> None:
    folder = write_images(tmp_path / "photos", {"cat": 8, "dog": 0, "emu": 8})
    refused(
        call(*COMMANDS["search"], "--data", folder, "--out", out), 3, out, "no images directly in class folder 'dog'"
    )


def test_a_class_with_a_single_image(call: Call, out: Path, tmp_path: Path) -> None:
    folder = write_images(tmp_path / "photos", {"cat": 8, "dog": 1})
    refused(call(*COMMANDS["search"], "--data", folder, "--out", out), 3, out, "'dog'", "at least 2")
    few = archive(
        tmp_path / "few.npz",
        x_train=np.zeros((9, 8, 8), np.uint8),
        y_train=np.array([0, 0, 0, 0, 1, 1, 1, 1, 2]),
        x_test=np.zeros((3, 8, 8), np.uint8),
        y_test=np.arange(3),
    )
    result = call(*COMMANDS["search"], *TINY, "--batch-size", "2", "--data", few, "--out", out)
    refused(result, 3, out, "class 2 has only 1 training image", "halves")


def test_an_image_that_cannot_be_read(call: Call, out: Path, tmp_path: Path) -> None:
    folder = write_images(tmp_path / "photos", {"cat": 4, "dog": 4})
    (folder / "dog" / "broken.jpg").write_bytes(b"GIF8 or not")
    result = call(*COMMANDS["retrain"], "--data", folder, "--out", out)
    assert result.code == 3
    assert result.err.startswith(f"error: {folder}: 1 of 9 images cannot be read")
    assert "dog/broken.jpg" in result.err
    assert not out.exists()


def test_images_that_cannot_be_read_are_left_out_and_listed_in_the_run(call: Call, out: Path, tmp_path: Path) -> None:
    folder = write_images(tmp_path / "photos", {"cat": 12, "dog": 12})
    (folder / "dog" / "broken.jpg").write_bytes(b"GIF8 or not")
    (folder / "cat" / "empty.png").touch()
    search = ("search", "smoke", *TINY, "--batch-size", "4", "--pretrain-epochs", "0", "--warmup-epochs", "0")
    result = call(*search, "--data", folder, "--on-bad-image", "skip", "--out", out)
    assert (result.code, result.err) == (0, "")
    said = "data    warning: 2 of 26 images cannot be read and are left out, first cat/empty.png (empty file)"
    assert said in result.out.splitlines()
    listed = json.loads((out / "data-skipped.json").read_text())
    assert listed["cat/empty.png"] == "empty file" and len(listed) == 2
    assert json.loads((out / "environment.json").read_text())["images"]["train"] == {"cat": 9, "dog": 10}
    # its retraining takes the folder and the flag along
    retrain = ("retrain", out, "--cells", "3", "--channels", "2", "--batch-size", "4", "--auxiliary-weight", "0")
    trained = tmp_path / "trained"
    assert call(*retrain, "--epochs", "1", "--out", trained).code == 0
    assert json.loads((trained / "data-skipped.json").read_text()) == listed
    assert call("evaluate", trained).code == 0


def test_a_folder_that_changed_between_stop_and_resume(
    call: Call, out: Path, tmp_path: Path, stop_after: Callable[..., None]
) -> None:
    folder = write_images(tmp_path / "photos", {"cat": 12, "dog": 12})
    genotype = "|nor_conv_1x1~0|+|skip_connect~0|none~1|+|skip_connect~0|none~1|none~2|"
    sizes = ("--cells", "3", "--channels", "2", "--batch-size", "4", "--epochs", "3", "--auxiliary-weight", "0")
    stop_after(1, "new")
    assert call("retrain", genotype, *sizes, "--data", folder, "--out", out).code == 143
    photo = folder / "dog" / "3.png"
    kept = photo.read_bytes()
    photo.unlink()
    result = call("resume", out)
    assert result.code == 3
    assert "train dog 10 images, now" in result.error()
    Image.open(folder / "dog" / "4.png").rotate(180).save(photo)
    assert "as many images of each class" in call("resume", out).error()
    photo.write_bytes(kept)
    assert call("resume", out).code == 0


def test_an_empty_folder(call: Call, out: Path, tmp_path: Path) -> None:
    refused(call(*COMMANDS["search"], "--data", tmp_path, "--out", out), 3, out, "no class folders")


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"x_train": None}, "x_train"),
        ({"y_train": None}, "y_train"),
        ({"x_test": np.zeros((4, 8, 8), np.uint8)}, "y_test is missing"),
        ({"x_train": np.zeros((100, 8, 8, 1), np.float32)}, "float32"),
        ({"x_train": np.zeros((100, 64), np.uint8)}, "(100, 64)"),
        ({"x_train": np.zeros((100, 3, 8, 8), np.uint8)}, "transpose(0, 2, 3, 1)"),
        ({"x_train": np.zeros((100, 8, 9, 1), np.uint8)}, "8, 9"),
        ({"x_train": np.zeros((99, 8, 8, 1), np.uint8)}, "y_train"),
        ({"y_train": np.linspace(0, 1, 100)}, "float64"),
        ({"y_train": np.zeros(100, np.int64)}, "y_train"),
        ({"x_train": np.zeros((100, 4, 4, 1), np.uint8)}, "8"),
    ],
)
def test_an_archive_that_is_wrong(call: Call, out: Path, tmp_path: Path, changes: dict[str, Any], word: str) -> None:
    path = archive(tmp_path / "data.npz", **changes)
    refused(call(*COMMANDS["search"], "--data", path, "--out", out), 3, out, "data.npz", word)


def test_files_that_are_no_archive(call: Call, out: Path, tmp_path: Path) -> None:
    (tmp_path / "data.npz").write_text("x_train, y_train")
    refused(call(*COMMANDS["search"], "--data", tmp_path / "data.npz", "--out", out), 3, out, "not a readable .npz")
    (tmp_path / "data.csv").write_text("1,2")
    refused(call(*COMMANDS["search"], "--data", tmp_path / "data.csv", "--out", out), 3, out, "unknown kind")


def test_too_small_an_image_size(call: Call, out: Path) -> None:
    for size in ("7", "0", "-8"):
        result = call(*COMMANDS["search"], "--image-size", size, "--out", out)
        refused(result, 2, out, f"--image-size {size}", "at least 8")


# -- sizes -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["search", "retrain"])
@pytest.mark.parametrize("channels", ["7", "0", "-2"])
def test_channels_that_do_not_divide(call: Call, out: Path, command: str, channels: str) -> None:
    result = call(*COMMANDS[command], "--channels", channels, "--out", out)
    refused(result, 2, out, f"channels {channels}", "positive even number")


def test_cells_that_are_none(call: Call, out: Path) -> None:
    refused(call(*COMMANDS["retrain"], "--cells", "0", "--out", out), 2, out, "cells 0", "at least 1")
    refused(call("search", "cdarts-paper", "--search-cells", "1", "--out", out), 2, out, "cells 1", "at least 2")


@pytest.mark.parametrize(("command", "limit"), [("search", 128), ("retrain", 256)])
def test_a_batch_larger_than_the_data(call: Call, out: Path, command: str, limit: int) -> None:
    arguments = (*COMMANDS[command], *(TINY if command == "search" else ()), "--data", "synthetic", "--out", out)
    result = call(*arguments, "--batch-size", str(limit + 1))
    refused(result, 2, out, f"--batch-size {limit + 1}", f"at most {limit}")
    refused(call(*arguments, "--batch-size", "1"), 2, out, "--batch-size 1", "at least 2")


def test_training_values_that_cannot_work(call: Call, out: Path) -> None:
    for flag, value in (("--epochs", "0"), ("--lr", "nan"), ("--lr", "-1"), ("--drop-path", "1"), ("--cutout", "-1")):
        result = call("retrain", "darts-v2", flag, value, "--out", out)
        refused(result, 2, out, f"{flag} {value}", "must")


def test_a_device_that_is_not_there(call: Call, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for command in COMMANDS.values():
        result = call(*command, "--device", "cuda", "--out", out)
        refused(result, 2, out, "--device cuda: no CUDA device")


def test_no_threads(call: Call, out: Path) -> None:
    refused(call(*COMMANDS["search"], "--threads", "0", "--out", out), 2, out, "--threads 0: must be at least 1")


# -- the budget --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("budget", ["soon", "4", "-1m", "0s", "1d", "nan", "1e9h"])
def test_a_budget_that_is_none(call: Call, out: Path, budget: str) -> None:
    refused(call("run", f"--budget={budget}", "--data", "synthetic", "--out", out), 2, out, f"--budget {budget}")


def test_a_budget_that_is_too_small(call: Call, out: Path) -> None:
    result = call("run", "--budget", "0.01s", "--data", "synthetic", "--search", "always", "--out", out)
    refused(result, 2, out, "--budget is too small for this data on this machine: give", "or more")


# -- genotypes ---------------------------------------------------------------------------------------------------------


def test_an_unknown_operation(call: Call, out: Path, tmp_path: Path) -> None:
    genotype = zoo.load("darts-v2").to_json()
    del genotype["text"]
    genotype["cells"]["normal"][0][2] = "sep_conv_9x9"
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(genotype))
    result = call("retrain", path, "--out", out)
    refused(result, 2, out, "mine.json", "unknown operation 'sep_conv_9x9'", "sep_conv_5x5")


def test_a_truncated_genotype(call: Call, out: Path, tmp_path: Path) -> None:
    text = json.dumps(zoo.load("darts-v2").to_json())
    path = tmp_path / "mine.json"
    for length in (0, 1, len(text) // 2, len(text) - 1):
        path.write_text(text[:length])
        refused(call("retrain", path, "--out", out), 2, out, "mine.json")


def test_genotypes_that_are_nowhere(call: Call, out: Path, tmp_path: Path) -> None:
    refused(call("retrain", "darts-v3", "--out", out), 2, out, "darts-v3", "Did you mean darts-v")
    refused(call("retrain", tmp_path, "--out", out), 2, out, "genotype.json")
    refused(call("retrain", "|nor_conv_3x3~0|+|none~0|", "--out", out), 2, out, "node 2")
    refused(call("retrain", "Genotype(normal=[", "--out", out), 2, out, "character")


# -- where it goes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
def test_a_run_directory_that_exists(call: Call, tmp_path: Path, command: str) -> None:
    (tmp_path / "config.json").write_text("{}")
    result = call(*COMMANDS[command], "--data", "no such data, not even looked for", "--out", tmp_path)
    assert result.code == 2
    assert result.error() == (
        f"{tmp_path} holds a run already; go on with it: cdarts resume {tmp_path}, or choose a new name with --out"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


def test_a_folder_that_is_not_empty(call: Call, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    result = call(*COMMANDS["search"], "--out", tmp_path)
    assert result.code == 2
    assert "not an empty folder" in result.error()
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_disk_that_is_full(call: Call, out: Path, few_digits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", refuse)
    result = call(*COMMANDS["retrain"], "--batch-size", "8", "--data", few_digits, "--out", out)
    refused(result, 6, out, "cannot write", "config.json", "No space left on device")


def test_a_disk_that_fills_up(call: Call, out: Path, few_digits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replace = Path.replace

    def refuse(self: Path, target: Path) -> Path:
        if "step-" in self.name:
            raise OSError(28, "No space left on device")
        return replace(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", refuse)
        result = call(*COMMANDS["retrain"], "--batch-size", "8", "--data", few_digits, "--out", out)
    assert result.code == 6
    assert "No space left on device" in result.error()
    status = json.loads((out / "status.json").read_text())
    assert (status["state"], status["resume"]) == ("failed", f"cdarts resume {out}")
    assert call("resume", out).code == 0, "once there is space again"
