"""`cdarts retrain`: a genotype trained from the command line, and that a stop anywhere changes nothing."""

import json
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cdarts import zoo
from cdarts.algorithms import CyclicConfig
from cdarts.commands.search import Search
from cdarts.engine.run_dir import read_json
from cdarts.spaces import DartsSpace
from cdarts.topology import read_genotype

Call = Callable[..., Any]

SMALL = ("--cells", "2", "--channels", "2", "--epochs", "4", "--batch-size", "16", "--threads", "1", "--device", "cpu")
"""With drop-path, cutout and the auxiliary head, as the defaults have it."""


@pytest.fixture
def arguments(few_digits: Path) -> tuple[str, ...]:
    return ("darts-v2", *SMALL, "--data", str(few_digits))


def test_what_a_retraining_leaves_behind(tmp_path: Path, call: Call, arguments: tuple[str, ...]) -> None:
    out = tmp_path / "run"
    result = call("retrain", *arguments, "--out", out)
    assert result.code == 0
    assert result.err == ""
    assert {path.name for path in out.iterdir()} == {
        "config.json",
        "environment.json",
        "status.json",
        "metrics.jsonl",
        "genotype.json",
        "summary.json",
        "model.json",
        "model.safetensors",
        "checkpoints",
        "report.html",
        "run.lock",
    }
    summary = read_json(out / "summary.json")
    assert set(summary) == {
        "test_accuracy",
        "best_epoch_test_accuracy",
        "parameters",
        "macs",
        "genotype",
        "data",
        "seed",
        "seconds",
    }
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    accuracies = [line["test_accuracy"] for line in lines]
    assert len(accuracies) == 4
    assert summary["test_accuracy"] == accuracies[-1], "the last epoch's, not the best one's"
    assert summary["best_epoch_test_accuracy"] == max(accuracies)
    assert summary["parameters"] > 0 and summary["macs"] > 0
    assert read_genotype(out / "genotype.json") == zoo.load("darts-v2")
    assert read_json(out / "config.json")["genotype"] == zoo.load("darts-v2").to_json()
    assert f"{summary['parameters']:,} parameters" in result.out
    assert result.out.splitlines()[-1] == f"next    cdarts predict {out} IMAGE...    cdarts evaluate {out}"


@pytest.mark.parametrize("epoch", [1, 2, 3])
def test_stopped_after_any_epoch_and_resumed(
    tmp_path: Path,
    call: Call,
    stop_after: Callable[..., None],
    results: Callable[[Path], dict[str, Any]],
    arguments: tuple[str, ...],
    epoch: int,
) -> None:
    straight, cut = tmp_path / "straight", tmp_path / "cut"
    assert call("retrain", *arguments, "--out", straight).code == 0
    stop_after(epoch, "cut")
    result = call("retrain", *arguments, "--out", cut)
    assert result.code == 143
    assert result.error() == f"stopped by SIGTERM; go on: cdarts resume {cut}"
    assert not (cut / "model.safetensors").exists()
    assert call("resume", cut).code == 0
    assert results(cut) == results(straight)
    ours, theirs = (read_json(path / "summary.json") for path in (cut, straight))
    assert ours | {"seconds": 0} == theirs | {"seconds": 0}


def test_a_signal_after_the_last_step_lets_the_run_end(
    tmp_path: Path, call: Call, stop_after: Callable[..., None], arguments: tuple[str, ...]
) -> None:
    stop_after(4, "run", signal.SIGINT)
    assert call("retrain", *arguments, "--out", tmp_path / "run").code == 0
    assert read_json(tmp_path / "run" / "status.json")["state"] == "done"


def test_a_retraining_goes_on_without_the_genotypes_file(
    tmp_path: Path, call: Call, stop_after: Callable[..., None], few_digits: Path
) -> None:
    genotype = tmp_path / "mine.json"
    genotype.write_text(json.dumps(zoo.load("darts-v1").to_json()))
    stop_after(1, "run")
    assert call("retrain", genotype, *SMALL, "--data", few_digits, "--out", tmp_path / "run").code == 143
    genotype.unlink()
    assert call("resume", tmp_path / "run").code == 0
    assert read_genotype(tmp_path / "run" / "genotype.json") == zoo.load("darts-v1")


def test_what_a_search_found(tmp_path: Path, call: Call, toy_search: CyclicConfig, few_digits: Path) -> None:
    found = tmp_path / "search"
    Search(algorithm=toy_search, data="synthetic", out=found, threads=1).run()
    result = call("retrain", found, *SMALL, "--auxiliary-weight", "0", "--data", few_digits, "--out", tmp_path / "run")
    assert result.code == 0
    assert read_json(tmp_path / "run" / "config.json")["settings"]["training"]["space"] == {"name": "toy"}


def test_a_text_form_in_another_space(tmp_path: Path, call: Call, few_digits: Path) -> None:
    text = "|nor_conv_1x1~0|+|skip_connect~0|none~1|+|avg_pool_3x3~0|skip_connect~1|nor_conv_1x1~2|"
    result = call("retrain", text, *SMALL, "--cells", "3", "--data", few_digits, "--out", tmp_path / "run")
    assert result.code == 0, result.err
    assert read_json(tmp_path / "run" / "summary.json")["genotype"] == text


def test_a_dry_run_writes_nothing(
    tmp_path: Path, call: Call, arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = call("retrain", *arguments, "--dry-run")
    assert result.code == 0
    assert list(tmp_path.iterdir()) == []
    assert "plan    4 epochs of 3 steps" in result.out
    assert "(a step: train " in result.out
    assert "MiB beside" in result.out


def test_a_retraining_that_is_done_stays(tmp_path: Path, call: Call, arguments: tuple[str, ...]) -> None:
    out = tmp_path / "run"
    assert call("retrain", *arguments, "--epochs", "1", "--out", out).code == 0
    before = (out / "model.safetensors").stat().st_mtime_ns
    result = call("resume", out)
    assert result.code == 0
    assert "trained already" in result.out
    assert (out / "model.safetensors").stat().st_mtime_ns == before


def test_a_run_is_retrained_on_its_own_data_and_in_its_space(
    tmp_path: Path, call: Call, few_digits: Path, toy_search: CyclicConfig
) -> None:
    algorithm = replace(
        toy_search,
        space=DartsSpace(stem_name="half"),
        search_cells=2,
        eval_cells=2,
        channels=2,
        batch_size=10,
        cycles=1,
    )
    found = tmp_path / "a search"
    Search(algorithm=algorithm, data=str(few_digits), image_size=16, out=found, threads=1, device="cpu").run()
    result = call("retrain", found, *SMALL, "--epochs", "1", "--out", tmp_path / "run")
    assert result.code == 0, result.err
    assert f"taken   from {found}: data {few_digits}; space darts, stem_name half\n" in result.out
    assert "data    few: 40 training and 20 test images, 16x16x1" in result.out
    settings = read_json(tmp_path / "run" / "config.json")["settings"]
    assert (settings["data"], settings["image_size"]) == (str(few_digits), 16)
    assert settings["training"]["space"]["stem_name"] == "half"
    # a retraining is a run with a genotype too; what flags say comes first
    again = ("retrain", tmp_path / "run", *SMALL, "--auxiliary-weight", "0", "--dry-run")
    assert "data    synthetic: 256 training" in call(*again, "--data", "synthetic").out
    assert "data    few: 40 training" in call(*again).out


def test_flags_of_another_space_are_refused(tmp_path: Path, call: Call) -> None:
    text = "|nor_conv_1x1~0|+|skip_connect~0|none~1|+|avg_pool_3x3~0|skip_connect~1|nor_conv_1x1~2|"
    result = call("retrain", text, "--space.stem-name", "half", "--out", tmp_path / "run")
    assert result.code == 2
    assert "--space.stem-name half: the genotype belongs to space nasbench201" in result.error()


def test_the_usual_size_follows_the_space(tmp_path: Path, call: Call) -> None:
    text = "|nor_conv_1x1~0|+|skip_connect~0|none~1|+|avg_pool_3x3~0|skip_connect~1|nor_conv_1x1~2|"
    result = call("retrain", text, "--epochs", "1", "--data", "synthetic", "--cells", "3", "--out", tmp_path / "run")
    assert result.code == 0, result.err
    assert "model   3 cells, 16 channels" in result.out


def test_a_finished_retraining_needs_no_data(tmp_path: Path, call: Call, few_digits: Path) -> None:
    data = tmp_path / "few.npz"
    data.write_bytes(few_digits.read_bytes())
    out = tmp_path / "run"
    assert call("retrain", "darts-v2", *SMALL, "--epochs", "1", "--data", data, "--out", out).code == 0
    data.unlink()
    before = {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in out.iterdir() if path.is_file()}
    assert call("resume", out).code == 0
    after = {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in out.iterdir() if path.is_file()}
    assert after == before


def test_suggested_commands_are_quoted(tmp_path: Path, call: Call, arguments: tuple[str, ...]) -> None:
    out = tmp_path / "my run"
    result = call("retrain", *arguments, "--epochs", "1", "--out", out)
    assert result.out.splitlines()[-1] == f"next    cdarts predict '{out}' IMAGE...    cdarts evaluate '{out}'"
