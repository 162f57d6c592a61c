"""Durations, read and written."""

import pytest

from cdarts.durations import clock, parse_duration
from cdarts.errors import ConfigurationError


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0, "0s"), (0.6, "1s"), (59.4, "59s"), (59.6, "1m00s"), (75.2, "1m15s"), (3599.9, "1h00m"), (7384.0, "2h03m")],
)
def test_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("25m", 1500), ("1.5h", 5400), ("0.5s", 0.5), ("4m", 240), ("100h", 360_000)]
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration("--budget", text) == seconds


@pytest.mark.parametrize("text", ["", "4", "m", "-4m", "4 m", "4d", "1e3s", "soon", "nan", "0s", "0.0h", "٣m", "4m\n"])
def test_durations_that_are_none(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^--budget "):
        parse_duration("--budget", text)
