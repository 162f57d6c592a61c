"""A run that hangs says where."""

import time
from pathlib import Path

import pytest

from cdarts.engine.watchdog import Watchdog


def hang(seconds: float) -> None:
    time.sleep(seconds)


def test_says_where_a_silent_run_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "stuck.log"
    with Watchdog(log, patience=0.2) as watchdog:
        watchdog.step_done()
        hang(0.6)
    assert capsys.readouterr().err.count(f"warning: no step has ended for 0s; {log} says") == 1, "once for each silence"
    text = log.read_text()
    assert text.count("no step has ended") == 1
    assert "in hang" in text and "test_says_where_a_silent_run_is" in text


def test_is_quiet_while_steps_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Watchdog(tmp_path / "stuck.log", patience=0.4) as watchdog:
        for _ in range(8):
            hang(0.1)
            watchdog.step_done()
    assert capsys.readouterr().err == ""
    assert not (tmp_path / "stuck.log").exists()


def test_long_steps_earn_patience(tmp_path: Path) -> None:
    with Watchdog(tmp_path / "stuck.log", patience=0.1) as watchdog:
        hang(0.09)
        watchdog.step_done()
        hang(0.5)
    assert not (tmp_path / "stuck.log").exists()


def test_a_log_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "stuck.log").mkdir()
    with Watchdog(tmp_path / "stuck.log", patience=0.1):
        hang(0.3)
    assert "cannot be written" in capsys.readouterr().err
