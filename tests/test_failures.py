"""What docs/failures.md quotes is what the program says."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "failures.md"

LEAST_WORDS = 16
"""Characters that a message must share with the source literally, so that no mere placeholder matches it."""


@cache
def templates() -> list[tuple[re.Pattern[str], int]]:
    """Every text in the source as a pattern, with how many of its characters are literal."""
    found = []
    for path in sorted((ROOT / "src" / "cdarts").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = [part.value if isinstance(part, ast.Constant) else None for part in node.values]
                if isinstance(parts[0], str):
                    parts[0] = parts[0].removeprefix("warning: ")
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                parts = [node.value]
            else:
                continue
            literal = sum(len(part) for part in parts if isinstance(part, str))
            if literal >= LEAST_WORDS:
                pattern = "".join("(.*)" if part is None else re.escape(str(part)) for part in parts)
                found.append((re.compile(pattern, re.DOTALL), literal))
    return found


def is_said(message: str, depth: int = 0) -> bool:
    """Whether some text of the source, its placeholders filled, is the message, or two such texts in a row are.

    Either a third of the message stands in the source literally, or what fills a placeholder is said in its turn.
    """
    for pattern, literal in templates():
        filled = pattern.fullmatch(message)
        if filled and 3 * literal >= len(message):
            return True
        if filled and depth < 2 and any(is_said(part, depth + 1) for part in filled.groups()):
            return True
    cuts = [cut.start() for cut in re.finditer("; ", message)] if depth == 0 else []
    return any(is_said(message[:cut], 1) and is_said(message[cut:], 1) for cut in cuts)


def messages() -> list[str]:
    blocks = re.findall(r"^```text\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    return [line for block in blocks for line in block.splitlines()]


@pytest.mark.parametrize("message", messages())
def test_the_program_says_so(message: str) -> None:
    words = re.sub(r"^(error: |data    )?(warning: )?", "", message)
    assert words != message, "begins as no line of the program does"
    assert is_said(words)


def test_a_message_that_nobody_says_is_found_out() -> None:
    assert not is_said("the search has eaten your homework: 6 of 8 edges")
    assert not is_said("--budget is too tiny for this data on this machine: give 3m or more")


def test_every_kind_of_trouble_has_its_message() -> None:
    text = PAGE.read_text(encoding="utf-8")
    parts = re.split(r"^## ", text, flags=re.MULTILINE)[1:-1]  # the last part is about bugs
    assert all(("```text" in part and "**What to do.**" in part) or "| what to do |" in part for part in parts)
