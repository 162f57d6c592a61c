"""Files are whole or absent."""

import json
from pathlib import Path

import pytest

from cdarts.engine.files import is_leftover, write_bytes, write_json
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
    with pytest.raises(DiskError, match=r"absent/file .*No such file") as raised:
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
    def refuse(_: Path) -> None:
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr("cdarts.engine.files.os.open", lambda *_: refuse(tmp_path))
    write_bytes(tmp_path / "file", b"data")
    assert (tmp_path / "file").read_bytes() == b"data"
