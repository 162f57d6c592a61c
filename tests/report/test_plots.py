"""Scatter plots: well-formed, to scale, always the same bytes."""

from itertools import pairwise
from xml.etree import ElementTree

import pytest

from cdarts.report.plots import SIDE, Panel, Point, scatter_plots, ticks

SVG = "{http://www.w3.org/2000/svg}"


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, 10.0], [0, 2, 4, 6, 8, 10]),
        ([54.3, 94.37], [50, 60, 70, 80, 90, 100]),
        ([0.12, 0.19], [0.12, 0.14, 0.16, 0.18, 0.2]),
        ([3.0], [2.4, 2.6, 2.8, 3.0, 3.2, 3.4, 3.6]),
    ],
)
def test_ticks_are_round_and_enclose_the_values(values: list[float], expected: list[float]) -> None:
    found = ticks(values)
    assert found[0] <= min(values) and found[-1] >= max(values)
    if len(values) > 1:
        assert found == pytest.approx(expected)
    steps = {round(second - first, 9) for first, second in pairwise(found)}
    assert len(steps) == 1


def test_points_lie_where_their_values_say() -> None:
    points = [Point(0.0, 0.0), Point(10.0, 5.0, hollow=True, label="<best> & last"), Point(5.0, 10.0)]
    panels = [Panel("S & E", "tau < 1", "x", "y", points), Panel("second", "", "x", "y", points[:1])]
    drawing = scatter_plots("a title", "a note", panels)
    root = ElementTree.fromstring(drawing)
    circles = list(root.iter(f"{SVG}circle"))
    places = [(float(circle.get("cx", "")), float(circle.get("cy", ""))) for circle in circles[:3]]
    assert places == [(0.0, SIDE), (SIDE, SIDE / 2), (SIDE / 2, 0.0)]
    assert [circle.get("class") for circle in circles[:3]] == ["point", "point hollow", "point"]
    titles = [title.text for circle in circles for title in circle.iter(f"{SVG}title")]
    assert titles == ["<best> & last"]
    texts = [text.text for text in root.iter(f"{SVG}text")]
    assert {"a title", "a note", "S & E", "tau < 1", "second"} <= set(texts)
    assert scatter_plots("a title", "a note", panels) == drawing
    assert "http" not in drawing.replace("http://www.w3.org/2000/svg", "")
