"""The loop: a plan walked from wherever its run left off."""

import json
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
from cdarts.engine.run_dir import Checkpoint, RunDir, read_json
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

    def note(self, event: tuple[Any, ...]) -> None:
        self.calls.append(event)

    def plan(self) -> list[Epoch]:
        return [Epoch("first", 2), Epoch("idle", 1, cycle=0, opens_cycle=True), Epoch("second", 3, cycle=0)]

    def start_epoch(self, index: int, epoch: Epoch) -> None:
        self.note(("start", index, epoch.phase))

    def batches(self, index: int) -> Iterator[tuple[Tensor]]:
        draw = generator(0, "walk", index)
        steps = 0 if index == 1 else self.plan()[index].steps
        return iter([(torch.randn(3, generator=draw),) for _ in range(steps)])

    def step(self, position: int, *batch: Tensor) -> Losses:
        self.note(("step", position))
        loss = (self.point - batch[0]).square().sum() * self.loss_factor
        descend(loss, self.optimizer)
        return {"loss": loss.detach(), "position": torch.tensor(float(position))}

    def end_epoch(self, index: int, losses: Mapping[str, float]) -> Records:
        self.note(("end", index))
        return {"metrics": {"phase": self.plan()[index].phase, **losses}, "points": {"at": self.point.tolist()}}

    def state(self) -> dict[str, Any]:
        return {"point": self.point.data, "optimizer": self.optimizer.state()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        if state["point"].shape != self.point.shape:
            raise RuntimeError("size mismatch for point:\nmany\nlines")
        self.point.data.copy_(state["point"])
        self.optimizer.load_state(state["optimizer"])


@pytest.fixture(autouse=True)
def free_checkpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every epoch is worth one, however short."""
    monkeypatch.setattr(loop, "SHARE_OF_TIME", math.inf)


def walk(path: Path, task: Walk, stop: StopFlag | None = None, **options: Any) -> None:
    run_dir = RunDir(path) if (path / "config.json").exists() else RunDir.create(path, {})
    with run_dir:
        loop.run(task, run_dir, PlanProgress("walk", task.plan()), StopFlag() if stop is None else stop, **options)


def checkpoints(path: Path) -> list[str]:
    """Epoch and step of each, without zeros in front."""
    stems = sorted(file.stem for file in (path / "checkpoints").glob("*.safetensors"))
    return ["-".join(str(int(number)) for number in stem.split("-")[1:]) for stem in stems]


def journals(path: Path) -> dict[str, list[dict[str, Any]]]:
    """Without the clock's part."""
    with RunDir(path) as run:
        return {
            name: [{key: value for key, value in line.items() if key != "seconds"} for line in run.journal(name)]
            for name in ("metrics", "points")
        }


@pytest.fixture
def saves(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Epoch and step of every checkpoint that is written."""
    noted = []
    save = RunDir.save_checkpoint

    def noting(run_dir: RunDir, content: Checkpoint) -> None:
        noted.append((content.epoch, content.step))
        save(run_dir, content)

    monkeypatch.setattr(RunDir, "save_checkpoint", noting)
    return noted


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


@pytest.mark.parametrize(
    ("event", "number", "saved", "exit_code"),
    [
        (("start", 0, "first"), signal.SIGTERM, "0-1", 143),
        (("step", 0), signal.SIGINT, "0-1", 130),
        (("step", 1), signal.SIGUSR1, "0-2", 138),
        (("end", 0), signal.SIGTERM, "1-0", 143),
        (("start", 1, "idle"), signal.SIGTERM, "2-0", 143),
        (("start", 2, "second"), signal.SIGTERM, "2-1", 143),
        (("step", 2), signal.SIGTERM, "2-3", 143),
        (("end", 2), signal.SIGTERM, None, 143),
    ],
    ids=str,
)
def test_stopped_anywhere_and_resumed_is_as_never_stopped(
    tmp_path: Path, event: tuple[Any, ...], number: signal.Signals, saved: str | None, exit_code: int
) -> None:
    class Stopped(Walk):
        def note(self, event_: tuple[Any, ...]) -> None:
            super().note(event_)
            if event_ == event:
                signal.raise_signal(number)

    straight = Walk()
    walk(tmp_path / "straight", straight)
    with stop_on_signals() as stop:
        if saved is None:  # there is nothing left to stop before
            walk(tmp_path / "cut", Stopped(), stop)
        else:
            with pytest.raises(Interrupted) as raised:
                walk(tmp_path / "cut", Stopped(), stop)
            assert raised.value.exit_code == exit_code
            assert checkpoints(tmp_path / "cut")[-1] == saved
    resumed = Walk()
    walk(tmp_path / "cut", resumed)
    assert torch.equal(resumed.point, straight.point)
    assert journals(tmp_path / "cut") == journals(tmp_path / "straight")


def test_what_is_done_is_not_done_again(tmp_path: Path) -> None:
    class Stopped(Walk):
        def step(self, position: int, *batch: Tensor) -> Losses:
            if self.calls[-2:] == [("start", 2, "second"), ("step", 0)]:
                stop.number = signal.SIGTERM
            return super().step(position, *batch)

    stop = StopFlag()
    with pytest.raises(Interrupted):
        walk(tmp_path / "run", Stopped(), stop)
    resumed = Walk()
    walk(tmp_path / "run", resumed)
    assert resumed.calls == [("start", 2, "second"), ("step", 2), ("end", 2)]


# -- checkpoints -------------------------------------------------------------------------------------------------------


def test_checkpoints_at_the_ends_of_epochs_only(tmp_path: Path, saves: list[tuple[int, int]]) -> None:
    walk(tmp_path / "run", Walk())
    assert saves == [(0, 0), (1, 0), (2, 0), (3, 0)]
    assert checkpoints(tmp_path / "run") == ["2-0", "3-0"]


def test_checkpoints_after_every_step(tmp_path: Path, saves: list[tuple[int, int]]) -> None:
    walk(tmp_path / "run", Walk(), checkpoint_seconds=0)
    assert saves == [(0, 0), (0, 1), (0, 2), (1, 0), (2, 0), (2, 1), (2, 2), (2, 3), (3, 0)]


def test_checkpoints_by_time(tmp_path: Path, saves: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0

    class Slow(Walk):
        def step(self, position: int, *batch: Tensor) -> Losses:
            nonlocal now
            now += 100.0
            return super().step(position, *batch)

    monkeypatch.setattr(loop.time, "monotonic", lambda: now)
    walk(tmp_path / "run", Slow(), checkpoint_seconds=200)
    # within the second epoch of steps 200 seconds pass after its second step
    assert saves == [(0, 0), (0, 2), (1, 0), (2, 0), (2, 2), (3, 0)]


def test_short_epochs_share_a_checkpoint(
    tmp_path: Path, saves: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    save = RunDir.save_checkpoint

    class Slow(Walk):
        def plan(self) -> list[Epoch]:
            return [Epoch("short", 3)] * 10

        def step(self, position: int, *batch: Tensor) -> Losses:
            nonlocal now
            now += 10.0
            return super().step(position, *batch)

    def costly(run_dir: RunDir, content: Checkpoint) -> None:
        nonlocal now
        now += 0.8
        save(run_dir, content)

    monkeypatch.setattr(RunDir, "save_checkpoint", costly)
    monkeypatch.setattr(loop, "SHARE_OF_TIME", 0.01)
    monkeypatch.setattr(loop.time, "monotonic", lambda: now)
    walk(tmp_path / "run", Slow())
    # epochs of 30 seconds, the second without steps; checkpoints that are worth 80 seconds; one at the end in any case
    assert saves == [(0, 0), (4, 0), (7, 0), (10, 0)]
    assert [line["epoch"] for line in journals(tmp_path / "run")["metrics"]] == list(range(10))


def test_a_run_killed_after_any_step_continues_from_the_checkpoint_before(tmp_path: Path) -> None:
    """Every step of the plan, with checkpoints after every other one."""

    class KilledError(Exception):
        pass

    class Killed(Walk):
        def step(self, position: int, *batch: Tensor) -> Losses:
            self.steps += 1
            losses = super().step(position, *batch)
            if self.steps == self.limit:
                raise KilledError
            return losses

    straight = Walk()
    walk(tmp_path / "straight", straight)
    for limit in range(1, 6):
        killed = Killed()
        killed.limit, killed.steps = limit, 0
        with pytest.raises(KilledError):
            walk(tmp_path / f"{limit}", killed, checkpoint_seconds=0)
        resumed = Walk()
        walk(tmp_path / f"{limit}", resumed)
        assert torch.equal(resumed.point, straight.point)
        assert journals(tmp_path / f"{limit}") == journals(tmp_path / "straight")


def test_status_follows_the_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cdarts.engine.run_dir.SECONDS_BETWEEN_HEARTBEATS", 0.0)
    places = []

    class Looking(Walk):
        def end_epoch(self, index: int, losses: Mapping[str, float]) -> Records:
            if index != 1:
                status = read_json(tmp_path / "run" / "status.json")
                places.append((status["state"], status["phase"], status["epoch"], status["step"]))
            return super().end_epoch(index, losses)

    walk(tmp_path / "run", Looking())
    assert places == [("running", "first", 0, 2), ("running", "second", 2, 3)]


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
            if self.calls[-1:] == [("end", 0)]:
                raise CrashError
            return super().state()

    with pytest.raises(CrashError):
        walk(tmp_path / "run", Crashing())
    walk(tmp_path / "run", Walk())
    assert [line["epoch"] for line in journals(tmp_path / "run")["metrics"]] == [0, 1, 2]


# -- what is not finite ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [300, 0], ids=["at the epoch's end", "after the step"])
def test_a_loss_that_is_not_finite_is_not_saved(tmp_path: Path, seconds: int) -> None:
    class Broken(Walk):
        def step(self, position: int, *batch: Tensor) -> Losses:
            losses = super().step(position, *batch)
            return {**losses, "extra": torch.tensor(math.inf if len(self.calls) > 8 else 1.0)}

    with pytest.raises(NonFiniteError, match="mean of extra is inf"):
        walk(tmp_path / "run", Broken(), checkpoint_seconds=seconds)
    with RunDir(tmp_path / "run") as run:
        stored = run.load_checkpoint()
        assert stored is not None and (stored.epoch, stored.step) == ((2, 0) if seconds else (2, 1))
        assert len(run.journal("metrics")) == 2


def test_a_state_that_is_not_finite_is_not_saved(tmp_path: Path) -> None:
    class Broken(Walk):
        def state(self) -> dict[str, Any]:
            mean = torch.tensor([0.0, math.nan if len(self.calls) > 5 else 0.0])
            return {**super().state(), "statistics": [{"mean": mean}]}

    with pytest.raises(NonFiniteError, match=r"/statistics/0/mean in the state is not finite"):
        walk(tmp_path / "run", Broken())
    assert checkpoints(tmp_path / "run") == ["0-0", "1-0"]


class Bad(Walk):
    """Batches at some places (epoch, position) give gradients that are not numbers."""

    def __init__(self, *places: tuple[int, int]) -> None:
        super().__init__()
        self.places = places
        self.epoch = -1

    def start_epoch(self, index: int, epoch: Epoch) -> None:
        super().start_epoch(index, epoch)
        self.epoch = index

    def step(self, position: int, *batch: Tensor) -> Losses:
        if (self.epoch, position) not in self.places:
            return super().step(position, *batch)
        self.point.data.add_(1.0)  # as statistics of BatchNorm move before a gradient is known
        descend((self.point * math.nan).sum(), self.optimizer)
        raise AssertionError("not reached")

    def samples(self) -> dict[str, list[int]]:
        return {"train": [4, 2]}


def test_a_gradient_that_is_not_finite_ends_the_run(tmp_path: Path) -> None:
    with pytest.raises(
        NonFiniteError,
        match=r"epoch 3 \(second\), step 2: the gradient is not finite \(loss nan\).*--on-nonfinite skip",
    ) as raised:
        walk(tmp_path / "run", Bad((2, 1)))
    assert raised.value.exit_code == 5
    (report,) = json.loads((tmp_path / "run" / "nonfinite.json").read_text())
    assert report.pop("message").startswith("the gradient is not finite (loss nan)")
    assert report == {"epoch": 2, "phase": "second", "step": 1, "samples": {"train": [4, 2]}}
    assert checkpoints(tmp_path / "run") == ["1-0", "2-0"]


class Without(Walk):
    """A walk that never had the batches at some places."""

    def __init__(self, *places: tuple[int, int]) -> None:
        super().__init__()
        self.places = places

    def batches(self, index: int) -> Iterator[tuple[Tensor]]:
        kept = [batch for place, batch in enumerate(super().batches(index)) if (index, place) not in self.places]
        return iter(kept)


@pytest.mark.parametrize("seconds", [0, 300])
@pytest.mark.parametrize("places", [[(0, 0)], [(0, 1), (2, 0), (2, 2)]], ids=str)
def test_a_batch_that_is_left_out_might_never_have_been(
    tmp_path: Path, places: list[tuple[int, int]], seconds: int, capsys: pytest.CaptureFixture[str]
) -> None:
    task, without = Bad(*places), Without(*places)
    walk(tmp_path / "run", task, checkpoint_seconds=seconds, skips_nonfinite=True)
    walk(tmp_path / "without", without)
    assert torch.equal(task.point, without.point)
    assert capsys.readouterr().err.count("The run goes on without this batch") == len(places)
    metrics = journals(tmp_path / "run")["metrics"]
    assert [line["loss"] for line in metrics if "loss" in line] == [
        line["loss"] for line in journals(tmp_path / "without")["metrics"] if "loss" in line
    ]
    counts = [sum(epoch == index for epoch, _ in places) for index in range(3)]
    assert [line.get("skipped_batches", 0) for line in metrics] == counts
    assert len(json.loads((tmp_path / "run" / "nonfinite.json").read_text())) == len(places)


def test_a_run_that_stopped_at_a_bad_batch_goes_on_without_it(tmp_path: Path) -> None:
    with pytest.raises(NonFiniteError):
        walk(tmp_path / "run", Bad((2, 1)))
    task, without = Bad((2, 1)), Without((2, 1))
    walk(tmp_path / "run", task, skips_nonfinite=True)
    walk(tmp_path / "without", without)
    assert torch.equal(task.point, without.point)
    # what was left out stays so, and is counted, in a process that comes later
    with RunDir(tmp_path / "run") as run:
        stored = run.load_checkpoint()
    assert stored is not None
    assert [(report["epoch"], report["step"]) for report in stored.so_far["skipped"]] == [(2, 1)]


def test_a_run_gives_up_when_too_many_batches_are_bad(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "MOST_SKIPPED", 2)
    with pytest.raises(NonFiniteError, match="2 batches have been left out already"):
        walk(tmp_path / "run", Bad((0, 0), (2, 0), (2, 2)), skips_nonfinite=True)
    assert checkpoints(tmp_path / "run")[-1] == "2-0"


# -- checkpoints that do not fit ---------------------------------------------------------------------------------------


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
