"""Collapse is seen where it happens, and not where a good cell skips once."""

import pytest

from cdarts import zoo
from cdarts.algorithms.collapse import collapse
from cdarts.topology import parse_arch_string

CONV = "nor_conv_3x3"


@pytest.mark.parametrize("name", zoo.names())
def test_published_cells_have_not_collapsed(name: str) -> None:
    assert collapse(zoo.load(name)) is None


def test_nothing_at_all_is_a_collapse() -> None:
    assert collapse(parse_arch_string("|none~0|+|none~0|none~1|+|none~0|none~1|none~2|")) == "every edge is none"


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        ("|skip_connect~0|+|skip_connect~0|skip_connect~1|+|skip_connect~0|skip_connect~1|skip_connect~2|", "6 of 6"),
        (f"|{CONV}~0|+|none~0|avg_pool_3x3~1|+|skip_connect~0|avg_pool_3x3~1|skip_connect~2|", "4 of 5"),
        (f"|{CONV}~0|+|{CONV}~0|avg_pool_3x3~1|+|skip_connect~0|{CONV}~1|skip_connect~2|", None),
    ],
)
def test_collapse_begins_at_two_thirds(cell: str, words: str | None) -> None:
    said = collapse(parse_arch_string(cell))
    assert said is None if words is None else said == f"{words} edges of the cell cell have no weights"
