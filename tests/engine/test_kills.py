"""`kill -9` at any point: whatever a run was at, it goes on to the same bits.

Processes are forked from this one, which has paid for the imports. Half of them kill themselves at a named point, be it
before, within or after what they do to the disk; the others are killed at random times.
"""

import functools
import gc
import json
import os
import random
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from cdarts.algorithms.base import SearchAlgorithm
from cdarts.algorithms.config import SearchConfig
from cdarts.algorithms.p_darts import PDartsConfig
from cdarts.algorithms.rsps import RspsConfig
from cdarts.data import ImageData, load
from cdarts.engine import checkpoint, loop
from cdarts.engine.checkpoint import State
from cdarts.engine.optimizers import Sgd
from cdarts.engine.progress import PlanProgress
from cdarts.engine.run_dir import RunDir
from cdarts.engine.runtime import StopFlag
from cdarts.engine.task import Task
from cdarts.presets import OFFICIAL, PAPER
from cdarts.retraining import Retraining
from cdarts.spaces import ToySpace
from cdarts.topology import Genotype

# Python 3.12 warns of what is done here on purpose: the threads of the test runner hold nothing that a run needs
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")

SIZES: dict[str, Any] = {"space": ToySpace(), "channels": 4, "batch_size": 32, "weights": Sgd(lr=0.05), "cells": 2}
CYCLIC: dict[str, Any] = {
    "space": ToySpace(),
    "channels": 4,
    "search_cells": 2,
    "eval_cells": 3,
    "batch_size": 64,
    "pretrain_epochs": 1,
    "cycles": 2,
    "feedback_levels": (0, 1),
    "l1_operations": ("skip_connect",),
    "alpha": replace(PAPER.alpha, lr=0.2),  # so that topologies change
}
SEARCHES: dict[str, SearchConfig] = {
    "paper": replace(PAPER, **CYCLIC),
    "authors": replace(OFFICIAL, **CYCLIC),
    "sampling": RspsConfig(**SIZES, epochs=4, candidates=8),
    "staged": PDartsConfig(**SIZES, epochs=6, still_epochs=1, added_cells=(0, 1, 2)),
}
EXECUTIONS = ("share", "fused")
Build = Callable[[ImageData], Task]


def search(config: SearchConfig, execution: str) -> Build:
    return lambda data: config.build(data, seed=0, device=torch.device("cpu"), execution=execution)


def retraining(execution: str) -> Build:
    """Of some cell; without drop-path where that would keep the kernels from being used."""
    drop_path = 0.2 if execution == "share" else 0.0
    config = Retraining(space=ToySpace(), cells=3, channels=4, epochs=6, batch_size=64, auxiliary_weight=0.0)
    strengths = {
        kind: [[1.0 + column for column in range(len(ToySpace.operations))] for _ in cell.edges]
        for kind, cell in ToySpace().supernet().items()
    }
    genotype: Genotype = ToySpace().derive(strengths)
    return lambda data: replace(config, drop_path=drop_path).build(
        genotype, data, seed=0, device=torch.device("cpu"), execution=execution
    )


BUILDS: dict[str, Build] = {
    f"{name}-{execution}": build
    for execution in EXECUTIONS
    for name, build in [
        *((name, search(config, execution)) for name, config in SEARCHES.items()),
        ("retraining", retraining(execution)),
    ]
}


def train(task: Task, out: Path) -> None:
    """What a process does: go on to the end, with a checkpoint after every step."""
    with RunDir(out) as run:
        loop.run(task, run, PlanProgress("run", task.plan()), StopFlag(), checkpoint_seconds=0)
        if isinstance(task, SearchAlgorithm):
            run.write_json("genotype.json", task.genotype().to_json())


# -- processes and their ends ------------------------------------------------------------------------------------------


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


POINTS = (
    *(
        f"{when} {what}"
        for what in ("step", "report", "write", "flush", "rename", "prune", "restore")
        for when in ("before", "after")
    ),
    "within write",
)
"""Where a process may be killed. A report is a line of a journal; what is pruned are old checkpoints."""

MOST_PASSES = {"report": 2, "restore": 1}
"""How often a process may pass a point before it is killed there, where that is not `USUAL_PASSES`: once a process,
twice an epoch."""
USUAL_PASSES = 6


@dataclass
class Fate:
    """This process will be killed when it passes a point for the so-many-th time."""

    point: str
    passes: int

    def seal(self, task: Task) -> None:
        """From now on the process is bound to it."""
        write, unlink = os.write, Path.unlink

        def in_two_parts(descriptor: int, data: Any) -> int:
            first = write(descriptor, data[: len(data) // 2])
            self.passing("within write")
            return first + write(descriptor, data[len(data) // 2 :])

        def remove(path: Path, *, missing_ok: bool = False) -> None:
            (prune if path.suffix == ".safetensors" else unlink)(path, missing_ok=missing_ok)

        prune = self.watched("prune", unlink)
        replaced: list[tuple[Any, str, Callable[..., Any]]] = [
            (os, "write", self.watched("write", in_two_parts)),
            (os, "fsync", self.watched("flush", os.fsync)),
            (Path, "replace", self.watched("rename", Path.replace)),
            (Path, "unlink", remove),
            (RunDir, "append", self.watched("report", RunDir.append)),
            (RunDir, "load_checkpoint", self.watched("restore", RunDir.load_checkpoint)),
            (task, "step", self.watched("step", task.step)),
        ]
        for owner, name, function in replaced:
            setattr(owner, name, function)

    def passing(self, point: str) -> None:
        self.passes -= point == self.point
        if self.passes == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def watched(self, what: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, with the points before it and after it."""

        def call(*arguments: Any, **options: Any) -> Any:
            self.passing(f"before {what}")
            result = function(*arguments, **options)
            self.passing(f"after {what}")
            return result

        return call


def fates(kills: int, draw: random.Random) -> list[Fate]:
    """All points in turn, as many as there are to be kills, in any order."""
    points = [POINTS[kill % len(POINTS)] for kill in range(kills)]
    draw.shuffle(points)
    return [Fate(point, draw.randint(1, MOST_PASSES.get(point.split()[1], USUAL_PASSES))) for point in points]


def results(out: Path) -> dict[str, Any]:
    """The last state to the bit, the genotype, the journals without what the clock says, and which files there are."""
    checkpoints = sorted((out / "checkpoints").glob("*.safetensors"))
    assert len(checkpoints) == 2
    stored = checkpoint.load(checkpoints[-1])
    found: dict[str, Any] = {
        "files": sorted(str(path.relative_to(out)) for path in out.rglob("*") if path not in checkpoints),
        "at": (stored["epoch"], stored["step"]),
    }
    checkpoint.save(out / "compared", stored["task"])
    found["state"] = (out / "compared").read_bytes()
    for journal in sorted(out.glob("*.jsonl")):
        lines = [json.loads(line) for line in journal.read_text().splitlines()]
        found[journal.name] = [{key: value for key, value in line.items() if key != "seconds"} for line in lines]
    if (out / "genotype.json").exists():
        found["genotype"] = (out / "genotype.json").read_bytes()
    return found


def killed_at_points(
    doomed: list[Fate], build: Build, data: ImageData, folder: Path, prepare: Callable[[], None] = lambda: None
) -> Iterator[dict[str, Any]]:
    """The results of as many runs as it takes for every fate to come true, the last one first.

    `prepare`: called in each process before anything else.
    """

    def work(out: Path) -> None:
        prepare()
        task = build(data)
        if doomed:
            doomed[-1].seal(task)
        train(task, out)

    while doomed:
        out = new_run(folder)
        while not is_done(fork(lambda out=out: work(out))):  # type: ignore[misc]
            doomed.pop()
        yield results(out)


def killed_at_times(
    kills: int, seconds: float, build: Build, data: ImageData, folder: Path
) -> Iterator[dict[str, Any]]:
    """The results of as many runs as it takes for so many kills; `seconds`: what a run takes that is not killed."""
    draw = random.Random(0)
    while kills:
        out = new_run(folder)
        done, lives = False, 0
        while not done:
            began = time.monotonic()
            pid = fork(lambda out=out: train(build(data), out))  # type: ignore[misc]
            if kills:
                kill_within(pid, draw.uniform(0.0, seconds / 2))
            done = is_done(pid)
            kills -= not done
            lives += 1
        if lives == 1:  # the machine was busier when `seconds` was measured
            seconds = min(seconds, time.monotonic() - began)
        yield results(out)


def kill_within(pid: int, seconds: float) -> None:
    """Kill a process after so many seconds, unless it ends before; it is still to be waited for."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
            return
        time.sleep(min(left, 0.01))
    os.kill(pid, signal.SIGKILL)


def new_run(folder: Path) -> Path:
    out = Path(tempfile.mkdtemp(dir=folder)) / "run"
    RunDir.create(out, {}).close()
    return out


# -- what runs find ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def data() -> Iterator[ImageData]:
    images = load("synthetic")
    for build in BUILDS.values():  # here, rather than in every process, the lazy imports and the kernels
        task = build(images)
        task.start_epoch(0, task.plan()[0])
        task.step(0, *next(task.batches(0)))
    gc.collect()
    gc.freeze()  # processes need not copy the pages that a collection would touch
    yield images
    gc.unfreeze()


@pytest.fixture(scope="module")
def memory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder in memory, where there is one: a kill loses nothing that was written, flushed to a disk or not."""
    root = Path("/dev/shm")
    if not os.access(root, os.W_OK):
        yield tmp_path_factory.mktemp("kills")
        return
    with tempfile.TemporaryDirectory(dir=root) as folder:
        yield Path(folder)


Straight = Callable[[Build], tuple[dict[str, Any], float]]


@pytest.fixture(scope="module")
def straight(data: ImageData, memory: Path) -> Straight:
    """What a run finds if it is never killed, and how long that takes."""

    @functools.cache
    def found(build: Build) -> tuple[dict[str, Any], float]:
        out = new_run(memory)
        began = time.monotonic()
        assert is_done(fork(lambda: train(build(data), out)))
        return results(out), time.monotonic() - began

    return found


TIERS = pytest.mark.parametrize(
    ("kills", "on_disk"),
    [
        pytest.param(15, False, id="15"),
        pytest.param(100, True, id="100-on-disk", marks=[pytest.mark.slow, pytest.mark.timeout(3600)]),
    ],
)
"""For each of the ten runs, and as many at random times: 300 kills, and 2,000 slow ones on the disk itself."""


@pytest.mark.parametrize("name", BUILDS)
@TIERS
def test_killed_at_any_point(
    name: str, kills: int, on_disk: bool, data: ImageData, straight: Straight, memory: Path, tmp_path: Path
) -> None:
    doomed = fates(kills, random.Random(name))
    assert {fate.point for fate in doomed} == set(POINTS)
    for found in killed_at_points(doomed, BUILDS[name], data, tmp_path if on_disk else memory):
        assert found == straight(BUILDS[name])[0]


@pytest.mark.parametrize("name", BUILDS)
@TIERS
def test_killed_at_any_time(
    name: str, kills: int, on_disk: bool, data: ImageData, straight: Straight, memory: Path, tmp_path: Path
) -> None:
    expected, seconds = straight(BUILDS[name])
    for found in killed_at_times(kills, seconds, BUILDS[name], data, tmp_path if on_disk else memory):
        assert found == expected


# -- controls: what these tests would say if something were amiss ------------------------------------------------------


def often(steps: int, times: int) -> list[Fate]:
    """Death after every few steps."""
    return [Fate("after step", steps) for _ in range(times)]


@pytest.mark.parametrize(
    ("name", "entry"),
    [
        *(("paper-share", entry) for entry in ("modules", "topology", "cycle", "bank", "moments", "optimizers")),
        ("authors-share", "level_scalars"),
        *(("sampling-share", entry) for entry in ("modules", "optimizers", "epoch_scores")),
        *(("staged-share", entry) for entry in ("modules", "optimizers", "stage", "operations")),
        *(("retraining-share", entry) for entry in ("modules", "optimizer")),
    ],
)
def test_a_state_that_lacks_something_is_caught(
    name: str, entry: str, data: ImageData, straight: Straight, memory: Path
) -> None:
    """One entry stays as it is in a task that has just been built."""

    def lacking(data: ImageData) -> Task:
        task = BUILDS[name](data)
        take_over, fresh = task.load_state, task.state()[entry]

        def forget(state: State) -> None:
            take_over({**state, entry: fresh})

        task.load_state = forget  # type: ignore[method-assign]
        return task

    assert is_caught(often(4, 8), lacking, data, memory, straight(BUILDS[name])[0])


def test_randomness_that_is_not_restored_is_caught(data: ImageData, straight: Straight, memory: Path) -> None:
    """Images get noise from a generator that lives as long as its process, as torch's own does."""

    def forgetful(data: ImageData) -> Task:
        task = BUILDS["sampling-share"](data)
        draw = torch.Generator().manual_seed(0)
        step = task.step

        def unsteady(position: int, *batch: Any) -> Any:
            noisy = [
                part._replace(images=part.images + torch.randn(part.images.shape, generator=draw)) for part in batch
            ]
            return step(position, *noisy)

        task.step = unsteady  # type: ignore[method-assign]
        return task

    expected = straight(forgetful)[0]
    assert not is_caught([], forgetful, data, memory, expected), "as long as nothing is killed, all is well"
    assert is_caught(often(4, 1), forgetful, data, memory, expected)


def test_a_writer_of_half_files_is_caught(data: ImageData, straight: Straight, memory: Path) -> None:
    """Files are written under their final names."""

    def in_place(path: Path, content: bytes) -> None:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.write(descriptor, content)
        os.close(descriptor)

    def plainly() -> None:
        checkpoint.write_bytes = in_place

    expected = straight(BUILDS["sampling-share"])[0]
    doomed = [Fate("within write", 4)]
    assert is_caught(doomed, BUILDS["sampling-share"], data, memory, expected, prepare=plainly)


def is_caught(
    doomed: list[Fate],
    build: Build,
    data: ImageData,
    folder: Path,
    expected: dict[str, Any],
    prepare: Callable[[], None] = lambda: None,
) -> bool:
    """Whether a run whose processes die so finds something else, or fails; without fates, one that is not killed."""
    if not doomed:
        out = new_run(folder)
        assert is_done(fork(lambda: train(build(data), out)))
        return results(out) != expected
    try:
        return any(found != expected for found in killed_at_points(doomed, build, data, folder, prepare))
    except AssertionError:  # a process that could not go on
        return True
