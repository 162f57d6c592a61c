"""`cdarts retrain`: a genotype trained from the command line, and that a stop anywhere changes nothing."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import safetensors.torch
import torch

from cdarts import zoo
from cdarts.algorithms import CyclicConfig
from cdarts.cli import main
from cdarts.commands.search import Search
from cdarts.engine.run_dir import read_json, read_last_state
from cdarts.model import load_model
from cdarts.networks import num_parameters
from cdarts.retraining import RETRAINING_PRESETS
from cdarts.settings import to_json
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
        "data.json",
        "predictions.json",
        "checkpoints",
        "report.html",
        "run.lock",
    }
    summary = read_json(out / "summary.json")
    assert set(summary) == {
        "test_accuracy",
        "test_interval",
        "test_images",
        "best_epoch_test_accuracy",
        "parameters",
        "macs",
        "cost_by_part",
        "latency",
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
    assert summary["latency"]["milliseconds"] > 0 and summary["latency"]["device"] == "cpu"
    assert sum(part["macs"] for part in summary["cost_by_part"].values()) == summary["macs"]
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
    clock = {"seconds": 0, "latency": 0}
    assert ours | clock == theirs | clock


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


# -- presets -----------------------------------------------------------------------------------------------------------


def training_of(run: Path) -> dict[str, Any]:
    """What a run was begun with."""
    return dict(read_json(run / "config.json")["settings"]["training"])


@pytest.mark.parametrize("words", [("--preset", "quick"), ("--preset=quick",)])
def test_a_preset_gives_the_defaults_and_flags_come_first(
    tmp_path: Path, call: Call, few_digits: Path, words: tuple[str, ...]
) -> None:
    out = tmp_path / "run"
    small = ("--cells", "2", "--channels", "2", "--epochs", "2", "--batch-size", "16", "--warmup-epochs", "1")
    result = call("retrain", "darts-v2", *words, *small, "--data", few_digits, "--out", out, "--threads", "1")
    assert result.code == 0, result.err
    quick = RETRAINING_PRESETS["quick"]
    expected = replace(quick, cells=2, channels=2, epochs=2, batch_size=16, warmup_epochs=1)
    assert training_of(out) == to_json(expected)
    assert read_json(out / "config.json")["settings"]["preset"] == "quick"


def test_help_shows_a_presets_values(capsys: pytest.CaptureFixture[str]) -> None:
    def shown(*words: str) -> str:
        with pytest.raises(SystemExit):
            main(["retrain", *words, "--help"])
        return " ".join(capsys.readouterr().out.replace("│", " ").split())

    assert "in NAS-Bench-201. (default: 14)" in shown("--preset", "imagenet")
    assert "--lr FLOAT (default: 0.5)" in shown("--preset", "imagenet")
    assert "--lr FLOAT (default: 0.025)" in shown()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--preset", "quik"), "--preset quik: no preset of that name for retraining. Did you mean quick? There are"),
        (("--preset", "cdarts"), "--preset cdarts: no preset of that name for retraining"),
        (("--rand-augment", "2", "40"), "--rand-augment 2 40: give a number of transforms"),
        (("--precision", "bfloat16", "--execution", "fused"), "--precision bfloat16: the kernels of --execution fused"),
        (("--jobs", "2"), "--jobs 2: there is one run only"),
        (("--seeds", "2-1"), "--seeds 2-1: write 10-13"),
        (("--seeds", "0-1", "--jobs", "0"), "--jobs 0: must be at least 1"),
        (("--seeds", "0-1", "--seed", "3"), "--seed 3: --seeds 0-1 names all seeds"),
        (("--seeds", "0-1", "--channels", "3"), "channels 3"),
    ],
)
def test_slips_are_told_before_anything_is_written(
    tmp_path: Path, call: Call, few_digits: Path, words: tuple[str, ...], message: str
) -> None:
    result = call("retrain", "darts-v2", "--data", few_digits, "--out", tmp_path / "run", *words)
    assert result.code == 2
    assert message in result.error()
    assert not (tmp_path / "run").exists()


def test_imagenets_recipe_is_for_its_space(tmp_path: Path, call: Call) -> None:
    result = call("retrain", "cdarts-nasbench201-1", "--preset", "imagenet", "--out", tmp_path / "run")
    assert result.code == 2
    assert "--preset imagenet: its recipe is for cells of space darts" in result.error()


def test_bfloat16_takes_share_and_says_so(tmp_path: Path, call: Call, arguments: tuple[str, ...]) -> None:
    out = tmp_path / "run"
    result = call("retrain", *arguments, "--epochs", "1", "--precision", "bfloat16", "--out", out)
    assert result.code == 0, result.err
    assert "note    execution share, not fused, whose kernels have no bfloat16\n" in result.out
    assert read_json(out / "config.json")["settings"]["execution"] == "share"


# -- what is kept ------------------------------------------------------------------------------------------------------

HELPERS = ("auxiliary", "average", "drop_path", "dropout", "bernoulli", "rand")
"""Words that only training knows."""


def test_neither_head_nor_drop_path_reach_what_is_exported(
    tmp_path: Path, call: Call, arguments: tuple[str, ...]
) -> None:
    """Trained with both: saved weights and every exported form hold the network alone."""
    out = tmp_path / "run"
    trained = call("retrain", *arguments, "--drop-path", "0.5", "--ema-decay", "0.9", "--out", out)
    assert trained.code == 0, trained.err
    state = read_last_state(out)["modules"]
    assert set(state) == {"network", "auxiliary", "average"}, "they were there"
    card, network = load_model(out)
    assert network.state_dict().keys() == state["network"].keys()
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, state["average"][name]), "the average is what is kept"
    assert any(not torch.equal(state["average"][name], state["network"][name]) for name in state["network"])
    saved = safetensors.torch.load_file(out / "model.safetensors")
    assert len(saved) == len(network.state_dict())
    parameters = num_parameters(network)
    assert parameters == read_json(out / "summary.json")["parameters"]

    for form, name in (("onnx", "model.onnx"), ("pt2", "model.pt2"), ("module", "model.py")):
        result = call("export", out, "--format", form, "--out", tmp_path / name)
        assert result.code == 0, result.err
    program = torch.export.load(tmp_path / "model.pt2")
    assert sum(tensor.numel() for tensor in program.parameters()) == parameters
    calls = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    graph = onnx.load(tmp_path / "model.onnx").graph
    calls |= {node.op_type for node in graph.node}
    calls |= {initializer.name for initializer in graph.initializer}
    source = (tmp_path / "model.py").read_text().lower()
    for word in HELPERS:
        assert not [name for name in calls if word in name.lower()], word
        assert word not in source, word
    images = torch.rand(4, *(card.image_channels, card.side, card.side))
    with torch.no_grad():
        assert torch.equal(network(images).logits, network(images).logits), "nothing is drawn"


# -- several seeds -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def of_seeds(tmp_path_factory: pytest.TempPathFactory, few_digits: Path) -> Path:
    """Two seeds, trained at once."""
    out = tmp_path_factory.mktemp("seeds") / "all"
    assert main(["retrain", "darts-v2", *SMALL, "--data", str(few_digits), "--seeds", "0-1", "--out", str(out)]) == 0
    return out


def test_each_seed_is_an_ordinary_run(
    of_seeds: Path, tmp_path: Path, call: Call, few_digits: Path, results: Callable[[Path], dict[str, Any]]
) -> None:
    alone = tmp_path / "alone"
    assert call("retrain", "darts-v2", *SMALL, "--data", few_digits, "--seed", "1", "--out", alone).code == 0
    assert results(alone) == results(of_seeds / "seed-1")
    own = read_json(of_seeds / "seed-1" / "config.json")["settings"]
    assert (own["seed"], own["seeds"], own["jobs"]) == (1, None, None)


def test_the_summary_of_seeds(of_seeds: Path) -> None:
    summary = read_json(of_seeds / "summary.json")
    each = [read_json(of_seeds / f"seed-{seed}" / "summary.json") for seed in (0, 1)]
    accuracies = [one["test_accuracy"] for one in each]
    assert summary["n"] == 2
    assert summary["test_accuracy"]["mean"] == pytest.approx(np.mean(accuracies))
    assert summary["test_accuracy"]["std"] == pytest.approx(np.std(accuracies, ddof=1))
    assert summary["worst"] == {"seed": int(np.argmin(accuracies)), "test_accuracy": min(accuracies)}
    assert [one["test_accuracy"] for one in summary["seeds"]] == accuracies
    assert summary["parameters"] == each[0]["parameters"]
    assert summary["failures"] == []
    assert {"cdarts", "torch", "device", "threads"} <= summary.keys()
    assert read_json(of_seeds / "status.json")["state"] == "done"
    assert read_genotype(of_seeds / "genotype.json") == zoo.load("darts-v2")
    assert "n = 2" in (of_seeds / "report.html").read_text()


def test_the_same_command_goes_on_and_takes_more_seeds(of_seeds: Path, call: Call, few_digits: Path) -> None:
    before = (of_seeds / "seed-0" / "model.safetensors").stat().st_mtime_ns
    result = call("resume", of_seeds)
    assert result.code == 0, result.err
    assert "2 of them done already" in result.out and "n 2, worst" in result.out
    command = ("retrain", "darts-v2", *SMALL, "--data", few_digits, "--out", of_seeds)
    more = call(*command, "--seeds", "0-2")
    assert more.code == 0, more.err
    assert read_json(of_seeds / "summary.json")["n"] == 3
    assert (of_seeds / "seed-0" / "model.safetensors").stat().st_mtime_ns == before
    other = call(*command, "--seeds", "0-2", "--lr", "0.1")
    assert other.code == 2
    assert "settings.training.lr was 0.025, is 0.1" in other.error()
    assert "holds a run already" in call(*command).error()
    single = call("retrain", "darts-v2", *SMALL, "--data", few_digits, "--out", of_seeds / "seed-0", "--seeds", "0-1")
    assert "holds a run of another kind already" in single.error()


def test_a_folder_of_seeds_is_stopped_and_gone_on_with(
    tmp_path: Path, few_digits: Path, results: Callable[[Path], dict[str, Any]], of_seeds: Path, call: Call
) -> None:
    out = tmp_path / "cut"
    words = ["darts-v2", *SMALL, "--data", str(few_digits), "--seeds", "0-1", "--jobs", "1", "--out", str(out)]
    process = subprocess.Popen(
        [sys.executable, "-m", "cdarts.cli", "retrain", *words], stderr=subprocess.PIPE, text=True
    )
    while not (out / "seed-0" / "metrics.jsonl").exists():
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 143
    assert error.splitlines()[-1] == f"error: stopped by SIGTERM; go on: cdarts resume {out}"
    assert read_json(out / "status.json")["state"] == "interrupted"
    assert not (out / "summary.json").exists()
    assert call("resume", out).code == 0
    for seed in ("seed-0", "seed-1"):
        assert results(out / seed) == results(of_seeds / seed)


def test_seeds_that_fail_are_told_and_the_others_count(tmp_path: Path, call: Call, few_digits: Path) -> None:
    out = tmp_path / "run"
    words = ("--lr", "1e30", "--clip-norm", "None", "--seeds", "0", "--out", out)
    result = call("retrain", "darts-v2", *SMALL, "--data", few_digits, *words)
    assert result.code == 5
    assert "1 of 1 runs failed, first retraining seed 0: " in result.err and "not finite" in result.err
    assert read_json(out / "status.json")["state"] == "failed"
    assert not (out / "summary.json").exists()


def test_a_dry_run_of_seeds_is_that_of_one(
    tmp_path: Path, call: Call, arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = call("retrain", *arguments, "--seeds", "0-4", "--dry-run")
    assert result.code == 0
    assert list(tmp_path.iterdir()) == []
    assert "plan    4 epochs of 3 steps" in result.out
