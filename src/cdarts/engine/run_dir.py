"""A run is a directory: its settings, its journals, its checkpoints, its status. Every file in it is whole or absent."""

import json
import os
import platform
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from cdarts import __version__
from cdarts.engine import checkpoint
from cdarts.engine.checkpoint import State
from cdarts.engine.files import write_bytes, write_json
from cdarts.errors import CheckpointError, ConfigurationError, DiskError, RunInUseError

try:
    import fcntl
except ImportError:  # Windows has no POSIX locks; there a run directory is not guarded
    fcntl = None  # type: ignore[assignment]

KEPT_CHECKPOINTS = 2


class RunDir:
    """One run's directory, held by this process until `close`."""

    def __init__(self, path: Path) -> None:
        """Open an existing run. Raises `RunInUseError` if another process holds it, `ConfigurationError` if it is none."""
        self.path = path
        if not (path / "config.json").is_file():
            raise ConfigurationError(f"{path} is not a run directory: it has no config.json")
        self._lock: IO[str] | None = self._acquire()

    @classmethod
    def create(cls, path: Path, config: Mapping[str, Any]) -> "RunDir":
        """Make a new run. Raises `ConfigurationError` if `path` exists already and is not an empty directory."""
        cls.check_free(path)
        try:
            (path / "checkpoints").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DiskError(f"cannot create {path}: {error.strerror or error}") from error
        write_json(path / "config.json", config)
        return cls(path)

    @staticmethod
    def check_free(path: Path) -> None:
        """Raise `ConfigurationError` if `path` exists already and is not an empty directory."""
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise ConfigurationError(
                f"{path} exists already. Go on with it: cdarts resume {path}    or begin another: --out with a new name"
            )

    def _acquire(self) -> IO[str] | None:
        if fcntl is None:
            return None
        # the file stays open for as long as the run is held, and a crash releases the lock
        lock = (self.path / "run.lock").open("a+")  # noqa: SIM115
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

    # -- settings, environment, status ------------------------------------------------------------------------------------------

    def config(self) -> dict[str, Any]:
        """What `create` was given."""
        return read_json(self.path / "config.json")

    def write_environment(self, **facts: Any) -> None:
        """Versions, machine and the facts given, to ``environment.json``."""
        import torch

        write_json(
            self.path / "environment.json",
            {
                "cdarts": __version__,
                "python": platform.python_version(),
                "torch": torch.__version__,
                "platform": platform.platform(),
                "processor": platform.processor() or platform.machine(),
                "cores": os.cpu_count(),
                "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
                **facts,
            },
        )

    def status(self, state: str, message: str = "") -> None:
        """Write ``status.json``: running, done, interrupted or failed, why, and how to go on."""
        value = {"state": state, "message": message, "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "process": os.getpid()}
        if state != "done":
            value["resume"] = f"cdarts resume {self.path}"
        write_json(self.path / "status.json", value)

    def done(self) -> bool:
        """Whether the run has ended well."""
        path = self.path / "status.json"
        return path.is_file() and read_json(path).get("state") == "done"

    def seconds(self) -> float:
        """Time spent on the run's epochs, over all its resumptions."""
        return round(sum(line["seconds"] for line in self.journal("metrics")), 1)

    # -- journals ----------------------------------------------------------------------------------------------------------------

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

    # -- checkpoints -------------------------------------------------------------------------------------------------------------

    def save_checkpoint(self, next_epoch: int, state: State) -> None:
        """Write the state that epoch `next_epoch` starts from, remember how long the journals are, keep the newest two."""
        journals = {path.name: path.stat().st_size for path in sorted(self.path.glob("*.jsonl"))}
        path = self.path / "checkpoints" / f"epoch-{next_epoch:05d}.safetensors"
        checkpoint.save(path, {"next_epoch": next_epoch, "journals": journals, "task": state})
        for old in self._checkpoints()[KEPT_CHECKPOINTS:]:
            old.unlink()

    def load_checkpoint(self) -> tuple[int, State] | None:
        """The newest usable checkpoint as (next epoch, state), journals cut back to it; None if there is none yet.

        A damaged one is set aside under the name ``*.damaged`` and the one before is used; raises `CheckpointError` if none is usable.
        """
        reasons = []
        for path in self._checkpoints():
            try:
                stored = checkpoint.load(path)
            except CheckpointError as error:
                reasons.append(str(error))
                path.rename(path.with_suffix(".damaged"))
                print(f"warning: {error}; set aside, going on from the checkpoint before", file=sys.stderr)
                continue
            for journal in self.path.glob("*.jsonl"):
                with journal.open("r+b") as file:
                    file.truncate(stored["journals"].get(journal.name, 0))
            return stored["next_epoch"], stored["task"]
        if reasons:
            raise CheckpointError(f"no usable checkpoint in {self.path / 'checkpoints'}: {'; '.join(reasons)}")
        return None

    def _checkpoints(self) -> list[Path]:
        """Newest first."""
        return sorted((self.path / "checkpoints").glob("epoch-*.safetensors"), reverse=True)

    # -- results -----------------------------------------------------------------------------------------------------------------

    def write_text(self, name: str, text: str) -> Path:
        """A whole text file of the run."""
        write_bytes(self.path / name, text.encode())
        return self.path / name

    def write_json(self, name: str, value: Any) -> Path:
        """A whole JSON file of the run."""
        write_json(self.path / name, value)
        return self.path / name


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a run's file. Raises `ConfigurationError` naming the file."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{path}: cannot be read: {error}") from error
    if not isinstance(value, dict):
        raise ConfigurationError(f"{path}: must hold a JSON object")
    return value
