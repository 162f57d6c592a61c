"""Several runs at a time, each resumed by a process of its own. POSIX only."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cdarts.durations import clock
from cdarts.engine.files import write_json
from cdarts.engine.run_dir import is_done, read_json
from cdarts.engine.runtime import StopFlag
from cdarts.errors import DiskError

LOG = "output.log"
"""What the processes of a run have printed, in its directory."""

RESOURCES = "resources.json"
"""What they have used, in its directory, and the exit code of the last of them, below 0 for a signal."""

SECONDS_BETWEEN_LOOKS = 0.1
SECONDS_BETWEEN_LINES = 60.0

ERRORS = ("error: ", "internal error: ")
"""How the last word of a command that failed begins."""


@dataclass(frozen=True)
class Resources:
    """What a run's processes have used, over all its resumptions."""

    wall_seconds: float
    peak_memory_bytes: int
    """Of the largest of them: the program, its libraries and the data included."""


@dataclass(frozen=True)
class Outcome:
    """How a process ended."""

    path: Path
    """The run's directory."""
    exit_code: int
    message: str
    """Why it failed; empty if it did not."""


class RunsProgress:
    """Says how runs go: a line when one begins or ends and every minute, with the time that is left.

    A run that is not done lasts as long as those of its group that are, else as long as all that are.
    """

    def __init__(self, title: str, labels: Mapping[Path, str], groups: Mapping[Path, str], jobs: int) -> None:
        """`labels`, `groups`: what each run is called and which others are like it, runs included that are done."""
        self.failures: dict[Path, str] = {}
        self._title = title
        self._labels, self._groups = labels, groups
        self._jobs = jobs
        self._waiting: set[Path] = set()
        self._running: dict[Path, float] = {}
        self._seconds: dict[Path, float] = {}
        self._last_line = 0.0
        for path in labels:
            resources = resources_of(path)
            if is_done(path) and resources is not None:
                self._seconds[path] = resources.wall_seconds

    def begin(self, runs: Sequence[Path]) -> None:
        """These runs are going to be resumed."""
        self._waiting = set(runs)

    def started(self, path: Path) -> None:
        """A process has begun to work on a run."""
        self._waiting.discard(path)
        self._running[path] = time.monotonic()
        self._line(f"{self._labels[path]} begins")

    def ended(self, outcome: Outcome) -> None:
        """A process has ended by itself."""
        seconds = time.monotonic() - self._running.pop(outcome.path)
        label = self._labels[outcome.path]
        if outcome.exit_code:
            self.failures[outcome.path] = outcome.message
            self._line(f"{label} failed after {clock(seconds)}: {outcome.message}")
        else:
            self._seconds[outcome.path] = seconds
            self._line(f"{label} done in {clock(seconds)}")

    def looked(self) -> None:
        """Called all the time while runs go on."""
        if time.monotonic() - self._last_line > SECONDS_BETWEEN_LINES:
            self._line(", ".join(f"{self._labels[path]} goes on" for path in self._running))

    def left(self) -> float | None:
        """Seconds until all are done; None as long as no run is."""
        if not self._seconds:
            return None
        now = time.monotonic()
        running = [max(self._expected(path) - (now - began), 0.0) for path, began in self._running.items()]
        waiting = [self._expected(path) for path in self._waiting]
        return max([sum(running + waiting) / self._jobs, *running])

    def _expected(self, path: Path) -> float:
        alike = [seconds for done, seconds in self._seconds.items() if self._groups[done] == self._groups[path]]
        known = alike or list(self._seconds.values())
        return sum(known) / len(known)

    def _line(self, text: str) -> None:
        total = len(self._labels)
        left = self.left()
        over = total - len(self._waiting) - len(self._running)
        words = f"{self._title} {over}/{total}  {text}"
        print(words if left is None else f"{words}  left {clock(left)}", flush=True)
        self._last_line = time.monotonic()


@dataclass(eq=False)
class _Child:
    path: Path
    process: "subprocess.Popen[bytes]"
    began: float
    log_start: int


def resume_all(runs: Sequence[Path], jobs: int, stop: StopFlag, progress: RunsProgress) -> None:
    """`cdarts resume` for each of these run directories, `jobs` at a time, each computing with one thread.

    A run that fails does not stop the others. A signal is passed on to those that run, which stop where they can be
    resumed; when all have, raises `Interrupted`.
    """
    progress.begin(runs)
    waiting, children = deque(runs), dict[int, _Child]()
    told = False
    try:
        while children or (waiting and not told):
            if stop.number is not None and not told:
                told = True
                _signal(children, stop.number)
            while waiting and len(children) < jobs and not told:
                child = _start(waiting.popleft())
                children[child.process.pid] = child
                progress.started(child.path)
            for pid in list(children):
                outcome = _reap(children[pid], os.WNOHANG)
                if outcome is not None:
                    del children[pid]
                    if not told:
                        progress.ended(outcome)
            progress.looked()
            if children:
                time.sleep(SECONDS_BETWEEN_LOOKS)
    finally:
        # after a second signal or an error: nothing goes on behind our back
        if children:
            _signal(children, signal.SIGTERM)
            for child in children.values():
                _reap(child, 0)
    stop.check()


def resources_of(path: Path) -> Resources | None:
    """What the run at `path` has used; None if no process of `resume_all` has ended there."""
    if not (path / RESOURCES).is_file():
        return None
    stored = read_json(path / RESOURCES)
    return Resources(float(stored["wall_seconds"]), int(stored["peak_memory_bytes"]))


def _start(path: Path) -> _Child:
    # one thread, whatever library computes; torch's own number is in the run's settings
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "cdarts.cli", "resume", str(path)]
    try:
        with (path / LOG).open("ab") as log:
            log_start = log.tell()
            # a group of its own: a Ctrl-C on the terminal reaches this process alone, which passes it on once
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                process_group=0,
            )
            return _Child(path, process, time.monotonic(), log_start)
    except OSError as error:
        raise DiskError(f"cannot start a process in {path}: {error.strerror or error}") from error


def _signal(children: dict[int, _Child], number: int) -> None:
    for pid in children:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def _reap(child: _Child, options: int) -> Outcome | None:
    """What became of a process; None if it goes on."""
    pid, status, usage = os.wait4(child.process.pid, options)
    if pid == 0:
        return None
    code = os.waitstatus_to_exitcode(status)
    child.process.returncode = code
    before = resources_of(child.path) or Resources(0.0, 0)
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB elsewhere
    used: dict[str, Any] = {
        "wall_seconds": round(before.wall_seconds + time.monotonic() - child.began, 1),
        "peak_memory_bytes": max(before.peak_memory_bytes, usage.ru_maxrss * unit),
        "exit_code": code,
    }
    with contextlib.suppress(DiskError):  # on a full disk the run's own end matters more
        write_json(child.path / RESOURCES, used)
    return Outcome(child.path, code, "" if code == 0 else _message(child, code))


def _message(child: _Child, code: int) -> str:
    """The error that a process ended with."""
    if code < 0:
        return f"killed by {signal.Signals(-code).name}"
    with (child.path / LOG).open("rb") as log:
        log.seek(child.log_start)
        lines = log.read().decode(errors="replace").splitlines()
    errors = [line for line in lines if line.startswith(ERRORS)]
    return errors[-1].removeprefix("error: ") if errors else f"exit code {code}"
