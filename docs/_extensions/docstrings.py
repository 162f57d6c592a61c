"""The docstrings of this project for Sphinx: backticks are code, ``name: meaning`` paragraphs are parameters."""

import dataclasses
import re
from typing import Any, get_args

from sphinx.application import Sphinx

from cdarts.algorithms import AnyAlgorithm
from cdarts.spaces import AnySpace

UNIONS = {"AnyAlgorithm": AnyAlgorithm, "AnySpace": AnySpace}
"""Written by their names; all their members would make a signature unreadable."""


def prepared(lines: list[str]) -> list[str]:
    """A docstring as reStructuredText that shows what it says."""
    result: list[str] = []
    in_list = False
    for line in lines:
        text = _literal(line)
        if found := re.match(r"(\w+(?:, \w+)*): (?=\S)", line):
            if not in_list:
                result.append("")
            names, in_list = found[1].split(", "), True
            text = f"* {', '.join(f'``{name}``' for name in names)}: {_literal(line[found.end() :])}"
        elif in_list and line.startswith(" "):
            text = f"  {text.strip()}"
        elif in_list:
            in_list = False
            result.append("")
        result.append(text)
    return result


def _literal(line: str) -> str:
    """What is in backticks as code, and nothing else as markup."""
    parts = re.split(r"(``[^`]+``|`[^`]+`)", line)
    return "".join(
        f"``{part.strip('`')}``" if index % 2 else re.sub(r"[\\*|]|(?<=\w)_(?=\W|$)", r"\\\g<0>", part)
        for index, part in enumerate(parts)
    )


def _docstring(_app: Sphinx, _what: str, _name: str, _object: Any, _options: Any, lines: list[str]) -> None:
    lines[:] = prepared(lines)


def _signature(
    _app: Sphinx, what: str, _name: str, thing: Any, _options: Any, signature: str | None, returned: str | None
) -> tuple[str | None, str | None]:
    """Unions by their names; none for settings, whose fields are listed below."""
    if what == "class" and dataclasses.is_dataclass(thing):
        return "", None
    return _named(signature), _named(returned)


def _named(text: str | None) -> str | None:
    if text is None:
        return None
    for name, union in UNIONS.items():
        members = r" \| ".join(rf"[~.\w]*\b{kind.__name__}" for kind in get_args(union))
        text = re.sub(members, name, text)
    return text


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("autodoc-process-docstring", _docstring)
    app.connect("autodoc-process-signature", _signature)
    return {"parallel_read_safe": True}
