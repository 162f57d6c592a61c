"""Genotypes and their text forms: everything published reads back, nothing else is let in."""

import itertools
import json
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import cdarts
from cdarts.errors import ConfigurationError, GenotypeError
from cdarts.spaces import SPACES, DartsSpace, NasBench201Space
from cdarts.topology import (
    MAX_TEXT,
    CellTopology,
    Choice,
    Edge,
    Genotype,
    genotype_from_json,
    parse_arch_string,
    parse_darts_text,
    parse_genotype,
    read_genotype,
)

DARTS_V2 = (
    "Genotype(normal=[('sep_conv_3x3', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 0), ('sep_conv_3x3', 1), "
    "('sep_conv_3x3', 1), ('skip_connect', 0), ('skip_connect', 0), ('dil_conv_3x3', 2)], normal_concat=[2, 3, 4, 5], "
    "reduce=[('max_pool_3x3', 0), ('max_pool_3x3', 1), ('skip_connect', 2), ('max_pool_3x3', 1), ('max_pool_3x3', 0), "
    "('skip_connect', 2), ('skip_connect', 2), ('max_pool_3x3', 1)], reduce_concat=[2, 3, 4, 5])"
)
"""As printed in quark0/darts."""

CDARTS_CIFAR = (
    "Genotype(normal=[[('sep_conv_3x3', 0), ('sep_conv_3x3', 1)], [('sep_conv_3x3', 1), ('sep_conv_3x3', 2)], "
    "[('sep_conv_3x3', 0), ('sep_conv_3x3', 1)], [('skip_connect', 0), ('skip_connect', 2)]], "
    "normal_concat=range(2, 6), reduce=[[('sep_conv_5x5', 1), ('max_pool_3x3', 0)], [('dil_conv_5x5', 2), "
    "('skip_connect', 0)], [('sep_conv_3x3', 0), ('sep_conv_5x5', 1)], [('sep_conv_3x3', 0), ('dil_conv_5x5', 2)]], "
    "reduce_concat=range(2, 6))"
)
"""As in the CDARTS authors' genotype files: a list for each node, the stronger edge first."""

ARCH = "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_1x1~1|nor_conv_3x3~2|"

PUBLISHED = sorted((Path(cdarts.__file__).parent / "genotypes").glob("*.json"))


def cell(*choices: tuple[int, int, str]) -> tuple[Choice, ...]:
    """Choices from (source, target, operation)."""
    return tuple(Choice(Edge(target=target, source=source), operation) for source, target, operation in choices)


def random_genotype(space_name: str, seed: int) -> Genotype:
    """The genotype of random strengths, so that every one of the space can come."""
    space, draw = SPACES[space_name](), random.Random(seed)  # type: ignore[call-arg]
    return space.derive(
        {kind: [[draw.random() for _ in space.operations] for _ in space.all_edges()] for kind in space.kinds}
    )


# -- data --------------------------------------------------------------------------------------------------------------


def test_the_module_needs_no_torch() -> None:
    program = "import sys, cdarts.topology, cdarts.spaces; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_edges_sort_by_target_then_source() -> None:
    edges = [Edge(target=3, source=0), Edge(target=2, source=1), Edge(target=3, source=2), Edge(target=2, source=0)]
    assert [str(edge) for edge in sorted(edges)] == ["0-2", "1-2", "0-3", "2-3"]


def test_incoming_gives_positions() -> None:
    edges = tuple(
        (Edge(target=target, source=source), ("none",)) for source, target in [(0, 2), (1, 2), (0, 3), (2, 3)]
    )
    topology = CellTopology(2, 2, edges)
    assert topology.incoming(2) == [0, 1]
    assert topology.incoming(3) == [2, 3]
    assert topology.incoming(1) == []


def test_equality_is_of_the_architecture() -> None:
    one = Genotype("toy", {"cell": cell((0, 1, "a"), (0, 2, "b"), (1, 2, "c"))}, {"epoch": 3})
    other = Genotype("toy", {"cell": cell((1, 2, "c"), (0, 2, "b"), (0, 1, "a"))}, {"epoch": 4})
    assert one == other
    assert len({one, other}) == 1
    assert one.operations() == other.operations() == ["a", "b", "c"]
    assert one != Genotype("nasbench201", one.cells)
    assert one != Genotype("toy", {"cell": cell((0, 1, "a"), (0, 2, "b"), (1, 2, "d"))})


@pytest.mark.parametrize(("source", "target"), [(2, 2), (3, 2), (-1, 2)])
def test_an_edge_leads_forward(source: int, target: int) -> None:
    with pytest.raises(GenotypeError, match=f"normal cell: no edge leads from state {source} to state {target}"):
        Genotype("darts", {"normal": cell((source, target, "a"))})


def test_an_edge_comes_once() -> None:
    with pytest.raises(GenotypeError, match="cell cell: edge 0-1 appears more than once"):
        Genotype("toy", {"cell": cell((0, 1, "a"), (0, 1, "b"))})


def test_a_genotype_error_ends_a_command_with_code_2() -> None:
    assert issubclass(GenotypeError, ConfigurationError)
    assert GenotypeError.exit_code == 2


# -- round trips -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("seed", range(20))
def test_json_and_text_read_back(space: str, seed: int) -> None:
    genotype = random_genotype(space, seed)
    assert genotype_from_json(genotype.to_json()) == genotype
    again = parse_genotype(json.dumps(Genotype(genotype.space, genotype.cells, {"seed": seed}).to_json()))
    assert again == genotype
    assert again.provenance == {"seed": seed}
    assert parse_genotype(genotype.text()).cells == genotype.cells
    assert str(genotype) == genotype.text() == parse_genotype(genotype.text()).text()


def test_published_cells_read_back() -> None:
    assert len(PUBLISHED) >= 13
    for path in PUBLISHED:
        genotype = read_genotype(path)
        SPACES[genotype.space]().check(genotype)  # type: ignore[call-arg]
        assert parse_genotype(genotype.text()) == genotype
        assert parse_genotype(json.dumps(genotype.to_json())) == genotype


def test_all_15625_cells_of_nasbench201() -> None:
    space = NasBench201Space()
    edges = space.all_edges()
    seen = set()
    for number, names in enumerate(itertools.product(space.operations, repeat=6)):
        a, b, c, d, e, f = names
        text = f"|{a}~0|+|{b}~0|{c}~1|+|{d}~0|{e}~1|{f}~2|"
        genotype = parse_arch_string(text)
        assert genotype.text() == text
        assert genotype.cells["cell"] == tuple(map(Choice, edges, names))
        if number % 25 == 0:  # the check is the same loop for all
            space.check(genotype)
        seen.add(genotype)
    assert len(seen) == 15625


def test_both_ways_in_which_darts_cells_are_printed() -> None:
    expected = cell(
        (0, 2, "sep_conv_3x3"),
        (1, 2, "sep_conv_3x3"),
        (0, 3, "sep_conv_3x3"),
        (1, 3, "sep_conv_3x3"),
        (0, 4, "skip_connect"),
        (1, 4, "sep_conv_3x3"),
        (0, 5, "skip_connect"),
        (2, 5, "dil_conv_3x3"),
    )
    assert parse_darts_text(DARTS_V2).cells["normal"] == expected
    assert parse_darts_text(DARTS_V2.replace("[2, 3, 4, 5]", "range(2, 6)")) == parse_darts_text(DARTS_V2)
    assert parse_darts_text(DARTS_V2.replace("'", '"')) == parse_darts_text(DARTS_V2)
    assert parse_darts_text(" ".join(DARTS_V2.replace("(", "( ").split()) + "\n") == parse_darts_text(DARTS_V2)
    nested = parse_darts_text(CDARTS_CIFAR)
    assert nested.cells["reduce"] == cell(
        (0, 2, "max_pool_3x3"),
        (1, 2, "sep_conv_5x5"),
        (0, 3, "skip_connect"),
        (2, 3, "dil_conv_5x5"),
        (0, 4, "sep_conv_3x3"),
        (1, 4, "sep_conv_5x5"),
        (0, 5, "sep_conv_3x3"),
        (2, 5, "dil_conv_5x5"),
    )
    DartsSpace().check(nested)
    assert parse_darts_text(nested.text()) == nested


@pytest.mark.parametrize(
    "cells",
    [
        {"normal": cell((0, 2, "a"), (1, 2, "b"), (0, 3, "a")), "reduce": cell((0, 2, "a"), (1, 2, "b"))},
        {"normal": cell((0, 2, "a"), (0, 3, "b"), (1, 3, "a"), (2, 3, "a")), "reduce": cell((0, 2, "a"), (1, 2, "b"))},
        {"normal": (), "reduce": cell((0, 2, "a"), (1, 2, "b"))},
        {"normal": cell((0, 2, "a', 0), ('b"), (1, 2, "b")), "reduce": cell((0, 2, "a"), (1, 2, "b"))},
        {"cell": cell((0, 1, "a"), (1, 2, "b"))},
        {"cell": cell((0, 2, "a"), (1, 2, "b"))},
        {"cell": cell((0, 1, "a|+|b~0"))},
        {"chain": cell((0, 1, "a"))},
    ],
)
def test_no_text_is_given_that_would_read_back_as_something_else(cells: dict[str, tuple[Choice, ...]]) -> None:
    with pytest.raises(GenotypeError, match="text form"):
        Genotype("darts", cells).text()


# -- what is refused ---------------------------------------------------------------------------------------------------

GOOD = parse_darts_text(DARTS_V2).to_json()


def test_truncated_json_is_refused_at_every_length() -> None:
    text = json.dumps(GOOD)
    for length in range(len(text)):
        with pytest.raises(GenotypeError):
            parse_genotype(text[:length])


@pytest.mark.parametrize("text", [DARTS_V2, CDARTS_CIFAR, ARCH])
def test_truncated_text_is_refused_at_every_length(text: str) -> None:
    whole = parse_genotype(text)
    for length in range(len(text)):
        # a NAS-Bench-201 string cut between two nodes is a smaller cell, which the space then refuses
        try:
            cut = parse_genotype(text[:length])
            SPACES[whole.space]().check(cut)  # type: ignore[call-arg]
        except GenotypeError:
            continue
        pytest.fail(f"{text[:length]!r} was read")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "genotype"}, '"format" must be "cdarts-genotype"'),
        ({"version": 2}, '"version" is 2'),
        ({"version": True}, '"version" is True'),
        ({"extra": 1}, "unknown key 'extra'"),
        ({"space": 3}, '"space" must be a string'),
        ({"provenance": []}, '"provenance" must be an object'),
        ({"cells": {}}, "at least one cell"),
        ({"cells": {"normal": {}}}, r'cells\.normal must be a list of \[source, target, "operation"\]'),
        ({"cells": {"normal": [[0, 2, "a"], [1, 2]]}}, r"cells\.normal\[1\]: expected .* found \[1, 2\]"),
        ({"cells": {"normal": [[0, 2, 5]]}}, r"cells\.normal\[0\]"),
        ({"cells": {"normal": [[0, "2", "a"]]}}, r"cells\.normal\[0\]"),
        ({"cells": {"normal": [[True, 2, "a"]]}}, r"cells\.normal\[0\]"),
        ({"cells": {"normal": [[0, 2.0, "a"]]}}, r"cells\.normal\[0\]"),
        ({"cells": {"normal": [[2, 2, "a"]]}}, "normal cell: no edge leads from state 2 to state 2"),
        ({"text": DARTS_V2.replace("dil_conv_3x3", "dil_conv_5x5")}, "name different architectures"),
    ],
)
def test_json_errors_name_the_key(change: dict[str, Any], message: str) -> None:
    with pytest.raises(GenotypeError, match=message):
        parse_genotype(json.dumps({**GOOD, **change}))


@pytest.mark.parametrize("data", [[], "text", 3, None])
def test_json_must_be_an_object(data: object) -> None:
    with pytest.raises(GenotypeError, match="must be a JSON object"):
        genotype_from_json(data)


@pytest.mark.parametrize(
    ("old", "new", "place", "expected"),
    [
        ("Genotype(", "Genome(", "Genotype", "expected Genotype"),
        ("('sep_conv_3x3', 0)", "(sep_conv_3x3, 0)", "'sep_conv_3x3'", "an operation's name in quotes"),
        ("('dil_conv_3x3', 2)", "('dil_conv_3x3', two)", "2)], normal_concat", "expected a number, found 'two"),
        ("('dil_conv_3x3', 2)", "('dil_conv_3x3', -2)", "2)], normal_concat", "expected a number, found '-2"),
        ("normal_concat", "concat", "normal_concat", "expected normal_concat"),
        ("normal_concat=[2, 3, 4, 5]", "normal_concat=[2, 3, 4]", "[2, 3, 4, 5]", "every node, range\\(2, 6\\)"),
        (", ('dil_conv_3x3', 2)]", "]", "[('sep", "two entries for each node"),
        ("reduce_concat=[2, 3, 4, 5])", "reduce_concat=[2, 3, 4, 5]))", None, "the end of the text"),
    ],
)
def test_darts_text_errors_name_the_character(old: str, new: str, place: str | None, expected: str) -> None:
    where = len(DARTS_V2) if place is None else DARTS_V2.index(place)
    with pytest.raises(GenotypeError, match=f"^character {where}: .*{expected}"):
        parse_darts_text(DARTS_V2.replace(old, new, 1))


@pytest.mark.parametrize(
    "entries",
    [
        "[]",
        "[[]]",
        "[('a', 0)]",
        "[[('a', 0)]]",
        "[('a', 0), [('a', 0), ('b', 1)], ('b', 1)]",
        "[[('a', 0), ('b', 1), ('c', 1), ('c', 0)]]",
        "[[[('a', 0), ('b', 1)]]]",
    ],
)
def test_each_node_has_two_entries(entries: str) -> None:
    pair = "[('a', 0), ('b', 1)]"
    with pytest.raises(GenotypeError, match=r"^character \d+: expected "):
        parse_darts_text(
            f"Genotype(normal={entries}, normal_concat=range(2, 3), reduce={pair}, reduce_concat=range(2, 3))"
        )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("|nor_conv_3x3~0|+|none~0|", "node 2: has 1 entries, must have 2"),
        ("|nor_conv_3x3~0|none~1|", "node 1: has 2 entries, must have 1"),
        ("|none~1|", "node 1, entry 0: comes from state 1, expected 0"),
        ("|none~0|+|none~0|none~0|", "node 2, entry 1: comes from state 0, expected 1"),
        ("|none~0|+|none~0|none|", "node 2, entry 1: expected 'operation~1', found 'none'"),
        ("|none~0|+none~0|none~1|", "node 2: expected"),
        ("|none~0|+", "node 2: expected"),
        ("|none~-1|", "node 1, entry 0"),
        ("||", "node 1, entry 0: expected 'operation~0', found ''"),
    ],
)
def test_arch_string_errors_name_node_and_entry(text: str, message: str) -> None:
    with pytest.raises(GenotypeError, match=f"^{message}"):
        parse_arch_string(text)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        (DARTS_V2.replace("dil_conv_3x3", "dil_conv_9x9"), "normal cell, edge 2-5: unknown operation 'dil_conv_9x9'"),
        (ARCH.replace("nor_conv_1x1", "nor_conv_7x7"), "cell cell, edge 1-3: unknown operation 'nor_conv_7x7'"),
        (json.dumps(GOOD | {"space": "nasbench201"}), "space nasbench201 has cells cell; found normal, reduce"),
    ],
)
def test_an_unknown_operation_is_refused_by_its_space(text: str, place: str) -> None:
    genotype = parse_genotype(text)
    with pytest.raises(GenotypeError, match=f"^{place}"):
        SPACES[genotype.space]().check(genotype)  # type: ignore[call-arg]


EXPLOITS = [
    "__import__('os').system('touch {path}')",
    "Genotype(normal=__import__('os').system('touch {path}'), normal_concat=range(2, 6), reduce=[], reduce_concat=[])",
    "Genotype(normal=[(open('{path}', 'w'), 0), ('a', 1)], normal_concat=range(2, 3), reduce=[], reduce_concat=[])",
    "|__import__('os').system('touch {path}')~0|",
    '{{"format": "cdarts-genotype", "version": 1, "space": "darts", "cells": {{"normal": open("{path}", "w")}}}}',
    "(lambda: open('{path}', 'w'))()",
    "!!python/object/apply:os.system ['touch {path}']",
    "cposix\nsystem\n(S'touch {path}'\ntR.",
]


@pytest.mark.parametrize("exploit", EXPLOITS)
def test_nothing_in_a_genotype_is_ever_run(exploit: str, tmp_path: Path) -> None:
    target = tmp_path / "owned"
    with pytest.raises(GenotypeError):
        parse_genotype(exploit.format(path=target))
    assert not target.exists()


@pytest.mark.parametrize(
    "text",
    [
        "",
        " \n",
        "\ufeff{}",
        "{",
        "{}",
        "null",
        "\0",
        "Genotype",
        "Genotype(normal=[('a', 0" + " " * 10_000,
        '{"a":' * 9_000,
        '{"version": ' + "9" * 5_000 + "}",
        "|" * 60_000,
        "+" * 60_000,
        "|a~0|+" * 10_000,
        "Genotype(normal=" + "[" * 60_000,
    ],
    ids=lambda text: f"{text[:12]!r} of {len(text)}",
)
def test_hostile_text_is_refused_at_once(text: str) -> None:
    start = time.process_time()
    with pytest.raises(GenotypeError):
        parse_genotype(text)
    assert time.process_time() - start < 2


def test_many_repeated_edges_are_refused_at_once() -> None:
    text = json.dumps({**GOOD, "cells": {"normal": [[0, 1, ""]] * 6000}})
    assert len(text) > 60_000 - 1000
    start = time.process_time()
    with pytest.raises(GenotypeError):
        parse_genotype(text)
    assert time.process_time() - start < 2


def test_long_text_is_refused_unread() -> None:
    with pytest.raises(GenotypeError, match=f"more than {MAX_TEXT} characters"):
        parse_genotype(ARCH + " " * MAX_TEXT)


def reads_or_refuses(text: str) -> None:
    """Any text gives a genotype that can be written and read again, or a `GenotypeError`."""
    try:
        genotype = parse_genotype(text)
    except GenotypeError:
        return
    assert genotype_from_json(json.loads(json.dumps(genotype.to_json()))) == genotype


@given(st.text())
def test_fuzz_any_text(text: str) -> None:
    reads_or_refuses(text)


TOKENS = [
    "Genotype",
    "normal",
    "reduce",
    "normal_concat",
    "range",
    "=",
    "(",
    ")",
    "[",
    "]",
    ",",
    "'a'",
    '"b"',
    "0",
    "1",
]
TOKENS += ["2", "6", " ", "|", "+", "~", "a~0", "'", "~0|", "none"]


@given(st.lists(st.sampled_from(TOKENS), max_size=40).map("".join))
def test_fuzz_tokens(text: str) -> None:
    reads_or_refuses(text)


@given(st.sampled_from([DARTS_V2, CDARTS_CIFAR, ARCH, json.dumps(GOOD)]), st.data())
def test_fuzz_edits_of_good_text(text: str, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(text)))
    stop = data.draw(st.integers(start, min(start + 30, len(text))))
    reads_or_refuses(text[:start] + data.draw(st.text(max_size=5) | st.sampled_from(TOKENS)) + text[stop:])


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=10,
)
CHOICES = st.lists(
    st.tuples(st.integers(-1, 6), st.integers(-1, 6), st.sampled_from(["a", "b", "c d", "e'"])) | JSON_VALUES,
    max_size=8,
)


@given(
    st.fixed_dictionaries(
        {"format": st.just("cdarts-genotype"), "version": st.just(1) | JSON_VALUES},
        optional={
            "space": st.sampled_from(["darts", "toy"]) | JSON_VALUES,
            "cells": st.dictionaries(st.sampled_from(["normal", "reduce", "cell"]), CHOICES) | JSON_VALUES,
            "provenance": JSON_VALUES,
            "text": JSON_VALUES,
            "other": JSON_VALUES,
        },
    )
)
def test_fuzz_json(data: dict[str, Any]) -> None:
    try:
        genotype = parse_genotype(json.dumps(data))
    except GenotypeError:
        return
    assert genotype_from_json({**data, "provenance": {}}) == genotype


# -- files -------------------------------------------------------------------------------------------------------------


def test_a_file_holds_any_form(tmp_path: Path) -> None:
    path = tmp_path / "genotype"
    for text in (DARTS_V2, ARCH, json.dumps(GOOD, indent=2) + "\n"):
        path.write_text(text, encoding="utf-8")
        assert read_genotype(path) == parse_genotype(text)


def test_file_errors_name_the_file(tmp_path: Path) -> None:
    path = tmp_path / "cell.json"
    for content in (None, b"\xff\xfe\x00", b"", json.dumps(GOOD)[:-20].encode(), b"x" * (MAX_TEXT + 1)):
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(GenotypeError, match=f"^{path}: "):
            read_genotype(path)
    with pytest.raises(GenotypeError, match=f"^{tmp_path}: cannot be read"):
        read_genotype(tmp_path)
