"""A run is a directory: settings, journals, checkpoints, status. Every file in it is whole or absent."""

import contextlib
import json
import math
import os
import platform
import shlex
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from cdarts import __version__
from cdarts.engine import checkpoint
from cdarts.engine.checkpoint import State
from cdarts.engine.files import is_leftover, write_bytes, write_json
from cdarts.errors import CheckpointError, ConfigurationError, DataError, DiskError, RunInUseError

KEPT_CHECKPOINTS = 2

DECISIVE = ("torch", "platform", "device")
"""Parts of the environment that change the bits of a run."""


class RunDir:
    """One run's directory, held by this process until `close`."""

    def __init__(self, path: Path) -> None:
        """Open an existing run.

        Raises `ConfigurationError` if it is none, `RunInUseError` if another process holds it, `DiskError` if it is not
        writable.
        """
        self.path = path
        check_run(path)
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
            lock = (self.path / "run.lock").open("a+")
        except OSError as error:
            raise DiskError(f"cannot write to {self.path}: {error.strerror or error}") from error
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            lock.seek(0)
            holder = lock.read().strip() or "another process"
            lock.close()
            raise RunInUseError(f"{self.path} is in use by {holder}; wait for it or stop it first") from error
        lock.seek(0)
        lock.truncate()
        lock.write(f"process {os.getpid()} on {platform.node()}\n")
        lock.flush()
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

    def write_environment(self, *, device: str, threads: int, data: str) -> None:
        """Versions, machine and the data set's fingerprint, to ``environment.json``, when the run begins.

        The file stays as it was first written; a resume in another environment is warned about on standard error.
        Raises `DataError` if the run was begun with other data: what it has learnt would not fit.
        """
        import torch

        path = self.path / "environment.json"
        environment = {
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
        }
        if not path.is_file():
            write_json(path, environment)
            return
        first = read_json(path)
        if first.get("data") != data:
            raise DataError(
                f"the data set is not the one that {self.path} was begun with: images, labels or classes have changed; "
                "restore them, or begin another run"
            )
        changes = [
            f"{name} {first.get(name)}, now {environment[name]}"
            for name in DECISIVE
            if first.get(name) != environment[name]
        ]
        if changes:
            print(
                f"warning: {self.path} was begun with {'; '.join(changes)}: numbers will differ from those of a run "
                "that was never stopped",
                file=sys.stderr,
            )

    def status(self, state: str, message: str = "") -> None:
        """Write ``status.json``: running, done, interrupted or failed, why, and how to go on."""
        value = {
            "state": state,
            "message": message,
            "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "process": os.getpid(),
        }
        if state != "done":
            value["resume"] = self.how_to_resume()
        write_json(self.path / "status.json", value)

    def how_to_resume(self) -> str:
        """The command that goes on with this run."""
        return how_to_resume(self.path)

    def seconds(self) -> float:
        """Time spent on the run's epochs, over all its resumptions."""
        return round(math.fsum(line["seconds"] for line in self.journal("metrics")), 1)

    # -- journals ---------------------------------------------------------------------------------------------------

    def append(self, journal: str, line: Mapping[str, Any]) -> None:
        """Append one whole line to ``<journal>.jsonl``; raises `DiskError`."""
        path = self.path / f"{journal}.jsonl"
        try:
            with path.open("ab") as file:
                file.write((json.dumps(line, allow_nan=False) + "\n").encode())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise DiskError(f"cannot append to {path}: {error.strerror or error}") from error

    def journal(self, name: str) -> list[dict[str, Any]]:
        """The lines of ``<name>.jsonl``, complete ones only."""
        path = self.path / f"{name}.jsonl"
        if not path.exists():
            return []
        lines = path.read_bytes().split(b"\n")[:-1]
        return [json.loads(line) for line in lines]

    # -- checkpoints ------------------------------------------------------------------------------------------------

    def save_checkpoint(self, next_epoch: int, state: State) -> None:
        """Write the state that epoch `next_epoch` starts from and how long the journals are; keep the newest two.

        Raises `DiskError` and leaves the older ones if it cannot be written.
        """
        journals = {path.name: path.stat().st_size for path in sorted(self.path.glob("*.jsonl"))}
        path = self.path / "checkpoints" / f"epoch-{next_epoch:05d}.safetensors"
        try:
            path.parent.mkdir(exist_ok=True)
        except OSError as error:
            raise DiskError(f"cannot create {path.parent}: {error.strerror or error}") from error
        checkpoint.save(path, {"next_epoch": next_epoch, "journals": journals, "task": state})
        for old in self._checkpoints()[KEPT_CHECKPOINTS:]:
            old.unlink()

    def load_checkpoint(self) -> tuple[int, State] | None:
        """The newest usable checkpoint as (next epoch, state), journals cut back to it; None if there is none.

        A damaged one is set aside under the name ``*.damaged`` and the one before is used. Raises `CheckpointError`
        if all are damaged, now or at an earlier attempt: a run never starts over in silence.
        """
        for path in self._checkpoints():
            try:
                stored = checkpoint.load(path)
                next_epoch, journals, state = stored["next_epoch"], stored["journals"], stored["task"]
            except (CheckpointError, KeyError) as error:
                reason = f"{path}: not a checkpoint of a run" if isinstance(error, KeyError) else str(error)
                print(f"warning: {reason}; it is set aside, and the checkpoint before is used", file=sys.stderr)
                path.rename(path.with_suffix(".damaged"))
                continue
            self._cut_journals(journals)
            return next_epoch, state
        folder = self.path / "checkpoints"
        damaged = sorted(path.name for path in folder.glob("*.damaged"))
        if damaged:
            raise CheckpointError(
                f"no usable checkpoint in {folder}; damaged: {', '.join(damaged)}. Restore one from a copy, "
                "or delete them to start this run from the beginning"
            )
        self._cut_journals({})
        return None

    def _cut_journals(self, lengths: Mapping[str, int]) -> None:
        """Take away what was appended after the lengths in bytes were noted; all of it where none was."""
        for journal in self.path.glob("*.jsonl"):
            with journal.open("r+b") as file:
                file.truncate(min(journal.stat().st_size, lengths.get(journal.name, 0)))

    def _checkpoints(self) -> list[Path]:
        """Newest first."""
        return sorted((self.path / "checkpoints").glob("epoch-*.safetensors"), reverse=True)

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
    files = sorted((path / "checkpoints").glob("epoch-*.safetensors"))
    if not files:
        raise CheckpointError(f"no checkpoint in {path / 'checkpoints'}")
    try:
        state: State = checkpoint.load(files[-1])["task"]
    except KeyError as error:
        raise CheckpointError(f"{files[-1]}: not a checkpoint of a run") from error
    return state


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


def how_to_resume(path: Path) -> str:
    """The command that goes on with the run at `path`."""
    return f"cdarts resume {shlex.quote(str(path))}"


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a run's file. Raises `ConfigurationError` naming the file."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{path}: cannot be read: {error}") from error
    if not isinstance(value, dict):
        raise ConfigurationError(f"{path}: must hold a JSON object")
    return value
