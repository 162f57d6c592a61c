"""Files are whole or absent."""

import errno
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from cdarts.engine.files import append_bytes, is_leftover, write_bytes, write_json
from cdarts.errors import DiskError


def test_replaces_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for content in (b"one", b"two, longer", b""):
        write_bytes(path, content)
        assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]


def test_json_is_readable_and_strict(tmp_path: Path) -> None:
    write_json(tmp_path / "file.json", {"a": [1, None], "b": "ü"})
    assert json.loads((tmp_path / "file.json").read_text()) == {"a": [1, None], "b": "ü"}
    assert (tmp_path / "file.json").read_text().endswith("}\n")
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "file.json", {"a": float("inf")})
    assert json.loads((tmp_path / "file.json").read_text())["b"] == "ü"


def test_refuses_what_is_no_regular_file(tmp_path: Path) -> None:
    with pytest.raises(DiskError, match="regular file"):
        write_bytes(tmp_path, b"data")
    with pytest.raises(DiskError, match="regular file"):
        write_bytes(Path("/dev/null"), b"data")
    assert Path("/dev/null").is_char_device()


def test_names_the_file_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(DiskError, match=r"absent/file: No such file") as raised:
        write_bytes(tmp_path / "absent" / "file", b"data")
    assert raised.value.exit_code == 6


def test_a_signal_while_writing_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("cdarts.engine.files.os.fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_bytes(tmp_path / "file", b"data")
    assert list(tmp_path.iterdir()) == []


def test_knows_the_leftovers_of_a_killed_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # as if the process were gone before it could tidy up
    monkeypatch.setattr(Path, "replace", lambda path, _: path)
    monkeypatch.setattr(Path, "unlink", lambda _, **__: None)
    write_bytes(tmp_path / "file", b"data")
    (left,) = tmp_path.iterdir()
    assert is_leftover(left)
    assert not is_leftover(tmp_path / "file.tmp")
    assert not is_leftover(tmp_path / ".hidden")


def test_a_file_system_that_cannot_flush_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = os.open

    def refuse(path: Path, *arguments: int) -> int:
        if Path(path).is_dir():
            raise OSError(22, "Invalid argument")
        return opened(path, *arguments)

    monkeypatch.setattr("cdarts.engine.files.os.open", refuse)
    write_bytes(tmp_path / "file", b"data")
    assert (tmp_path / "file").read_bytes() == b"data"


def test_room_is_looked_for_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_bytes(tmp_path / "file", b"before")
    monkeypatch.setattr("cdarts.engine.files.shutil.disk_usage", lambda _: shutil._ntuple_diskusage(9, 8, 999))
    monkeypatch.setattr("cdarts.engine.files.os.open", lambda *_: pytest.fail("opened"))
    with pytest.raises(DiskError, match=r"needs 1,000 bytes, and 999 are free.*make room"):
        write_bytes(tmp_path / "file", bytes(1000))
    assert (tmp_path / "file").read_bytes() == b"before"


@pytest.mark.parametrize("append", [False, True], ids=["write", "append"])
@pytest.mark.parametrize("call", ["open", "write", "fsync", "replace"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EACCES, errno.EROFS, errno.EFBIG])
def test_every_error_of_the_disk_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, call: str, append: bool
) -> None:
    path = tmp_path / "file"
    write_bytes(path, b"before")
    if append and call == "replace":
        append_bytes(path, b" and after")  # there is no such call
        assert path.read_bytes() == b"before and after"
        return
    written = os.write

    def fail(*arguments: Any) -> int:
        if call == "write" and len(arguments[1]) > 5:
            return written(arguments[0], arguments[1][:5])  # the disk takes some of it
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        if call == "replace":
            patch.setattr(Path, "replace", fail)
        else:
            patch.setattr(f"cdarts.engine.files.os.{call}", fail)
        with pytest.raises(DiskError, match=re.escape(os.strerror(number))) as raised:
            if append:
                append_bytes(path, b"something else", flush=True)
            else:
                write_bytes(path, b"something else")
    assert raised.value.exit_code == 6
    assert "it needs 14 bytes, and" in str(raised.value)
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


def test_appends_and_creates(tmp_path: Path) -> None:
    for _ in range(2):
        append_bytes(tmp_path / "file", b"line\n")
    assert (tmp_path / "file").read_bytes() == b"line\nline\n"


def test_a_file_placed_in_the_way_is_not_written_through(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_bytes(b"mine")
    (tmp_path / f".file.{os.getpid()}.tmp").symlink_to(precious)
    write_bytes(tmp_path / "file", b"data")
    assert (precious.read_bytes(), (tmp_path / "file").read_bytes()) == (b"mine", b"data")
    for leads in (precious, Path("/dev/null"), tmp_path):
        link = tmp_path / "link"
        link.symlink_to(leads)
        with pytest.raises(DiskError, match="not a regular file"):
            append_bytes(link, b"data")
        link.unlink()
    assert precious.read_bytes() == b"mine"
