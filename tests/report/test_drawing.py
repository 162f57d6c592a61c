"""Drawings: complete, legible (nothing lies on anything else), self-contained, safe for any text, always the same."""

import math
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from dataclasses import dataclass

import pytest
import torch

from cdarts.errors import GenotypeError
from cdarts.randomness import generator
from cdarts.report.drawing import DARK, FAMILIES, LIGHT, MAX_STATES, OTHER, draw_genotype, operation_label
from cdarts.spaces import SPACES
from cdarts.topology import Choice, Edge, Genotype, parse_arch_string, parse_darts_text

SVG = "{http://www.w3.org/2000/svg}"

DARTS_V2 = parse_darts_text(
    "Genotype(normal=[('sep_conv_3x3', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 0), ('sep_conv_3x3', 1), "
    "('sep_conv_3x3', 1), ('skip_connect', 0), ('skip_connect', 0), ('dil_conv_3x3', 2)], normal_concat=range(2, 6), "
    "reduce=[('max_pool_3x3', 0), ('max_pool_3x3', 1), ('skip_connect', 2), ('max_pool_3x3', 1), ('max_pool_3x3', 0), "
    "('skip_connect', 2), ('skip_connect', 2), ('max_pool_3x3', 1)], reduce_concat=range(2, 6))"
)
DENSE = parse_arch_string("|nor_conv_3x3~0|+|nor_conv_3x3~0|avg_pool_3x3~1|+|skip_connect~0|nor_conv_1x1~1|none~2|")
TOY = Genotype(
    "toy",
    {"cell": (Choice(Edge(1, 0), "nor_conv_3x3"), Choice(Edge(2, 0), "skip_connect"), Choice(Edge(2, 1), "none"))},
)
EVERY_EDGE = tuple(
    Choice(edge, ("sep_conv_3x3", "dil_conv_5x5", "skip_connect", "max_pool_3x3", "none")[position % 5])
    for position, edge in enumerate(SPACES["darts"]().all_edges())
)
FULL = Genotype("darts", {"normal": EVERY_EDGE, "reduce": EVERY_EDGE[::-1]})
"""Cells with all of their 14 edges."""


def random_genotypes(space_name: str, count: int) -> list[Genotype]:
    space = SPACES[space_name]()
    draw = generator(0, "drawings", space_name)
    shape = (len(space.all_edges()), len(space.operations))
    return [
        space.derive({kind: torch.rand(shape, generator=draw).tolist() for kind in space.kinds}) for _ in range(count)
    ]


GENOTYPES = [DARTS_V2, DENSE, TOY, FULL, *random_genotypes("darts", 15), *random_genotypes("nasbench201", 3)]


@dataclass(frozen=True)
class Area:
    """A rectangle of the drawing, in the coordinates of its cell."""

    left: float
    top: float
    right: float
    bottom: float

    def meets(self, other: "Area") -> bool:
        return (
            self.left < other.right and other.left < self.right and self.top < other.bottom and other.top < self.bottom
        )

    def holds(self, x: float, y: float, within: float) -> bool:
        return self.left + within < x < self.right - within and self.top + within < y < self.bottom - within


def area(shape: ET.Element) -> Area:
    if shape.tag == f"{SVG}circle":
        x, y, radius = (float(shape.attrib[name]) for name in ("cx", "cy", "r"))
        return Area(x - radius, y - radius, x + radius, y + radius)
    x, y, width, height = (float(shape.attrib[name]) for name in ("x", "y", "width", "height"))
    return Area(x, y, x + width, y + height)


def labels(cell: ET.Element) -> list[tuple[str, Area]]:
    """Class and area of every label."""
    groups = [group for group in cell.findall(f"{SVG}g") if group.attrib["class"].startswith("label ")]
    return [(group.attrib["class"].removeprefix("label "), area(group.find(f"{SVG}rect"))) for group in groups]


def states(cell: ET.Element) -> list[ET.Element]:
    groups = [group for group in cell.findall(f"{SVG}g") if group.attrib["class"].startswith("state ")]
    return [
        group.find(f"{SVG}rect") if group.find(f"{SVG}rect") is not None else group.find(f"{SVG}circle")
        for group in groups
    ]


def lines(cell: ET.Element, kind: str) -> list[ET.Element]:
    """The lines of class `kind`, without the arrows' heads."""
    found = [path for path in cell.findall(f"{SVG}path") if path.attrib["class"].split()[0] == kind]
    return [path for path in found if "head" not in path.attrib["class"].split()]


def points(path: ET.Element) -> list[tuple[float, float]]:
    """Points along a path of M, C and H commands, at most about 3 pixels apart."""
    result: list[tuple[float, float]] = []
    for command, arguments in re.findall(r"([MCH])([^MCH]*)", path.attrib["d"]):
        numbers = [float(number) for number in arguments.split()]
        if command == "M":
            result.append((numbers[0], numbers[1]))
            continue
        x, y = result[-1]
        if command == "H":
            numbers = [x, y, numbers[0], y, numbers[0], y]
        a, b, c, d, e, f = numbers
        steps = 2 + int(math.dist((x, y), (e, f)) / 2)
        for step in range(1, steps + 1):
            t = step / steps
            weights = ((1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3)
            xs, ys = (x, a, c, e), (y, b, d, f)
            result.append(tuple(sum(w * v for w, v in zip(weights, values, strict=True)) for values in (xs, ys)))
    return result


def cells_of(svg: str) -> list[ET.Element]:
    return [group for group in ET.fromstring(svg).findall(f"{SVG}g") if group.attrib.get("class") == "cell"]


@pytest.mark.parametrize("genotype", GENOTYPES)
def test_nothing_lies_on_anything_else(genotype: Genotype) -> None:
    cells = cells_of(draw_genotype(genotype))
    assert len(cells) == len(genotype.cells)
    for cell, choices in zip(cells, genotype.cells.values(), strict=True):
        areas = [place for _, place in labels(cell)] + [area(state) for state in states(cell)]
        for index, one in enumerate(areas):
            assert not any(one.meets(other) for other in areas[:index])
        assert len(labels(cell)) == len(lines(cell, "edge")) == len(choices)
        met = []
        for line in lines(cell, "edge"):
            on = {
                index
                for index, (_, label) in enumerate(labels(cell))
                if any(label.holds(x, y, 1) for x, y in points(line))
            }
            assert len(on) == 1, "an edge passes under its own label and no other"
            (index,) = on
            met.append(index)
            assert line.attrib["class"] == f"edge {labels(cell)[index][0]}"
        assert sorted(met) == list(range(len(choices)))
        for line in lines(cell, "thread"):
            assert not any(label.holds(x, y, 1) for _, label in labels(cell) for x, y in points(line))
        for line in lines(cell, "edge") + lines(cell, "thread"):
            for state in states(cell):
                if state.tag == f"{SVG}circle":
                    centre = (float(state.attrib["cx"]), float(state.attrib["cy"]))
                    assert all(math.dist(point, centre) > float(state.attrib["r"]) - 1 for point in points(line))
                else:
                    assert not any(area(state).holds(x, y, 1) for x, y in points(line))


@pytest.mark.parametrize("genotype", GENOTYPES)
def test_everything_lies_inside_the_picture(genotype: Genotype) -> None:
    svg = draw_genotype(genotype)
    root = ET.fromstring(svg)
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    bottom = 0.0
    for cell in cells_of(svg):
        left, top = (float(number) for number in re.findall(r"[-\d.]+", cell.attrib["transform"]))
        places = [place for _, place in labels(cell)] + [area(state) for state in states(cell)]
        assert left + min(place.left for place in places) >= 0
        assert left + max(place.right for place in places) <= width
        ys = [y for kind in ("edge", "thread") for line in lines(cell, kind) for _, y in points(line)]
        assert top + min(*ys, *(place.top for place in places)) > bottom, "the cells stand one below another"
        bottom = top + max(*ys, *(place.bottom for place in places))
        assert bottom < height


def test_a_darts_cell_names_its_inputs_nodes_and_output() -> None:
    normal, reduce = cells_of(draw_genotype(DARTS_V2))
    for cell, heading in ((normal, "normal cell"), (reduce, "reduction cell")):
        groups = [group for group in cell.findall(f"{SVG}g") if group.attrib["class"].startswith("state ")]
        names = ["".join(group.itertext()) for group in groups]
        assert sorted(names) == sorted(["ck\u22122", "ck\u22121", "2", "3", "4", "5", "outputconcat"])
        assert cell.find(f"{SVG}text").text == heading
        assert len(lines(cell, "thread")) == 4, "every node goes into the concatenation"
    texts = [
        group.find(f"{SVG}text").text
        for group in normal.findall(f"{SVG}g")
        if group.attrib["class"].startswith("label")
    ]
    assert sorted(texts) == ["dil conv 3x3", *["sep conv 3x3"] * 5, "skip", "skip"]


def test_a_single_cell_has_one_input_and_its_last_node_is_the_output() -> None:
    (cell,) = cells_of(draw_genotype(DENSE))
    groups = [group for group in cell.findall(f"{SVG}g") if group.attrib["class"].startswith("state ")]
    assert sorted("".join(group.itertext()) for group in groups) == ["1", "2", "3output", "input"]
    assert not lines(cell, "thread")


def test_an_input_that_no_edge_reads_is_drawn_all_the_same() -> None:
    choices = tuple(Choice(Edge(node, source), "sep_conv_3x3") for node, source in ((2, 1), (3, 1), (3, 2)))
    (cell,) = cells_of(draw_genotype(Genotype("darts", {"normal": choices})))
    assert len(states(cell)) == 5  # two inputs, two nodes, the output
    assert len(lines(cell, "thread")) == 2


def test_none_is_dashed_and_the_legend_lists_the_families_drawn() -> None:
    svg = draw_genotype(DENSE)
    keys = [
        key.find(f"{SVG}text").text for key in ET.fromstring(svg).iter(f"{SVG}g") if key.attrib.get("class") == "key"
    ]
    assert keys == ["convolution", "pooling", "skip connection", "none"]
    assert ".genotype .edge.none{stroke-dasharray:" in svg
    assert "stroke-dasharray" not in draw_genotype(DARTS_V2)


def test_the_drawing_is_described_in_words() -> None:
    root = ET.fromstring(draw_genotype(DARTS_V2, title="DARTS-V2"))
    assert root.attrib["role"] == "img"
    assert [child.tag for child in root][:2] == [f"{SVG}title", f"{SVG}desc"]
    assert root.find(f"{SVG}title").text == root.attrib["aria-label"] == "DARTS-V2"
    words = root.find(f"{SVG}desc").text
    assert words.startswith("Normal cell: c_{k-2} to node 2 by sep conv 3x3; c_{k-1} to node 2 by sep conv 3x3; ")
    assert "node 2 to node 5 by dil conv 3x3; the output concatenates all nodes. Reduction cell: " in words
    assert "the input to node 1 by conv 3x3" in ET.fromstring(draw_genotype(DENSE)).find(f"{SVG}desc").text


HOSTILE = "</title><script>alert(1)</script>\" onload='x' &amp; ]]> \x00\x1b\ud800 \U0001f9ec"


def test_any_text_is_escaped() -> None:
    choices = (Choice(Edge(1, 0), HOSTILE), Choice(Edge(2, 1), "x" * 500))
    svg = draw_genotype(Genotype("<space>", {"</g>": choices}), title=HOSTILE)
    root = ET.fromstring(svg.encode("utf-8"))
    assert {element.tag.removeprefix(SVG) for element in root.iter()} == {
        "svg", "title", "desc", "style", "rect", "circle", "text", "g", "path",
    }  # fmt: skip
    assert not any(name.startswith("on") for element in root.iter() for name in element.attrib)
    assert root.find(f"{SVG}title").text == re.sub("[\x00\x1b\ud800]", "\ufffd", HOSTILE)
    long = [text.text for text in root.iter(f"{SVG}text") if text.text.startswith("xxx")]
    assert [len(text) for text in long] == [24]
    assert long[0].endswith("\u2026")
    assert "</g> cell" in [text.text for text in root.iter(f"{SVG}text")]


@pytest.mark.parametrize("genotype", [DARTS_V2, DENSE, TOY])
def test_the_drawing_needs_nothing_from_elsewhere(genotype: Genotype) -> None:
    svg = draw_genotype(genotype, title="a title")
    for word in ("href", "url(", "@import", "<script", "<image", "<foreignObject", "id="):
        assert word not in svg
    assert svg.count("http") == 1, "the namespace"


def test_the_bytes_are_the_same_in_another_process() -> None:
    program = (
        "import sys; from cdarts.topology import parse_darts_text as parse\n"
        "from cdarts.report.drawing import draw_genotype\n"
        "sys.stdout.buffer.write(draw_genotype(parse(sys.argv[1]), title='t').encode())\n"
        "assert 'torch' not in sys.modules"
    )
    ran = subprocess.run([sys.executable, "-c", program, DARTS_V2.text()], capture_output=True, check=True)
    assert ran.stdout == draw_genotype(DARTS_V2, title="t").encode()


def contrast(one: str, other: str) -> float:
    """The WCAG contrast ratio of two colours ``#rrggbb``."""
    luminances = []
    for colour in (one, other):
        parts = [int(colour[index : index + 2], 16) / 255 for index in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        luminances.append(0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2])
    darker, lighter = sorted(luminances)
    return (lighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize("family", [*FAMILIES.values(), OTHER], ids=lambda family: family.label)
def test_labels_can_be_read_on_light_and_on_dark_ground(family) -> None:
    assert contrast(family.light, LIGHT.ground) >= 4.5
    assert contrast(family.dark, DARK.ground) >= 4.5
    for ground in (LIGHT, DARK):
        assert contrast(ground.ink, ground.fill) >= 4.5
        assert contrast(ground.faint, ground.ground) >= 4.5


def test_a_dark_page_gets_the_dark_colours() -> None:
    light, dark = draw_genotype(DENSE).split("@media (prefers-color-scheme:dark){")
    assert FAMILIES["nor"].light in light
    assert FAMILIES["nor"].dark not in light
    assert FAMILIES["nor"].dark in dark
    assert DARK.ground in dark


@pytest.mark.parametrize("name", sorted({name for space in SPACES.values() for name in space.operations}))
def test_every_operation_of_every_space_has_a_family(name: str) -> None:
    assert name.split("_")[0] in FAMILIES
    assert "_" not in operation_label(name)


def test_what_cannot_be_drawn_is_refused() -> None:
    with pytest.raises(GenotypeError, match="normal cell: a cell without edges"):
        draw_genotype(Genotype("darts", {"normal": ()}))
    with pytest.raises(GenotypeError, match="without cells"):
        draw_genotype(Genotype("darts", {}))
    far = Choice(Edge(10**9, 0), "skip_connect")
    with pytest.raises(GenotypeError, match=f"state {10**9}: a cell of more than {MAX_STATES} states"):
        draw_genotype(Genotype("nasbench201", {"cell": (Choice(Edge(1, 0), "none"), far)}))
