"""Drawings in pixels: of the size and in the colours of the SVG documents, in characters that the font has."""

import io
import runpy
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFont

from cdarts import zoo
from cdarts.errors import GenotypeError
from cdarts.report.drawing import LIGHT, LabelSize, cell_shape, operation_family
from cdarts.report.network_drawing import kind_of, network_shape
from cdarts.report.raster import SCALE, cell_png, dashes, genotype_png, network_png, paler, points_of, with_glyphs
from cdarts.spaces import SPACES
from cdarts.topology import Choice, Edge, Genotype, parse_genotype

_NETWORKS = runpy.run_path(str(Path(__file__).with_name("test_network_drawing.py")))  # tests are no package
darts_layers, single_layers, HOSTILE = (_NETWORKS[name] for name in ("darts_layers", "single_layers", "HOSTILE"))

DENSE = parse_genotype("|nor_conv_3x3~0|+|nor_conv_3x3~0|avg_pool_3x3~1|+|skip_connect~0|nor_conv_1x1~1|none~2|")
DARTS = zoo.load("darts-v2")
EVERY_EDGE = tuple(
    Choice(edge, ("sep_conv_3x3", "dil_conv_5x5", "skip_connect", "max_pool_3x3")[position % 4])
    for position, edge in enumerate(SPACES["darts"]().all_edges())
)
"""A cell with all of its 14 edges."""


def pixels(png: bytes) -> np.ndarray:
    """(height, width, 3) of 0 to 255."""
    image = Image.open(io.BytesIO(png))
    assert image.format == "PNG" and image.mode == "RGB"
    return np.asarray(image)


def rgb(colour: str) -> tuple[int, ...]:
    return tuple(int(colour[index : index + 2], 16) for index in (1, 3, 5))


def count(area: np.ndarray, colour: str) -> int:
    """Pixels of nearly that colour; smoothing leaves few of exactly it in thin lines."""
    return int((np.abs(area.astype(int) - rgb(colour)).max(axis=-1) <= 24).sum())


def around(picture: np.ndarray, x: float, y: float, width: float, height: float) -> np.ndarray:
    """Part of a picture; x, y is its centre, in the units of the drawing."""
    left, top = round((x - width / 2) * SCALE), round((y - height / 2) * SCALE)
    part = picture[top : top + round(height * SCALE), left : left + round(width * SCALE)]
    assert part.size
    return part


@pytest.mark.parametrize(
    ("choices", "concatenates"),
    [(DENSE.cells["cell"], False), (DARTS.cells["reduce"], True), (EVERY_EDGE, True)],
    ids=["nasbench201", "darts", "14 edges"],
)
def test_a_cell_in_pixels(choices: tuple[Choice, ...], concatenates: bool) -> None:
    picture = pixels(cell_png(choices, concatenates))
    shape = cell_shape(choices, concatenates, LabelSize(height=24.0, width=110.0))
    assert picture.shape == ((shape.height + 16) * SCALE, (shape.width + 16) * SCALE, 3)
    assert (picture == 255).all(axis=2).mean() > 0.4, "a drawing on white"
    for edge in shape.edges:
        family = operation_family(edge.choice.operation)
        inside = around(picture, edge.x + 8, edge.y + 8, edge.width - 8, 16)
        assert count(inside, family.light) > 20, "the label's text"
        assert count(inside, "#ffffff") > 0.5 * inside[..., 0].size
        head = points_of(edge.head)
        x, y = (sum(point[axis] for point in head) / 3 + 8 for axis in (0, 1))
        assert count(around(picture, x, y, 2, 2), family.light) == 16
    for state in shape.states:
        inside = around(picture, state.x + 8, state.y + 8, state.width - 10, state.height - 10)
        assert count(inside, LIGHT.fill) > 0.4 * inside[..., 0].size
        assert count(inside, LIGHT.ink) > 5, "its name"


def test_no_name_is_cut_off_by_the_outline_of_its_state() -> None:
    shape = cell_shape(DARTS.cells["normal"], True, LabelSize(height=24.0, width=110.0))
    picture = pixels(cell_png(DARTS.cells["normal"], True))
    for state in shape.states:
        for side in (-1, 1):  # a strip within the outline
            x = state.x + side * (state.width / 2 - 4) + 8
            assert count(around(picture, x, state.y + 8, 3, 6), LIGHT.fill) == 6 * 3 * SCALE**2


def test_a_genotype_in_pixels() -> None:
    picture = pixels(genotype_png(DARTS, title="darts-v2"))
    shapes = [cell_shape(choices, True, LabelSize()) for choices in DARTS.cells.values()]
    assert picture.shape[1] == round((max(shape.width for shape in shapes) + 48) * SCALE)
    assert picture.shape[0] > sum(shape.height for shape in shapes) * SCALE
    untitled = pixels(genotype_png(DARTS))
    assert picture.shape[0] - untitled.shape[0] == 34 * SCALE
    assert (picture[34 * SCALE + 24 * SCALE :] == untitled[24 * SCALE :]).all(), (
        "one below the other, in the same place"
    )
    assert count(picture[: 48 * SCALE], LIGHT.ink) > 50, "the title"
    legend = picture[-64 * SCALE :]
    for operation in DARTS.operations():
        assert count(legend, operation_family(operation).light) > 30
    assert not count(legend, operation_family("nor_conv_3x3").light)


def test_none_is_dashed() -> None:
    picture = pixels(genotype_png(DENSE))
    for edge in cell_shape(DENSE.cells["cell"], False, LabelSize()).edges:
        family = operation_family(edge.choice.operation)
        corners = np.array(points_of(edge.line))
        along = np.linspace(0, len(corners) - 1, 400)
        xs, ys = (np.interp(along, range(len(corners)), corners[:, axis]) for axis in (0, 1))
        outside = np.abs(xs - edge.x) > edge.width / 2 + 2  # of the label, under which the line goes
        drawn = [count(around(picture, x + 24, y + 60, 1, 1), family.light) > 0
                 for x, y in zip(xs[outside], ys[outside], strict=True)]  # fmt: skip
        gaps = sum(before and not after for before, after in pairwise(drawn))
        assert gaps > 4 if family.dashed else gaps <= 1, edge.choice


def test_dashes_and_gaps_are_measured_along_the_line() -> None:
    assert dashes([(0.0, 0.0), (12.0, 0.0)]) == [[(0, 0), (5, 0)], [(10, 0), (12, 0)]]
    assert dashes([(0.0, 0.0), (3.0, 0.0), (3.0, 8.0)]) == [[(0, 0), (3, 0), (3, 2)], [(3, 7), (3, 8)]]
    assert dashes([(0.0, 0.0), (0.0, 0.0), (4.0, 0.0)]) == [[(0, 0), (0, 0), (4, 0)]]


@pytest.mark.parametrize(
    ("genotype", "layers"), [(DARTS, darts_layers()), (DENSE, single_layers())], ids=["darts", "nasbench201"]
)
def test_a_network_in_pixels(genotype: Genotype, layers: list) -> None:
    shape = network_shape(genotype, layers, "title")
    picture = pixels(network_png(genotype, layers, title="title"))
    assert picture.shape == (-(-shape.height // 1) * SCALE, -(-shape.width // 1) * SCALE, 3)
    for layer in shape.layers:
        box, tint = layer.box, kind_of(layer.layer.kind).tint
        inside = around(picture, box.x + box.width / 2, box.y + box.height / 2, box.width - 6, box.height - 6)
        assert count(inside, tint.light) > 0.6 * inside[..., 0].size
        assert count(inside, LIGHT.ink) > 40, "its name"
        edge = around(picture, box.x + box.width / 2, box.y + box.height, 12, 2)
        assert count(edge, tint.light_line) > 0.4 * edge[..., 0].size
        for text in layer.texts[-2:]:
            if text.text:
                assert count(around(picture, text.x - 4, text.y - 4, 8, 10), LIGHT.ink) > 5, "the figures end there"
    for line, _ in shape.links:
        points = points_of(line)
        x, y = points[len(points) // 2] if len(points) > 2 else (points[0][0], sum(point[1] for point in points) / 2)
        assert count(around(picture, x, y, 3, 3), LIGHT.line) > 3
    for cell in shape.cells:
        for choice in genotype.cells[cell.kind]:
            width, height = (cell.layout.width + 1) * shape.cell_scale, (cell.layout.height + 1) * shape.cell_scale
            area = around(picture, cell.x + width / 2, cell.y + height / 2, width, height)
            assert count(area, operation_family(choice.operation).light) > 50


def test_the_font_has_every_character_that_is_written() -> None:
    font = ImageFont.load_default(24)
    missing = bytes(font.getmask("\uffff"))
    written = with_glyphs("".join(map(chr, range(0x20, 0x250))) + "\u2212\u00d7\u2026\u4e2d\n\x00\ud800\U0001f9ec")
    assert "\u2026" not in written and set(written) <= {chr(code) for code in range(0x20, 0x7F)}
    assert not [character for character in set(written) - {" "} if bytes(font.getmask(character)) == missing]
    assert with_glyphs("k\u22122, 32\u00d732, Gr\u00f6\u00dfe\u2026") == "k-2, 32x32, Gro?e..."


def test_any_text_is_painted() -> None:
    choices = (Choice(Edge(1, 0), HOSTILE), Choice(Edge(2, 1), "x" * 500))
    hostile = Genotype("<space>", {"</g>\n": choices})
    assert pixels(genotype_png(hostile, title=HOSTILE * 9)).shape[1] < 2000 * SCALE
    layer = type(darts_layers()[0])
    layers = [layer("image", "image", 8, 3, 0, ()), layer(HOSTILE, HOSTILE, 8, 3, 1, (0,))]
    assert pixels(network_png(hostile, layers, title=HOSTILE)).size


def test_the_bytes_are_the_same_in_another_process() -> None:
    program = (
        "import sys; from cdarts.topology import parse_darts_text as parse\n"
        "from cdarts.report.raster import genotype_png\n"
        "sys.stdout.buffer.write(genotype_png(parse(sys.argv[1]), title='t'))\n"
        "assert 'torch' not in sys.modules"
    )
    ran = subprocess.run([sys.executable, "-c", program, DARTS.text()], capture_output=True, check=True)
    assert ran.stdout == genotype_png(DARTS, title="t")
    assert network_png(DARTS, darts_layers()) == network_png(DARTS, darts_layers())


def test_paths_as_points() -> None:
    assert points_of("M0 0L2 0H4") == [(0, 0), (2, 0), (4, 0)]
    curve = points_of("M0 0C0 10 10 10 10 0")
    assert curve[-1] == (10, 0) and max(y for _, y in curve) == pytest.approx(7.5)


def test_outlines_of_labels_are_paler_than_their_text() -> None:
    assert paler("#000000") == "#8c8c8c"
    assert paler("#ffffff") == "#ffffff"


def test_what_cannot_be_drawn_is_refused() -> None:
    with pytest.raises(GenotypeError, match="normal cell: a cell without edges"):
        genotype_png(Genotype("darts", {"normal": ()}))
    with pytest.raises(GenotypeError, match="without edges"):
        cell_png((), True)
