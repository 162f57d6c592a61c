"""What seeds have scattered, as one self-contained SVG: a point for each seed, the mean, and one standard deviation."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from cdarts.report.drawing import DARK, LIGHT, Ground
from cdarts.report.plots import ticks
from cdarts.statistics import spread

NOTE = "points: seeds; mark: mean; bar: one sample standard deviation to each side"

ROW, HEADING, NAMES, FRAME, FIGURES = 27.0, 30.0, 190.0, 470.0, 130.0
"""Heights of a row and of a heading, widths of the names, of the frame and of the figures beside it, in pixels."""
TOP, BOTTOM, EDGE = 54.0, 50.0, 16.0

PANEL, PANEL_HEIGHT, PANEL_LEFT, PANEL_GAP = 420.0, 300.0, 62.0, 22.0

COLOURS = ("#1a63b8", "#a85400", "#2b7a3d", "#8a3a9e")
DARK_COLOURS = ("#7db6f7", "#f2a95c", "#7fce8f", "#d59be6")
"""Of the series, in order."""


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
    """At most as many as there are colours, and at least one with a position."""


def row_plot(title: str, x_label: str, rows: Sequence[PlotRow]) -> str:
    """Settings below each other, values along the x-axis, figures at the right."""
    groups = list(dict.fromkeys(row.group for row in rows))
    inner = len(rows) * ROW + len(groups) * HEADING
    width, height = EDGE + NAMES + FRAME + FIGURES + EDGE, TOP + inner + BOTTOM
    left = EDGE + NAMES
    along = ticks(list(_reach([value.value for value in row.values] for row in rows)))

    def x(value: float) -> float:
        return left + (value - along[0]) / (along[-1] - along[0]) * FRAME

    drawn = [*_open(title, NOTE, width, height), f'<g transform="translate(0 {_n(TOP)})">']
    drawn.append(f'<rect class="frame" x="{_n(left)}" width="{_n(FRAME)}" height="{_n(inner)}"/>')
    for value in along:
        drawn.append(f'<path class="grid" d="M{_n(x(value))} 0V{_n(inner)}"/>')
        drawn.append(f'<text class="small middle" x="{_n(x(value))}" y="{_n(inner + 17)}">{value:.6g}</text>')
    drawn.append(f'<text class="middle" x="{_n(left + FRAME / 2)}" y="{_n(inner + 38)}">{escape(x_label)}</text>')
    y = 0.0
    for group in groups:
        drawn.append(f'<path class="rule" d="M{_n(EDGE)} {_n(y)}H{_n(width - EDGE)}"/>')
        drawn.append(f'<text class="heading" x="{_n(EDGE)}" y="{_n(y + 20)}">{escape(group)}</text>')
        y += HEADING
        for row in rows:
            if row.group != group:
                continue
            middle = y + ROW / 2
            drawn.append(f'<text x="{_n(EDGE + 8)}" y="{_n(middle + 4)}">{escape(row.name)}</text>')
            drawn += _row(row, x, middle)
            y += ROW
    return "\n".join([*drawn, "</g>", "</svg>", ""])


def _row(row: PlotRow, x: Callable[[float], float], y: float) -> Iterator[str]:
    summary = spread([value.value for value in row.values])
    deviation = summary.std or 0.0
    low, high = x(summary.mean - deviation), x(summary.mean + deviation)
    if deviation:
        ends = f"M{_n(low)} {_n(y - 4)}v8M{_n(high)} {_n(y - 4)}v8"
        yield f'<path class="bar c0" d="M{_n(low)} {_n(y)}H{_n(high)}{ends}"/>'
    for value in row.values:
        yield _seed(x(value.value), y, value, 0)
    yield f'<path class="mean c0" d="M{_n(x(summary.mean))} {_n(y - 8)}v16"/>'
    figures = f"{summary.mean:.2f}" if summary.std is None else f"{summary.mean:.2f} \u00b1 {summary.std:.2f}"
    place = EDGE + NAMES + FRAME + 12
    yield f'<text class="small" x="{_n(place)}" y="{_n(y + 4)}">{figures} (n {len(row.values)})</text>'


def curve_plot(title: str, panels: Sequence[SpreadPanel]) -> str:
    """Panels side by side, each with lines through the means of its series."""
    most = max(len(panel.series) for panel in panels)
    width = len(panels) * (PANEL_LEFT + PANEL + PANEL_GAP)
    height = TOP + 26 + PANEL_HEIGHT + 52 + most * 17
    drawn = _open(title, NOTE, width, height)
    for position, panel in enumerate(panels):
        left = position * (PANEL_LEFT + PANEL + PANEL_GAP) + PANEL_LEFT
        drawn.append(f'<g transform="translate({_n(left)} {_n(TOP + 26)})">')
        drawn += _panel(panel)
        drawn.append("</g>")
    return "\n".join([*drawn, "</svg>", ""])


def _panel(panel: SpreadPanel) -> Iterator[str]:
    xs = [position for series in panel.series for position, _ in series.at]
    x_ticks = ticks(xs)
    y_ticks = ticks(list(_reach([v.value for v in values] for series in panel.series for _, values in series.at)))

    def x(value: float) -> float:
        return (value - x_ticks[0]) / (x_ticks[-1] - x_ticks[0]) * PANEL

    def y(value: float) -> float:
        return (1 - (value - y_ticks[0]) / (y_ticks[-1] - y_ticks[0])) * PANEL_HEIGHT

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
    for number, series in enumerate(panel.series):
        # series at the same position stand beside each other
        shift = (number - (len(panel.series) - 1) / 2) * 5
        line = []
        for position, values in series.at:
            summary = spread([value.value for value in values])
            at = x(position) + shift
            line.append(f"{_n(at)} {_n(y(summary.mean))}")
            if summary.std:
                top, bottom = y(summary.mean + summary.std), y(summary.mean - summary.std)
                ends = f"M{_n(at - 3)} {_n(top)}h6M{_n(at - 3)} {_n(bottom)}h6"
                yield f'<path class="bar c{number}" d="M{_n(at)} {_n(top)}V{_n(bottom)}{ends}"/>'
            for each in values:
                yield _seed(at, y(each.value), each, number)
            yield f'<path class="mean c{number}" d="M{_n(at - 6)} {_n(y(summary.mean))}h12"/>'
        yield f'<path class="line c{number}" d="M{"L".join(line)}"/>'
        below = PANEL_HEIGHT + 58 + number * 17
        yield f'<path class="mean c{number}" d="M0 {_n(below)}h18"/>'
        yield f'<text class="small" x="26" y="{_n(below + 4)}">{escape(series.label)}</text>'


def _seed(x: float, y: float, value: SeedValue, number: int) -> str:
    title = f"<title>{escape(value.label)}</title>"
    return f'<circle class="seed c{number}" cx="{_n(x)}" cy="{_n(y)}" r="3.4">{title}</circle>'


def _reach(columns: Iterable[list[float]]) -> Iterator[float]:
    """Everything that a plot must have room for: values, and the ends of the bars."""
    for values in columns:
        summary = spread(values)
        yield from values
        yield from (summary.mean - (summary.std or 0.0), summary.mean + (summary.std or 0.0))


def _open(title: str, note: str, width: float, height: float) -> list[str]:
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
        ".spread .frame,.spread .grid,.spread .rule,.spread .bar,.spread .mean,.spread .line{fill:none}",
        ".spread .grid{stroke-width:.5;stroke-opacity:.4}",
        ".spread .rule{stroke-width:.5}",
        ".spread .bar{stroke-width:1.5;stroke-opacity:.75}",
        ".spread .mean{stroke-width:3}",
        ".spread .line{stroke-width:1.5;stroke-opacity:.7}",
        ".spread .seed{fill-opacity:.45;stroke-width:0}",
    ]
    dark = "".join(_colours(DARK, DARK_COLOURS))
    return "\n".join(["", *rules, *_colours(LIGHT, COLOURS), f"@media (prefers-color-scheme:dark){{{dark}}}", ""])


def _colours(ground: Ground, colours: Sequence[str]) -> Iterator[str]:
    yield f".spread .ground{{fill:{ground.ground}}}"
    yield f".spread text{{fill:{ground.ink}}}"
    yield f".spread .small{{fill:{ground.faint}}}"
    yield f".spread .frame,.spread .grid,.spread .rule{{stroke:{ground.thread}}}"
    for number, colour in enumerate(colours):
        yield f".spread .c{number}{{stroke:{colour}}}.spread .seed.c{number}{{fill:{colour}}}"
