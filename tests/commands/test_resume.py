"""`cdarts resume`: after real signals to real processes, and from files that are not what they were."""

import json
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cdarts.engine.run_dir import read_json

Call = Callable[..., Any]
Results = Callable[[Path], dict[str, Any]]

EPOCHS = 120
HOLD = """
import fcntl, sys
lock = open(sys.argv[1], "a+")
fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
print("held", flush=True)
sys.stdin.read()
"""


def arguments(data: Path, out: Path, epochs: int) -> list[str]:
    """A retraining whose network has few kernels to launch, so that hundreds of epochs take seconds."""
    text = "|nor_conv_1x1~0|+|skip_connect~0|none~1|+|skip_connect~0|none~1|none~2|"
    sizes = ["--cells", "3", "--channels", "2", "--batch-size", "40", "--epochs", str(epochs), "--evaluate-every", "50"]
    return [
        "retrain",
        text,
        *sizes,
        "--auxiliary-weight",
        "0",
        "--threads",
        "1",
        "--data",
        str(data),
        "--out",
        str(out),
    ]


def start(command: list[str], out: Path, epochs: int) -> subprocess.Popen[str]:
    """A real process, once it has trained a few epochs."""
    process = subprocess.Popen(
        [sys.executable, "-m", "cdarts.cli", *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    patience = time.monotonic() + 120
    journal = out / "metrics.jsonl"
    while not (journal.exists() and journal.read_bytes().count(b"\n") >= epochs):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < patience
        time.sleep(0.005)
    return process


def stopped_at(out: Path) -> tuple[int, int]:
    """Epoch and step of the last step that was done, by the name of the newest checkpoint."""
    epoch, step = (int(number) for number in max((out / "checkpoints").iterdir()).stem.split("-")[1:])
    return (epoch, step) if step else (epoch - 1, 1)


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory, few_digits: Path) -> Path:
    """The same retraining, never stopped."""
    from cdarts.cli import main

    path = tmp_path_factory.mktemp("straight") / "run"
    assert main(arguments(few_digits, path, EPOCHS)) == 0
    return path


@pytest.mark.parametrize(
    ("number", "exit_code"),
    [
        (signal.SIGTERM, 143),
        pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow),  # the other signals also in `test_signals.py`
        pytest.param(signal.SIGUSR1, 128 + signal.SIGUSR1, marks=pytest.mark.slow),
    ],
)
def test_a_process_that_gets_a_signal(
    tmp_path: Path,
    call: Call,
    few_digits: Path,
    straight: Path,
    results: Results,
    number: signal.Signals,
    exit_code: int,
) -> None:
    out = tmp_path / "my run"
    process = start(arguments(few_digits, out, EPOCHS), out, 3)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == exit_code
    assert err == f"error: stopped by {number.name}; go on: cdarts resume {shlex.quote(str(out))}\n"
    status = read_json(out / "status.json")
    assert (status["state"], status["message"]) == ("interrupted", f"stopped by {number.name}")
    assert (status["phase"], status["epoch"], status["step"]) == ("train", *stopped_at(out))
    program, *words = shlex.split(status["resume"])
    assert program == "cdarts"
    assert call(*words).code == 0
    assert results(out) == results(straight)


def test_a_process_that_is_killed(
    tmp_path: Path, call: Call, few_digits: Path, straight: Path, results: Results
) -> None:
    out = tmp_path / "run"
    process = start(arguments(few_digits, out, EPOCHS), out, 5)
    process.kill()
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    assert read_json(out / "status.json")["state"] == "running"
    assert call("resume", out).code == 0
    assert results(out) == results(straight)


def test_a_training_that_diverges(tmp_path: Path, call: Call, few_digits: Path) -> None:
    out = tmp_path / "run"
    result = call(*arguments(few_digits, out, 30), "--lr", "1e30", "--checkpoint-seconds", "0")
    assert result.code == 5
    assert "step 1: the gradient is not finite (loss nan)" in result.error()
    status = read_json(out / "status.json")
    assert status["state"] == "failed" and "not finite" in status["message"]
    (report,) = json.loads((out / "nonfinite.json").read_text())
    assert sorted(report["samples"]["train"]) == list(range(40))
    before = stopped_at(out)
    result = call("resume", out, "--on-nonfinite", "skip")
    assert result.code == 5, "without that batch, the next one is no better"
    assert "10 batches have been left out already" in result.err.splitlines()[-1]
    assert result.err.count("The run goes on without this batch") == 10
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [line.get("skipped_batches", 0) for line in lines] == [0] * len(lines[: before[0] + 1]) + [1] * 10


# -- files that are not what they were ---------------------------------------------------------------------------------


@pytest.fixture
def stopped(tmp_path: Path, call: Call, few_digits: Path, stop_after: Callable[..., None]) -> Path:
    out = tmp_path / "stopped"
    stop_after(3, "stopped")
    assert call(*arguments(few_digits, out, 5)).code == 143
    return out


def damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def test_a_damaged_newest_checkpoint_costs_an_epoch(
    tmp_path: Path, call: Call, few_digits: Path, stopped: Path, results: Results
) -> None:
    damage(stopped / "checkpoints" / "step-00003-0000000.safetensors")
    result = call("resume", stopped)
    assert result.code == 0
    assert "step-00003-0000000.safetensors" in result.err and "the checkpoint before is used" in result.err
    assert call(*arguments(few_digits, tmp_path / "straight", 5)).code == 0
    assert results(stopped) == results(tmp_path / "straight")


def test_all_checkpoints_damaged(call: Call, stopped: Path) -> None:
    for path in (stopped / "checkpoints").iterdir():
        damage(path)
    result = call("resume", stopped)
    assert result.code == 4
    assert result.err.splitlines()[-1].startswith("error: no usable checkpoint")
    status = read_json(stopped / "status.json")
    assert status["state"] == "failed" and "no usable checkpoint" in status["message"]
    assert call("resume", stopped).code == 4, "it does not start over in silence the next time"


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda text: text[: len(text) // 2], "config.json: cannot be read"),
        (lambda _: "[]", "must hold a JSON object"),
        (lambda _: "{}", '"command" must be one of search, retrain, run'),
        (lambda text: text.replace('"retrain"', '"dance"', 1), '"command" must be one of'),
        (lambda text: text.replace('"epochs": 5', '"epochs": "5"'), "training.epochs"),
        (lambda text: text.replace('"epochs": 5', '"epochs": 5, "epoxy": 5'), "training.epoxy"),
        (lambda text: text.replace('"seed": 0', '"seed": null'), "seed"),
        (lambda text: text.replace('"version": 1', '"version": 9'), "genotype"),
        (lambda text: text.replace("nor_conv_1x1", "nor_conv_9x9"), "nor_conv_9x9"),
    ],
    ids=["truncated", "list", "empty", "command", "type", "key", "null", "genotype", "operation"],
)
def test_a_corrupted_config(call: Call, stopped: Path, change: Callable[[str], str], complaint: str) -> None:
    path = stopped / "config.json"
    changed = change(path.read_text())
    assert changed != path.read_text()
    path.write_text(changed)
    result = call("resume", stopped)
    assert result.code == 2
    assert complaint in result.error()


def test_a_config_without_genotype(call: Call, stopped: Path) -> None:
    config = read_json(stopped / "config.json")
    del config["genotype"]
    (stopped / "config.json").write_text(json.dumps(config))
    result = call("resume", stopped)
    assert result.code == 2
    assert "config.json: genotype: must be a genotype" in result.error()


def test_a_config_without_its_plan(tmp_path: Path, call: Call) -> None:
    config = {
        "command": "run",
        "cdarts": "0.1.0",
        "settings": {"data": "synthetic"},
        "plan": {"search": {"cycles": "many"}},
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    result = call("resume", tmp_path)
    assert result.code == 2
    for key in ("plan: search.cycles", "retraining", "search_seconds"):
        assert key in result.error()


def test_settings_that_have_changed(call: Call, stopped: Path) -> None:
    path = stopped / "config.json"
    begun = path.read_text()
    path.write_text(begun.replace('"lr": 0.025', '"lr": 0.05').replace('"seed": 0', '"seed": 1'))
    result = call("resume", stopped)
    assert result.code == 2
    assert "settings.training.lr was 0.025, is 0.05" in result.error()
    assert "settings.seed was 0, is 1" in result.error()
    path.write_text(begun)
    assert call("resume", stopped).code == 0


def test_settings_that_may_change(tmp_path: Path, call: Call, stopped: Path, few_digits: Path) -> None:
    moved = few_digits.rename(tmp_path / "moved.npz")
    try:
        path = stopped / "config.json"
        config = read_json(path)
        config["settings"] |= {"data": str(moved), "threads": 2, "out": "elsewhere", "checkpoint_seconds": 5}
        path.write_text(json.dumps(config))
        result = call("resume", stopped)
        assert result.code == 0
        assert "warning: " in result.err and "threads 1, now 2" in result.err
    finally:
        moved.rename(few_digits)
        torch.set_num_threads(1)


def test_settings_that_the_checkpoint_does_not_fit(call: Call, stopped: Path) -> None:
    path = stopped / "config.json"
    path.write_text(path.read_text().replace('"channels": 2', '"channels": 4'))
    (stopped / "environment.json").unlink()  # which knows what the run was begun with
    result = call("resume", stopped)
    assert result.code == 4
    assert "does not fit the settings in its config.json" in result.error()


def test_data_that_has_changed(call: Call, stopped: Path, few_digits: Path) -> None:
    config = read_json(stopped / "config.json")
    with np.load(few_digits) as archive:
        arrays = dict(archive)
    arrays["x_train"] = 255 - arrays["x_train"]
    np.savez(stopped / "other.npz", **arrays)
    config["settings"]["data"] = str(stopped / "other.npz")
    (stopped / "config.json").write_text(json.dumps(config))
    result = call("resume", stopped)
    assert result.code == 3
    assert "the data set is not the one" in result.error()


def test_a_run_that_another_process_works_in(call: Call, stopped: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(stopped / "run.lock")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        result = call("resume", stopped)
        assert result.code == 7
        assert "is in use by" in result.error()
        assert read_json(stopped / "status.json")["state"] == "interrupted", "not a word in the other's run"
        holder.kill()
    assert call("resume", stopped).code == 0


def test_what_is_no_run(tmp_path: Path, call: Call) -> None:
    result = call("resume", tmp_path / "absent")
    assert result.code == 2
    assert result.error() == f"{tmp_path / 'absent'} is not a run directory: there is no such folder"
    assert "no config.json" in call("resume", tmp_path).error()
