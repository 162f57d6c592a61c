"""Topologies and genotypes as plain data.

A cell is a directed acyclic graph over *states*: first its inputs, numbered 0 .. num_inputs - 1, then its nodes. An
edge leads from a state to a later node and carries one or more candidate operations by name. A `Topology` says so for
each kind of cell: a search network has every operation on every edge, a genotype's network one operation on each kept
edge.

This module imports nothing but the standard library and this package's errors, not even torch.
"""

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from cdarts.errors import GenotypeError

MAX_TEXT = 64 * 1024
"""Characters a genotype's text may have; a longer one is refused before it is parsed."""

MAX_NAME = 64
"""Characters that the name of a space, of a kind of cell or of an operation may have."""

MAX_DEPTH = 8
"""Objects and lists within one another that a genotype's provenance may have."""


@dataclass(frozen=True, order=True)
class Edge:
    """From state `source` to state `target`; sorted by target, then source, as all spaces number their edges."""

    target: int
    source: int

    def __str__(self) -> str:
        return f"{self.source}-{self.target}"


@dataclass(frozen=True)
class CellTopology:
    """One kind of cell: which operations each edge carries, edges in order."""

    num_inputs: int
    num_nodes: int
    edges: tuple[tuple[Edge, tuple[str, ...]], ...]

    def incoming(self, node: int) -> list[int]:
        """Positions, in `edges`, of the edges that end in state `node`."""
        return [position for position, (edge, _) in enumerate(self.edges) if edge.target == node]


Topology = Mapping[str, CellTopology]
"""Cell topologies by kind of cell: ``normal`` and ``reduce`` in the DARTS space, ``cell`` in NAS-Bench-201."""


@dataclass(frozen=True)
class Port:
    """One input of a block: which earlier output it reads (position among stem outputs and blocks), and how."""

    source: int
    channels: int
    halve: bool
    """Whether that output has twice the side that this block works at, so that it must be reduced on entry."""


@dataclass(frozen=True)
class Slot:
    """One place in a network's macro skeleton, before it is filled by a cell or by a fixed block."""

    name: str
    """Prefix of its weights' names, e.g. ``cells.3``."""
    kind: str | None
    """Kind of the cell that fills it; None for a block that is not searched."""
    stage: int
    inputs: tuple[Port, ...]
    channels: int
    """Channels of each node."""
    out_channels: int
    stride: int
    """2 where the block halves the side, else 1."""
    closes_stage: bool
    """Whether an embedding module reads this block's output."""


@dataclass(frozen=True, order=True)
class Choice:
    """A genotype's decision for one edge."""

    edge: Edge
    operation: str


@dataclass(frozen=True)
class Genotype:
    """A discrete architecture: for each kind of cell the kept edges with their operation, in the order of the edges.

    Two genotypes are equal if they name the same architecture; provenance does not count.
    """

    space: str
    cells: Mapping[str, tuple[Choice, ...]]
    provenance: Mapping[str, Any] = field(default_factory=dict, compare=False, hash=False)

    def __post_init__(self) -> None:
        ordered = {}
        for kind, choices in self.cells.items():
            ordered[kind] = tuple(sorted(choices))
            edges = [choice.edge for choice in ordered[kind]]
            for edge in edges:
                if not 0 <= edge.source < edge.target:
                    raise GenotypeError(f"{kind} cell: no edge leads from state {edge.source} to state {edge.target}")
            repeated = [str(edge) for edge, times in Counter(edges).items() if times > 1]
            if repeated:
                raise GenotypeError(f"{kind} cell: edge {', '.join(repeated)} appears more than once")
        object.__setattr__(self, "cells", ordered)

    def __hash__(self) -> int:
        return hash((self.space, tuple(sorted(self.cells.items()))))

    def operations(self) -> list[str]:
        """Every chosen operation, cell by cell in the order of the edges."""
        return [choice.operation for choices in self.cells.values() for choice in choices]

    def text(self) -> str:
        """The text form of the space's own literature: a DARTS `Genotype(...)` or a NAS-Bench-201 string.

        What is returned reads back as the same cells. Raises `GenotypeError` if the cells fit neither form.
        """
        if set(self.cells) == {"normal", "reduce"}:
            text, rule = _darts_text(self), "two edges into each node, operations named by letters, digits and _"
        elif set(self.cells) == {"cell"}:
            text, rule = _arch_string(self), "every edge once, operations named by letters, digits and _"
        else:
            raise GenotypeError(f"no text form is defined for cells {', '.join(self.cells)}")
        try:
            same = parse_genotype(text).cells == self.cells
        except GenotypeError:
            same = False
        if not same:
            raise GenotypeError(f"cells {', '.join(self.cells)} fit no text form; it needs {rule}")
        return text

    def to_json(self) -> dict[str, Any]:
        """As it is written to a genotype file."""
        return {
            "format": "cdarts-genotype",
            "version": 1,
            "space": self.space,
            "cells": {
                kind: [[choice.edge.source, choice.edge.target, choice.operation] for choice in choices]
                for kind, choices in self.cells.items()
            },
            "text": self.text(),
            "provenance": dict(self.provenance),
        }

    def __str__(self) -> str:
        return self.text()


# -- reading -----------------------------------------------------------------------------------------------------------


def read_genotype(path: Path) -> Genotype:
    """A genotype from a JSON file or from a file that holds a text form.

    Raises `GenotypeError`, naming the file and the place in it.
    """
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(MAX_TEXT + 1)
    except (OSError, UnicodeDecodeError) as error:
        raise GenotypeError(f"{path}: cannot be read as text: {error}") from error
    try:
        return parse_genotype(text)
    except GenotypeError as error:
        raise GenotypeError(f"{path}: {error}") from error


def parse_genotype(text: str) -> Genotype:
    """A genotype from any of its forms: JSON, ``Genotype(normal=[...], ...)`` or ``|op~0|+|op~0|op~1|+...``."""
    if len(text) > MAX_TEXT:
        raise GenotypeError(f"more than {MAX_TEXT} characters: not a genotype")
    match text.lstrip()[:1]:
        case "{":
            return _parse_json(text)
        case "|":
            return parse_arch_string(text)
        case "":
            raise GenotypeError("the text is empty")
        case _:
            return parse_darts_text(text)


def _parse_json(text: str) -> Genotype:
    try:
        data = json.loads(text, object_pairs_hook=_object)
    except (ValueError, RecursionError) as error:  # ValueError: bad JSON, or a number of more digits than Python reads
        raise GenotypeError(f"not valid JSON, perhaps truncated: {error}") from error
    return genotype_from_json(data)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object. Raises `GenotypeError` for one that says two things of the same key."""
    repeated = [name for name, times in Counter(name for name, _ in pairs).items() if times > 1]
    if repeated:
        raise GenotypeError(f"key {_cut(repeated[0])} stands there twice")
    return dict(pairs)


def genotype_from_json(data: object) -> Genotype:
    """The inverse of `Genotype.to_json`. Raises `GenotypeError` naming the key at fault."""
    if not isinstance(data, dict):
        raise GenotypeError("a genotype must be a JSON object")
    if data.get("format") != "cdarts-genotype":
        raise GenotypeError('"format" must be "cdarts-genotype"')
    if data.get("version") != 1 or isinstance(data["version"], bool):
        raise GenotypeError(f'"version" is {_cut(data.get("version"))}; this version of cdarts reads 1')
    unknown = set(data) - {"format", "version", "space", "cells", "text", "provenance"}
    if unknown:
        raise GenotypeError(f"unknown key {_cut(sorted(unknown)[0])}")
    space, cells, provenance = data.get("space"), data.get("cells"), data.get("provenance", {})
    if not isinstance(space, str):
        raise GenotypeError('"space" must be a string')
    _check_name("space", space)
    if not isinstance(provenance, dict):
        raise GenotypeError('"provenance" must be an object')
    _check_provenance(provenance, MAX_DEPTH)
    if not isinstance(cells, dict) or not cells:
        raise GenotypeError('"cells" must be an object of at least one cell')
    read = {}
    for kind, choices in cells.items():
        _check_name("cells", kind)
        place = f"cells.{kind}"
        if not isinstance(choices, list):
            raise GenotypeError(f'{place} must be a list of [source, target, "operation"]')
        read[kind] = tuple(_json_choice(f"{place}[{position}]", item) for position, item in enumerate(choices))
    genotype = Genotype(space, read, provenance)
    if "text" in data and data["text"] != genotype.text():
        raise GenotypeError('"text" and "cells" name different architectures')
    return genotype


def _json_choice(place: str, item: object) -> Choice:
    match item:
        case [bool(), _, _] | [_, bool(), _]:
            pass
        case [int(source), int(target), str(operation)]:
            _check_name(place, operation)
            return Choice(Edge(target=target, source=source), operation)
    raise GenotypeError(f'{place}: expected [source, target, "operation"], found {_cut(item)}')


def _check_name(place: str, name: str) -> None:
    """Raise `GenotypeError` unless it can be the name of a space, a kind of cell or an operation."""
    if not name.isidentifier() or len(name) > MAX_NAME:
        raise GenotypeError(
            f"{place}: {_cut(name)} is no name: letters, digits and _, no digit first, at most {MAX_NAME} characters"
        )


def _check_provenance(value: object, depth: int) -> None:
    """Raise `GenotypeError` for what could not be written again: numbers that are not finite, deep nesting."""
    if isinstance(value, dict | list):
        if not depth:
            raise GenotypeError(f'"provenance" is nested deeper than {MAX_DEPTH} levels')
        for item in value.values() if isinstance(value, dict) else value:
            _check_provenance(item, depth - 1)
    elif isinstance(value, float) and not math.isfinite(value):
        raise GenotypeError(f'"provenance" holds {value}; numbers must be finite')


def _cut(found: object) -> str:
    """Something found in a text, for an error of one line."""
    try:
        text = repr(found)
    except (RecursionError, ValueError):  # ValueError: a number of more digits than Python writes
        return "something that cannot be shown"
    return text if len(text) <= MAX_NAME else f"{text[:MAX_NAME]}..."


# -- the DARTS family's text form --------------------------------------------------------------------------------------

_DARTS_TOKEN = re.compile(
    r"\s*(?:(?P<name>[A-Za-z_][A-Za-z0-9_]*)|(?P<number>\d{1,3})|(?P<text>'\w{0,64}'|\"\w{0,64}\")|(?P<mark>[()\[\],=]))"
)


Item = TypeVar("Item")


class _Tokens:
    """A cursor over the tokens of a DARTS text form; every complaint names the character it stumbled on."""

    def __init__(self, text: str) -> None:
        self.source = text
        self.position = 0

    def fail(self, expected: str) -> NoReturn:
        rest = self.source[self.position :].lstrip()
        found = f"found {rest[:20]!r}" if rest else "the text ends"
        raise GenotypeError(f"character {len(self.source) - len(rest)}: expected {expected}, {found}")

    def take(self, group: str, expected: str) -> str:
        match = _DARTS_TOKEN.match(self.source, self.position)
        if match is None or match[group] is None:
            self.fail(expected)
        self.position = match.end()
        return match[group]

    def mark(self, mark: str) -> None:
        if not self.accept(mark):
            self.fail(repr(mark))

    def accept(self, mark: str) -> bool:
        match = _DARTS_TOKEN.match(self.source, self.position)
        if match is None or match["mark"] != mark:
            return False
        self.position = match.end()
        return True

    def keyword(self, name: str) -> None:
        before = self.position
        if self.take("name", name) != name:
            self.position = before
            self.fail(name)


def parse_darts_text(text: str) -> Genotype:
    """Read ``Genotype(normal=[('sep_conv_3x3', 0), ...], normal_concat=range(2, 6), reduce=[...], reduce_concat=...)``.

    Two entries a node, one after another or in a list for each node; the number is the state an edge comes from. The
    concat is a range or a list and names every node.

    Raises `GenotypeError` with the character at fault. Operation names are checked against a space by `Space.check`.
    """
    tokens = _Tokens(text)
    tokens.keyword("Genotype")
    tokens.mark("(")
    cells: dict[str, tuple[Choice, ...]] = {}
    for kind in ("normal", "reduce"):
        if cells:
            tokens.mark(",")
        tokens.keyword(kind)
        tokens.mark("=")
        entries = _darts_entries(tokens)
        num_nodes = len(entries) // 2
        tokens.mark(",")
        tokens.keyword(f"{kind}_concat")
        tokens.mark("=")
        start = tokens.position
        if _darts_concat(tokens) != list(range(2, 2 + num_nodes)):
            tokens.position = start
            tokens.fail(f"every node, range(2, {2 + num_nodes})")
        cells[kind] = tuple(
            Choice(Edge(target=2 + i // 2, source=source), operation) for i, (operation, source) in enumerate(entries)
        )
    tokens.accept(",")
    tokens.mark(")")
    if text[tokens.position :].strip():
        tokens.fail("the end of the text")
    return Genotype("darts", cells)


def _darts_list(tokens: _Tokens, item: Callable[[_Tokens], Item]) -> list[Item]:
    """The items of a list whose opening bracket has been read."""
    items = []
    while not tokens.accept("]"):
        items.append(item(tokens))
        if not tokens.accept(","):
            tokens.mark("]")
            break
    return items


def _darts_entry(tokens: _Tokens) -> tuple[str, int]:
    tokens.mark("(")
    operation = tokens.take("text", "an operation's name in quotes")[1:-1]
    tokens.mark(",")
    source = _darts_number(tokens)
    tokens.mark(")")
    return operation, source


def _darts_number(tokens: _Tokens) -> int:
    return int(tokens.take("number", "a number"))


def _darts_node(tokens: _Tokens) -> list[tuple[str, int]]:
    """A node's entries in a list of their own, or one entry."""
    return _darts_list(tokens, _darts_entry) if tokens.accept("[") else [_darts_entry(tokens)]


def _darts_entries(tokens: _Tokens) -> list[tuple[str, int]]:
    start = tokens.position
    tokens.mark("[")
    groups = _darts_list(tokens, _darts_node)
    sizes = {len(group) for group in groups}
    if sizes not in ({1}, {2}) or (sizes == {1} and len(groups) % 2):
        tokens.position = start
        tokens.fail("two entries for each node")
    return [entry for group in groups for entry in group]


def _darts_concat(tokens: _Tokens) -> list[int]:
    if tokens.accept("["):
        return _darts_list(tokens, _darts_number)
    tokens.keyword("range")
    tokens.mark("(")
    first = _darts_number(tokens)
    tokens.mark(",")
    end = _darts_number(tokens)
    tokens.mark(")")
    return list(range(first, end))


def _darts_text(genotype: Genotype) -> str:
    parts = []
    for kind in ("normal", "reduce"):
        choices = genotype.cells[kind]
        last = max((choice.edge.target for choice in choices), default=1)
        entries = ", ".join(f"('{choice.operation}', {choice.edge.source})" for choice in choices)
        parts.append(f"{kind}=[{entries}], {kind}_concat=range(2, {last + 1})")
    return f"Genotype({', '.join(parts)})"


# -- NAS-Bench-201's text form -----------------------------------------------------------------------------------------

_ARCH_ENTRY = re.compile(r"(?P<operation>[A-Za-z_][A-Za-z0-9_]{0,63})~(?P<source>0|[1-9][0-9]?)")


def parse_arch_string(text: str) -> Genotype:
    """``|op~0|+|op~0|op~1|+|op~0|op~1|op~2|``: one group a node, one entry for each earlier state, in order.

    Raises `GenotypeError` naming node and entry.
    """
    choices = []
    for target, group in enumerate(text.strip().split("+"), start=1):
        if len(group) < 2 or group[0] != "|" or group[-1] != "|":
            raise GenotypeError(f"node {target}: expected '|op~0|...|', found {_cut(group)}")
        entries = group[1:-1].split("|")
        if len(entries) != target:
            raise GenotypeError(
                f"node {target}: has {len(entries)} entries, must have {target}, one for each earlier state"
            )
        for source, entry in enumerate(entries):
            match = _ARCH_ENTRY.fullmatch(entry)
            if match is None:
                raise GenotypeError(
                    f"node {target}, entry {source}: expected 'operation~{source}', found {_cut(entry)}"
                )
            if int(match["source"]) != source:
                raise GenotypeError(
                    f"node {target}, entry {source}: comes from state {match['source']}, expected {source}"
                )
            choices.append(Choice(Edge(target=target, source=source), match["operation"]))
    return Genotype("nasbench201", {"cell": tuple(choices)})


def _arch_string(genotype: Genotype) -> str:
    groups: dict[int, list[str]] = {}
    for choice in genotype.cells["cell"]:
        groups.setdefault(choice.edge.target, []).append(f"{choice.operation}~{choice.edge.source}")
    return "+".join(f"|{'|'.join(entries)}|" for entries in groups.values())
