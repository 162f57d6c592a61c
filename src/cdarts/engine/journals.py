"""Reading the journals of a run, ``*.jsonl``: whole lines only, since another process may be writing the next one.

Nothing here needs torch, so that what only looks at runs starts at once.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from cdarts.errors import ConfigurationError


class Line(NamedTuple):
    """One whole line of a journal."""

    number: int
    """From 1."""
    value: dict[str, Any] | None
    """Its JSON object; None for a line that holds none."""
    reason: str
    """Why it holds none."""


def whole_lines(path: Path, most_bytes: int = -1) -> Iterator[Line]:
    """The lines of a journal that have ended, in order; none where there is no such file.

    `most_bytes`: of the file that are read, all by default. Raises `OSError` if the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            ended = file.read(most_bytes).split(b"\n")[:-1]
    except FileNotFoundError:
        return
    for number, text in enumerate(ended, start=1):
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as error:
            yield Line(number, None, f"cannot be read: {error}")
            continue
        if isinstance(value, dict):
            yield Line(number, value, "")
        else:
            yield Line(number, None, "must hold a JSON object")


def read_journal(path: Path) -> list[dict[str, Any]]:
    """All whole lines of a journal. Raises `ConfigurationError` naming the first that is none, or the file."""
    lines = []
    try:
        for line in whole_lines(path):
            if line.value is None:
                raise ConfigurationError(f"{path}, line {line.number}: {line.reason}")
            lines.append(line.value)
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read: {error.strerror or error}") from error
    return lines
