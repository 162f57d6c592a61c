"""What seeds have scattered, as one self-contained SVG: a point for each seed, the mean, and one standard deviation."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import quantiles
from xml.sax.saxutils import escape

from cdarts.report.drawing import DARK, LIGHT, Ground
from cdarts.report.plots import ticks
from cdarts.statistics import spread

NOTE = "points: seeds; mark, line: mean; bar, band: one sample standard deviation to each side; all cut at the frame"
BEYOND = "; triangles: seeds beyond the frame"

ROW, HEADING, NAMES, FRAME, FIGURES = 27.0, 30.0, 190.0, 470.0, 130.0
"""Heights of a row and of a heading, widths of the names, of the frame and of the figures beside it, in pixels."""
TOP, BOTTOM, EDGE = 54.0, 50.0, 16.0

PANEL, PANEL_HEIGHT, PANEL_LEFT, PANEL_GAP = 420.0, 300.0, 62.0, 22.0
ABOVE, BELOW, LEGEND, INSET = 26.0, 56.0, 17.0, 14.0
"""Above and below a panel's frame, a line of the legend, and between the frame's sides and the first and last tick."""
COLUMNS = 2
"""Panels beside each other."""

RADIUS = 3.4
"""Of a seed's point."""

DENSE = 12
"""Positions from which on a series has a band instead of bars."""

COLOURS = ("#0072b2", "#d55e00", "#007a58", "#b3508c")
DARK_COLOURS = ("#56b4e9", "#f0a030", "#3fcf9f", "#e79ac6")
"""Of the series, in order: told apart by eyes that see no red or no green (after Okabe and Ito)."""
DASHES = ("", "8 4", "2 3", "9 3 2 3")
"""Of their lines, told apart without any colour."""

FENCE = 3.0
"""Values so many interquartile ranges beyond the quartiles (Tukey's far ones) lie beyond the frame, as triangles."""


@dataclass(frozen=True)
class SeedValue:
    """What one seed has given."""

    value: float
    label: str
    """Shown where the pointer rests on it."""


@dataclass(frozen=True)
class PlotRow:
    """One setting."""

    name: str
    group: str
    values: Sequence[SeedValue]
    """At least one."""


@dataclass(frozen=True)
class Series:
    """One line of a panel: at each position what its seeds have given, at least one value."""

    label: str
    at: Sequence[tuple[float, Sequence[SeedValue]]]


@dataclass(frozen=True)
class SpreadPanel:
    """Series over a number."""

    title: str
    x_label: str
    y_label: str
    series: Sequence[Series]
    """At least one with a position; over all panels of a plot at most as many labels as there are colours."""


def row_plot(title: str, x_label: str, rows: Sequence[PlotRow]) -> str:
    """Settings below each other, values along the x-axis, figures at the right."""
    groups = list(dict.fromkeys(row.group for row in rows))
    inner = len(rows) * ROW + len(groups) * HEADING
    width, height = EDGE + NAMES + FRAME + FIGURES + EDGE, TOP + inner + BOTTOM
    left = EDGE + NAMES
    values = [value.value for row in rows for value in row.values]
    along = ticks(near(values))
    beyond = any(_beyond(value, along) for value in values)

    def x(value: float) -> float:
        place = left + INSET + (value - along[0]) / (along[-1] - along[0]) * (FRAME - 2 * INSET)
        return min(max(place, left), left + FRAME)

    drawn = [*_open(title, beyond, width, height), f'<g transform="translate(0 {_n(TOP)})">']
    y = 0.0
    for group in groups:
        mine = [row for row in rows if row.group == group]
        drawn.append(f'<text class="heading" x="{_n(EDGE)}" y="{_n(y + 20)}">{escape(group)}</text>')
        y += HEADING
        tall = len(mine) * ROW
        drawn.append(f'<rect class="frame" x="{_n(left)}" y="{_n(y)}" width="{_n(FRAME)}" height="{_n(tall)}"/>')
        drawn += [f'<path class="grid" d="M{_n(x(value))} {_n(y)}v{_n(tall)}"/>' for value in along]
        for row in mine:
            middle = y + ROW / 2
            drawn.append(f'<text x="{_n(EDGE + 8)}" y="{_n(middle + 4)}">{escape(row.name)}</text>')
            drawn += _row(row, along, x, middle)
            y += ROW
    for value in along:
        drawn.append(f'<text class="small middle" x="{_n(x(value))}" y="{_n(inner + 17)}">{value:.6g}</text>')
    drawn.append(f'<text class="middle" x="{_n(left + FRAME / 2)}" y="{_n(inner + 38)}">{escape(x_label)}</text>')
    return "\n".join([*drawn, "</g>", "</svg>", ""])


def _row(row: PlotRow, along: Sequence[float], x: Callable[[float], float], y: float) -> Iterator[str]:
    summary = spread([value.value for value in row.values])
    deviation = summary.std or 0.0
    low, high = x(summary.mean - deviation), x(summary.mean + deviation)
    if deviation:
        frame = (EDGE + NAMES, EDGE + NAMES + FRAME)
        ends = "".join(f"M{_n(end)} {_n(y - 4)}v8" for end in (low, high) if end not in frame)  # none where it is cut
        yield f'<path class="bar c0" d="M{_n(low)} {_n(y)}H{_n(high)}{ends}"/>'
    for value in row.values:
        if side := _beyond(value.value, along):
            yield _triangle(EDGE + NAMES + (FRAME if side > 0 else 0.0), y, side, 0, value, 0)
        else:
            yield _seed(x(value.value), y, value, 0)
    if not _beyond(summary.mean, along):
        yield f'<path class="mean c0" d="M{_n(x(summary.mean))} {_n(y - 8)}v16"/>'
    figures = f"{summary.mean:.2f}" if summary.std is None else f"{summary.mean:.2f} \u00b1 {summary.std:.2f}"
    place = EDGE + NAMES + FRAME + 12
    yield f'<text class="small" x="{_n(place)}" y="{_n(y + 4)}">{figures} (n {len(row.values)})</text>'


def curve_plot(title: str, panels: Sequence[SpreadPanel]) -> str:
    """Panels with lines through the means of their series, which bear the same colours in all of them."""
    labels = list(dict.fromkeys(series.label for panel in panels for series in panel.series))
    columns = min(COLUMNS, len(panels))
    rows = -(-len(panels) // columns)
    one = ABOVE + PANEL_HEIGHT + BELOW
    width = columns * (PANEL_LEFT + PANEL + PANEL_GAP)
    height = TOP + rows * one + len(labels) * LEGEND + EDGE
    heights = [_heights(panel) for panel in panels]
    beyond = any(
        _beyond(value, along) for panel, along in zip(panels, heights, strict=True) for value in _values_of(panel)
    )
    drawn = _open(title, beyond, width, height)
    for position, panel in enumerate(panels):
        left = position % columns * (PANEL_LEFT + PANEL + PANEL_GAP) + PANEL_LEFT
        top = TOP + position // columns * one + ABOVE
        drawn.append(f'<g transform="translate({_n(left)} {_n(top)})">')
        drawn += _panel(panel, heights[position], labels)
        drawn.append("</g>")
    for number, label in enumerate(labels):
        y = TOP + rows * one + number * LEGEND
        drawn.append(f'<path class="line c{number}" d="M{_n(PANEL_LEFT - 10)} {_n(y)}h30"/>')
        drawn.append(f'<text class="small" x="{_n(PANEL_LEFT + 26)}" y="{_n(y + 4)}">{escape(label)}</text>')
    return "\n".join([*drawn, "</svg>", ""])


def _panel(panel: SpreadPanel, y_ticks: Sequence[float], labels: Sequence[str]) -> Iterator[str]:
    x_ticks = ticks([position for series in panel.series for position, _ in series.at])

    def x(value: float) -> float:
        return INSET + (value - x_ticks[0]) / (x_ticks[-1] - x_ticks[0]) * (PANEL - 2 * INSET)

    def y(value: float) -> float:
        inside = min(max(value, y_ticks[0]), y_ticks[-1])
        return (1 - (inside - y_ticks[0]) / (y_ticks[-1] - y_ticks[0])) * PANEL_HEIGHT

    yield f'<text class="heading" x="0" y="-10">{escape(panel.title)}</text>'
    yield f'<rect class="frame" width="{_n(PANEL)}" height="{_n(PANEL_HEIGHT)}"/>'
    for value in x_ticks:
        yield f'<path class="grid" d="M{_n(x(value))} 0V{_n(PANEL_HEIGHT)}"/>'
        yield f'<text class="small middle" x="{_n(x(value))}" y="{_n(PANEL_HEIGHT + 17)}">{value:.6g}</text>'
    for value in y_ticks:
        yield f'<path class="grid" d="M0 {_n(y(value))}H{_n(PANEL)}"/>'
        yield f'<text class="small end" x="-8" y="{_n(y(value) + 4)}">{value:.6g}</text>'
    yield f'<text class="middle" x="{_n(PANEL / 2)}" y="{_n(PANEL_HEIGHT + 38)}">{escape(panel.x_label)}</text>'
    turned = f"translate(-46 {_n(PANEL_HEIGHT / 2)}) rotate(-90)"
    yield f'<text class="middle" transform="{turned}">{escape(panel.y_label)}</text>'
    # few positions lie above many
    for series in sorted(panel.series, key=lambda series: -len(series.at)):
        number = labels.index(series.label)
        if len(series.at) > DENSE:
            yield from _dense(series, number, y_ticks, x, y)
        else:
            # series at the same position stand beside each other
            shift = (number - (len(labels) - 1) / 2) * 5
            yield from _sparse(series, number, y_ticks, lambda value, shift=shift: x(value) + shift, y)  # type: ignore[misc]


def _values_of(panel: SpreadPanel) -> list[float]:
    return [value.value for series in panel.series for _, values in series.at for value in values]


def _heights(panel: SpreadPanel) -> list[float]:
    """The ticks of its y-axis."""
    return ticks(near(_values_of(panel)))


def _sparse(
    series: Series, number: int, along: Sequence[float], x: Callable[[float], float], y: Callable[[float], float]
) -> Iterator[str]:
    """A bar at each position."""
    line = []
    for position, values in series.at:
        summary = spread([value.value for value in values])
        at, middle = x(position), y(summary.mean)
        line.append(f"{_n(at)} {_n(middle)}")
        if summary.std:
            top, bottom = y(summary.mean + summary.std), y(summary.mean - summary.std)
            ends = "".join(f"M{_n(at - 3)} {_n(end)}h6" for end in (top, bottom) if end not in (0.0, PANEL_HEIGHT))
            yield f'<path class="bar c{number}" d="M{_n(at)} {_n(top)}V{_n(bottom)}{ends}"/>'
        for value in values:
            yield _upright(at, y(value.value), along, value, number)
        if not _beyond(summary.mean, along):
            yield f'<path class="mean c{number}" d="M{_n(at - 6)} {_n(middle)}h12"/>'
    yield f'<path class="line c{number}" d="M{"L".join(line)}"/>'


def _dense(
    series: Series, number: int, along: Sequence[float], x: Callable[[float], float], y: Callable[[float], float]
) -> Iterator[str]:
    """A band along all positions, and small points."""
    summaries = [(x(position), spread([value.value for value in values])) for position, values in series.at]
    upper = [f"{_n(at)} {_n(y(summary.mean + (summary.std or 0.0)))}" for at, summary in summaries]
    lower = [f"{_n(at)} {_n(y(summary.mean - (summary.std or 0.0)))}" for at, summary in summaries]
    yield f'<path class="band c{number}" d="M{"L".join([*upper, *reversed(lower)])}z"/>'
    for position, values in series.at:
        for value in values:
            yield _upright(x(position), y(value.value), along, value, number, radius=1.7)
    line = "L".join(f"{_n(at)} {_n(y(summary.mean))}" for at, summary in summaries)
    yield f'<path class="line c{number}" d="M{line}"/>'


def near(values: Sequence[float]) -> list[float]:
    """The values that a frame is made for: a few that lie far from all others would leave no room for these."""
    if len(values) < 2:
        return list(values)
    lower, _, upper = quantiles(values, n=4, method="inclusive")
    reach = FENCE * (upper - lower)
    return [value for value in values if lower - reach <= value <= upper + reach] if reach else list(values)


def _beyond(value: float, along: Sequence[float]) -> int:
    """Whether a value lies below the first tick (-1), above the last (1), or between them (0)."""
    return (value > along[-1]) - (value < along[0])


def _upright(x: float, y: float, along: Sequence[float], value: SeedValue, number: int, radius: float = RADIUS) -> str:
    """A seed of a panel, at its frame where it lies beyond."""
    side = _beyond(value.value, along)
    return _triangle(x, y, 0, -side, value, number) if side else _seed(x, y, value, number, radius)


def _seed(x: float, y: float, value: SeedValue, number: int, radius: float = RADIUS) -> str:
    title = f"<title>{escape(value.label)}</title>"
    return f'<circle class="seed c{number}" cx="{_n(x)}" cy="{_n(y)}" r="{_n(radius)}">{title}</circle>'


def _triangle(x: float, y: float, right: int, down: int, value: SeedValue, number: int) -> str:
    """Its tip at the frame, pointing out of it; -1, 0 or 1 to the right and down."""
    back, wide = 2.4 * RADIUS, 1.3 * RADIUS
    corners = [(x - back * right + side * wide * down, y - back * down + side * wide * right) for side in (1, -1)]
    points = " ".join(f"{_n(at)},{_n(height)}" for at, height in [(x, y), *corners])
    return f'<polygon class="seed c{number}" points="{points}"><title>{escape(value.label)}</title></polygon>'


def _open(title: str, beyond: bool, width: float, height: float) -> list[str]:
    note = NOTE + (BEYOND if beyond else "")
    return [
        f'<svg xmlns="http://www.w3.org/2000/svg" class="spread" viewBox="0 0 {_n(width)} {_n(height)}" '
        f'width="{_n(width)}" height="{_n(height)}" role="img">',
        f"<title>{escape(title)}</title>",
        f"<style>{_style()}</style>",
        f'<rect class="ground" width="{_n(width)}" height="{_n(height)}"/>',
        f'<text class="title" x="{_n(EDGE)}" y="22">{escape(title)}</text>',
        f'<text class="small" x="{_n(EDGE)}" y="40">{escape(note)}</text>',
    ]


def _n(value: float) -> str:
    return f"{round(value, 2) + 0.0:g}"


def _style() -> str:
    fonts = "system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica Neue',Arial,sans-serif"
    rules = [
        f".spread text{{font:12px {fonts}}}",
        ".spread .title{font-size:16px;font-weight:600}",
        ".spread .heading{font-size:13px;font-weight:600}",
        ".spread .small{font-size:11px}",
        ".spread .middle{text-anchor:middle}",
        ".spread .end{text-anchor:end}",
        ".spread .frame,.spread .grid,.spread .bar,.spread .mean,.spread .line{fill:none}",
        ".spread .grid{stroke-width:.5;stroke-opacity:.4}",
        ".spread .bar{stroke-width:1.5;stroke-opacity:.75}",
        ".spread .mean{stroke-width:3}",
        ".spread .line{stroke-width:1.5;stroke-opacity:.7}",
        ".spread .band{fill-opacity:.14;stroke-width:0}",
        ".spread .seed{fill-opacity:.45;stroke-width:0}",
    ]
    dark = "".join(_colours(DARK, DARK_COLOURS))
    return "\n".join(["", *rules, *_colours(LIGHT, COLOURS), f"@media (prefers-color-scheme:dark){{{dark}}}", ""])


def _colours(ground: Ground, colours: Sequence[str]) -> Iterator[str]:
    yield f".spread .ground{{fill:{ground.ground}}}"
    yield f".spread text{{fill:{ground.ink}}}"
    yield f".spread .small{{fill:{ground.faint}}}"
    yield f".spread .frame,.spread .grid{{stroke:{ground.thread}}}"
    for number, (colour, dashes) in enumerate(zip(colours, DASHES, strict=True)):
        yield f".spread .c{number}{{stroke:{colour}}}.spread .seed.c{number},.spread .band.c{number}{{fill:{colour}}}"
        yield f".spread .line.c{number}{{stroke-dasharray:{dashes or 'none'}}}"
