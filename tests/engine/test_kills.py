"""`kill -9` at any point: whatever a run was at, it goes on to the same bits.

Processes are forked from this one, which has paid for the imports. They kill themselves before, within or after a step,
a write, a flush, a rename or a removal; among the slow tests they are killed at random times.
"""

import functools
import json
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from cdarts.algorithms import CyclicConfig
from cdarts.algorithms.p_darts import PDartsConfig
from cdarts.algorithms.rsps import RspsConfig
from cdarts.data import ImageData, load
from cdarts.engine import checkpoint, loop
from cdarts.engine.optimizers import Sgd
from cdarts.engine.progress import PlanProgress
from cdarts.engine.run_dir import RunDir
from cdarts.engine.runtime import StopFlag
from cdarts.engine.task import Task
from cdarts.retraining import Retraining
from cdarts.spaces import ToySpace
from cdarts.topology import Genotype

SIZES: dict[str, Any] = {"space": ToySpace(), "channels": 4, "batch_size": 32, "weights": Sgd(lr=0.05)}
SEARCHES = {
    "cyclic": CyclicConfig(
        space=ToySpace(),
        channels=4,
        search_cells=2,
        eval_cells=3,
        batch_size=64,
        pretrain_epochs=1,
        cycles=2,
        feedback_levels=(0, 1),
    ),
    "sampling": RspsConfig(**SIZES, cells=2, epochs=6, candidates=16),
    "staged": PDartsConfig(**SIZES, cells=2, epochs=6, still_epochs=1, added_cells=(0, 1, 2)),
}
Build = Callable[[ImageData], Task]


def search(name: str) -> Build:
    return lambda data: SEARCHES[name].build(data, seed=0, device=torch.device("cpu"), execution="share")


def retraining(data: ImageData) -> Task:
    config = Retraining(space=ToySpace(), cells=3, channels=4, epochs=6, batch_size=64, auxiliary_weight=0.0)
    strengths = {
        kind: [[1.0 + column for column in range(len(ToySpace.operations))] for _ in cell.edges]
        for kind, cell in ToySpace().supernet().items()
    }
    genotype: Genotype = ToySpace().derive(strengths)
    return replace(config, drop_path=0.2).build(genotype, data, seed=0, device=torch.device("cpu"), execution="share")


BUILDS: dict[str, Build] = {**{name: search(name) for name in SEARCHES}, "retraining": retraining}


def train(build: Build, data: ImageData, out: Path) -> None:
    task = build(data)
    with RunDir(out) as run:
        loop.run(task, run, PlanProgress("run", task.plan()), StopFlag(), checkpoint_seconds=0)


def fork(work: Callable[[], None]) -> int:
    """The process that does the work."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            work()
            code = 0
        finally:
            os._exit(code)
    return pid


def is_done(pid: int) -> bool:
    """Whether a process that is over has done its work; false if it was killed."""
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    assert code in (0, -signal.SIGKILL)
    return code == 0


class Fate:
    """This process will be killed at its so-many-th event."""

    def __init__(self, events: int) -> None:
        self.left = events
        for owner, name in ((os, "fsync"), (Path, "replace"), (Path, "unlink")):
            setattr(owner, name, self.watched(getattr(owner, name)))
        write = os.write

        def in_two_parts(descriptor: int, data: Any) -> int:
            first = write(descriptor, data[: len(data) // 2])
            self.event()
            return first + write(descriptor, data[first:])

        os.write = self.watched(in_two_parts)

    def event(self) -> None:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def watched(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function; before it and after it are events."""

        def call(*arguments: Any, **options: Any) -> Any:
            self.event()
            result = function(*arguments, **options)
            self.event()
            return result

        return call


def results(out: Path) -> dict[str, Any]:
    """The last state to the bit, and the journals without what the clock says."""
    stored = checkpoint.load(max((out / "checkpoints").glob("*.safetensors")))
    checkpoint.save(out / "compared", stored["task"])
    found: dict[str, Any] = {"at": (stored["epoch"], stored["step"]), "state": (out / "compared").read_bytes()}
    for journal in sorted(out.glob("*.jsonl")):
        lines = [json.loads(line) for line in journal.read_text().splitlines()]
        found[journal.name] = [{key: value for key, value in line.items() if key != "seconds"} for line in lines]
    return found


@pytest.fixture(scope="module")
def data() -> ImageData:
    images = load("synthetic")
    for build in BUILDS.values():  # here, rather than in every process, the lazy imports
        task = build(images)
        task.start_epoch(0, task.plan()[0])
        task.step(0, *next(task.batches(0)))
    return images


@pytest.fixture(scope="module")
def straight(
    data: ImageData, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], tuple[dict[str, Any], float]]:
    """What each run finds if it is never killed, and how long that takes."""

    @functools.cache
    def found(name: str) -> tuple[dict[str, Any], float]:
        out = tmp_path_factory.mktemp(name) / "straight"
        RunDir.create(out, {}).close()
        began = time.monotonic()
        assert is_done(fork(lambda: train(BUILDS[name], data, out)))
        return results(out), time.monotonic() - began

    return found


def kill_at_events(kills: int, build: Build, data: ImageData, folder: Path) -> Iterator[dict[str, Any]]:
    """The results of runs that were killed so many times in all, on average at every thirtieth event."""
    moments = random.Random(0)
    killed = runs = 0
    while killed < kills:
        runs += 1
        out = folder / f"{runs}"
        RunDir.create(out, {}).close()

        def work(events: int, out: Path = out) -> None:
            fate = Fate(events)
            task = build(data)
            task.step = fate.watched(task.step)  # type: ignore[method-assign]
            train(lambda _: task, data, out)

        while not is_done(fork(lambda: work(moments.randint(1, 60)))):
            killed += 1
        yield results(out)


@pytest.mark.parametrize("name", BUILDS)
@pytest.mark.parametrize("kills", [10, pytest.param(1000, marks=[pytest.mark.slow, pytest.mark.timeout(7200)])])
def test_killed_at_any_point(
    name: str, kills: int, data: ImageData, straight: Callable[[str], tuple[dict[str, Any], float]], tmp_path: Path
) -> None:
    for found in kill_at_events(kills, BUILDS[name], data, tmp_path):
        assert found == straight(name)[0]


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("name", BUILDS)
def test_killed_at_any_time(
    name: str, data: ImageData, straight: Callable[[str], tuple[dict[str, Any], float]], tmp_path: Path
) -> None:
    expected, seconds = straight(name)
    moments = random.Random(0)
    killed = runs = 0
    while killed < 250:
        runs += 1
        out = tmp_path / f"{runs}"
        RunDir.create(out, {}).close()
        done = False
        while not done:
            pid = fork(lambda out=out: train(BUILDS[name], data, out))  # type: ignore[misc]
            time.sleep(moments.uniform(0.0, seconds))
            os.kill(pid, signal.SIGKILL)
            done = is_done(pid)
            killed += not done
        assert results(out) == expected


def test_a_state_that_lacks_something_is_caught(
    data: ImageData, straight: Callable[[str], tuple[dict[str, Any], float]], tmp_path: Path
) -> None:
    """The control: were momentum not in the checkpoint, these tests would say so."""

    def lacking(data: ImageData) -> Task:
        task = BUILDS["sampling"](data)
        take_over = task.load_state
        task.load_state = lambda state: take_over({**state, "optimizers": [{}]})  # type: ignore[method-assign]
        return task

    (found,) = kill_at_events(1, lacking, data, tmp_path)
    assert found["state"] != straight("sampling")[0]["state"]
