"""A run is a directory: settings, journals, checkpoints, status. Every file in it is whole or absent."""

import contextlib
import json
import math
import os
import platform
import shlex
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

from cdarts import __version__
from cdarts.engine import checkpoint
from cdarts.engine.checkpoint import State
from cdarts.engine.files import append_bytes, is_leftover, open_regular, refuse_links, write_bytes, write_json
from cdarts.engine.journals import read_journal
from cdarts.errors import CheckpointError, ConfigurationError, DataError, DiskError, RunInUseError
from cdarts.settings import changes

KEPT_CHECKPOINTS = 2

SECONDS_BETWEEN_HEARTBEATS = 10.0

DECISIVE = ("torch", "platform", "device", "threads")
"""Parts of the environment that change the bits of a run."""

HARMLESS = (
    *("settings.data", "settings.data_root", "settings.on_bad_image"),  # the fingerprint of the data decides
    *("settings.device", "settings.threads"),  # a change in these is warned about, see `DECISIVE`
    "settings.workers",  # who reads an image changes nothing about it
    *("settings.checkpoint_seconds", "settings.on_nonfinite", "settings.out", "settings.table", "settings.dry_run"),
    *("cdarts", "settings.budget", "settings.genotype", "settings.preset"),  # what they stood for is noted beside them
)
"""Keys of ``config.json`` that may change while a run is stopped."""


class Checkpoint(NamedTuple):
    """What a run goes on from."""

    epoch: int
    """Index in the plan."""
    step: int
    """Steps of that epoch that are done."""
    so_far: State
    """What those steps have come to."""
    task: State


class RunDir:
    """One run's directory, held by this process until `close`."""

    def __init__(self, path: Path) -> None:
        """Open an existing run.

        Raises `ConfigurationError` if it is none, `RunInUseError` if another process holds it, `DiskError` if it is not
        writable.
        """
        self.path = path
        check_run(path)
        refuse_links(path / "checkpoints")
        self._place: dict[str, Any] = {}
        self._left: dict[str, float] = {}
        self._last_heartbeat = -math.inf
        self._lock: IO[str] | None = self._acquire()
        try:
            for file in (*path.iterdir(), *path.glob("checkpoints/*")):
                if is_leftover(file):
                    file.unlink(missing_ok=True)
        except OSError as error:
            self.close()
            raise DiskError(f"cannot write to {path}: {error.strerror or error}") from error

    @classmethod
    def create(cls, path: Path, config: Mapping[str, Any]) -> "RunDir":
        """Make a new run; its ``config.json`` is the first file in it.

        Raises `ConfigurationError` if `path` exists already and is not an empty directory, `DiskError` if it cannot be
        written; then no directory is left behind.
        """
        check_free(path)
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DiskError(f"cannot create {path}: {error.strerror or error}") from error
        try:
            write_json(path / "config.json", config)
        except DiskError:
            with contextlib.suppress(OSError):
                path.rmdir()
            raise
        return cls(path)

    def _acquire(self) -> IO[str] | None:
        try:
            import fcntl
        except ImportError:  # Windows has no POSIX locks; there a run directory is not guarded
            return None
        try:
            # the file stays open for as long as the run is held, and a crash releases the lock
            lock = os.fdopen(open_regular(self.path / "run.lock", os.O_RDWR | os.O_CREAT), "r+")
        except OSError as error:
            raise DiskError(f"cannot write to {self.path}: {error.strerror or error}") from error
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = lock.readline().strip() or "another process"
            lock.close()
            raise RunInUseError(f"{self.path} is in use by {holder}; wait for it or stop it first") from error
        try:
            lock.truncate()
            lock.write(f"process {os.getpid()} on {platform.node()}\n{_boot()}")
            lock.flush()
        except OSError as error:
            with contextlib.suppress(OSError):  # closing tries to write what is left
                lock.close()
            raise DiskError(f"cannot write to {self.path}: {error.strerror or error}") from error
        return lock

    def close(self) -> None:
        """Release the directory."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def __enter__(self) -> "RunDir":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- settings, environment, status ------------------------------------------------------------------------------

    def config(self) -> dict[str, Any]:
        """What `create` was given. Raises `ConfigurationError` if it cannot be read."""
        return read_json(self.path / "config.json")

    def write_environment(
        self, *, device: str, threads: int, data: str, images: Mapping[str, Mapping[str, int]]
    ) -> None:
        """Versions, machine, the data set's fingerprint and its images by split and class, to ``environment.json``.

        The file stays as it was first written; a resume in another environment is warned about on standard error.
        Raises `DataError` if the run was begun with other data, `ConfigurationError` if with other settings: what it
        has learnt would not fit.
        """
        import torch

        path = self.path / "environment.json"
        environment: dict[str, Any] = {
            "cdarts": __version__,
            "python": platform.python_version(),
            "torch": str(torch.__version__),
            "platform": platform.platform(),
            "processor": platform.processor() or platform.machine(),
            "cores": os.cpu_count(),
            "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
            "device": device,
            "threads": threads,
            "data": data,
            "images": images,
            "config": self.config(),
        }
        if not path.is_file():
            write_json(path, environment)
            return
        first = read_json(path)
        check_unchanged(self.path, first.get("config"), environment["config"])
        if first.get("data") != data:
            raise DataError(
                f"the data set is not the one that {self.path} was begun with: {_differences(first, images)}; "
                "restore it, or begin another run"
            )
        news = [
            f"{name} {first.get(name)}, now {environment[name]}"
            for name in DECISIVE
            if first.get(name) != environment[name]
        ]
        if news:
            print(
                f"warning: {self.path} was begun with {'; '.join(news)}: numbers will differ from those of a run "
                "that was never stopped",
                file=sys.stderr,
            )

    def status(self, state: str, message: str = "") -> None:
        """Write ``status.json``: running, done, interrupted or failed, why, where in the plan, and how to go on."""
        value = {
            "state": state,
            "message": message,
            "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "process": os.getpid(),
            **self._place,
        }
        if state == "running":
            value |= self._left
        if state != "done":
            value["resume"] = self.how_to_resume()
        write_json(self.path / "status.json", value)

    def heartbeat(
        self, phase: str, epoch: int, step: int, *, epochs: int, steps: int, left: Callable[[], float | None]
    ) -> None:
        """Note where in its plan a run is; ``status.json`` says so every few seconds.

        `epochs`, `steps`: how many the plan and this epoch have. `left`: seconds that the rest of the plan takes, None
        where that is not known yet.
        """
        self._place = {"phase": phase, "epoch": epoch, "epochs": epochs, "step": step, "steps": steps}
        now = time.monotonic()
        if now - self._last_heartbeat >= SECONDS_BETWEEN_HEARTBEATS:
            self._last_heartbeat = now
            seconds = left()
            self._left = {} if seconds is None else {"left_seconds": round(seconds, 1)}
            with contextlib.suppress(DiskError):  # on a full disk it is the next checkpoint that matters
                self.status("running")

    def how_to_resume(self) -> str:
        """The command that goes on with this run."""
        return how_to_resume(self.path)

    def seconds(self) -> float:
        """Time spent on the run's epochs, over all its resumptions."""
        return round(math.fsum(line["seconds"] for line in self.journal("metrics")), 1)

    # -- journals ---------------------------------------------------------------------------------------------------

    def append(self, journal: str, line: Mapping[str, Any]) -> None:
        """Append one whole line to ``<journal>.jsonl``, which the next checkpoint flushes; raises `DiskError`."""
        append_bytes(self.path / f"{journal}.jsonl", (json.dumps(line, allow_nan=False) + "\n").encode())

    def journal(self, name: str) -> list[dict[str, Any]]:
        """The lines of ``<name>.jsonl``, complete ones only. Raises `ConfigurationError` naming a line that is none."""
        return read_journal(self.path / f"{name}.jsonl")

    # -- checkpoints ------------------------------------------------------------------------------------------------

    def save_checkpoint(self, content: Checkpoint) -> None:
        """Write what the run can go on from, and how long the journals are; keep the newest two.

        Raises `DiskError` and leaves the older ones if it cannot be written.
        """
        journals = {}
        for journal in sorted(self.path.glob("*.jsonl")):
            append_bytes(journal, b"", flush=True)
            journals[journal.name] = journal.stat().st_size
        path = self.path / "checkpoints" / f"step-{content.epoch:05d}-{content.step:07d}.safetensors"
        try:
            path.parent.mkdir(exist_ok=True)
            checkpoint.save(path, {**content._asdict(), "journals": journals})
            self._prune()
        except OSError as error:
            raise DiskError(f"cannot write to {path.parent}: {error.strerror or error}") from error

    def load_checkpoint(self) -> Checkpoint | None:
        """The newest usable checkpoint, journals cut back to it; None if there is none.

        A damaged one is set aside under the name ``*.damaged`` and the one before is used. Raises `CheckpointError`
        if all are damaged, now or at an earlier attempt: a run never starts over in silence. Raises `DiskError` if a
        file cannot be set aside or a journal cannot be cut.
        """
        for path in _checkpoints(self.path):
            try:
                content, journals = _read_checkpoint(path)
            except CheckpointError as error:
                print(f"warning: {error}; it is set aside, and the checkpoint before is used", file=sys.stderr)
                try:
                    path.rename(path.with_suffix(".damaged"))
                except OSError as failure:
                    raise DiskError(f"cannot rename {path}: {failure.strerror or failure}") from failure
                continue
            self._cut_journals(journals)
            try:
                self._prune()  # a process that was killed may have left more
            except OSError as error:
                raise DiskError(f"cannot remove a checkpoint of {self.path}: {error.strerror or error}") from error
            return content
        folder = self.path / "checkpoints"
        damaged = sorted(path.name for path in folder.glob("*.damaged"))
        if damaged:
            raise CheckpointError(
                f"no usable checkpoint in {folder}; damaged: {', '.join(damaged)}. Restore one from a copy, "
                "or delete them to start this run from the beginning"
            )
        self._cut_journals({})
        return None

    def _prune(self) -> None:
        """Remove all checkpoints but the newest."""
        for old in _checkpoints(self.path)[KEPT_CHECKPOINTS:]:
            old.unlink()

    def _cut_journals(self, lengths: Mapping[str, int]) -> None:
        """Take away what was appended after the lengths in bytes were noted; all of it where none was."""
        for journal in self.path.glob("*.jsonl"):
            try:
                with os.fdopen(open_regular(journal, os.O_RDWR), "r+b") as file:
                    file.truncate(min(journal.stat().st_size, lengths.get(journal.name, 0)))
            except OSError as error:
                raise DiskError(f"cannot cut {journal} back: {error.strerror or error}") from error

    # -- results ----------------------------------------------------------------------------------------------------

    def write_text(self, name: str, text: str) -> None:
        """A whole text file of the run."""
        write_bytes(self.path / name, text.encode())

    def write_json(self, name: str, value: Any) -> None:
        """A whole JSON file of the run."""
        write_json(self.path / name, value)


def is_done(path: Path) -> bool:
    """Whether the run at `path` has ended well; it need not be held for that."""
    status = path / "status.json"
    return status.is_file() and read_json(status).get("state") == "done"


def read_last_state(path: Path) -> State:
    """The task's state in the newest checkpoint of the run at `path`, which is only read and need not be held.

    Raises `CheckpointError` if there is none or it cannot be used.
    """
    files = _checkpoints(path)
    if not files:
        raise CheckpointError(f"no checkpoint in {path / 'checkpoints'}")
    content, _ = _read_checkpoint(files[0])
    return content.task


def snapshot_path(path: Path, epoch: int) -> Path:
    """Where the run at `path` keeps its state after an epoch of its plan, counted from 1."""
    return path / "snapshots" / f"epoch-{epoch:04}.safetensors"


def read_snapshot(path: Path, epoch: int) -> State:
    """The task's state after an epoch of the run at `path`. Raises `CheckpointError` if it was not kept."""
    file = snapshot_path(path, epoch)
    if not file.is_file():
        raise CheckpointError(f"no {file}: the search did not keep epoch {epoch} with --snapshots")
    match checkpoint.load(file):
        case {"task": dict(task)}:
            return task
    raise CheckpointError(f"{file}: not a snapshot of a search")


def _checkpoints(path: Path) -> list[Path]:
    """Of the run at `path`, newest first."""
    return sorted((path / "checkpoints").glob("step-*.safetensors"), reverse=True)


def _read_checkpoint(path: Path) -> tuple[Checkpoint, dict[str, int]]:
    """A checkpoint and the lengths of the journals. Raises `CheckpointError`."""
    match checkpoint.load(path):
        case {
            "epoch": int(epoch),
            "step": int(step),
            "so_far": dict(so_far),
            "task": dict(task),
            "journals": dict(journals),
        } if min(epoch, step) >= 0 and all(isinstance(length, int) and length >= 0 for length in journals.values()):
            return Checkpoint(epoch, step, so_far, task), journals
    raise CheckpointError(f"{path}: not a checkpoint of a run")


def check_free(path: Path) -> None:
    """Raise `ConfigurationError` if `path` exists already and is not an empty directory."""
    if (path / "config.json").is_file():
        raise ConfigurationError(
            f"{path} holds a run already; go on with it: {how_to_resume(path)}, or choose a new name with --out"
        )
    if path.exists() and (not path.is_dir() or not all(is_leftover(file) for file in path.iterdir())):
        raise ConfigurationError(f"{path} exists already and is not an empty folder: choose a new name with --out")


def check_run(path: Path) -> None:
    """Raise `ConfigurationError` unless `path` is a run directory."""
    if not (path / "config.json").is_file():
        reason = "it has no config.json" if path.is_dir() else "there is no such folder"
        raise ConfigurationError(f"{path} is not a run directory: {reason}")


def check_unchanged(path: Path, begun: Any, now: Mapping[str, Any]) -> None:
    """Raise `ConfigurationError`, showing the difference, if the run at `path` would go on with other settings.

    `begun`: its configuration when it began, None where that is not known. What is `HARMLESS` may differ.
    """
    found = changes(now if begun is None else begun, now)
    changed = [f"{key} was {old!r}, is {new!r}" for key, (old, new) in found.items() if key not in HARMLESS]
    if changed:
        raise ConfigurationError(
            f"{path / 'config.json'} is not what the run was begun with: {'; '.join(changed)}. Put that back, "
            "or begin another run"
        )


def how_to_resume(path: Path) -> str:
    """The command that goes on with the run at `path`."""
    return f"cdarts resume {shlex.quote(str(path))}"


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a run's file. Raises `ConfigurationError` naming the file."""
    try:
        text = path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read: {error.strerror or error}") from error
    return _json_object(text, str(path))


def _json_object(text: bytes, place: str) -> dict[str, Any]:
    """Raises `ConfigurationError` naming the place."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(f"{place}: cannot be read: {error}") from error
    if not isinstance(value, dict):
        raise ConfigurationError(f"{place}: must hold a JSON object")
    return value


def _differences(first: Mapping[str, Any], images: Mapping[str, Mapping[str, int]]) -> str:
    """How the numbers of images have changed since an environment was first written."""
    before = first.get("images", images)
    changes = []
    for split, now in images.items():
        then = before.get(split, {})
        changes += [
            f"{split} {name} {then.get(name, 0)} images, now {now.get(name, 0)}"
            for name in dict.fromkeys([*then, *now])
            if then.get(name, 0) != now.get(name, 0)
        ]
    shown = ", ".join(changes[:5]) + (f" and {len(changes) - 5} more" if len(changes) > 5 else "")
    return shown or "as many images of each class as then, but not the same"


def _boot() -> str:
    """A line that tells this start of the machine from others, where the system has a name for it."""
    try:
        return f"boot {Path('/proc/sys/kernel/random/boot_id').read_text().strip()}\n"
    except OSError:
        return ""
