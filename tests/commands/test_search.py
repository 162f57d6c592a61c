"""`cdarts search`: what it leaves behind, and that a stop anywhere changes nothing."""

import json
import signal
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from cdarts.algorithms import CyclicConfig
from cdarts.commands.common import config_of
from cdarts.commands.search import Search, Watch, plan_lines
from cdarts.engine.run_dir import read_json
from cdarts.engine.runtime import Interrupted
from cdarts.engine.task import Epoch
from cdarts.execution import choose_execution
from cdarts.presets import PRESETS
from cdarts.spaces import ToySpace
from cdarts.topology import read_genotype

Call = Callable[..., Any]

CYCLIC = {name: config for name, config in PRESETS.items() if isinstance(config, CyclicConfig)}
TINY = ("--channels", "2", "--search-cells", "2", "--eval-cells", "2", "--batch-size", "128", "--threads", "1")
ONE_EPOCH = ("--cycles", "1", "--pretrain-epochs", "0", "--warmup-epochs", "0")
DISTINCT = ("cdarts", "cdarts-official", "cdarts-official-nasbench201")
"""Presets that differ in what a state must hold: optimizers that live on or not, shared modules, either space."""
EPOCHS = 10
"""Of the toy search: one of pretraining, three cycles of three."""


def shrunk(name: str) -> CyclicConfig:
    """A preset at sizes that take a second: two steps an epoch on a few digits, two cycles."""
    cells = 3 if CYCLIC[name].space.name == "nasbench201" else 2
    return replace(
        CYCLIC[name],
        channels=2,
        search_cells=cells,
        eval_cells=cells,
        batch_size=10,
        pretrain_epochs=min(CYCLIC[name].pretrain_epochs, 1),
        cycles=2,
    )


def search(algorithm: CyclicConfig, out: Path, data: str | Path = "synthetic") -> None:
    assert Search(algorithm=algorithm, preset="toy", data=str(data), out=out, threads=1, device="cpu").run() == 0


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory, toy_search: CyclicConfig) -> Path:
    """The toy search, never stopped."""
    path = tmp_path_factory.mktemp("search") / "straight"
    search(toy_search, path)
    return path


def test_what_a_search_leaves_behind(straight: Path, toy_search: CyclicConfig) -> None:
    names = {path.name for path in straight.iterdir()}
    assert names == {
        "config.json",
        "environment.json",
        "status.json",
        "metrics.jsonl",
        "genotypes.jsonl",
        "genotype.json",
        "cell.svg",
        "report.html",
        "summary.json",
        "data.json",
        "checkpoints",
        "run.lock",
    }
    genotype = read_genotype(straight / "genotype.json")
    ToySpace().check(genotype)
    assert genotype.provenance == {"algorithm": "cdarts", "preset": "toy", "data": "synthetic", "seed": 0}
    assert read_json(straight / "status.json")["state"] == "done"
    summary = read_json(straight / "summary.json")
    assert summary["genotype"] == genotype.text()
    assert summary["seconds"] > 0
    lines = [json.loads(line) for line in (straight / "genotypes.jsonl").read_text().splitlines()]
    assert len(lines) == EPOCHS
    assert lines[-1]["text"] == genotype.text()
    assert (straight / "cell.svg").read_text().startswith("<svg")
    config = read_json(straight / "config.json")
    settings = Search(algorithm=toy_search, preset="toy", data="synthetic", out=straight, threads=1, device="cpu")
    execution, _ = choose_execution("auto", torch.device("cpu"))
    assert config == config_of("search", replace(settings, execution=execution))


@pytest.mark.parametrize("epoch", range(1, EPOCHS))
def test_stopped_after_any_epoch_and_resumed(
    straight: Path,
    toy_search: CyclicConfig,
    tmp_path: Path,
    call: Call,
    stop_after: Callable[..., None],
    results: Callable[[Path], dict[str, Any]],
    epoch: int,
) -> None:
    out = tmp_path / "cut"
    stop_after(epoch, "cut")
    with pytest.raises(Interrupted, match="stopped by SIGTERM; go on: cdarts resume"):
        search(toy_search, out)
    status = read_json(out / "status.json")
    assert (status["state"], status["message"], status["resume"]) == (
        "interrupted",
        "stopped by SIGTERM",
        f"cdarts resume {out}",
    )
    assert not (out / "genotype.json").exists()
    assert call("resume", out).code == 0
    assert results(out) == results(straight)
    assert read_json(out / "status.json")["state"] == "done"


def test_stopped_at_every_epoch_and_resumed_each_time(
    straight: Path,
    toy_search: CyclicConfig,
    tmp_path: Path,
    call: Call,
    stop_after: Callable[..., None],
    results: Callable[[Path], dict[str, Any]],
) -> None:
    out = tmp_path / "cut"
    stop_after(1, "cut", signal.SIGINT)
    with pytest.raises(Interrupted) as raised:
        search(toy_search, out)
    assert raised.value.exit_code == 130
    for epoch in range(2, EPOCHS):
        stop_after(epoch, "cut", signal.SIGINT)
        result = call("resume", out)
        assert result.code == 130
        assert result.error() == f"stopped by SIGINT; go on: cdarts resume {out}"
    assert call("resume", out).code == 0
    assert results(out) == results(straight)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in DISTINCT else pytest.mark.slow) for name in CYCLIC]
)
def test_every_preset_stopped_between_cycles_and_resumed(
    tmp_path: Path,
    call: Call,
    stop_after: Callable[..., None],
    results: Callable[[Path], dict[str, Any]],
    few_digits: Path,
    name: str,
) -> None:
    algorithm = shrunk(name)
    search(algorithm, tmp_path / "straight", few_digits)
    # after the first joint epoch: the next one builds E-Net anew, on weights inherited from before the stop
    stop_after(algorithm.pretrain_epochs + 2, "cut")
    with pytest.raises(Interrupted):
        search(algorithm, tmp_path / "cut", few_digits)
    assert call("resume", tmp_path / "cut").code == 0
    assert results(tmp_path / "cut") == results(tmp_path / "straight")


def test_a_search_from_the_command_line_on_real_digits(tmp_path: Path, call: Call) -> None:
    out = tmp_path / "run"
    result = call("search", "smoke", *TINY, *ONE_EPOCH, "--device", "cpu", "--seed", "3", "--out", out)
    assert result.code == 0
    assert result.err == ""
    lines = result.out.splitlines()
    assert lines[0].startswith("cdarts ") and "search  smoke  data digits  seed 3" in lines[0]
    assert lines[1] == "data    digits: 1437 training and 360 test images, 8x8x1, 10 classes"
    assert lines[-1] == f"next    cdarts retrain {out}    cdarts show genotype {out}"
    config = read_json(out / "config.json")
    assert config["settings"]["preset"] == "smoke"
    assert config["settings"]["algorithm"]["channels"] == 2
    assert config["settings"]["threads"] == 1


def test_the_seed_decides(
    straight: Path, toy_search: CyclicConfig, tmp_path: Path, results: Callable[[Path], dict[str, Any]]
) -> None:
    search(toy_search, tmp_path / "again")
    assert results(tmp_path / "again") == results(straight)
    Search(algorithm=toy_search, preset="toy", data="synthetic", out=tmp_path / "other", seed=1, threads=1).run()
    assert results(tmp_path / "other")["state"] != results(straight)["state"]


def test_a_dry_run_writes_nothing(tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = call("search", "smoke", *TINY, "--data", "synthetic", "--dry-run")
    assert result.code == 0
    assert list(tmp_path.iterdir()) == []
    for line in ("plan    1 x pretrain (1 steps)", "plan    3 x joint (1 steps)"):
        assert line in result.out
    assert "search_net" in result.out and "parameters" in result.out
    assert "on cpu with 1 threads" in result.out or "on cuda" in result.out
    assert "MiB beside" in result.out


def test_where_a_run_lies_by_default(tmp_path: Path, toy_search: CyclicConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Search(algorithm=replace(toy_search, cycles=1), preset="toy", data="synthetic", seed=5, threads=1).run()
    (run,) = (tmp_path / "runs").iterdir()
    assert run.name.startswith("toy-synthetic-seed5-2")
    assert read_json(run / "config.json")["settings"]["out"] == f"runs/{run.name}"


def test_resuming_a_search_that_is_done_changes_nothing(straight: Path, call: Call) -> None:
    before = {path.name: path.read_bytes() for path in straight.iterdir() if path.is_file()}
    result = call("resume", straight)
    assert result.code == 0
    assert f"run     {straight}: searched already" in result.out
    after = {path.name: path.read_bytes() for path in straight.iterdir() if path.is_file()}
    assert after == before | {"run.lock": after["run.lock"]}


def test_a_run_that_breaks_says_so(tmp_path: Path, call: Call, toy_search: CyclicConfig) -> None:
    out = tmp_path / "run"
    broken = replace(toy_search, search_weights=replace(toy_search.search_weights, lr=1e30, clip_norm=None))
    with pytest.raises(Exception, match=r"not finite|is nan|is inf"):
        search(broken, out)
    status = read_json(out / "status.json")
    assert status["state"] == "failed"
    assert status["resume"] == f"cdarts resume {out}"
    assert call("resume", out).code == 5


def test_a_plan_in_words() -> None:
    plan = [Epoch("pretrain", 3), Epoch("joint", 2, cycle=0), Epoch("joint", 2, cycle=1), Epoch("joint", 1, cycle=2)]
    assert plan_lines(plan) == ["1 x pretrain (3 steps)", "2 x joint (2 steps)", "1 x joint (1 steps)"]


# -- watching ----------------------------------------------------------------------------------------------------------

SKIPS = "|skip_connect~0|+|skip_connect~0|skip_connect~1|+|skip_connect~0|skip_connect~1|skip_connect~2|"
CONVOLUTIONS = "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|nor_conv_3x3~0|nor_conv_3x3~1|nor_conv_3x3~2|"


def warnings(epochs: Sequence[tuple[str, str]], capsys: pytest.CaptureFixture[str]) -> list[int]:
    """How often each of these epochs, phase and cell, is warned about."""
    watch = Watch(None)
    said = []
    for phase, text in epochs:
        records = {"metrics": {"phase": phase}, "genotypes": {"text": text}}
        assert watch(records) == records
        said.append(capsys.readouterr().err.count("warning: the search is collapsing: 6 of 6 edges"))
    return said


def test_collapse_is_warned_about_once_for_as_long_as_it_lasts(capsys: pytest.CaptureFixture[str]) -> None:
    cells = (CONVOLUTIONS, SKIPS, SKIPS, CONVOLUTIONS, SKIPS)
    assert warnings([("joint", cell) for cell in cells], capsys) == [0, 1, 0, 0, 1]


@pytest.mark.parametrize(
    ("undecided", "deciding"), [("still", "search"), ("train", "select"), ("pretrain", "joint"), ("draw", "controller")]
)
def test_collapse_is_looked_for_only_where_something_is_decided(
    undecided: str, deciding: str, capsys: pytest.CaptureFixture[str]
) -> None:
    epochs = [(undecided, SKIPS), (deciding, CONVOLUTIONS), (undecided, SKIPS), (deciding, SKIPS)]
    assert warnings(epochs, capsys) == [0, 0, 0, 1]


def test_a_warm_up_between_two_joint_epochs_does_not_warn_again(capsys: pytest.CaptureFixture[str]) -> None:
    phases = ("warmup", "joint", "warmup", "joint")
    assert warnings([(phase, SKIPS) for phase in phases], capsys) == [0, 1, 0, 0]


def test_the_warning_names_no_flag(capsys: pytest.CaptureFixture[str]) -> None:
    """Since the method may lack it."""
    Watch(None)({"metrics": {"phase": "search"}, "genotypes": {"text": SKIPS}})
    said = capsys.readouterr().err
    assert "docs/methods.md" in said and "--" not in said


@pytest.mark.parametrize("flags", [(), ("--dry-run",)])
def test_a_search_without_a_network_does_not_speak_of_one(tmp_path: Path, call: Call, flags: tuple[str, ...]) -> None:
    said = call("search", "random", "--data", "synthetic", "--threads", "1", "--out", tmp_path / "run", *flags)
    assert said.code == 0 and said.err == ""
    assert "plan    1 x draw (0 steps)" in said.out
    assert not [line for line in said.out.splitlines() if line.startswith("model")]


def test_a_table_adds_the_truth_to_every_epoch_and_changes_nothing(
    tmp_path: Path, call: Call, cdarts_data: Path
) -> None:
    runs = {}
    for name, flags in {"with": ("--table", str(cdarts_data / "nasbench201.csv.gz")), "without": ()}.items():
        sizes = ("--channels", "2", "--search-cells", "3", "--eval-cells", "3", "--batch-size", "256", "--threads", "1")
        plan = ("--cycles", "2", "--pretrain-epochs", "0", "--warmup-epochs", "0")
        said = call("search", "cdarts-nasbench201", "--out", tmp_path / name, *sizes, *plan, *flags)
        assert said.code == 0 and ("true_test_accuracy" in said.out) == bool(flags)
        lines = (tmp_path / name / "genotypes.jsonl").read_text().splitlines()
        runs[name] = [json.loads(line) for line in lines]
    for line, other in zip(runs["with"], runs["without"], strict=True):
        assert 0.1 <= line.pop("true_test_accuracy") < 0.95
        assert 0.1 <= line.pop("true_val_accuracy") < 0.95
        for each in (line, other):
            each.pop("seconds")
        assert line == other


def test_a_table_of_another_space_is_refused(tmp_path: Path, call: Call, cdarts_data: Path) -> None:
    table = str(cdarts_data / "nasbench201.csv.gz")
    said = call("search", "smoke", "--out", tmp_path / "run", "--table", table)
    assert said.code == 2
    assert "it holds cells of the NAS-Bench-201 space; this search is in the darts space" in said.error()
    assert not (tmp_path / "run").exists()
