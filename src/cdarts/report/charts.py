"""Curves, heat maps and histograms as SVG that takes its colours from the page that it stands in.

All panels of a kind have one size and one frame, so that they line up; numbers lie in them to a tenth of a pixel.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from itertools import groupby
from xml.sax.saxutils import escape

from cdarts.report.drawing import operation_label
from cdarts.report.plots import ticks
from cdarts.topology import Edge

Number = float | int

WIDTH, HEIGHT = 280.0, 168.0
LEFT, RIGHT, TOP, BOTTOM = 48.0, 8.0, 12.0, 24.0
INNER_WIDTH, INNER_HEIGHT = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

DOTTED_UP_TO = 40
"""Points that a line may have to show each."""

LEVELS = 10
"""Shades of a heat map, none included."""

Values = Sequence[Number | None]


# -- curves ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Line:
    """A number for each epoch."""

    label: str
    tone: str
    """Its class in the page's style sheet."""
    values: Values


@dataclass(frozen=True)
class Time:
    """What the epochs of a panel are."""

    num_epochs: int
    phases: Sequence[str | None] = ()
    shades: Mapping[str, int] | None = None
    """How dark each phase's ground is, 0 to 3."""
    cycles: Sequence[int] = ()
    """Epochs in which a cycle begins."""

    def x(self, epoch: Number) -> Number:
        return LEFT + (epoch + 0.5) / max(self.num_epochs, 1) * INNER_WIDTH


def line_chart(name: str, lines: Sequence[Line], time: Time, percent: bool) -> str:
    """A panel of curves over epochs; `name` is read to those who cannot see it."""
    values = [value for line in lines for value in line.values if value is not None]
    along = ticks(_widened(values)) if values else [0.0, 1.0]
    low, high = along[0], along[-1]

    def y(value: Number) -> Number:
        return TOP + (1 - (value - low) / (high - low)) * INNER_HEIGHT

    drawn = [_open("chart", WIDTH, HEIGHT, f"{name}: {_in_words(lines, percent)}")]
    drawn += _ground(time)
    for value in along:
        drawn.append(f'<path class="grid" d="M{_n(LEFT)} {_n(y(value))}h{_n(INNER_WIDTH)}"/>')
        drawn.append(f'<text class="end" x="{_n(LEFT - 7)}" y="{_n(y(value) + 3.5)}">{tick(value, percent)}</text>')
    drawn += _epochs(time)
    drawn.append(f'<path class="cursor" d="M0 {_n(TOP)}v{_n(INNER_HEIGHT)}"/>')
    for line in lines:
        points = [(time.x(epoch), y(value)) for epoch, value in enumerate(line.values) if value is not None]
        if not points:
            continue
        path = "L".join(f"{_n(a)} {_n(b)}" for a, b in points)
        drawn.append(f'<path class="line {line.tone}" d="M{path}"/>')
        shown = points if len(points) <= DOTTED_UP_TO else points[-1:]
        dots = "".join(f"M{_n(a)} {_n(b)}h0" for a, b in shown)
        drawn.append(f'<path class="dots {line.tone}" d="{dots}"/>')
    return "".join([*drawn, "</svg>"])


def _widened(values: Sequence[Number]) -> list[Number]:
    """With one value more below, where all lie within a thousandth of the largest: noise must not look like a trend."""
    low, high = min(values), max(values)
    least = 1e-3 * max(abs(low), abs(high))
    return [*values, high - least] if 0 < high - low < least else list(values)


def _in_words(lines: Sequence[Line], percent: bool) -> str:
    said = []
    for line in lines:
        known = [value for value in line.values if value is not None]
        if known:
            said.append(f"{line.label} from {figure(known[0], percent)} to {figure(known[-1], percent)}")
    return "; ".join(said) or "nothing yet"


def _ground(time: Time) -> Iterator[str]:
    """Phases as shades, the beginnings of cycles as marks."""
    shades = time.shades or {}
    strips: dict[int, str] = {}
    epoch = 0
    for phase, group in groupby(time.phases):
        length = len(list(group))
        left, right = time.x(epoch - 0.5), time.x(epoch + length - 0.5)
        shade = shades.get(phase or "", 0)
        strips[shade] = strips.get(shade, "") + f"M{_n(left)} {_n(TOP)}H{_n(right)}v{_n(INNER_HEIGHT)}H{_n(left)}z"
        epoch += length
    for shade, path in strips.items():
        if shade:
            yield f'<path class="shade s{shade}" d="{path}"/>'
    if time.cycles:
        marks = "".join(f"M{_n(time.x(epoch - 0.5))} {_n(TOP - 6)}v6" for epoch in time.cycles)
        yield f'<path class="cycle" d="{marks}"/>'


def _epochs(time: Time) -> Iterator[str]:
    """The axis below: 1, the last epoch, and round numbers between."""
    last = time.num_epochs
    yield f'<path class="axis" d="M{_n(LEFT)} {_n(HEIGHT - BOTTOM)}h{_n(INNER_WIDTH)}"/>'
    if last < 1:
        return
    step = next((s for s in (1, 2, 5, 10, 20, 25, 50, 100, 200, 250, 500) if last / s <= 5), max(last // 5, 1))
    rounds = [epoch for epoch in range(step, last, step) if epoch > 1 and last - epoch >= 0.6 * step]
    for epoch in sorted({1, last, *rounds}):
        yield f'<text class="middle" x="{_n(time.x(epoch - 1))}" y="{_n(HEIGHT - 8)}">{epoch}</text>'


# -- heat maps ---------------------------------------------------------------------------------------------------------

CELL_HEIGHT = 11.5
PANEL_WIDTH = 132.0
GAP = 14.0
NAMES = 92.0
PANEL_TOP = 20.0


@dataclass(frozen=True)
class HeatMap:
    """Strengths over epochs, a panel for each edge: its target's row, its source's column."""

    title: str
    edges: Sequence[Edge]
    operations: Sequence[str]
    matrices: Sequence[Sequence[Sequence[Number]]]
    """For each frame, edges x operations."""
    chosen: Sequence[tuple[int, int]]
    """Edge and operation of what stands at the end."""

    def limits(self) -> tuple[Number, Number]:
        values = [value for matrix in self.matrices for row in matrix for value in row]
        return min(values), max(values)


def heat_map(heat: HeatMap) -> str:
    """All panels as one picture; each runs from the first frame to the last."""
    low, high = heat.limits()
    targets = sorted({edge.target for edge in heat.edges})
    sources = sorted({edge.source for edge in heat.edges})
    panel_height = CELL_HEIGHT * len(heat.operations)
    width = NAMES + len(sources) * (PANEL_WIDTH + GAP)
    height = len(targets) * (PANEL_TOP + panel_height + GAP)
    words = f"{heat.title}: strength of each operation on each edge over the epochs, from {low:.5f} to {high:.5f}"
    drawn = [_open("heat", width, height, words, wide=True)]
    for row in range(len(targets)):
        top = row * (PANEL_TOP + panel_height + GAP) + PANEL_TOP
        for position, name in enumerate(heat.operations):
            y = top + (position + 0.5) * CELL_HEIGHT + 3.6
            label = escape(operation_label(name))
            drawn.append(f'<text class="end tiny" x="{_n(NAMES - 8)}" y="{_n(y)}">{label}</text>')
    cursor = ""
    for index, edge in enumerate(heat.edges):
        left = NAMES + sources.index(edge.source) * (PANEL_WIDTH + GAP)
        top = targets.index(edge.target) * (PANEL_TOP + panel_height + GAP) + PANEL_TOP
        drawn.append(f'<text x="{_n(left)}" y="{_n(top - 6)}">{edge.source} \u2192 {edge.target}</text>')
        drawn += _panel([matrix[index] for matrix in heat.matrices], low, high, left, top)
        cursor += f"M{_n(left)} {_n(top)}v{_n(panel_height)}"
        for _, operation in (pair for pair in heat.chosen if pair[0] == index):
            y = top + operation * CELL_HEIGHT
            drawn.append(f'<path class="chosen" d="M{_n(left + PANEL_WIDTH + 3)} {_n(y + 1)}v{_n(CELL_HEIGHT - 2)}"/>')
    drawn.append(f'<path class="cursor" data-width="{_n(PANEL_WIDTH)}" d="{cursor}"/>')
    return "".join([*drawn, "</svg>"])


def _panel(rows: Sequence[Sequence[Number]], low: Number, high: Number, left: Number, top: Number) -> Iterator[str]:
    """One edge: a row for each operation, a column for each frame; equal neighbours become one rectangle."""
    step = PANEL_WIDTH / len(rows)
    paths = [""] * LEVELS
    for operation in range(len(rows[0])):
        y = top + operation * CELL_HEIGHT
        column = 0
        for level, group in groupby(_level(row[operation], low, high) for row in rows):
            length = len(list(group))
            x, wide = left + column * step, length * step
            paths[level] += f"M{_n(x)} {_n(y)}h{_n(wide)}v{_n(CELL_HEIGHT - 1)}h{_n(-wide)}z"
            column += length
    for level, path in enumerate(paths):
        if path:
            yield f'<path class="h{level}" d="{path}"/>'


def _level(value: Number, low: Number, high: Number) -> int:
    return min(int((value - low) / (high - low) * LEVELS), LEVELS - 1) if high > low else LEVELS // 2


# -- a distribution ----------------------------------------------------------------------------------------------------


def histogram(
    counts: Sequence[int], low: Number, high: Number, marker: Number, others: Sequence[Number], name: str
) -> str:
    """Bars between two values in percent, a marker, and smaller marks; what lies below `low` is in the first bar."""
    width, height, bottom = 720.0, 170.0, 26.0
    most = max(counts)
    step = (width - 2 * RIGHT) / len(counts)

    def x(value: Number) -> Number:
        return RIGHT + (min(max(value, low), high) - low) / (high - low) * (width - 2 * RIGHT)

    drawn = [_open("histogram", width, height, name)]
    room = height - bottom - 34
    bars = ""
    for position, count in enumerate(counts):
        tall = room * count / most
        bars += f"M{_n(RIGHT + position * step + 0.5)} {_n(height - bottom)}v{_n(-tall)}h{_n(step - 1)}v{_n(tall)}z"
    drawn.append(f'<path class="bars" d="{bars}"/>')
    drawn.append(f'<path class="axis" d="M{_n(RIGHT)} {_n(height - bottom)}H{_n(width - RIGHT)}"/>')
    for value in range(math.ceil(low), math.floor(high) + 1, 2):
        label = f"\u2264 {value}" if value == low else str(value)
        drawn.append(f'<text class="middle" x="{_n(x(value))}" y="{_n(height - 8)}">{label}</text>')
    marks = "".join(f"M{_n(x(value))} {_n(height - bottom)}v-12" for value in others)
    drawn.append(f'<path class="others" d="{marks}"/>')
    drawn.append(f'<path class="marker" d="M{_n(x(marker))} 24V{_n(height - bottom)}"/>')
    place = "end" if x(marker) > width - 90 else "start" if x(marker) < 90 else "middle"
    drawn.append(f'<text class="strong {place}" x="{_n(x(marker))}" y="16">{marker:.2f} %</text>')
    return "".join([*drawn, "</svg>"])


# -- what was taken for what -------------------------------------------------------------------------------------------

CONFUSION_SIDE = 420.0


def confusion_map(counts: Sequence[Sequence[int]], name: str) -> str:
    """Labels from top to bottom, predictions from left to right; the more colour, the larger the share of the label."""
    size = CONFUSION_SIDE / len(counts)
    paths = [""] * LEVELS
    for y, row in enumerate(counts):
        total = sum(row)
        for x, count in enumerate(row):
            if count:
                level = min(int(count / total * LEVELS), LEVELS - 1)
                paths[level] += f"M{_n(x * size)} {_n(y * size)}h{_n(size)}v{_n(size)}h{_n(-size)}z"
    drawn = [_open("heat confusion", CONFUSION_SIDE, CONFUSION_SIDE, name, wide=True)]
    drawn.append(f'<path class="frame" d="M0 0h{_n(CONFUSION_SIDE)}v{_n(CONFUSION_SIDE)}h{_n(-CONFUSION_SIDE)}z"/>')
    drawn += [f'<path class="h{level}" d="{path}"/>' for level, path in enumerate(paths) if path]
    return "".join([*drawn, "</svg>"])


# -- runs against each other -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Dot:
    """One run: a cost, what it bought, and what it is called."""

    x: Number
    y: Number
    label: str
    tone: str


TONES = 8
"""Colours of runs in the page's style sheet."""

PATTERNS = ("", " dash", " fine")
"""What tells runs of one colour apart: a line's dashes, a dot's form."""


def tone(index: int) -> str:
    """The classes of one run or group of runs among others; they repeat after `TONES` times `PATTERNS`."""
    return f"r{index % TONES}{PATTERNS[index // TONES % len(PATTERNS)]}"


def scatter(dots: Sequence[Dot], x_label: str, y_label: str) -> str:
    """Accuracy, a fraction, against cost."""
    width, height, left, bottom = 720.0, 300.0, 56.0, 44.0
    x_ticks, y_ticks = ticks([dot.x for dot in dots]), ticks([dot.y for dot in dots])

    def x(value: Number) -> Number:
        return left + (value - x_ticks[0]) / (x_ticks[-1] - x_ticks[0]) * (width - left - 20)

    def y(value: Number) -> Number:
        return TOP + (1 - (value - y_ticks[0]) / (y_ticks[-1] - y_ticks[0])) * (height - TOP - bottom)

    drawn = [_open("scatter", width, height, f"{y_label} against {x_label}, {len(dots)} runs")]
    for value in y_ticks:
        drawn.append(f'<path class="grid" d="M{_n(left)} {_n(y(value))}H{_n(width - 20)}"/>')
        drawn.append(f'<text class="end" x="{_n(left - 8)}" y="{_n(y(value) + 4)}">{tick(value, True)}</text>')
    for value in x_ticks:
        drawn.append(f'<text class="middle" x="{_n(x(value))}" y="{_n(height - bottom + 18)}">{value:g}</text>')
    drawn.append(f'<path class="axis" d="M{_n(left)} {_n(height - bottom)}H{_n(width - 20)}"/>')
    middle = (left + width - 20) / 2
    drawn.append(f'<text class="middle" x="{_n(middle)}" y="{_n(height - 6)}">{escape(x_label)}</text>')
    for dot in dots:
        tip = f"<title>{escape(dot.label)}: {figure(dot.y, True)}, {dot.x:g}</title>"
        drawn.append(f'<path class="dot {dot.tone}" d="{_form(dot.tone, x(dot.x), y(dot.y))}">{tip}</path>')
    return "".join([*drawn, "</svg>"])


def dot_sample(tone: str) -> str:
    """A dot of the scatter plot for its key, in a field of 14 by 14."""
    return _form(tone, 7, 7)


def _form(tone: str, x: Number, y: Number) -> str:
    """A circle, a square or a triangle about a point."""
    if tone.endswith(" dash"):
        return f"M{_n(x - 4.5)} {_n(y - 4.5)}h9v9h-9z"
    if tone.endswith(" fine"):
        return f"M{_n(x)} {_n(y - 6)}l5.5 10h-11z"
    return f"M{_n(x - 5)} {_n(y)}a5 5 0 1 0 10 0a5 5 0 1 0 -10 0z"


# -- numbers -----------------------------------------------------------------------------------------------------------


ENDLESS = 1e15
"""Numbers from here on are written with an exponent."""


def figure(value: Number | None, percent: bool = False) -> str:
    """A number for people; the page's script writes it the same way, halves away from zero."""
    if value is None:
        return "\u2013"
    if percent and abs(value) < ENDLESS:
        return f"{_rounded(100 * value, 2)} %"
    if float(value).is_integer() and abs(value) < ENDLESS:
        return str(int(value))
    if 1e-3 <= abs(value) < 1e5:
        return _rounded(value, 4)
    mantissa, _, exponent = f"{value:.3e}".partition("e")
    return f"{mantissa}e{int(exponent):+d}"


def _rounded(value: Number, digits: int) -> str:
    """As JavaScript's toFixed; Python's own formats take a half to the even digit."""
    return str(Decimal(value).quantize(Decimal(1).scaleb(-digits), ROUND_HALF_UP))


def tick(value: Number, percent: bool) -> str:
    return f"{100 * value:.6g} %" if percent else f"{value:.6g}"


def _open(kind: str, width: Number, height: Number, name: str, wide: bool = False) -> str:
    """`wide`: never drawn larger than it is."""
    label = escape(name, {'"': "&quot;"})
    limit = f' style="max-width:{_n(width)}px"' if wide else ""
    return f'<svg class="{kind}" viewBox="0 0 {_n(width)} {_n(height)}"{limit} role="img" aria-label="{label}">'


def _n(value: Number) -> str:
    """At most one decimal, and no minus before zero."""
    rounded = round(value, 1) + 0.0
    return str(int(rounded)) if rounded == int(rounded) else str(rounded)
