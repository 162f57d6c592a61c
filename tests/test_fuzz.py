"""Whatever a file holds, it is read as what it is, or refused by an error that has an exit code; nothing else happens.

Each property is tried with few examples in every test run and with 10,000 in all among the slow tests. Most examples
are valid texts with something changed, since those get furthest.
"""

import contextlib
import copy
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save as save_tensors

from cdarts import zoo
from cdarts.algorithms import CyclicConfig
from cdarts.commands.common import config_of
from cdarts.commands.retrain import Retrain
from cdarts.commands.search import Search
from cdarts.engine import checkpoint
from cdarts.engine.run_dir import RunDir, read_json
from cdarts.errors import CdartsError, CheckpointError, ConfigurationError, GenotypeError
from cdarts.presets import PRESETS
from cdarts.settings import from_json, to_json
from cdarts.spaces import SPACES
from cdarts.topology import Genotype, parse_arch_string, parse_darts_text, parse_genotype

FAST_EXAMPLES = 50
SLOW_EXAMPLES = 1_700

LONGEST_MESSAGE = 2_500
"""Characters of an error; a file's own text must not flood the terminal."""


# -- changed texts and trees -------------------------------------------------------------------------------------------

HOSTILE_TEXTS = (
    "",
    "__import__('os').system('true')",
    "\x00",
    "\x1b[31m",
    "\ud800",
    "٣",
    "../../x",
    "<script>",
    "x" * 5_000,
    "1e999",
    "NaN",
    "range(0,10**9)",
    "((((((((",
)

DEEP: list[Any] = []
for _ in range(100):
    DEEP = [DEEP]
HOSTILE_VALUES = (float("nan"), float("inf"), 1e300, 10**400, -1, DEEP)

leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(HOSTILE_VALUES)
    | st.sampled_from(HOSTILE_TEXTS)
)
trees = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
)


@st.composite
def changed_texts(draw: st.DrawFn, texts: tuple[str, ...]) -> str:
    """One of the texts, with a few spans deleted, doubled, swapped for others or for hostile ones."""
    text = draw(st.sampled_from(texts))
    for _ in range(draw(st.integers(0, 3))):
        start = draw(st.integers(0, len(text)))
        end = draw(st.integers(start, min(len(text), start + 12)))
        span = text[start:end]
        other = draw(
            st.sampled_from(("", span * 2, span.upper(), span[::-1]))
            | st.sampled_from(HOSTILE_TEXTS)
            | st.text(max_size=4)
            | st.sampled_from(list("()[]{}|~+,='\"0129_ \n"))
        )
        text = text[:start] + other + text[end:]
    return text


@st.composite
def changed_trees(draw: st.DrawFn, values: tuple[Any, ...]) -> Any:
    """One of the JSON values, with a few of its parts taken away, renamed, doubled or replaced."""
    value = copy.deepcopy(draw(st.sampled_from(values)))
    for _ in range(draw(st.integers(0, 3))):
        if not isinstance(value, dict | list) or not value:
            return value
        parent, key = _draw_place(draw, value)
        match draw(st.integers(0, 6)):
            case 0:
                del parent[key]
            case 1 if isinstance(parent, dict):
                parent[draw(st.text(max_size=8)) + str(key)] = parent.pop(key)
            case 2 if isinstance(parent, list):
                parent.append(copy.deepcopy(parent[key]))
            case 3:
                other, other_key = _draw_place(draw, value)
                with contextlib.suppress(KeyError, IndexError):
                    parent[key] = copy.deepcopy(other[other_key])
            case _:
                parent[key] = copy.deepcopy(
                    draw(st.sampled_from(HOSTILE_VALUES) | st.sampled_from(HOSTILE_TEXTS) | trees)
                )
    return value


def _draw_place(draw: st.DrawFn, value: Any) -> tuple[Any, Any]:
    """A (container, key) in a JSON value; every key of an object is as likely, however much lies below it."""
    while True:
        key = draw(st.sampled_from(list(value) if isinstance(value, dict) else range(len(value))))
        inner = value[key]
        if not isinstance(inner, dict | list) or not inner or draw(st.integers(0, 3)) == 0:
            return value, key
        value = inner


# -- properties --------------------------------------------------------------------------------------------------------


PROPERTIES: dict[str, tuple[Callable[..., None], tuple[st.SearchStrategy[Any], ...]]] = {}


def for_all(name: str, *strategies: st.SearchStrategy[Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register a property: a function that must hold for all that the strategies draw."""

    def register(check: Callable[..., None]) -> Callable[..., None]:
        PROPERTIES[name] = (check, strategies)
        return check

    return register


def refused(error: CdartsError) -> None:
    """A good refusal of a user's text: it says something, and not too much."""
    assert 0 < len(str(error)) < LONGEST_MESSAGE


def check_genotype(genotype: Genotype) -> None:
    """What was let in can be written and read again, and a space takes it or says why not."""
    with contextlib.suppress(GenotypeError):  # cells without a text form cannot be written
        written = json.dumps(genotype.to_json(), allow_nan=False, indent=2)
        assert parse_genotype(written) == genotype
    for space in SPACES.values():
        try:
            space().check(genotype)  # type: ignore[call-arg]
        except GenotypeError as error:
            refused(error)


GENOTYPES = tuple(zoo.load(name).to_json() for name in zoo.names())
BARE = tuple({key: value for key, value in genotype.items() if key != "text"} for genotype in GENOTYPES)
DARTS_TEXTS = tuple(value["text"] for value in GENOTYPES if value["space"] == "darts")
ARCH_STRINGS = tuple(value["text"] for value in GENOTYPES if value["space"] == "nasbench201")


@for_all(
    "genotype JSON",
    changed_trees((*GENOTYPES, *BARE)).map(json.dumps)
    | changed_texts(tuple(map(json.dumps, GENOTYPES)))
    | trees.map(json.dumps)
    | st.text(),
)
def genotype_json(text: str) -> None:
    try:
        genotype = parse_genotype(text)
    except GenotypeError as error:
        refused(error)
    else:
        check_genotype(genotype)


@for_all("DARTS text", changed_texts(DARTS_TEXTS) | st.text())
def darts_text(text: str) -> None:
    try:
        genotype = parse_darts_text(text)
    except GenotypeError as error:
        refused(error)
    else:
        check_genotype(genotype)


@for_all("arch string", changed_texts(ARCH_STRINGS) | st.text())
def arch_string(text: str) -> None:
    try:
        genotype = parse_arch_string(text)
    except GenotypeError as error:
        refused(error)
    else:
        check_genotype(genotype)
        assert genotype.text() == text.strip()


CONFIGS = (
    config_of("search", Search(algorithm=CyclicConfig())),
    *(config_of("search", Search(algorithm=PRESETS[name])) for name in ("gdas", "enas", "p-darts")),
    config_of("retrain", Retrain(genotype="x")),
)


@for_all(
    "settings JSON",
    changed_trees(CONFIGS).map(json.dumps) | changed_texts(tuple(map(json.dumps, CONFIGS))) | trees.map(json.dumps),
)
def settings_json(text: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.json"
        path.write_text(text, encoding="utf-8", errors="surrogatepass")
        try:
            config = read_json(path)
            kind = Retrain if config.get("command") == "retrain" else Search
            found = from_json(kind, config.get("settings"), str(path))
        except ConfigurationError as error:
            refused(error)
        else:
            assert from_json(kind, json.loads(json.dumps(to_json(found))), "again") == found


STATE = {"epoch": 3, "task": {"weight": torch.arange(6.0), "steps": [1, {"on": True}]}, "journals": {"a": 1}}


def _sealed(tree: Any) -> bytes:
    """A checkpoint file of any tree, whose checksum is right: what somebody could make who means harm."""
    tensors = {"/task/weight": torch.arange(6.0)}
    text = json.dumps(tree)
    sealed = json.dumps({"state": text, "sha256": checkpoint._digest(tensors, text)})
    return save_tensors(tensors, {"cdarts": sealed})


def _whole_file() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        checkpoint.save(Path(folder) / "state", STATE)
        return (Path(folder) / "state").read_bytes()


@st.composite
def changed_files(draw: st.DrawFn) -> bytes:
    """A checkpoint with some bytes of its header changed, added or cut."""
    data = bytearray(_whole_file())
    header = 8 + int.from_bytes(data[:8], "little")
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, header))
        end = start + draw(st.integers(0, 6))
        data[start:end] = draw(st.binary(max_size=6) | st.sampled_from((b'"', b"{", b"}", b"9" * 30, b"\\ud800")))
    return bytes(data)


SEALED_TREE = {"epoch": 3, "task": {"weight": {"$tensor": "/task/weight"}, "steps": [1, {"$tensor": "nowhere"}]}}


@for_all(
    "checkpoint header", changed_files() | changed_trees((SEALED_TREE,)).map(_sealed) | trees.map(_sealed) | st.binary()
)
def checkpoint_header(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "state"
        path.write_bytes(data)
        try:
            state = checkpoint.load(path)
        except CheckpointError as error:
            assert str(error)
        else:
            assert isinstance(state, dict)


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


LINES = [{"epoch": epoch, "loss": 1 / (epoch + 1), "phase": "joint"} for epoch in range(4)]


@for_all(
    "metrics tail", st.integers(0, 400), st.binary(max_size=40) | changed_texts((json.dumps(LINES[0]),)).map(_encoded)
)
def metrics_tail(length: int, tail: bytes) -> None:
    whole = "".join(json.dumps(line) + "\n" for line in LINES).encode()
    with tempfile.TemporaryDirectory() as folder:
        run = RunDir.create(Path(folder) / "run", {})
        with run:
            (run.path / "metrics.jsonl").write_bytes(whole[:length] + tail)
            try:
                lines = run.journal("metrics")
            except CdartsError as error:
                assert str(error)
            else:
                kept = whole[:length].count(b"\n")
                assert lines[:kept] == LINES[:kept]


def examples(name: str, number: int) -> None:
    check, strategies = PROPERTIES[name]
    settings(max_examples=number, suppress_health_check=(HealthCheck.too_slow,))(given(*strategies)(check))()


@pytest.mark.parametrize("name", PROPERTIES)
def test_only_typed_errors(name: str) -> None:
    examples(name, FAST_EXAMPLES)


@pytest.mark.slow
@pytest.mark.parametrize("name", PROPERTIES)
def test_only_typed_errors_in_ten_thousand_examples(name: str) -> None:
    assert SLOW_EXAMPLES * len(PROPERTIES) >= 10_000
    examples(name, SLOW_EXAMPLES)
