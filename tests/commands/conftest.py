"""What the tests of commands share: calling the command line, stopping a run, comparing two."""

import json
import math
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cdarts.algorithms import CyclicConfig
from cdarts.cli import main
from cdarts.data import load
from cdarts.engine import checkpoint, loop
from cdarts.engine.run_dir import Checkpoint, RunDir
from cdarts.spaces import ToySpace


@dataclass(frozen=True)
class Result:
    """What a command left on the terminal."""

    code: int
    out: str
    err: str

    def error(self) -> str:
        """The one line that an error is."""
        lines = self.err.splitlines()
        assert len(lines) == 1 and lines[0].startswith("error: "), self.err
        return lines[0].removeprefix("error: ")


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    """``call("search", "smoke", ...)``: the command line in this process."""

    def run(*arguments: str | Path) -> Result:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        output = capsys.readouterr()
        return Result(code, output.out, output.err)

    return run


@pytest.fixture(scope="session")
def toy_search() -> CyclicConfig:
    """A whole search in a fraction of a second: ten epochs, some of them without steps."""
    return CyclicConfig(
        space=ToySpace(),
        channels=4,
        search_cells=2,
        eval_cells=3,
        batch_size=64,
        pretrain_epochs=1,
        cycles=3,
        warmup_epochs=2,
        warmup_unchanged=False,
        detach_teacher=True,
        head_supervision=True,
        feedback_levels=(0, 1),
    )


@pytest.fixture
def stop_after(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """``stop_after(2, "retrain")``: a signal comes right after the second epoch's checkpoint in a run of that name."""

    def arrange(epoch: int, name: str, number: signal.Signals = signal.SIGTERM) -> None:
        save = RunDir.save_checkpoint
        monkeypatch.setattr(loop, "SHARE_OF_TIME", math.inf)  # an epoch has its checkpoint, however short it is

        def save_and_signal(self: RunDir, content: Checkpoint) -> None:
            save(self, content)
            if (content.epoch, content.step, self.path.name) == (epoch, 0, name):
                monkeypatch.setattr(RunDir, "save_checkpoint", save)
                signal.raise_signal(number)

        monkeypatch.setattr(RunDir, "save_checkpoint", save_and_signal)

    return arrange


@pytest.fixture
def results() -> Callable[[Path], dict[str, Any]]:
    """Everything a run of one stage found: last state, files, journals, without what the clock says."""

    def read(run: Path) -> dict[str, Any]:
        last = max((run / "checkpoints").glob("*.safetensors"))
        stored = checkpoint.load(last)
        # the same state gives the same bytes
        copy = run / "compared"
        checkpoint.save(copy, stored["task"])
        found: dict[str, Any] = {"epoch": stored["epoch"], "step": stored["step"], "state": copy.read_bytes()}
        copy.unlink()
        for journal in sorted(run.glob("*.jsonl")):
            lines = [json.loads(line) for line in journal.read_text().splitlines()]
            found[journal.name] = [{key: value for key, value in line.items() if key != "seconds"} for line in lines]
        for name in ("genotype.json", "cell.svg", "model.json", "model.safetensors"):
            if (run / name).exists():
                found[name] = (run / name).read_bytes()
        return found

    return read


@pytest.fixture(scope="session")
def few_digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive of real digits: four of each class to train on, two to test."""
    digits = load("digits").train
    members = [np.flatnonzero(digits.labels == label) for label in range(10)]
    train, test = (np.concatenate([of_class[part] for of_class in members]) for part in (slice(4), slice(4, 6)))
    path = tmp_path_factory.mktemp("data") / "few.npz"
    np.savez(
        path,
        x_train=digits.pixels[train],
        y_train=digits.labels[train],
        x_test=digits.pixels[test],
        y_test=digits.labels[test],
    )
    return path


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network that reads digits, trained by the command line within seconds."""
    path = tmp_path_factory.mktemp("trained") / "run"
    sizes = ("--cells", "3", "--channels", "6", "--epochs", "6", "--batch-size", "32", "--lr", "0.1", "--cutout", "0")
    recipe = ("--auxiliary-weight", "0", "--drop-path", "0", "--evaluate-every", "6")
    assert main(["retrain", "darts-v1", *sizes, *recipe, "--threads", "1", "--device", "cpu", "--out", str(path)]) == 0
    return path
