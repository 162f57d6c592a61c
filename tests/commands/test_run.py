"""`cdarts run`: the whole way, and that a stop in any part of it changes nothing."""

import json
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cdarts import budget
from cdarts.algorithms import CyclicConfig
from cdarts.budget import RunPlan, TrainingPlan
from cdarts.cli import main
from cdarts.engine.run_dir import RunDir, read_json
from cdarts.errors import ExportError
from cdarts.export.formats import FORMATS
from cdarts.retraining import Retraining
from cdarts.settings import from_json
from cdarts.spaces import ToySpace
from cdarts.topology import read_genotype

Call = Callable[..., Any]
Results = Callable[[Path], dict[str, Any]]

ARGUMENTS = (
    "run",
    "--data",
    "synthetic",
    "--budget",
    "10s",
    "--search",
    "always",
    "--threads",
    "1",
    "--device",
    "cpu",
    "--checkpoint-seconds",
    "0",
)
STOPS = [(1, "search"), (3, "search"), (10, "search"), (1, "retrain"), (2, "retrain")]
"""Epochs after which a run is stopped; after the search's tenth and last, the stop comes between the parts."""


TOY = Retraining(space=ToySpace(), auxiliary_weight=0.0, lr=0.05, cells=2, channels=4, epochs=3, batch_size=64)
TRAINING_PLAN = TrainingPlan(training=TOY, seconds=2.0, planning_seconds=0.25, reason="a toy")


@pytest.fixture(scope="module")
def toy_plan(toy_search: CyclicConfig) -> Iterator[RunPlan]:
    """A plan of seconds, instead of one that is made to measure."""
    plan = RunPlan(
        search=toy_search,
        retraining=replace(TOY, epochs=2),
        search_seconds=1.5,
        retraining_seconds=2.5,
        planning_seconds=0.5,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(budget, "plan_run", lambda *_, **__: plan)
        patch.setattr(budget, "plan_training", lambda *_: TRAINING_PLAN)
        yield plan


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory, toy_plan: RunPlan) -> Path:  # noqa: ARG001 - is made to be the plan
    """The toy run, never stopped."""
    path = tmp_path_factory.mktemp("straight") / "run"
    assert main([*ARGUMENTS, "--out", str(path)]) == 0
    return path


def run(call: Call, out: Path) -> Any:
    return call(*ARGUMENTS, "--out", out)


@pytest.mark.parametrize(("epoch", "part"), STOPS)
def test_stopped_in_any_part_and_resumed(
    tmp_path: Path,
    call: Call,
    stop_after: Callable[..., None],
    results: Results,
    toy_plan: RunPlan,
    straight: Path,
    epoch: int,
    part: str,
) -> None:
    cut = tmp_path / "cut"
    stop_after(epoch, part)
    result = run(call, cut)
    assert result.code == 143
    assert result.error() == f"stopped by SIGTERM; go on: cdarts resume {cut}", "the run, not its part"
    status = read_json(cut / "status.json")
    assert (status["state"], status["resume"]) == ("interrupted", f"cdarts resume {cut}")
    stored = read_json(cut / "config.json")
    assert from_json(RunPlan, stored["plan"], "plan") == toy_plan
    result = call("resume", cut)
    assert result.code == 0, result.err
    for name in ("search", "retrain"):
        assert results(cut / name) == results(straight / name)
    assert read_genotype(cut / "genotype.json") == read_genotype(straight / "genotype.json")
    ours, theirs = (read_json(path / "summary.json") for path in (cut, straight))
    clock = {"seconds", "search_seconds", "retraining_seconds", "forecast", "latency", "export_seconds"}
    assert {key: ours[key] for key in ours if key not in clock} == {
        key: theirs[key] for key in theirs if key not in clock
    }


def test_the_plan_is_written_before_anything_is_trained(
    tmp_path: Path, call: Call, toy_plan: RunPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = {}
    create = RunDir.create.__func__  # type: ignore[attr-defined]

    def look(cls: type[RunDir], path: Path, config: dict[str, Any]) -> RunDir:
        if path.name == "search":
            seen.update(read_json(path.parent / "config.json"))
        return create(cls, path, config)  # type: ignore[no-any-return]

    monkeypatch.setattr(RunDir, "create", classmethod(look))
    assert run(call, tmp_path / "run").code == 0
    assert seen["command"] == "run"
    assert seen["settings"]["budget"] == "10s"
    assert from_json(RunPlan, seen["plan"], "plan") == toy_plan


@pytest.mark.usefixtures("toy_plan")
def test_the_training_is_planned_once_and_when_the_cell_is_known(
    tmp_path: Path, call: Call, stop_after: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[Any, ...]] = []
    monkeypatch.setattr(budget, "plan_training", lambda *given: asked.append(given) or TRAINING_PLAN)
    out = tmp_path / "run"
    stop_after(3, "search")
    assert run(call, out).code == 143
    assert not (out / "plan.json").exists()
    assert not asked
    stop_after(1, "retrain")
    assert call("resume", out).code == 143
    assert from_json(TrainingPlan, read_json(out / "plan.json"), "plan.json") == TRAINING_PLAN
    assert call("resume", out).code == 0
    ((_, genotype, remaining, _, _),) = asked
    assert genotype == read_genotype(out / "genotype.json")
    spent = read_json(out / "search" / "summary.json")["seconds"]
    assert remaining == pytest.approx(10.0 - 0.5 - spent)  # the budget, the planning, the search
    assert read_json(out / "retrain" / "config.json")["settings"]["training"]["epochs"] == 3
    assert read_json(out / "summary.json")["forecast"]["retraining_seconds"] == 2.0


@pytest.mark.usefixtures("toy_plan")
def test_a_training_that_has_begun_is_not_planned_anew(
    tmp_path: Path, call: Call, stop_after: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    stop_after(1, "retrain")
    assert run(call, out).code == 143
    (out / "plan.json").unlink()  # as in a run of an earlier version
    monkeypatch.setattr(budget, "plan_training", None)
    assert call("resume", out).code == 0
    assert from_json(TrainingPlan, read_json(out / "plan.json"), "plan.json").training == TOY


@pytest.mark.usefixtures("toy_plan")
def test_an_edited_plan_is_refused(tmp_path: Path, call: Call, stop_after: Callable[..., None]) -> None:
    out = tmp_path / "run"
    stop_after(1, "retrain")
    assert run(call, out).code == 143
    path = out / "plan.json"
    path.write_text(path.read_text().replace('"epochs": 3', '"epochs": 4'))
    result = call("resume", out)
    assert result.code == 2
    assert "settings.training.epochs was 3, is 4" in result.error()
    path.write_text("{")
    result = call("resume", out)
    assert result.code == 2
    assert str(path) in result.error()


@pytest.mark.usefixtures("toy_plan")
def test_a_setting_younger_than_a_stage_counts_as_its_default(
    tmp_path: Path, call: Call, stop_after: Callable[..., None]
) -> None:
    out = tmp_path / "run"
    stop_after(1, "retrain")
    assert run(call, out).code == 143
    path = out / "retrain" / "config.json"
    stored = read_json(path)
    del stored["settings"]["workers"]
    path.write_text(json.dumps(stored))
    assert call("resume", out).code == 0


@pytest.mark.usefixtures("toy_plan")
@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ExportError("logits differ by 0.1"), "logits differ by 0.1"),
        (TypeError("unexpected keyword\nand more"), "the export failed: TypeError: unexpected keyword"),
    ],
)
def test_an_export_that_fails_costs_nothing_else(
    tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch, error: Exception, words: str
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setitem(FORMATS, "onnx", replace(FORMATS["onnx"], encode=fail))
    out = tmp_path / "run"
    result = run(call, out)
    assert result.code == 8
    assert result.error() == words
    assert read_json(out / "status.json")["state"] == "done"
    assert "internal error" not in result.err
    summary = read_json(out / "summary.json")
    assert summary["exported"] == []
    assert f"{summary['test_accuracy']:.4f}" in result.out
    assert call("resume", out).code == 0, "it is done"


@pytest.mark.usefixtures("toy_plan")
@pytest.mark.parametrize("stage", ["search", "retrain"])
def test_a_stage_that_is_a_link_is_refused(tmp_path: Path, straight: Path, call: Call, stage: str) -> None:
    out, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    shutil.copytree(straight, out)
    (out / "summary.json").unlink()
    write_status(out)
    (out / stage).rename(elsewhere)
    (out / stage).symlink_to(elsewhere)
    before = {path: path.stat().st_mtime_ns for path in elsewhere.rglob("*")}
    result = call("resume", out)
    assert result.code == 6
    assert f"{out / stage} is a link" in result.error()
    assert {path: path.stat().st_mtime_ns for path in elsewhere.rglob("*")} == before


def write_status(out: Path) -> None:
    """As if it had been stopped."""
    status = read_json(out / "status.json")
    (out / "status.json").write_text(json.dumps({**status, "state": "interrupted"}))


@pytest.mark.usefixtures("toy_plan")
def test_a_part_can_be_resumed_by_itself(tmp_path: Path, call: Call, stop_after: Callable[..., None]) -> None:
    stop_after(2, "search")
    assert run(call, tmp_path / "run").code == 143
    assert call("resume", tmp_path / "run" / "search").code == 0
    result = call("resume", tmp_path / "run")
    assert result.code == 0
    assert "search: searched already" in result.out


@pytest.mark.usefixtures("toy_plan")
def test_resuming_a_run_that_is_done_shows_its_result_again(tmp_path: Path, call: Call) -> None:
    assert run(call, tmp_path / "run").code == 0
    before = read_json(tmp_path / "run" / "summary.json")
    result = call("resume", tmp_path / "run")
    assert result.code == 0
    assert read_json(tmp_path / "run" / "summary.json") == before
    assert f"{before['test_accuracy']:.4f}" in result.out


def test_the_summary_adds_up(straight: Path) -> None:
    summary = read_json(straight / "summary.json")
    forecast = summary["forecast"]
    took = summary["search_seconds"] + summary["retraining_seconds"] + forecast["planning_seconds"]
    took += summary["export_seconds"]
    assert summary["seconds"] == pytest.approx(took, abs=0.051)
    assert forecast["planning_seconds"] == 0.75  # before the search and after it
    expected = 1.5 + 2.0 + forecast["planning_seconds"]
    assert forecast["error"] == pytest.approx(took / expected - 1, abs=0.001)


def test_an_interruption_while_planning_begins_nothing(
    tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> RunPlan:
        signal.raise_signal(signal.SIGINT)
        raise AssertionError

    monkeypatch.setattr(budget, "plan_run", interrupted)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell starts background jobs without one
    try:
        result = run(call, tmp_path / "run")
    finally:
        signal.signal(signal.SIGINT, before)
    assert result.code == 130
    assert "nothing was begun" in result.error()
    assert not (tmp_path / "run").exists()


def test_the_genotype_says_that_the_preset_was_sized(straight: Path) -> None:
    provenance = read_json(straight / "genotype.json")["provenance"]
    assert provenance["preset"] == "cdarts, sized to 10s"
    assert read_json(straight / "search" / "config.json")["settings"]["preset"] == "cdarts, sized to 10s"


def test_a_run_is_retrained_in_its_space(straight: Path, call: Call) -> None:
    result = call("retrain", straight, "--cells", "2", "--auxiliary-weight", "0", "--threads", "1", "--dry-run")
    assert result.code == 0, result.err
    assert f"taken   from {straight}: data synthetic; space toy\n" in result.out


def test_a_finished_run_is_not_touched(straight: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cdarts.data.load", lambda *_, **__: pytest.fail("no data is needed"))
    before = {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in straight.rglob("*")}
    assert call("resume", straight).code == 0
    assert {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in straight.rglob("*")} == before


def test_a_run_ends_with_a_model_that_works_without_it(straight: Path, call: Call, tmp_path: Path) -> None:
    summary = read_json(straight / "summary.json")
    assert summary["exported"] == ["retrain/model.onnx"]
    image = tmp_path / "images.npy"
    np.save(image, np.zeros((1, 16, 16, 3), np.uint8))
    assert call("predict", straight / "retrain" / "model.onnx", image).code == 0


@pytest.mark.usefixtures("toy_plan")
def test_without_onnx_it_is_plain_torch_code(tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    result = run(call, tmp_path / "run")
    assert result.code == 0
    assert "exported as plain torch code instead" in result.out
    assert read_json(tmp_path / "run" / "summary.json")["exported"] == [
        "retrain/network.safetensors",
        "retrain/network.py",
    ]
    assert (tmp_path / "run" / "retrain" / "network.py").is_file()
