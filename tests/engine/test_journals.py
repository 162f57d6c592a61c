"""The one reader of journals: whole lines, in order, whatever another process is writing."""

from pathlib import Path

import pytest

from cdarts.engine.journals import Line, read_journal, whole_lines
from cdarts.errors import ConfigurationError


def test_half_a_line_is_not_there_yet(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    assert read_journal(path) == []
    path.write_bytes(b'{"epoch": 0}\n{"epo')
    assert read_journal(path) == [{"epoch": 0}]
    with path.open("ab") as file:
        file.write(b'ch": 1}\n')
    assert read_journal(path) == [{"epoch": 0}, {"epoch": 1}]


def test_lines_that_hold_no_object_are_named(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"a": 1}\n[2]\n{nonsense\n' + b"[" * 100_000 + b"\n")
    first, second, third, fourth = whole_lines(path)
    assert first == Line(1, {"a": 1}, "")
    assert second == Line(2, None, "must hold a JSON object")
    assert third.value is fourth.value is None and third.reason.startswith("cannot be read")
    with pytest.raises(ConfigurationError, match=r"metrics\.jsonl, line 2: must hold a JSON object"):
        read_journal(path)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        read_journal(tmp_path)


def test_no_more_is_read_than_was_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"a": 1}\n' * 10)
    assert len(list(whole_lines(path, 20))) == 2
