"""Signals at any moment of a retraining: the step ends, the exit code says which signal, and a resume is exact."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cdarts.cli import main
from cdarts.engine.run_dir import read_json
from cdarts.retraining.task import RetrainTask

Call = Callable[..., Any]
Results = Callable[[Path], dict[str, Any]]

STEPS = 4
"""Of each of the three epochs."""
MOMENTS = {"batch": 6, "step": 6, "evaluation": 2, "checkpoint": 5}
"""What a signal comes in the middle of, and at which time that it happens."""
CASES = [
    *((signal.SIGTERM, False, 143), (signal.SIGINT, False, 130), (signal.SIGUSR1, False, 128 + signal.SIGUSR1)),
    (signal.SIGINT, True, 130),
]
"""Signal, whether it comes twice, exit code."""


@pytest.fixture
def arguments(few_digits: Path) -> list[str]:
    sizes = ["--cells", "3", "--channels", "2", "--batch-size", "10", "--epochs", "3", "--auxiliary-weight", "0"]
    text = "|nor_conv_1x1~0|+|skip_connect~0|none~1|+|skip_connect~0|none~1|none~2|"
    machine = ["--threads", "1", "--device", "cpu", "--checkpoint-seconds", "0"]
    return ["retrain", text, *sizes, *machine, "--data", str(few_digits)]


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("straight") / "run"


class Bell:
    """Rings at the so-many-th time that something happens."""

    def __init__(self, moment: str, number: signal.Signals, twice: bool) -> None:
        self.moment, self.left = moment, MOMENTS[moment]
        self.number, self.twice = number, twice
        self.rang: float | None = None

    def pass_by(self) -> None:
        self.left -= 1
        if self.left == 0:
            self.rang = time.monotonic()
            signal.raise_signal(self.number)
            if self.twice:
                signal.raise_signal(self.number)

    def hang_up(self, patch: pytest.MonkeyPatch) -> None:
        step, batches, test, flush = RetrainTask.step, RetrainTask.batches, RetrainTask.test, os.fsync

        def ringing(function: Callable[..., Any]) -> Callable[..., Any]:
            def call(*arguments: Any) -> Any:
                self.pass_by()
                return function(*arguments)

            return call

        def loading(task: RetrainTask, index: int) -> Iterator[Any]:
            for batch in batches(task, index):
                self.pass_by()
                yield batch

        match self.moment:
            case "batch":
                patch.setattr(RetrainTask, "batches", loading)
            case "step":
                patch.setattr(RetrainTask, "step", ringing(step))
            case "evaluation":
                patch.setattr(RetrainTask, "test", ringing(test))
            case "checkpoint":
                patch.setattr(os, "fsync", ringing(flush))


@pytest.mark.parametrize(("number", "twice", "exit_code"), CASES, ids=["TERM", "INT", "USR1", "INT twice"])
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_signal(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    call: Call,
    results: Results,
    arguments: list[str],
    straight: Path,
    moment: str,
    number: signal.Signals,
    twice: bool,
    exit_code: int,
) -> None:
    if not straight.exists():
        assert main([*arguments, "--out", str(straight)]) == 0
    out = tmp_path / "run"
    bell = Bell(moment, number, twice)
    with monkeypatch.context() as patch:
        bell.hang_up(patch)
        result = call(*arguments, "--out", out)
    assert bell.rang is not None and time.monotonic() - bell.rang < 10
    assert result.code == exit_code
    assert result.error().startswith(f"stopped by {number.name}; go on: cdarts resume ")
    assert read_json(out / "status.json")["state"] == "interrupted"
    assert not list((out / "checkpoints").glob(".*")), "nothing unfinished"
    if moment in ("batch", "step"):  # the second epoch's second step
        newest = max((out / "checkpoints").iterdir()).stem
        assert newest == ("step-00001-0000001" if twice else "step-00001-0000002")
    assert call("resume", out).code == 0
    assert results(out) == results(straight)
