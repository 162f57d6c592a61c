"""Files that are whole or absent: written under a temporary name, flushed to the disk, renamed."""

import contextlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

from cdarts.errors import DiskError

TEMPORARY = ".tmp"
"""How the names of unfinished files end; they begin with a dot."""

NO_LINKS = getattr(os, "O_NOFOLLOW", 0)
"""Opening fails where the name is a symbolic link; Windows has no such flag."""


def write_bytes(path: Path, data: bytes) -> None:
    """Replace `path` by `data` in one step. Raises `DiskError` and leaves what was there if it cannot."""
    if path.exists() and not path.is_file():
        raise DiskError(f"{path} is not a regular file; choose another name")
    temporary = path.with_name(f".{path.name}.{os.getpid()}{TEMPORARY}")
    try:
        free = shutil.disk_usage(path.parent).free
        if free < len(data):
            raise DiskError(
                f"cannot write {path}: it needs {len(data):,} bytes, and {free:,} are free on that disk; make room"
            )
        temporary.unlink(missing_ok=True)  # of a process that had the same number
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | NO_LINKS, 0o666)
        try:
            _write_all(descriptor, data)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        temporary.replace(path)
        _sync_directory(path.parent)
    except OSError as error:
        raise DiskError(f"cannot write {path}: {error.strerror or error}{_room(path, len(data))}") from error
    finally:
        # it is gone already, unless the writing failed or a signal cut it short
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def append_bytes(path: Path, data: bytes, *, flush: bool = False) -> None:
    """Add `data` to the end of a file; `flush` sends all of it to the disk.

    Raises `DiskError` and leaves what was there if it cannot.
    """
    try:
        descriptor = open_regular(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        try:
            before = os.fstat(descriptor).st_size
            try:
                _write_all(descriptor, data)
                if flush:
                    os.fsync(descriptor)
            except OSError:
                os.ftruncate(descriptor, before)
                raise
        finally:
            os.close(descriptor)
    except OSError as error:
        raise DiskError(f"cannot append to {path}: {error.strerror or error}{_room(path, len(data))}") from error


def open_regular(path: Path, flags: int) -> int:
    """The descriptor of a file that is written in place; raises `DiskError` for links, devices, pipes and folders."""
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise DiskError(f"{path} is not a regular file; what it leads to is not written to. Remove it")
    return os.open(path, flags | NO_LINKS, 0o666)


def refuse_links(*directories: Path) -> None:
    """Raise `DiskError` if one of a run's directories is a link, which would lead out of the run."""
    for path in directories:
        if path.is_symlink():
            raise DiskError(f"{path} is a link, and what it leads to is not written to; remove it")


def write_json(path: Path, value: Any) -> None:
    """`value` as readable JSON; raises `DiskError`."""
    write_bytes(path, (json.dumps(value, indent=2, allow_nan=False) + "\n").encode())


def is_leftover(path: Path) -> bool:
    """Whether this is an unfinished file of a process that was killed while it wrote."""
    return path.name.startswith(".") and path.name.endswith(TEMPORARY)


def _write_all(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _room(path: Path, needed: int) -> str:
    """How much a file needs and how much there is, for the message of a failure."""
    try:
        free = shutil.disk_usage(path.parent).free
    except OSError:
        return ""
    return f" (it needs {needed:,} bytes, and {free:,} are free on that disk)"


def _sync_directory(path: Path) -> None:
    """Make a rename survive a power cut, where the system can open and flush directories."""
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
