"""A whole network as one self-contained SVG: its layers as a chain, and beside it the drawings of its cells.

The layers stand one below another, those of equal resolution on a ground of their own. A straight arrow brings the
output of the layer before; an arc brings an older one, on the left and on the right by turns, so that the arcs of cells
which read the two outputs before them do not meet.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from cdarts.errors import ConfigurationError
from cdarts.report.drawing import (
    ARROW,
    CELL_SPACING,
    CHARACTER_OF_TITLE,
    DARK,
    HEADING,
    LIGHT,
    MARGIN,
    Ground,
    Layout,
    Legend,
    Point,
    arrow_head,
    cell_elements,
    cell_name,
    description,
    families_of,
    lay_out_cells,
    legend_elements,
    legend_of,
    number,
    rectangle,
    shortened,
    style_rules,
    xml_attribute,
    xml_text,
)
from cdarts.topology import Genotype

# -- what is drawn -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Layer:
    """One layer of a network, as the drawing has it: the image, a stem, a cell, a fixed block, pooling, classifier."""

    name: str
    """What it is called, e.g. ``cell 3``."""
    kind: str
    """One of `KINDS`, or another kind of cell."""
    side: int
    """Of its output, in pixels."""
    channels: int
    """Of its output; of the classifier the classes."""
    parameters: int
    inputs: tuple[int, ...]
    """Positions, among the layers, of those whose outputs it reads; all before its own."""


@dataclass(frozen=True)
class Tint:
    """Colours of a box: its ground and its outline, on a light and on a dark page."""

    light: str
    light_line: str
    dark: str
    dark_line: str


PLAIN = Tint(LIGHT.fill, LIGHT.line, DARK.fill, DARK.line)
CELL = Tint("#dfe5fb", "#4553b5", "#2b3266", "#8f9cf0")
REDUCTION = Tint("#fbe6bd", "#946200", "#4a3710", "#e0b050")


@dataclass(frozen=True)
class Kind:
    """How layers of one kind look."""

    css: str
    """Class of their elements."""
    label: str
    """What stands small in their boxes."""
    tint: Tint


KINDS: dict[str, Kind] = {
    "image": Kind("plain", "", PLAIN),
    "stem": Kind("plain", "", PLAIN),
    "normal": Kind("steady", "normal", CELL),
    "cell": Kind("steady", "", CELL),
    "reduce": Kind("halving", "reduction", REDUCTION),
    "block": Kind("halving", "fixed", REDUCTION),
    "tail": Kind("plain", "", PLAIN),
    "pooling": Kind("plain", "average", PLAIN),
    "classifier": Kind("plain", "linear", PLAIN),
}
"""``block`` is a block between cells that is not searched, ``tail`` what stands between the last one and pooling."""


def kind_of(layer_kind: str) -> Kind:
    """How layers of that kind look; a kind that is not in `KINDS` is one of cells, and called by its own name."""
    return KINDS.get(layer_kind, Kind("steady", layer_kind, CELL))


# -- sizes, in pixels --------------------------------------------------------------------------------------------------

PAGE = 1200.0
"""Width that a drawing keeps to, if its cells can still be read then."""
SMALLEST_SCALE = 0.75
"""Of the cells; labels of 12 pixels are 9 then."""
BOX = (148.0, 24.0)
PITCH = 36.0
"""From layer to layer."""
PANEL_SPACING = 10.0
PANEL_PADDING = 12.0
"""Right of the columns."""
ARC_ROOM = 30.0
"""On each side of the boxes."""
BOX_LEFT = MARGIN + ARC_ROOM
OUTPUT_RIGHT = BOX_LEFT + BOX[0] + ARC_ROOM + 86
PARAMETERS_RIGHT = OUTPUT_RIGHT + 82
"""Where the columns of figures end."""
CELLS_LEFT = PARAMETERS_RIGHT + PANEL_PADDING + 28
SWATCH = 14.0
NARROWEST_LEGEND = 400.0
CHARACTER_OF_NAME = 8.1
CHARACTER_OF_NOTE = 6.4

MAX_LAYERS = 100
"""Layers that a network may have in a drawing."""

PANELS = ("#f3f5f8", "#1c222a")
"""Ground below the layers of one resolution, on a light and on a dark page."""


# -- layout ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TextStyle:
    """How a text is set."""

    css: str
    size: float
    bold: bool = False
    faint: bool = False
    at_end: bool = False
    """Whether it ends where it is placed, and does not begin there."""


TITLE = TextStyle("title", 16, bold=True)
NOTE = TextStyle("note", 12, faint=True)
HEAD = TextStyle("head", 11, faint=True)
HEAD_AT_END = TextStyle("head-end", 11, faint=True, at_end=True)
CELL_HEADING = TextStyle("heading", 14, bold=True, faint=True)
NAME = TextStyle("name", 12, bold=True)
LABEL = TextStyle("kind", 11, faint=True, at_end=True)
FIGURE = TextStyle("figure", 12, at_end=True)
SUM = TextStyle("sum", 12, bold=True, at_end=True)
TEXT_STYLES = (TITLE, NOTE, HEAD, HEAD_AT_END, CELL_HEADING, NAME, LABEL, FIGURE, SUM)


@dataclass(frozen=True)
class TextShape:
    """A line of text; x is where it begins or ends, y its base line."""

    style: TextStyle
    x: float
    y: float
    text: str


@dataclass(frozen=True)
class Box:
    """A rectangle, from its upper left corner."""

    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True)
class LayerShape:
    """A layer's box and the texts in it and beside it."""

    layer: Layer
    box: Box
    texts: tuple[TextShape, ...]


@dataclass(frozen=True)
class CellPlace:
    """A cell's drawing: below its heading, which has a swatch of the cell's tint before it."""

    kind: str
    swatch: Box
    heading: TextShape
    layout: Layout
    x: float
    y: float


@dataclass(frozen=True)
class NetworkShape:
    """A network, placed and ready to be drawn by whoever draws it: as SVG here, or in pixels."""

    width: float
    height: float
    texts: tuple[TextShape, ...]
    panels: tuple[Box, ...]
    """One for each run of layers of equal resolution."""
    links: tuple[tuple[str, str], ...]
    """Line and head of each arrow, as SVG paths."""
    layers: tuple[LayerShape, ...]
    cells: tuple[CellPlace, ...]
    cell_scale: float
    legend: Legend
    legend_at: Point


def network_shape(genotype: Genotype, layers: Sequence[Layer], title: str = "") -> NetworkShape:
    """Place a network's layers, arrows and cells.

    Raises `ConfigurationError` for more than `MAX_LAYERS` layers, `GenotypeError` for a cell that cannot be drawn.
    """
    if len(layers) > MAX_LAYERS:
        raise ConfigurationError(f"{len(layers)} layers: a network of more than {MAX_LAYERS} cannot be drawn")
    layouts = lay_out_cells(genotype)
    top = MARGIN + (30 if title else 0)
    texts = [TextShape(NOTE, MARGIN, top + 12, _note(genotype, layers))]
    top += 30
    texts += _heads(top)
    top += 20
    panels, shapes, bottom = _chain(layers, top)
    texts += [
        TextShape(NAME, BOX_LEFT, bottom + 14, "all layers"),
        TextShape(SUM, PARAMETERS_RIGHT, bottom + 14, f"{sum(layer.parameters for layer in layers):,}"),
    ]

    widest = max(layout.width for layout in layouts.values())
    scale = max(min((PAGE - MARGIN - CELLS_LEFT) / widest, 1.0), SMALLEST_SCALE)
    cells, y = [], top
    for kind, layout in layouts.items():
        heading = TextShape(CELL_HEADING, CELLS_LEFT + SWATCH + 8, y + 12, cell_name(kind))
        swatch = Box(CELLS_LEFT, y, SWATCH, SWATCH)
        cells.append(CellPlace(kind, swatch, heading, layout, CELLS_LEFT, y + HEADING))
        y += HEADING + layout.height * scale + CELL_SPACING
    legend = legend_of(families_of(genotype), max(widest * scale, NARROWEST_LEGEND))
    legend_at = (CELLS_LEFT, y)
    y += legend.height + 14
    for line in _reading(layers):
        texts.append(TextShape(NOTE, CELLS_LEFT, y + 12, line))
        y += 20

    notes = [text.x + len(text.text) * CHARACTER_OF_NOTE for text in texts if text.style is NOTE]
    width = max(CELLS_LEFT + widest * scale, CELLS_LEFT + legend.width, *notes) + MARGIN
    if title:
        shown = shortened(title, int((width - 2 * MARGIN) / CHARACTER_OF_TITLE))
        texts.append(TextShape(TITLE, MARGIN, MARGIN + 14, shown))
    return NetworkShape(
        width=width,
        height=max(bottom + 18, y) + MARGIN,
        texts=tuple(texts),
        panels=tuple(panels),
        links=tuple(_links(shapes)),
        layers=tuple(shapes),
        cells=tuple(cells),
        cell_scale=scale,
        legend=legend,
        legend_at=legend_at,
    )


def _heads(top: float) -> Iterator[TextShape]:
    """The names of the columns."""
    yield TextShape(HEAD, BOX_LEFT, top + 11, "layer")
    yield TextShape(HEAD_AT_END, OUTPUT_RIGHT, top + 11, "output")
    yield TextShape(HEAD_AT_END, PARAMETERS_RIGHT, top + 11, "parameters")


def _chain(layers: Sequence[Layer], top: float) -> tuple[list[Box], list[LayerShape], float]:
    """The panels, the layers, and where the last panel and the space after it end."""
    panels, shapes = [], []
    for _, alike in groupby(layers, key=lambda layer: layer.side):
        begin = top
        for layer in alike:
            box = Box(BOX_LEFT, top + (PITCH - BOX[1]) / 2, *BOX)
            shapes.append(LayerShape(layer, box, tuple(_texts(layer, box))))
            top += PITCH
        panels.append(Box(MARGIN, begin, PARAMETERS_RIGHT + PANEL_PADDING - MARGIN, top - begin))
        top += PANEL_SPACING
    return panels, shapes, top


def _note(genotype: Genotype, layers: Sequence[Layer]) -> str:
    """What stands below the title."""
    cells = sum(layer.kind in genotype.cells for layer in layers)
    total = sum(layer.parameters for layer in layers)
    return f"{cells} cells, images {_size(layers[0])}, {layers[-1].channels} classes, {total:,} parameters"


def _reading(layers: Sequence[Layer]) -> Iterator[str]:
    """How the arrows are to be read, where there are arcs."""
    if any(len(layer.inputs) > 1 for layer in layers):
        yield "straight arrow: the output before (k\u22121)"
        yield "arc: the output before that (k\u22122)"


def _size(layer: Layer) -> str:
    if layer.kind == "classifier":
        return f"{layer.channels} classes"
    return f"{layer.side}\u00d7{layer.side}\u00d7{layer.channels}"


def _texts(layer: Layer, box: Box) -> Iterator[TextShape]:
    """Name and kind in the box, then the columns."""
    y, label = box.y + box.height / 2 + 4.2, shortened(kind_of(layer.kind).label, 9)
    room = box.width - 24 - len(label) * CHARACTER_OF_NOTE
    yield TextShape(NAME, box.x + 10, y, shortened(layer.name, int(room / CHARACTER_OF_NAME)))
    if label:
        yield TextShape(LABEL, box.x + box.width - 10, y, label)
    yield TextShape(FIGURE, OUTPUT_RIGHT, y, _size(layer))
    yield TextShape(FIGURE, PARAMETERS_RIGHT, y, f"{layer.parameters:,}" if layer.inputs else "")


def _links(shapes: Sequence[LayerShape]) -> list[tuple[str, str]]:
    """The arrows of all layers; from the layer right before one of them is straight."""
    links, turn = [], -1.0
    for index, shape in enumerate(shapes):
        sources = list(shape.layer.inputs)
        if index - 1 in sources:
            sources.remove(index - 1)
            links.append(_straight(shapes[index - 1].box, shape.box))
        links += [_arc(shapes[source].box, shape.box, index - source, turn) for source in sources]
        turn = -turn if sources else turn
    return links


def _straight(source: Box, target: Box) -> tuple[str, str]:
    x = number(source.x + source.width / 2)
    line = f"M{x} {number(source.y + source.height)}L{x} {number(target.y - 0.7 * ARROW)}"
    return line, arrow_head((target.x + target.width / 2, target.y), (0.0, 1.0))


def _arc(source: Box, target: Box, span: int, turn: float) -> tuple[str, str]:
    """On the left of the boxes where `turn` is -1, on the right where it is 1; farther out, the more it spans."""
    x = source.x + (source.width if turn > 0 else 0.0)
    begin, end = source.y + source.height / 2 + 5, target.y + target.height / 2 - 5
    # three quarters of what a curve's inner corners are away is how far it goes out
    reach = turn * min(10.0 + 6.0 * span, ARC_ROOM - 6) / 0.75
    stop = x + turn * 0.7 * ARROW
    corners = ((x + reach, begin), (x + reach, end), (stop, end))
    line = f"M{number(x)} {number(begin)}C" + " ".join(f"{number(a)} {number(b)}" for a, b in corners)
    return line, arrow_head((x, end), (-turn, 0.0))


# -- drawing -----------------------------------------------------------------------------------------------------------


def draw_network(genotype: Genotype, layers: Sequence[Layer], *, title: str = "") -> str:
    """A network of a genotype's cells, as the text of an SVG document; `title` stands above it.

    layers: in order, the image first and the classifier last. Raises what `network_shape` raises.
    """
    shape = network_shape(genotype, layers, title)
    name = title or f"Network of a genotype, space {genotype.space}"
    size = f'width="{number(shape.width)}" height="{number(shape.height)}"'
    view = f'viewBox="0 0 {number(shape.width)} {number(shape.height)}"'
    role = f'class="genotype network" role="img" aria-label={xml_attribute(name)}'
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" {role} {size} {view}>',
            f"<title>{xml_text(name)}</title>",
            f"<desc>{xml_text(network_description(genotype, layers))}</desc>",
            f"<style>{style_rules(families_of(genotype))}{_rules()}</style>",
            f'<rect class="ground" width="{number(shape.width)}" height="{number(shape.height)}" rx="8"/>',
            *(f'<rect class="panel" {_rectangle(panel, 8.0)}/>' for panel in shape.panels),
            *(_text(text) for text in shape.texts),
            *(f'<path class="link" d="{line}"/><path class="link head" d="{head}"/>' for line, head in shape.links),
            *(_layer(layer) for layer in shape.layers),
            *(element for cell in shape.cells for element in _cell(cell, shape.cell_scale)),
            f'<g transform="translate({number(shape.legend_at[0])} {number(shape.legend_at[1])})">',
            *legend_elements(shape.legend),
            "</g>",
            "</svg>\n",
        ]
    )


def network_description(genotype: Genotype, layers: Sequence[Layer]) -> str:
    """The drawing in words: every layer, then the cells."""
    return (
        f"{_note(genotype, layers)}. {'; '.join(_in_words(layer, layers) for layer in layers)}. {description(genotype)}"
    )


def _in_words(layer: Layer, layers: Sequence[Layer]) -> str:
    label = kind_of(layer.kind).label
    name = f"{layer.name} ({label})" if label else layer.name
    if not layer.inputs:
        return f"{name}: {_size(layer)}"
    sources = " and ".join(dict.fromkeys(layers[source].name for source in layer.inputs))
    return f"{name}: {_size(layer)}, {layer.parameters:,} parameters, from {sources}"


def _rectangle(box: Box, corner: float) -> str:
    return rectangle(box.x, box.y, box.width, box.height, corner)


def _text(text: TextShape) -> str:
    return f'<text class="{text.style.css}" x="{number(text.x)}" y="{number(text.y)}">{xml_text(text.text)}</text>'


def _layer(shape: LayerShape) -> str:
    box = f"<rect {_rectangle(shape.box, 6.0)}/>"
    texts = "".join(map(_text, shape.texts))
    whole = xml_text(shape.layer.name)
    return f'<g class="layer {kind_of(shape.layer.kind).css}"><title>{whole}</title>{box}{texts}</g>'


def _cell(cell: CellPlace, scale: float) -> Iterator[str]:
    swatch = f"<rect {_rectangle(cell.swatch, 4.0)}/>"
    yield f'<g class="layer {kind_of(cell.kind).css}">{swatch}{_text(cell.heading)}</g>'
    scaled = "" if scale == 1.0 else f" scale({scale:.3f})"
    yield f'<g class="cell" transform="translate({number(cell.x)} {number(cell.y)}){scaled}">'
    yield from cell_elements(cell.layout)
    yield "</g>"


def _rules() -> str:
    """What a network's drawing has beyond those of cells, whose rules it has too."""
    fonts = [
        f".network .{style.css}{{font-size:{number(style.size)}px"
        f"{';font-weight:600' if style.bold else ''}{';text-anchor:end' if style.at_end else ''}}}"
        for style in TEXT_STYLES
    ]
    return "\n".join(
        [
            *fonts,
            ".network .figure,.network .sum{font-variant-numeric:tabular-nums}",
            ".network .link{fill:none;stroke-width:1.5}",
            ".network .layer rect{stroke-width:1.4}",
            *_colours(LIGHT, PANELS[0], {kind.css: (kind.tint.light, kind.tint.light_line) for kind in KINDS.values()}),
            "@media (prefers-color-scheme:dark){",
            *_colours(DARK, PANELS[1], {kind.css: (kind.tint.dark, kind.tint.dark_line) for kind in KINDS.values()}),
            "}",
            "",
        ]
    )


def _colours(ground: Ground, panel: str, boxes: Mapping[str, tuple[str, str]]) -> Iterator[str]:
    """The rules that differ between light and dark; `boxes` are ground and outline by class."""
    faint = ",".join(f".network .{style.css}" for style in TEXT_STYLES if style.faint)
    yield f".network .panel{{fill:{panel}}}"
    yield f".network .link{{stroke:{ground.line}}}"
    yield f".network .link.head{{fill:{ground.line};stroke:none}}"
    yield f"{faint}{{fill:{ground.faint}}}"
    for css, (fill, line) in boxes.items():
        yield f".network .layer.{css} rect{{fill:{fill};stroke:{line}}}"
