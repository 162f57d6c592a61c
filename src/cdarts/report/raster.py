"""Drawings as PNG: what the SVG documents show on light ground, painted by Pillow with the font that it brings along.

Nothing is read from the system, so the same drawing has the same bytes each time.
"""

import io
import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise

from PIL import Image, ImageDraw, ImageFont

from cdarts.report.drawing import (
    HEADING,
    LIGHT,
    MARGIN,
    CellShape,
    LabelSize,
    Legend,
    Point,
    StateShape,
    cell_name,
    cell_shape,
    genotype_shape,
    operation_family,
    operation_label,
    shape_of,
    shortened,
)
from cdarts.report.network_drawing import PANELS, Box, Layer, TextShape, kind_of, network_shape
from cdarts.topology import Choice, Genotype

SCALE = 2
"""Pixels of a picture per pixel of the SVG document."""
OVERSAMPLING = 2
"""Pillow draws without smoothing: pictures are painted so many times larger, and reduced in the end."""
FINE = SCALE * OVERSAMPLING

LABEL = LabelSize(height=24.0, width=110.0)
"""Of a cell that stands alone, whose labels are all equally wide."""
EDGE, THREAD, OUTLINE, LINK = 1.8, 1.2, 1.4, 1.5
"""Widths of lines."""
OPACITY = 0.45
"""Of a label's outline."""
DASH = 5.0
"""Length of a dash, and of the gap after it."""
CURVE_POINTS = 24

SUBSTITUTES = {"\u2212": "-", "\u00d7": "x"}
"""For characters of the drawings that the font lacks."""


# -- pictures ----------------------------------------------------------------------------------------------------------


def cell_png(choices: tuple[Choice, ...], concatenates: bool) -> bytes:
    """A cell on white as a PNG. Raises `GenotypeError` for one that cannot be drawn."""
    shape = cell_shape(choices, concatenates, LABEL)
    margin = 8.0
    canvas = Canvas.of_size(shape.width + 2 * margin, shape.height + 2 * margin)
    _paint_cell(canvas.moved(margin, margin), shape, LABEL.height)
    return canvas.png()


def genotype_png(genotype: Genotype, *, title: str = "") -> bytes:
    """A genotype's cells one below another on white, as a PNG; `title` stands above them.

    Raises `GenotypeError` for a cell without edges or of more than `MAX_STATES` states.
    """
    shape = genotype_shape(genotype, title)
    canvas = Canvas.of_size(shape.width, shape.height)
    if title:
        canvas.text(MARGIN, MARGIN + 14, shape.title, LIGHT.ink, 16, bold=True)
    for kind, layout, top in shape.cells:
        canvas.text(MARGIN, top + 14 - HEADING, cell_name(kind), LIGHT.faint, 14, bold=True)
        _paint_cell(canvas.moved(MARGIN, top), shape_of(layout), LabelSize().height)
    _paint_legend(canvas.moved(MARGIN, shape.legend_top), shape.legend)
    return canvas.png()


def network_png(genotype: Genotype, layers: Sequence[Layer], *, title: str = "") -> bytes:
    """A network and its cells on white, as a PNG: what `draw_network` shows. Raises what that raises."""
    shape = network_shape(genotype, layers, title)
    canvas = Canvas.of_size(shape.width, shape.height)
    for panel in shape.panels:
        canvas.box(panel, 8.0, PANELS[0])
    for text in shape.texts:
        _paint_text(canvas, text)
    for line, head in shape.links:
        canvas.line(points_of(line), LIGHT.line, LINK)
        canvas.area(points_of(head), LIGHT.line)
    for layer in shape.layers:
        tint = kind_of(layer.layer.kind).tint
        canvas.box(layer.box, 6.0, tint.light, tint.light_line, OUTLINE)
        for text in layer.texts:
            _paint_text(canvas, text)
    for cell in shape.cells:
        tint = kind_of(cell.kind).tint
        canvas.box(cell.swatch, 4.0, tint.light, tint.light_line, OUTLINE)
        _paint_text(canvas, cell.heading)
        _paint_cell(canvas.moved(cell.x, cell.y, shape.cell_scale), shape_of(cell.layout), LabelSize().height)
    _paint_legend(canvas.moved(*shape.legend_at), shape.legend)
    return canvas.png()


# -- parts of pictures -------------------------------------------------------------------------------------------------


def _paint_cell(canvas: "Canvas", shape: CellShape, label_height: float) -> None:
    """Edges first, then what lies on them."""
    for line, head in shape.threads:
        canvas.line(points_of(line), LIGHT.thread, THREAD)
        canvas.area(points_of(head), LIGHT.thread)
    for edge in shape.edges:
        family = operation_family(edge.choice.operation)
        canvas.line(points_of(edge.line), family.light, EDGE, dashed=family.dashed)
        canvas.area(points_of(edge.head), family.light)
    for state in shape.states:
        _paint_state(canvas, state)
    for edge in shape.edges:
        colour = operation_family(edge.choice.operation).light
        left, top = edge.x - edge.width / 2, edge.y - label_height / 2
        canvas.box(Box(left, top, edge.width, label_height), 6.0, LIGHT.ground, paler(colour), 1.0)
        canvas.text(edge.x, edge.y + 4.2, shortened(operation_label(edge.choice.operation)), colour, 12, "ms")


def _paint_state(canvas: "Canvas", state: StateShape) -> None:
    left, top = state.x - state.width / 2, state.y - state.height / 2
    corner = min(state.height / 2, 15.0) if state.width > state.height else state.width / 2
    canvas.box(Box(left, top, state.width, state.height), corner, LIGHT.fill, LIGHT.line, OUTLINE)
    name, small = state.texts
    if not small:
        canvas.text(state.x, state.y + 4.6, name, LIGHT.ink, 13, "ms", bold=True)
    elif name == "c":  # an input's number stands beside it, lower
        width, index = canvas.length(name, 13), canvas.length(small, 11)
        start = state.x - (width + index + 1) / 2
        canvas.text(start, state.y + 4.6, name, LIGHT.ink, 13, bold=True)
        canvas.text(start + width + 1, state.y + 8.6, small, LIGHT.faint, 11)
    else:
        canvas.text(state.x, state.y - 2, name, LIGHT.ink, 13, "ms", bold=True)
        canvas.text(state.x, state.y + 13, small, LIGHT.faint, 11, "ms")


def _paint_legend(canvas: "Canvas", legend: Legend) -> None:
    for family, x, y in legend.places:
        canvas.line([(x, y + 8), (x + 22, y + 8)], family.light, EDGE, dashed=family.dashed)
        canvas.text(x + 29, y + 12, family.label, LIGHT.faint, 12)


def _paint_text(canvas: "Canvas", text: TextShape) -> None:
    style = text.style
    colour = LIGHT.faint if style.faint else LIGHT.ink
    canvas.text(text.x, text.y, text.text, colour, style.size, "rs" if style.at_end else "ls", bold=style.bold)


# -- painting ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Canvas:
    """A picture that is painted, in the units of SVG documents; `moved` gives it another origin and scale."""

    image: Image.Image
    left: float = 0.0
    top: float = 0.0
    scale: float = 1.0

    @classmethod
    def of_size(cls, width: float, height: float) -> "Canvas":
        """White, of whole pixels."""
        return cls(Image.new("RGB", (math.ceil(width) * FINE, math.ceil(height) * FINE), LIGHT.ground))

    def moved(self, x: float, y: float, scale: float = 1.0) -> "Canvas":
        """The same picture, with its origin at x, y."""
        return replace(self, left=self.left + x * self.scale, top=self.top + y * self.scale, scale=self.scale * scale)

    def line(self, points: Sequence[Point], colour: str, width: float, *, dashed: bool = False) -> None:
        """Through all the points."""
        for piece in dashes(points) if dashed else [points]:
            self._draw.line([self._at(x, y) for x, y in piece], colour, self._whole(width), joint="curve")

    def area(self, points: Sequence[Point], colour: str) -> None:
        """A filled polygon."""
        self._draw.polygon([self._at(x, y) for x, y in points], colour)

    def box(self, box: Box, corner: float, fill: str, outline: str | None = None, thickness: float = 0.0) -> None:
        """A rectangle with round corners."""
        half = thickness / 2  # an outline lies on both sides of the edge, as in SVG
        upper_left = self._at(box.x - half, box.y - half)
        lower_right = self._at(box.x + box.width + half, box.y + box.height + half)
        radius = (corner + half) * self.scale * FINE
        self._draw.rounded_rectangle([upper_left, lower_right], radius, fill, outline, self._whole(thickness))

    def text(
        self, x: float, y: float, text: str, colour: str, size: float, anchor: str = "ls", bold: bool = False
    ) -> None:
        """One line; `anchor` as Pillow has it: left, middle or right, on its base line."""
        font = _font(size * self.scale * FINE)
        self._draw.text(self._at(x, y), with_glyphs(text), colour, font, anchor, stroke_width=int(bold))

    def length(self, text: str, size: float) -> float:
        """Width of a text."""
        return _font(size * FINE).getlength(with_glyphs(text)) / FINE

    def png(self) -> bytes:
        """The whole picture, as a PNG file."""
        file = io.BytesIO()
        self.image.reduce(OVERSAMPLING).save(file, format="PNG", optimize=True)
        return file.getvalue()

    @property
    def _draw(self) -> ImageDraw.ImageDraw:
        return ImageDraw.Draw(self.image)

    def _at(self, x: float, y: float) -> Point:
        return (self.left + x * self.scale) * FINE, (self.top + y * self.scale) * FINE

    def _whole(self, width: float) -> int:
        return max(round(width * self.scale * FINE), 1)


@lru_cache(maxsize=64)
def _font(size: float) -> ImageFont.FreeTypeFont:
    """The font that Pillow brings along, letter by letter: how letters are joined would depend on the system."""
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont)
    return font.font_variant(layout_engine=ImageFont.Layout.BASIC)


def paler(colour: str) -> str:
    """A colour ``#rrggbb`` as it looks on white at the opacity of the labels' outlines."""
    parts = (int(colour[index : index + 2], 16) for index in (1, 3, 5))
    return "#" + "".join(f"{round(255 - (255 - part) * OPACITY):02x}" for part in parts)


def with_glyphs(text: str) -> str:
    """A text in characters that the font has: letters without their accents, ``?`` for what it cannot write."""
    plain = unicodedata.normalize("NFKD", "".join(SUBSTITUTES.get(character, character) for character in text))
    letters = (character for character in plain if not unicodedata.combining(character))
    return "".join(character if " " <= character <= "~" else "?" for character in letters)


def dashes(points: Sequence[Point]) -> list[list[Point]]:
    """The drawn pieces of a dashed line: dashes and gaps of `DASH`, measured along it."""
    pieces: list[list[Point]] = [[points[0]]]
    left, drawn = DASH, True
    for start, end in pairwise(points):
        length = math.dist(start, end)
        done = 0.0
        while length - done > left:
            done += left
            turn = (start[0] + (end[0] - start[0]) * done / length, start[1] + (end[1] - start[1]) * done / length)
            if drawn:
                pieces[-1].append(turn)
            else:
                pieces.append([turn])
            left, drawn = DASH, not drawn
        left -= length - done
        if drawn:
            pieces[-1].append(end)
    return pieces


def points_of(path: str) -> list[Point]:
    """The corners of an SVG path of absolute M, L, H, C and Z; a curve as so many short lines."""
    points: list[Point] = []
    for command, text in _commands(path):
        numbers = [float(word) for word in text.split()]
        if command in ("M", "L"):
            points.append((numbers[0], numbers[1]))
        elif command == "H":
            points.append((numbers[0], points[-1][1]))
        elif command == "C":
            corners = [points[-1], *zip(numbers[::2], numbers[1::2], strict=True)]
            points += [_bezier(corners, step / CURVE_POINTS) for step in range(1, CURVE_POINTS + 1)]
    return points


def _commands(path: str) -> list[tuple[str, str]]:
    """``M1 2L3 4`` -> ``[("M", "1 2"), ("L", "3 4")]``."""
    found: list[tuple[str, str]] = []
    for character in path:
        if character.isalpha():
            found.append((character, ""))
        else:
            found[-1] = (found[-1][0], found[-1][1] + character)
    return found


def _bezier(corners: list[Point], t: float) -> Point:
    """A point of a cubic Bezier curve (de Casteljau)."""
    while len(corners) > 1:
        corners = [((1 - t) * a[0] + t * b[0], (1 - t) * a[1] + t * b[1]) for a, b in pairwise(corners)]
    return corners[0]
