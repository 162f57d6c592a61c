"""Seconds as people write and read them."""

import re

from cdarts.errors import ConfigurationError


def clock(seconds: float) -> str:
    """``75.2`` -> ``1m15s``."""
    whole = round(seconds)
    hours, minutes = whole // 3600, whole % 3600 // 60
    if hours:
        return f"{hours}h{minutes:02d}m"
    return f"{minutes}m{whole % 60:02d}s" if minutes else f"{whole}s"


def parse_duration(flag: str, text: str) -> float:
    """``90s``, ``25m`` or ``1.5h`` in seconds. Raises `ConfigurationError` that names the flag."""
    match = re.fullmatch(r"(\d{1,9}(?:\.\d+)?)([smh])", text, re.ASCII)
    if match is None:
        raise ConfigurationError(f"{flag} {text}: write a number and s, m or h, e.g. 90s, 25m, 1.5h")
    seconds = float(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2]]
    if seconds == 0:
        raise ConfigurationError(f"{flag} {text}: must be more than nothing")
    return seconds
