"""The reference of all flags, read from the parsers that the command line itself uses.

A page asks for it by a line of its own, ``<!-- flags of every command -->``.
"""

import argparse
import importlib
import re
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, get_args

import tyro
from sphinx.application import Sphinx

from cdarts.algorithms import ALGORITHMS
from cdarts.cli import COMMANDS
from cdarts.commands.search import Search

MARK = "<!-- flags of every command -->"


@dataclass(frozen=True)
class Flag:
    """One argument of a command."""

    names: tuple[str, ...]
    """As they are written; of a positional argument its placeholder."""
    values: str
    """What it takes; empty for a switch."""
    default: str
    """Empty if it has none."""
    meaning: str

    def row(self) -> str:
        """As a row of a table."""
        names = ", ".join(f"`{name}`" for name in self.names)
        values = self.values.removeprefix("{None}|")
        meaning = _prose(self.meaning)
        if values.startswith("{"):
            choices = ", ".join(f"`{_cell(choice)}`" for choice in values.strip("{}").split(","))
            meaning = f"{meaning} Values: {choices}.".strip()
        elif values:
            names += f" {_code(values)}"
        return f"| {names} | {_code('' if self.default == 'None' else self.default)} | {meaning} |"


def flags(command: Any, **options: Any) -> list[Flag]:
    """What a command takes, in the order of its help."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of tyro, about this function
        parser = tyro.extras.get_parser(command, config=(tyro.conf.AvoidSubcommands,), **options)
    return [_flag(action) for action in parser._actions if "--help" not in action.option_strings]


def _flag(action: argparse.Action) -> Flag:
    text = " ".join((action.help or "").split())
    meaning, default = text, ""
    if found := re.fullmatch(r"(.*?) ?\((?:default: (.*)|required|optional)\)", text):
        meaning, default = found[1], found[2] or ""
    metavar = action.metavar if isinstance(action.metavar, str) else " ".join(action.metavar or ())
    switch = action.nargs == 0 or not metavar
    names = tuple(action.option_strings) or (metavar or action.dest,)
    return Flag(names, "" if switch or not action.option_strings else metavar, default, meaning)


def subcommands(command: Any) -> Iterator[tuple[str, list[Flag]]]:
    """The name and the flags of each member of a command that is a union."""
    for member in get_args(command):
        kind, *notes = get_args(member)
        for note in notes:  # a member that tyro adds for itself has no name
            if name := getattr(note, "name", None):
                yield name, flags(kind, **({"default": note.default} if isinstance(note.default, kind) else {}))


def reference() -> str:
    """The flags of every command, as Markdown."""
    lines: list[str] = []
    for name, summary in COMMANDS.items():
        lines += [f"## cdarts {name}", "", f"{_prose(summary[:1].upper() + summary[1:])}.", ""]
        command = importlib.import_module(f"cdarts.commands.{name}").COMMAND
        if name == "search":
            lines += _search()
        elif isinstance(command, type):
            lines += _table(flags(command))
        else:
            for inner, found in subcommands(command):
                lines += [f"### cdarts {name} {inner}", "", *_table(found)]
    return "\n".join(lines)


def _search() -> list[str]:
    """Flags of all methods first, then those that each method adds; a preset may have other defaults."""
    every = {
        name: flags(Search, default=Search(algorithm=kind(), preset=name))  # type: ignore[call-arg]
        for name, kind in ALGORITHMS.items()
    }
    common = [flag for flag in next(iter(every.values())) if all(flag in others for others in every.values())]
    lines = [
        "The first word is a preset; its method decides which flags there are. Defaults are the method's own; those of "
        "a preset stand in `cdarts search PRESET --help`.",
        "",
        "### Flags of every method",
        "",
        *_table(common),
    ]
    for name, found in every.items():
        own = [flag for flag in found if flag not in common]
        about = _first_sentence(ALGORITHMS[name].__doc__)
        lines += [f"### Flags of {name}", "", _prose(about), "", *_table(own)]
    return lines


def _first_sentence(text: str | None) -> str:
    return " ".join((text or "").split("\n\n")[0].split())


def _table(found: Iterable[Flag]) -> list[str]:
    rows = [flag.row() for flag in found]
    return ["| flag | default | meaning |", "|---|---|---|", *rows, ""] if rows else ["It takes none.", ""]


def _code(text: str) -> str:
    return f"`{_cell(text)}`" if text else ""


def _cell(text: str) -> str:
    return text.replace("|", r"\|")


def _prose(text: str) -> str:
    """Markdown that shows a text as it stands; what is in backticks stays code."""
    parts = re.split(r"(`+[^`]+`+)", text)
    return "".join(_cell(part) if index % 2 else _escaped(part) for index, part in enumerate(parts))


def _escaped(text: str) -> str:
    return re.sub(r"([\\*_\[\]|])", r"\\\1", text).replace("<", "&lt;").replace(">", "&gt;")


def _fill(_app: Sphinx, _name: str, content: list[str]) -> None:
    if MARK in content[0]:
        content[0] = content[0].replace(MARK, reference())


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("source-read", _fill)
    return {"parallel_read_safe": True}
