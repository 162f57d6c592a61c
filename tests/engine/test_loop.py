"""The loop: a plan walked from wherever its run left off."""

import math
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cdarts.engine import loop
from cdarts.engine.descent import descend
from cdarts.engine.loop import Means
from cdarts.engine.optimizers import Adam
from cdarts.engine.progress import PlanProgress
from cdarts.engine.run_dir import RunDir
from cdarts.engine.runtime import Interrupted, StopFlag, stop_on_signals
from cdarts.engine.task import Epoch, Losses, Records, Task
from cdarts.errors import CheckpointError, GenotypeError, NonFiniteError
from cdarts.randomness import generator


class Walk(Task):
    """A point that Adam drives towards targets drawn by epoch and step; it notes what the loop asks of it."""

    def __init__(self, width: int = 3) -> None:
        self.point = nn.Parameter(torch.zeros(width))
        self.optimizer = Adam(lr=0.1).build([("point", self.point)])
        self.calls: list[tuple[Any, ...]] = []
        self.loss_factor = 1.0

    def plan(self) -> list[Epoch]:
        return [Epoch("first", 2), Epoch("idle", 1, cycle=0, opens_cycle=True), Epoch("second", 3, cycle=0)]

    def start_epoch(self, index: int, epoch: Epoch) -> None:
        self.calls.append(("start", index, epoch.phase))

    def batches(self, index: int) -> Iterator[tuple[Tensor]]:
        draw = generator(0, "walk", index)
        steps = 0 if index == 1 else self.plan()[index].steps
        return iter([(torch.randn(3, generator=draw),) for _ in range(steps)])

    def step(self, position: int, *batch: Tensor) -> Losses:
        self.calls.append(("step", position))
        loss = (self.point - batch[0]).square().sum() * self.loss_factor
        descend(loss, self.optimizer)
        return {"loss": loss.detach(), "position": torch.tensor(float(position))}

    def end_epoch(self, index: int, losses: Mapping[str, float]) -> Records:
        self.calls.append(("end", index))
        return {"metrics": {"phase": self.plan()[index].phase, **losses}, "points": {"at": self.point.tolist()}}

    def state(self) -> dict[str, Any]:
        return {"point": self.point.data, "optimizer": self.optimizer.state()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        if state["point"].shape != self.point.shape:
            raise RuntimeError("size mismatch for point:\nmany\nlines")
        self.point.data.copy_(state["point"])
        self.optimizer.load_state(state["optimizer"])


def walk(path: Path, task: Walk, stop: StopFlag | None = None) -> None:
    run_dir = RunDir(path) if (path / "config.json").exists() else RunDir.create(path, {})
    with run_dir:
        loop.run(task, run_dir, PlanProgress("walk", task.plan()), StopFlag() if stop is None else stop)


def journals(path: Path) -> dict[str, list[dict[str, Any]]]:
    """Without the clock's part."""
    with RunDir(path) as run:
        return {
            name: [{key: value for key, value in line.items() if key != "seconds"} for line in run.journal(name)]
            for name in ("metrics", "points")
        }


def test_walks_the_plan_in_order(tmp_path: Path) -> None:
    task = Walk()
    walk(tmp_path / "run", task)
    assert task.calls == [
        ("start", 0, "first"),
        ("step", 0),
        ("step", 1),
        ("end", 0),
        ("start", 1, "idle"),
        ("end", 1),
        ("start", 2, "second"),
        ("step", 0),
        ("step", 1),
        ("step", 2),
        ("end", 2),
    ]


def test_journals_hold_the_means(tmp_path: Path) -> None:
    walk(tmp_path / "run", Walk())
    metrics = journals(tmp_path / "run")["metrics"]
    assert [(line["epoch"], line["phase"], line.get("position")) for line in metrics] == [
        (0, "first", 0.5),
        (1, "idle", None),
        (2, "second", 1.0),
    ]
    with RunDir(tmp_path / "run") as run:
        assert all(line["seconds"] >= 0 for line in run.journal("metrics"))


def test_stops_before_an_epoch_without_steps(tmp_path: Path) -> None:
    class Stopped(Walk):
        def end_epoch(self, index: int, losses: Mapping[str, float]) -> Records:
            signal.raise_signal(signal.SIGTERM)
            return super().end_epoch(index, losses)

    task = Stopped()
    with stop_on_signals() as stop, pytest.raises(Interrupted):
        walk(tmp_path / "run", task, stop)
    assert task.calls[-1] == ("end", 0)


@pytest.mark.parametrize("epoch", [0, 1, 2])
@pytest.mark.parametrize("moment", ["step", "end of the epoch"])
def test_stopped_anywhere_and_resumed_is_as_never_stopped(tmp_path: Path, epoch: int, moment: str) -> None:
    class Stopped(Walk):
        def step(self, position: int, *batch: Tensor) -> Losses:
            if moment == "step" and self.calls[-1][0] == "start" and self.calls[-1][1] == epoch:
                signal.raise_signal(signal.SIGTERM)
            return super().step(position, *batch)

        def end_epoch(self, index: int, losses: Mapping[str, float]) -> Records:
            if moment == "end of the epoch" and index == epoch:
                signal.raise_signal(signal.SIGINT)
            return super().end_epoch(index, losses)

    straight = Walk()
    walk(tmp_path / "straight", straight)
    stopped = Stopped()
    # there is no step left to stop before once the last epoch ends, nor one in the idle epoch
    stops = not (moment == "end of the epoch" and epoch == 2) and not (moment == "step" and epoch == 1)
    with stop_on_signals() as stop:
        if stops:
            with pytest.raises(Interrupted) as raised:
                walk(tmp_path / "cut", stopped, stop)
            assert raised.value.exit_code == (143 if moment == "step" else 130)
        else:
            walk(tmp_path / "cut", stopped, stop)
    resumed = Walk()
    walk(tmp_path / "cut", resumed)
    assert torch.equal(resumed.point, straight.point)
    assert journals(tmp_path / "cut") == journals(tmp_path / "straight")


def test_a_finished_run_stays_as_it_is(tmp_path: Path) -> None:
    first, again = Walk(), Walk()
    walk(tmp_path / "run", first)
    walk(tmp_path / "run", again)
    assert again.calls == []
    assert torch.equal(first.point, again.point)


def test_an_interruption_between_line_and_checkpoint_leaves_no_line_twice(tmp_path: Path) -> None:
    class CrashError(Exception):
        pass

    class Crashing(Walk):
        def state(self) -> dict[str, Any]:
            if self.calls[-1] == ("end", 0):
                raise CrashError
            return super().state()

    with pytest.raises(CrashError):
        walk(tmp_path / "run", Crashing())
    walk(tmp_path / "run", Walk())
    assert [line["epoch"] for line in journals(tmp_path / "run")["metrics"]] == [0, 1, 2]


def test_a_loss_that_is_not_finite_saves_nothing_of_its_epoch(tmp_path: Path) -> None:
    class Broken(Walk):
        def step(self, position: int, *batch: Tensor) -> Losses:
            losses = super().step(position, *batch)
            return {**losses, "extra": torch.tensor(math.inf if len(self.calls) > 6 else 1.0)}

    with pytest.raises(NonFiniteError, match="mean of extra is inf"):
        walk(tmp_path / "run", Broken())
    with RunDir(tmp_path / "run") as run:
        stored = run.load_checkpoint()
        assert stored is not None and stored[0] == 2
        assert len(run.journal("metrics")) == 2


def test_a_gradient_that_is_not_finite_ends_the_run(tmp_path: Path) -> None:
    task = Walk()
    task.loss_factor = math.nan
    with pytest.raises(NonFiniteError, match="gradient is not finite"):
        walk(tmp_path / "run", task)
    assert torch.equal(task.point.data, torch.zeros(3))


def test_a_checkpoint_of_other_settings_is_refused(tmp_path: Path) -> None:
    walk(tmp_path / "run", Walk())
    with pytest.raises(
        CheckpointError, match=r"does not fit the settings in its config.json.*\(size mismatch for point:\)"
    ):
        walk(tmp_path / "run", Walk(width=4))


def test_means_of_different_counts() -> None:
    means = Means()
    means.add({"a": torch.tensor(1.0), "b": torch.tensor(4.0)})
    means.add({"a": torch.tensor(2.0)})
    assert means.read() == {"a": 1.5, "b": 4.0}
    assert Means().read() == {}


def test_means_add_up_in_double_precision() -> None:
    means = Means()
    for value in (1e8, 1.0, 1.0):
        means.add({"loss": torch.tensor(value)})
    assert means.read() == {"loss": (1e8 + 2) / 3}


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("tried to allocate 9 GiB"), torch.OutOfMemoryError),
        (RuntimeError("[alloc_cpu] DefaultCPUAllocator: can't allocate memory: 9 bytes"), RuntimeError),
        (GenotypeError("normal cell: unknown operation"), CheckpointError),
    ],
)
def test_what_fails_while_a_state_is_taken_over(tmp_path: Path, error: Exception, expected: type[Exception]) -> None:
    class Failing(Walk):
        def load_state(self, state: Mapping[str, Any]) -> None:  # noqa: ARG002 - fails whatever it is
            raise error

    walk(tmp_path / "run", Walk())
    with pytest.raises(expected) as raised:
        walk(tmp_path / "run", Failing())
    assert type(raised.value) is expected
