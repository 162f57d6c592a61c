"""Files that are whole or absent: written under a temporary name, flushed to the disk, renamed."""

import contextlib
import json
import os
from pathlib import Path
from typing import Any

from cdarts.errors import DiskError

TEMPORARY = ".tmp"
"""How the names of unfinished files end; they begin with a dot."""


def write_bytes(path: Path, data: bytes) -> None:
    """Replace `path` by `data` in one step. Raises `DiskError` and leaves what was there if it cannot."""
    if path.exists() and not path.is_file():
        raise DiskError(f"{path} is not a regular file; choose another name")
    temporary = path.with_name(f".{path.name}.{os.getpid()}{TEMPORARY}")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_directory(path.parent)
    except OSError as error:
        raise DiskError(f"cannot write {path} ({len(data)} bytes): {error.strerror or error}") from error
    finally:
        # it is gone already, unless the writing failed or a signal cut it short
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """`value` as readable JSON; raises `DiskError`."""
    write_bytes(path, (json.dumps(value, indent=2, allow_nan=False) + "\n").encode())


def is_leftover(path: Path) -> bool:
    """Whether this is an unfinished file of a process that was killed while it wrote."""
    return path.name.startswith(".") and path.name.endswith(TEMPORARY)


def _sync_directory(path: Path) -> None:
    """Make a rename survive a power cut, where the system can open and flush directories."""
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
