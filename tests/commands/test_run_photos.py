"""`cdarts run --data ./photos`: a folder as people have it, too small for a search."""

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cdarts import budget
from cdarts.data import load
from cdarts.engine.run_dir import Checkpoint, RunDir, read_json

Call = Callable[..., Any]


@pytest.fixture
def small_plans(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything is real but the largest plan, so that a slow machine runs the same."""
    monkeypatch.setattr(budget, "RETRAINING_SIZES", budget.RETRAINING_SIZES[:1])
    monkeypatch.setattr(budget, "MOST_EPOCHS", 4)


@pytest.mark.usefixtures("small_plans")
def test_three_classes_of_thirty_photos(tmp_path: Path, call: Call, cifar_photos: Path) -> None:
    out = tmp_path / "run"
    done = call("run", "--data", cifar_photos, "--budget", "20m", "--threads", "1", "--out", out)
    assert done.code == 0, done.err
    warning, *rest = done.err.splitlines()
    assert not rest
    assert warning.startswith("warning: too few images for a search: a half of the 72 training images is 36")
    assert "cdarts-cifar10 is trained instead; --search always" in warning
    why = [line for line in done.out.splitlines() if line.startswith("why ")]
    for words in ("input 32x32", "crops moved by up to 4 pixels, mirrored", "cells, 8 channels", "stem half: cells"):
        assert any(words in line for line in why), words
    summary, config = read_json(out / "summary.json"), read_json(out / "config.json")
    assert config["plan"]["reasons"] == [line.removeprefix("why     ") for line in why]
    assert (config["plan"]["search"], config["plan"]["cell"]) == (None, "cdarts-cifar10")
    assert config["settings"]["image_size"] == 32
    assert (summary["test_images"], summary["cell"], summary["search_seconds"]) == (18, "cdarts-cifar10", 0.0)
    low, high = summary["test_interval"]
    assert 0 <= low <= summary["test_accuracy"] <= high <= 1 and high - low > 0.2
    assert f"(95 % interval {low:.3f} to {high:.3f}, 18 images)" in done.out
    assert "none: published cell cdarts-cifar10" in done.out
    assert not (out / "search").exists()
    answer = json.loads(call("evaluate", out, "--json").out)
    assert (answer["accuracy"], answer["interval"]) == (summary["test_accuracy"], summary["test_interval"])
    photo = next((cifar_photos / "自動車").iterdir())
    assert call("predict", out, photo).code == 0
    again = call("resume", out)
    assert again.code == 0 and "none: published cell" in again.out


@pytest.mark.usefixtures("small_plans")
def test_skewed_classes_are_balanced_and_said_to_be(
    tmp_path: Path, call: Call, write_photos: Callable[..., None]
) -> None:
    digits = load("digits").train
    chosen = np.concatenate([np.flatnonzero(digits.labels == label)[:count] for label, count in ((0, 60), (1, 15))])
    write_photos(
        tmp_path / "photos",
        digits.pixels[chosen].repeat(3, axis=3),
        digits.labels[chosen],
        ("many", "few"),
        sides=(10, 20),
        modes=("L",),
    )
    out = tmp_path / "run"
    flags = ("--search", "never", "--cell", "darts-v1", "--images", "files", "--workers", "1", "--threads", "1")
    done = call("run", "--data", tmp_path / "photos", "--budget", "20m", *flags, "--out", out)
    assert done.code == 0, done.err
    assert not done.err, "who asks for no search is not warned"
    assert (
        "why     all classes are drawn equally often: the largest has 48 training images, the smallest 12" in done.out
    )
    summary = read_json(out / "summary.json")
    assert summary["cell"] == "darts-v1"
    assert f"mean of the classes' accuracies {summary['test_class_accuracy']:.4f}" in done.out


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        ("cdarts-cifar11", "--cell cdarts-cifar11: no published cell of that name. Did you mean cdarts-cifar10?"),
        ("cdarts-nasbench201-1", "--cell cdarts-nasbench201-1: belongs to space nasbench201, and"),
    ],
)
def test_a_cell_that_cannot_be_trained_is_refused_at_the_door(
    tmp_path: Path, call: Call, cell: str, words: str
) -> None:
    result = call("run", "--data", "synthetic", "--cell", cell, "--out", tmp_path / "run")
    assert result.code == 2
    assert result.error().startswith(words)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_search_in_files_goes_on_within_an_epoch(
    tmp_path: Path, call: Call, results: Callable[[Path], dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped between two steps and resumed with other workers, a search ends as if it had not been stopped."""
    for label, name in enumerate(("dark", "light")):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(30):
            noise = np.random.default_rng(30 * label + number).integers(0, 128, (70, 90, 3)) + 128 * label
            Image.fromarray(noise.astype(np.uint8)).save(tmp_path / "photos" / name / f"{number:02}.jpg")
    sizes = ("--channels", "4", "--search-cells", "3", "--eval-cells", "3", "--space.stem-name", "imagenet")
    plan = ("--pretrain-epochs", "1", "--cycles", "1", "--batch-size", "4", "--epoch-fraction", "0.7")
    pixels = ("--image-size", "64", "--images", "files", "--colour-jitter", "0.4", "0.4", "0.4", "0.2")
    flags = ("--data", tmp_path / "photos", *sizes, *plan, *pixels, "--threads", "1", "--checkpoint-seconds", "0")

    straight, cut = tmp_path / "straight", tmp_path / "cut"
    assert call("search", "cdarts", *flags, "--workers", "0", "--out", straight).code == 0
    save = RunDir.save_checkpoint

    def save_and_signal(self: RunDir, content: Checkpoint) -> None:
        save(self, content)
        if (content.epoch, content.step) == (2, 2):
            monkeypatch.setattr(RunDir, "save_checkpoint", save)
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(RunDir, "save_checkpoint", save_and_signal)
    assert call("search", "cdarts", *flags, "--workers", "2", "--out", cut).code == 143
    assert call("resume", cut).code == 0
    assert results(cut) == results(straight)
