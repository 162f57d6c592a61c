"""Scatter plots as one self-contained SVG: it fetches nothing from elsewhere, and its bytes are always the same."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from cdarts.report.drawing import DARK, LIGHT, Ground

SIDE = 300.0
"""Of a panel's frame, in pixels."""
LEFT, RIGHT, TOP, BOTTOM = 58.0, 18.0, 64.0, 52.0
"""Around the frame."""
RADIUS = 3.2
TICKS = 5

ACCENTS = ("#1a63b8", "#a85400")
DARK_ACCENTS = ("#7db6f7", "#f2a95c")
"""Of filled and of hollow points."""


@dataclass(frozen=True)
class Point:
    """One thing, measured twice."""

    x: float
    y: float
    hollow: bool = False
    label: str = ""
    """Shown where the pointer rests on it."""


@dataclass(frozen=True)
class Panel:
    """One scatter plot."""

    title: str
    caption: str
    """What the figures say, below the title."""
    x_label: str
    y_label: str
    points: Sequence[Point]
    """At least one; all finite."""


def scatter_plots(title: str, note: str, panels: Sequence[Panel]) -> str:
    """Panels side by side; the note stands below the title."""
    width = len(panels) * (LEFT + SIDE + RIGHT)
    height = TOP + SIDE + BOTTOM + 30
    drawn = [
        f'<svg xmlns="http://www.w3.org/2000/svg" class="scatter" viewBox="0 0 {_number(width)} {_number(height)}" '
        f'width="{_number(width)}" height="{_number(height)}" role="img">',
        f"<title>{escape(title)}</title>",
        f"<style>{_style()}</style>",
        f'<rect class="ground" width="{_number(width)}" height="{_number(height)}"/>',
        f'<text class="title" x="{_number(LEFT)}" y="22">{escape(title)}</text>',
        f'<text class="small" x="{_number(LEFT)}" y="39">{escape(note)}</text>',
    ]
    for position, panel in enumerate(panels):
        left = position * (LEFT + SIDE + RIGHT) + LEFT
        drawn.append(f'<g transform="translate({_number(left)} {_number(TOP + 30)})">')
        drawn.extend(_panel(panel))
        drawn.append("</g>")
    return "\n".join([*drawn, "</svg>", ""])


def _panel(panel: Panel) -> Iterator[str]:
    yield f'<text class="heading" x="0" y="-34">{escape(panel.title)}</text>'
    yield f'<text class="small" x="0" y="-14">{escape(panel.caption)}</text>'
    yield f'<rect class="frame" width="{_number(SIDE)}" height="{_number(SIDE)}"/>'
    x_ticks = ticks([point.x for point in panel.points])
    y_ticks = ticks([point.y for point in panel.points])
    for value in x_ticks:
        x = _place(value, x_ticks) * SIDE
        yield f'<path class="grid" d="M{_number(x)} 0V{_number(SIDE)}"/>'
        yield f'<text class="small middle" x="{_number(x)}" y="{_number(SIDE + 17)}">{_tick(value)}</text>'
    for value in y_ticks:
        y = (1 - _place(value, y_ticks)) * SIDE
        yield f'<path class="grid" d="M0 {_number(y)}H{_number(SIDE)}"/>'
        yield f'<text class="small end" x="-8" y="{_number(y + 4)}">{_tick(value)}</text>'
    yield f'<text class="middle" x="{_number(SIDE / 2)}" y="{_number(SIDE + 40)}">{escape(panel.x_label)}</text>'
    turned = f"translate(-44 {_number(SIDE / 2)}) rotate(-90)"
    yield f'<text class="middle" transform="{turned}">{escape(panel.y_label)}</text>'
    for point in panel.points:
        x, y = _place(point.x, x_ticks) * SIDE, (1 - _place(point.y, y_ticks)) * SIDE
        kind = "point hollow" if point.hollow else "point"
        label = f"<title>{escape(point.label)}</title>" if point.label else ""
        yield f'<circle class="{kind}" cx="{_number(x)}" cy="{_number(y)}" r="{_number(RADIUS)}">{label}</circle>'


def ticks(values: Sequence[float]) -> list[float]:
    """Round numbers, about `TICKS` of them, from at or below the smallest value to at or above the largest."""
    low, high = min(values), max(values)
    if high - low < 1e-9 * max(abs(low), abs(high), 1.0):
        room = 0.02 * max(abs(low), abs(high), 1.0)  # a part of a large number, beside which 0.02 would be lost
        low, high = low - room, high + room
    rough = (high - low) / TICKS
    magnitude = 10.0 ** math.floor(math.log10(rough))
    step = next(size * magnitude for size in (1, 2, 2.5, 5, 10) if size * magnitude >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(number * step, 12) for number in range(first, last + 1)]


def _place(value: float, along: Sequence[float]) -> float:
    """Where a value lies between the first and the last tick, 0 to 1."""
    return (value - along[0]) / (along[-1] - along[0])


def _tick(value: float) -> str:
    return f"{value:.6g}"


def _number(value: float) -> str:
    return f"{round(value, 2) + 0.0:g}"


def _style() -> str:
    fonts = "system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica Neue',Arial,sans-serif"
    rules = [
        f".scatter text{{font:12px {fonts}}}",
        ".scatter .title{font-size:16px;font-weight:600}",
        ".scatter .heading{font-size:14px;font-weight:600}",
        ".scatter .small{font-size:11px}",
        ".scatter .middle{text-anchor:middle}",
        ".scatter .end{text-anchor:end}",
        ".scatter .frame,.scatter .grid{fill:none}",
        ".scatter .grid{stroke-width:.5;stroke-opacity:.4}",
        ".scatter .point{fill-opacity:.55;stroke-width:1}",
        ".scatter .point.hollow{fill:none}",
    ]
    dark = "".join(_colours(DARK, DARK_ACCENTS))
    return "\n".join(["", *rules, *_colours(LIGHT, ACCENTS), f"@media (prefers-color-scheme:dark){{{dark}}}", ""])


def _colours(ground: Ground, accents: tuple[str, str]) -> Iterator[str]:
    filled, hollow = accents
    yield f".scatter .ground{{fill:{ground.ground}}}"
    yield f".scatter text{{fill:{ground.ink}}}"
    yield f".scatter .small{{fill:{ground.faint}}}"
    yield f".scatter .frame,.scatter .grid{{stroke:{ground.thread}}}"
    yield f".scatter .point{{fill:{filled};stroke:{filled}}}"
    yield f".scatter .point.hollow{{fill:none;stroke:{hollow}}}"
