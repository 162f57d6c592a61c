"""Drawings of networks: every layer with its figures, nothing on anything else, safe for any text, always the same."""

import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections import Counter
from itertools import pairwise

import pytest

from cdarts import zoo
from cdarts.errors import ConfigurationError, GenotypeError
from cdarts.report.drawing import DARK, LIGHT, operation_label
from cdarts.report.network_drawing import (
    KINDS,
    MAX_LAYERS,
    PAGE,
    PANELS,
    Box,
    Layer,
    draw_network,
    kind_of,
    network_description,
    network_shape,
)
from cdarts.report.raster import points_of
from cdarts.topology import Choice, Edge, Genotype

SVG = "{http://www.w3.org/2000/svg}"
DARTS = zoo.load("darts-v2")
SINGLE = zoo.load("cdarts-nasbench201-2")


def darts_layers(cells: int = 20) -> list[Layer]:
    """Like those of the DARTS space: two inputs a cell, reductions at a third and two thirds."""
    layers = [Layer("image", "image", 32, 3, 0, ()), Layer("stem", "stem", 32, 108, 3132, (0,))]
    side, channels = 32, 36
    for index in range(cells):
        reduces = index in (cells // 3, 2 * cells // 3)
        side, channels = (side // 2, 2 * channels) if reduces else (side, channels)
        kind = "reduce" if reduces else "normal"
        layers.append(Layer(f"cell {index}", kind, side, 4 * channels, 1000 + index, (max(index, 1), index + 1)))
    last = len(layers)
    layers.append(Layer("pooling", "pooling", 1, 4 * channels, 0, (last - 1,)))
    layers.append(Layer("classifier", "classifier", 1, 10, 5770, (last,)))
    return layers


def single_layers() -> list[Layer]:
    """Like those of NAS-Bench-201: one input each, a fixed block between the stages."""
    kinds = ["image", "stem", "cell", "block", "cell", "block", "cell", "tail", "pooling", "classifier"]
    sides = [32, 32, 32, 16, 16, 8, 8, 8, 1, 1]
    return [
        Layer(kind, kind, side, 16, index, (index - 1,) if index else ())
        for index, (kind, side) in enumerate(zip(kinds, sides, strict=True))
    ]


NETWORKS = {
    "20 cells": (DARTS, darts_layers()),
    "8 cells": (zoo.load("drnas-cifar10"), darts_layers(8)),
    "wide cells": (zoo.load("gdas"), darts_layers(1)),
    "NAS-Bench-201": (SINGLE, single_layers()),
}
EVERY = pytest.mark.parametrize(("genotype", "layers"), NETWORKS.values(), ids=NETWORKS)


def meet(one: Box, other: Box) -> bool:
    return (
        one.x < other.x + other.width
        and other.x < one.x + one.width
        and one.y < other.y + other.height
        and other.y < one.y + one.height
    )


@EVERY
def test_nothing_lies_on_anything_else(genotype: Genotype, layers: list[Layer]) -> None:
    shape = network_shape(genotype, layers)
    scale = shape.cell_scale
    cells = [Box(cell.x, cell.y, cell.layout.width * scale, cell.layout.height * scale) for cell in shape.cells]
    legend = Box(*shape.legend_at, shape.legend.width, shape.legend.height)
    boxes = [layer.box for layer in shape.layers]
    areas = [*boxes, *cells, *(cell.swatch for cell in shape.cells), legend]
    for index, one in enumerate(areas):
        assert not any(meet(one, other) for other in areas[:index])
        assert one.x >= 0 and one.x + one.width <= shape.width
        assert one.y >= 0 and one.y + one.height <= shape.height
    for one, other in pairwise(shape.panels):
        assert one.y + one.height < other.y
    for panel in shape.panels:
        assert not any(meet(panel, area) for area in areas[len(boxes) :])
    for line, _ in shape.links:
        for x, y in points_of(line):
            assert not any(
                box.x + 1 < x < box.x + box.width - 1 and box.y + 1 < y < box.y + box.height - 1 for box in boxes
            )
            assert shape.panels[0].x < x < shape.panels[0].x + shape.panels[0].width
    assert shape.width <= PAGE


@EVERY
def test_layers_of_one_resolution_share_a_ground(genotype: Genotype, layers: list[Layer]) -> None:
    shape = network_shape(genotype, layers)
    held = [[layer.layer.side for layer in shape.layers if meet(panel, layer.box)] for panel in shape.panels]
    assert all(len(set(sides)) == 1 for sides in held)
    assert [side for sides in held for side in sides] == [layer.side for layer in layers]
    assert all(one[0] != other[0] for one, other in pairwise(held))


@EVERY
def test_every_arrow_leads_from_one_layer_to_another(genotype: Genotype, layers: list[Layer]) -> None:
    shape = network_shape(genotype, layers)
    expected = Counter((source, index) for index, layer in enumerate(layers) for source in layer.inputs)
    found: Counter[tuple[int, int]] = Counter()
    for line, head in shape.links:
        starts = [index for index, layer in enumerate(shape.layers) if touches(layer.box, points_of(line)[0])]
        ends = [index for index, layer in enumerate(shape.layers) if touches(layer.box, points_of(head)[0])]
        found[starts[0], ends[0]] += 1
        assert len(starts) == len(ends) == 1
    assert found == expected


def touches(box: Box, point: tuple[float, float]) -> bool:
    """Whether a point lies on a box's outline."""
    x, y = point
    inside = box.x <= x <= box.x + box.width and box.y <= y <= box.y + box.height
    return inside and (x in (box.x, box.x + box.width) or y in (box.y, box.y + box.height))


def test_arcs_lie_on_the_left_and_on_the_right_by_turns() -> None:
    shape = network_shape(DARTS, darts_layers())
    middle = shape.layers[0].box.x + shape.layers[0].box.width / 2
    arcs = [points_of(line) for line, _ in shape.links if "C" in line]
    assert len(arcs) == 20
    turns = [arc[0][0] < middle for arc in arcs]
    assert turns == [index % 2 == 0 for index in range(20)]
    for one, other in zip(arcs, arcs[2:], strict=False):
        assert max(y for _, y in one) < min(y for _, y in other) + 24, "on one side they follow one another"
    words = [text.text for text in shape.texts]
    assert "arc: the output before that (k\u22122)" in words
    assert not any(text.text.startswith("arc") for text in network_shape(SINGLE, single_layers()).texts)


@EVERY
def test_every_layer_stands_there_with_its_figures(genotype: Genotype, layers: list[Layer]) -> None:
    root = ET.fromstring(draw_network(genotype, layers))
    groups = [group for group in root.findall(f"{SVG}g") if group.attrib.get("class", "").startswith("layer ")]
    rows = [group for group in groups if group.find(f"{SVG}title") is not None]
    for layer, row in zip(layers, rows, strict=True):
        texts = [text.text for text in row.findall(f"{SVG}text")]
        assert texts[0] == layer.name == row.find(f"{SVG}title").text
        label = kind_of(layer.kind).label
        assert not label or texts[1] == label
        size = f"{layer.side}\u00d7{layer.side}\u00d7{layer.channels}"
        assert texts[-2] == (f"{layer.channels} classes" if layer.kind == "classifier" else size)
        assert texts[-1] == (f"{layer.parameters:,}" if layer.inputs else None)
        assert row.attrib["class"] == f"layer {kind_of(layer.kind).css}"
    ends = {text.attrib["x"] for row in rows for text in row.findall(f"{SVG}text[@class='figure']")}
    assert len(ends) == 2, "the columns are aligned"
    assert f"{sum(layer.parameters for layer in layers):,}" in [text.text for text in root.findall(f"{SVG}text")]


@EVERY
def test_the_cells_are_drawn_beside_the_layers(genotype: Genotype, layers: list[Layer]) -> None:
    root = ET.fromstring(draw_network(genotype, layers))
    cells = [group for group in root.findall(f"{SVG}g") if group.attrib.get("class") == "cell"]
    for cell, choices in zip(cells, genotype.cells.values(), strict=True):
        labels = [group for group in cell.findall(f"{SVG}g") if group.attrib["class"].startswith("label ")]
        found = Counter(
            (group.find(f"{SVG}title").text.split(":")[0].replace(" to ", "-"), group.find(f"{SVG}text").text)
            for group in labels
        )
        assert found == Counter((str(choice.edge), operation_label(choice.operation)) for choice in choices)


def test_wide_cells_are_made_smaller_and_no_smaller_than_can_be_read() -> None:
    assert network_shape(DARTS, darts_layers()).cell_scale == 1.0
    wide = network_shape(zoo.load("gdas"), darts_layers())
    assert 0.75 < wide.cell_scale < 1.0 and wide.width == pytest.approx(PAGE)
    chain = tuple(Choice(Edge(node + 1, node), "nor_conv_3x3") for node in range(12))
    huge = network_shape(Genotype("toy", {"cell": chain}), single_layers())
    assert huge.cell_scale == 0.75 and huge.width > PAGE
    assert "scale(0.75" in draw_network(Genotype("toy", {"cell": chain}), single_layers())


def test_the_drawing_is_described_in_words() -> None:
    root = ET.fromstring(draw_network(DARTS, darts_layers(), title="DARTS-V2"))
    assert root.attrib["role"] == "img"
    assert [child.tag for child in root][:2] == [f"{SVG}title", f"{SVG}desc"]
    assert root.find(f"{SVG}title").text == root.attrib["aria-label"] == "DARTS-V2"
    words = root.find(f"{SVG}desc").text
    assert words == network_description(DARTS, darts_layers())
    assert words.startswith(
        "20 cells, images 32\u00d732\u00d73, 10 classes, 29,092 parameters. image: 32\u00d732\u00d73; "
    )
    assert "cell 0 (normal): 32\u00d732\u00d7144, 1,000 parameters, from stem; " in words
    assert "cell 6 (reduction): 16\u00d716\u00d7288, 1,006 parameters, from cell 4 and cell 5; " in words
    assert "Normal cell: c_{k-2} to node 2 by sep conv 3x3" in words


HOSTILE = "</title><script>alert(1)</script>\" onload='x' &amp; ]]> \x00\x1b\ud800 \U0001f9ec"


def test_any_text_is_escaped() -> None:
    layers = [
        Layer("image", "image", 8, 3, 0, ()),
        Layer(HOSTILE, "stem", 8, 3, 1, (0,)),
        Layer("x" * 500, HOSTILE, 4, 3, 1, (1,)),
        Layer("classifier", "classifier", 1, 2, 1, (2,)),
    ]
    genotype = Genotype("<space>", {HOSTILE: (Choice(Edge(1, 0), HOSTILE), Choice(Edge(2, 1), "none"))})
    root = ET.fromstring(draw_network(genotype, layers, title=HOSTILE * 9).encode("utf-8"))
    assert {element.tag.removeprefix(SVG) for element in root.iter()} == {
        "svg", "title", "desc", "style", "rect", "circle", "text", "g", "path",
    }  # fmt: skip
    assert not any(name.startswith("on") for element in root.iter() for name in element.attrib)
    clean = re.sub("[\x00\x1b\ud800]", "\ufffd", HOSTILE)
    assert root.find(f"{SVG}title").text == clean * 9
    assert clean in [title.text for title in root.iter(f"{SVG}title")]
    for style in root.iter(f"{SVG}style"):
        assert "script" not in style.text
    texts = [text.text for text in root.iter(f"{SVG}text") if text.text]
    (long,) = (text for text in texts if text.startswith("xxx"))
    assert len(long) < 16 and long.endswith("\u2026")


def test_every_rule_keeps_to_the_drawing() -> None:
    style = ET.fromstring(draw_network(DARTS, darts_layers())).find(f"{SVG}style").text
    for rule in re.findall(r"([^{}@]+)\{[^{}]*\}", re.sub(r"@media [^{]*\{", "", style)):
        for selector in rule.strip().split(","):
            assert selector.strip().startswith((".genotype ", ".network ")), selector


@EVERY
def test_the_drawing_needs_nothing_from_elsewhere(genotype: Genotype, layers: list[Layer]) -> None:
    svg = draw_network(genotype, layers, title="a title")
    for word in ("href", "url(", "@import", "<script", "<image", "<foreignObject", "id="):
        assert word not in svg
    assert svg.count("http") == 1, "the namespace"


def test_the_bytes_are_the_same_in_another_process_without_torch() -> None:
    program = (
        "import sys; from cdarts.topology import parse_darts_text as parse\n"
        "from cdarts.report.network_drawing import Layer, draw_network\n"
        "layers = eval(sys.argv[2])\n"
        "sys.stdout.buffer.write(draw_network(parse(sys.argv[1]), layers, title='t').encode())\n"
        "assert 'torch' not in sys.modules"
    )
    words = [sys.executable, "-c", program, DARTS.text(), repr(darts_layers())]
    ran = subprocess.run(words, capture_output=True, check=True)
    assert ran.stdout == draw_network(DARTS, darts_layers(), title="t").encode()


def luminance(colour: str) -> float:
    parts = [int(colour[index : index + 2], 16) / 255 for index in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    """The WCAG contrast ratio of two colours ``#rrggbb``."""
    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize("kind", KINDS)
def test_texts_can_be_read_in_the_boxes(kind: str) -> None:
    tint = KINDS[kind].tint
    for ground, box, line, panel in (
        (LIGHT, tint.light, tint.light_line, PANELS[0]),
        (DARK, tint.dark, tint.dark_line, PANELS[1]),
    ):
        for text in (ground.ink, ground.faint):
            assert contrast(text, box) >= 4.5
            assert contrast(text, panel) >= 4.5
        assert contrast(line, panel) >= 3
        assert contrast(ground.line, panel) >= 3


def test_a_dark_page_gets_the_dark_colours() -> None:
    light, *dark = draw_network(DARTS, darts_layers()).split("@media (prefers-color-scheme:dark){")
    assert len(dark) == 2
    assert KINDS["normal"].tint.dark not in light + dark[0]
    assert KINDS["normal"].tint.light in dark[0]
    assert KINDS["normal"].tint.dark in dark[1]
    assert KINDS["normal"].tint.light != KINDS["reduce"].tint.light


def test_what_cannot_be_drawn_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=f"more than {MAX_LAYERS} cannot be drawn"):
        draw_network(DARTS, [darts_layers()[0]] * (MAX_LAYERS + 1))
    with pytest.raises(GenotypeError, match="normal cell: a cell without edges"):
        draw_network(Genotype("darts", {"normal": ()}), darts_layers())
