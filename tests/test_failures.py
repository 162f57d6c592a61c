"""What docs/failures.md quotes is what the program says."""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import pytest

from cdarts.data import load
from cdarts.errors import DataError

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "failures.md"

LEAST_LITERAL = 16
"""Characters that a message must share with the source literally."""
LEAST_LETTERS = 3
"""Letters that what fills a message's placeholder must share with the source, if it is more than words and numbers."""
DEEPEST = 2
"""How often what fills a placeholder may have placeholders itself."""

FOREIGN = {"CUDA out of memory. Tried to allocate 2.00 GiB.", "<urlopen error [Errno 113] No route to host>"}
"""What the page quotes of torch and the system."""

WORD = r"[^\s;()]*[^\s,;:()]"
"""A name, a path, a number."""
ITEM = rf"(?:'[^']*'(?: \([\d,]+\))?|{WORD})"
FILLING = re.compile(rf"{ITEM}(?:, {ITEM})*|\w+ (?:nan|inf|[\d.e+-]+)")
"""What may fill a placeholder: words with commas between, or a name and its value."""


# -- what the source says ----------------------------------------------------------------------------------------------


@dataclass(eq=False)
class Function:
    """A function of the source, as far as its texts are concerned."""

    name: str
    parameters: set[str] = field(default_factory=set)
    called: set[str] = field(default_factory=set)
    optional: set[str] = field(default_factory=set)
    """Names that may stand for nothing, since ``... else ""`` is assigned to them."""


@dataclass(frozen=True)
class Placeholder:
    """Of a text."""

    names: frozenset[str]
    """In its expression."""
    texts: tuple[str, ...] = ()
    """What it can be, where the expression says so."""


@dataclass(frozen=True)
class Text:
    """A line of a text in the source."""

    parts: tuple[str | Placeholder, ...]
    function: Function

    def literal(self) -> str:
        return "".join(part for part in self.parts if isinstance(part, str))


def part_of(value: ast.expr) -> str | Placeholder:
    """A piece of an f-string."""
    if isinstance(value, ast.Constant):
        return str(value.value)
    assert isinstance(value, ast.FormattedValue)
    expression = value.value
    names = frozenset(node.id for node in ast.walk(expression) if isinstance(node, ast.Name))
    if isinstance(expression, ast.IfExp):
        branches = (expression.body, expression.orelse)
        constants = tuple(str(branch.value) for branch in branches if isinstance(branch, ast.Constant))
        if len(constants) == len(branches):
            return Placeholder(names, constants)
    return Placeholder(names)


def lines_of(parts: list[str | Placeholder]) -> Iterator[tuple[str | Placeholder, ...]]:
    """A text line by line."""
    line: list[str | Placeholder] = []
    for part in parts:
        pieces: list[str | Placeholder] = [*part.split("\n")] if isinstance(part, str) else [part]
        for number, piece in enumerate(pieces):
            if number:
                yield tuple(line)
                line = []
            if piece:
                line.append(piece)
    yield tuple(line)


class Collector(ast.NodeVisitor):
    """The texts of a module, each with the function that it stands in."""

    def __init__(self) -> None:
        self.texts: list[Text] = []
        self.functions = [Function("")]

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        parameters = {argument.arg for argument in ast.walk(node.args) if isinstance(argument, ast.arg)}
        inside = Function(node.name, parameters)
        self.functions[-1].called.add(node.name)
        self.functions.append(inside)
        self.generic_visit(node)
        self.functions.pop()

    def visit_Call(self, node: ast.Call) -> None:
        if isinstance(node.func, ast.Name | ast.Attribute):
            name = node.func.id if isinstance(node.func, ast.Name) else node.func.attr
            self.functions[-1].called.add(name)
        self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> None:
        if isinstance(node.value, ast.IfExp) and getattr(node.value.orelse, "value", None) == "":
            names = {target.id for target in node.targets if isinstance(target, ast.Name)}
            self.functions[-1].optional |= names
        self.generic_visit(node)

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        self.add([part_of(value) for value in node.values])
        for value in node.values:
            if isinstance(value, ast.FormattedValue):
                self.visit(value.value)

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, str):
            self.add([node.value])

    def add(self, parts: list[str | Placeholder]) -> None:
        if isinstance(parts[0], str):
            parts[0] = parts[0].removeprefix("warning: ")
        self.texts += [Text(line, self.functions[-1]) for line in lines_of(parts)]


@cache
def texts() -> list[Text]:
    """Every line of every text in the source."""
    collector = Collector()
    for path in sorted((ROOT / "src" / "cdarts").rglob("*.py")):
        collector.visit(ast.parse(path.read_text(encoding="utf-8")))
    return [text for text in collector.texts if sum(map(str.isalpha, text.literal())) >= LEAST_LETTERS]


# -- whether it is said ------------------------------------------------------------------------------------------------


def is_said(message: str, *, depth: int = 0, within: Text | None = None, place: Placeholder | None = None) -> bool:
    """Whether a text of the source, its placeholders filled, is the message, or two such texts in a row are.

    `within`, `place`: the text whose placeholder the message fills. Then only texts count that can get there: those of
    the same function, of functions that it calls, of its callers if the placeholder is a parameter, of all if it is an
    error.
    """
    for text in texts():
        if depth == 0 and len(text.literal()) < LEAST_LITERAL:
            continue
        if within is not None and place is not None and not can_fill(text.function, within.function, place):
            continue
        if fits(text.parts, message, text, depth):
            return True
    cuts = [cut.start() for cut in re.finditer("; ", message)] if depth == 0 else []
    return any(is_said(message[:cut], depth=1) and is_said(message[cut:], depth=1) for cut in cuts)


def can_fill(source: Function, function: Function, place: Placeholder) -> bool:
    """Whether a text of one function can fill a placeholder in a text of another one."""
    if "error" in place.names or source is function or source.name in function.called:
        return True
    return bool(place.names & function.parameters - {"self"}) and function.name in source.called


def fits(parts: tuple[str | Placeholder, ...], message: str, text: Text, depth: int) -> bool:
    """Whether these parts of a text, with placeholders filled, are the message."""
    if not parts:
        return not message
    first, *rest = parts
    if isinstance(first, str):
        return message.startswith(first) and fits(tuple(rest), message[len(first) :], text, depth)
    return any(
        is_filling(message[:end], first, text, depth)
        for end in range(len(message) + 1)
        if fits(tuple(rest), message[end:], text, depth)
    )


def is_filling(filling: str, place: Placeholder, text: Text, depth: int) -> bool:
    """Whether that may stand in a placeholder."""
    if place.texts:
        return filling in place.texts
    if not filling:
        return bool(place.names & text.function.optional)
    if filling in FOREIGN or FILLING.fullmatch(filling):
        return True
    return depth < DEEPEST and is_said(filling, depth=depth + 1, within=text, place=place)


def messages() -> list[str]:
    blocks = re.findall(r"^```text\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    return [line for block in blocks for line in block.splitlines()]


@pytest.mark.parametrize("message", messages())
def test_the_program_says_so(message: str) -> None:
    words = re.sub(r"^(error: |data    )?(warning: )?", "", message)
    assert words != message, "begins as no line of the program does"
    assert is_said(words)


@pytest.mark.parametrize(
    "message",
    [
        "the search has eaten your homework: 6 of 8 edges",
        "--budget is too tiny for this data on this machine: give 3m or more",
        "--budget is too small for this data on this machine: give it a good deal more or more",
        "the search is collapsing: it looks bad. Such networks are usually poor. Longer training before alpha moves, "
        "or a method with a guard (cdarts, beta-darts), can help; see docs/methods.md",
        "the data set is not the one that runs/digits was begun with: train: cat 400, now 380; restore it, or begin "
        "another run",
        "runs/digits/config.json is not what the run was begun with: settings.seed 0, now 1. Put that back, or begin "
        "another run",
        "--data cifar10: the files could neither be read from cache nor downloaded (no); put them there, or name a "
        "folder that holds them in the environment variable CDARTS_DATA",
        "runs/digits is in use by ; wait for it or stop it first",
    ],
)
def test_a_message_that_nobody_says_is_found_out(message: str) -> None:
    assert not is_said(message)


def test_lists_and_names_of_files_are_whole() -> None:
    text = PAGE.read_text(encoding="utf-8")
    with pytest.raises(DataError) as raised:
        load("imagenette")
    assert f"error: {raised.value}\n" in text
    files = re.findall(r"\bstep-[\w.-]+\w", text)
    assert files
    assert all(re.fullmatch(r"step-\d{5}-\d{7}\.(safetensors|damaged)", name) for name in files)


def test_every_kind_of_trouble_has_its_message() -> None:
    text = PAGE.read_text(encoding="utf-8")
    parts = re.split(r"^## ", text, flags=re.MULTILINE)[1:-1]  # the last part is about bugs
    assert all(("```text" in part and "**What to do.**" in part) or "| what to do |" in part for part in parts)
