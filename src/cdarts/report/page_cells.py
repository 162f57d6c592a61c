"""How a search's cells came about, for a page: a drawing of the newest, and all epochs as data for its script."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any
from xml.sax.saxutils import escape

from cdarts.errors import GenotypeError
from cdarts.report.charts import HeatMap, Number, heat_map
from cdarts.report.drawing import (
    CELL_NAMES,
    CONCATENATING,
    RADIUS,
    CellShape,
    LabelSize,
    cell_shape,
    operation_family,
    operation_label,
)
from cdarts.report.page_records import Frame
from cdarts.spaces import SPACES
from cdarts.topology import Choice, Genotype

LABEL = LabelSize(height=34.0, width=122.0)
"""Two lines: the operation, and the runner-up."""

THINNEST, THICKEST, EVEN = 1.3, 5.0, 2.0
"""Widths of an edge: of the weakest and of the strongest choice in the run, and where strengths are not known."""

DIGITS = 5
"""Decimals of a strength."""
SCALE = 10**DIGITS


@dataclass(frozen=True)
class EdgeRow:
    """One kept edge, in words and numbers; strengths are in units of 1 / `SCALE`."""

    edge: str
    operation: str
    family: str
    strength: str
    second: str
    second_strength: str
    lead: str
    changed: bool


@dataclass(frozen=True)
class Matrix:
    """All strengths of one kind of cell at one epoch."""

    edges: list[str]
    operations: list[str]
    rows: list[list[str]]


@dataclass(frozen=True)
class CellView:
    """One kind of cell at the newest epoch."""

    kind: str
    title: str
    drawing: str
    """SVG."""
    rows: list[EdgeRow]
    heat: str
    """SVG; nothing where strengths are not known."""
    low: str
    high: str
    """Limits of the heat map's shades."""
    thin: str
    thick: str
    """Strengths of the thinnest and of the thickest edge."""
    matrix: Matrix | None


@dataclass(frozen=True)
class Evolution:
    """All kinds of cell, and what the script needs to show them at any epoch."""

    cells: list[CellView]
    changes: list[tuple[int, int]]
    """Epochs after which a cell had changed, and in how many edges; of all epochs, the shown ones or not."""
    left_out: int
    """Epochs whose cells are not shown."""
    data: dict[str, Any]
    families: list[tuple[str, str]]
    """Class and name of those that occur."""


def evolution(frames: Sequence[Frame], most: int) -> Evolution | None:
    """The frames as a page shows them, at most about `most` of them; None where nothing can be drawn."""
    frames = [frame for frame in frames if frame.genotype.space == frames[-1].genotype.space]
    kept = _thinned(frames, most)
    if not kept or kept[-1].genotype.space not in SPACES:
        return None
    changes = [(after.epoch, _changed(before.genotype, after.genotype)) for before, after in pairwise(frames)]
    try:
        return _evolution(kept, [change for change in changes if change[1]], len(frames) - len(kept))
    except GenotypeError:  # a cell that cannot be drawn
        return None


def _thinned(frames: Sequence[Frame], most: int) -> list[Frame]:
    """All of them if they are few, else evenly spaced ones, the first and the last among them."""
    if len(frames) <= most:
        return list(frames)
    places = {round(index * (len(frames) - 1) / (most - 1)) for index in range(most)}
    return [frames[place] for place in sorted(places)]


def _evolution(frames: Sequence[Frame], changes: list[tuple[int, int]], left_out: int) -> Evolution:
    last = frames[-1].genotype
    space = SPACES[last.space]()  # type: ignore[call-arg]
    edges, operations = space.all_edges(), space.operations
    concatenates = last.space in CONCATENATING
    allowed = [index for index, name in enumerate(operations) if not (concatenates and name == "none")]
    place = {edge: index for index, edge in enumerate(edges)}
    data: dict[str, Any] = {
        "epochs": [frame.epoch for frame in frames],
        "operations": list(operations),
        "labels": [operation_label(name) for name in operations],
        "families": [family_class(name) for name in operations],
        "allowed": allowed,
        "edges": [[edge.source, edge.target] for edge in edges],
        "cells": {},
    }
    views = []
    for kind in last.cells:
        shapes: dict[tuple[Choice, ...], int] = {}
        for frame in frames:
            shapes.setdefault(frame.genotype.cells[kind], len(shapes))
        placed = [cell_shape(choices, concatenates, LABEL) for choices in shapes]
        known = all(frame.strengths is not None for frame in frames)
        strengths = [scaled(frame.strengths[kind]) for frame in frames if frame.strengths is not None] if known else []
        chosen = [
            matrix[place[choice.edge]][operations.index(choice.operation)]
            for frame, matrix in zip(frames, strengths, strict=False)
            for choice in frame.genotype.cells[kind]
        ]
        limits = (min(chosen), max(chosen)) if chosen else (0, 0)
        size = (max(shape.width for shape in placed), max(shape.height for shape in placed))
        data["cells"][kind] = {
            "shapes": [_as_data(shape, operations) for shape in placed],
            "frames": [shapes[frame.genotype.cells[kind]] for frame in frames],
            "strengths": strengths,
            "limits": limits,
            "size": size,
        }
        rows = [
            _row(choice, strengths[-1] if strengths else None, place, operations, allowed, _before(frames, kind))
            for choice in last.cells[kind]
        ]
        widths = {
            row.edge: _width(strengths[-1][place[choice.edge]][operations.index(choice.operation)], limits)
            for row, choice in zip(rows, last.cells[kind], strict=True)
            if strengths
        }
        title = CELL_NAMES.get(kind, f"{kind} cell").capitalize()
        heat = HeatMap(
            title,
            edges,
            operations,
            [[[value / SCALE for value in row] for row in matrix] for matrix in strengths],
            [(place[choice.edge], operations.index(choice.operation)) for choice in last.cells[kind]],
        )
        low, high = heat.limits() if strengths else (0.0, 0.0)
        views.append(
            CellView(
                kind=kind,
                title=title,
                drawing=_drawing(placed[shapes[last.cells[kind]]], rows, widths, size, title),
                rows=rows,
                heat=heat_map(heat) if strengths else "",
                low=f"{low:.{DIGITS}f}",
                high=f"{high:.{DIGITS}f}",
                thin=shown(limits[0]),
                thick=shown(limits[1]),
                matrix=None
                if not strengths
                else Matrix(
                    [f"{edge.source} → {edge.target}" for edge in edges],
                    [operation_label(name) for name in operations],
                    [[shown(value) for value in row] for row in strengths[-1]],
                ),
            )
        )
    met = dict.fromkeys(name for frame in frames for name in frame.genotype.operations())
    families = {family_class(name): operation_family(name).label for name in operations if name in met}
    return Evolution(views, changes, left_out, data, list(families.items()))


def _width(strength: int, limits: tuple[int, int]) -> Number:
    low, high = limits
    return THINNEST + (THICKEST - THINNEST) * (strength - low) / (high - low) if high > low else EVEN


def _before(frames: Sequence[Frame], kind: str) -> set[Choice] | None:
    """What the newest frame's cell is compared with."""
    return set(frames[-2].genotype.cells[kind]) if len(frames) > 1 else None


def _changed(first: Genotype, second: Genotype) -> int:
    return sum(len(set(choices) - set(first.cells[kind])) for kind, choices in second.cells.items())


def scaled(matrix: Sequence[Sequence[Number]]) -> list[list[int]]:
    """Strengths in units of 1 / `SCALE`."""
    return [[round(value * SCALE) for value in row] for row in matrix]


def shown(value: int) -> str:
    """A scaled strength; the page's script writes it the same way."""
    return f"{value / SCALE:.{DIGITS}f}"


def family_class(operation: str) -> str:
    """The class of an operation in the page's style sheet."""
    return operation_family(operation).label.replace(" ", "-")


def _row(
    choice: Choice,
    matrix: Sequence[Sequence[int]] | None,
    place: Mapping[Any, int],
    operations: Sequence[str],
    allowed: Sequence[int],
    before: set[Choice] | None,
) -> EdgeRow:
    edge = f"{choice.edge.source} → {choice.edge.target}"
    changed = before is not None and choice not in before
    label, family = operation_label(choice.operation), family_class(choice.operation)
    if matrix is None:
        return EdgeRow(edge, label, family, "", "", "", "", changed)
    row = matrix[place[choice.edge]]
    mine = operations.index(choice.operation)
    second = max((index for index in allowed if index != mine), key=lambda index: (row[index], -index))
    return EdgeRow(
        edge,
        label,
        family,
        shown(row[mine]),
        operation_label(operations[second]),
        shown(row[second]),
        shown(row[mine] - row[second]),
        changed,
    )


def _as_data(shape: CellShape, operations: Sequence[str]) -> dict[str, Any]:
    return {
        "w": shape.width,
        "h": shape.height,
        "e": [
            [
                edge.choice.edge.source,
                edge.choice.edge.target,
                operations.index(edge.choice.operation),
                edge.line,
                edge.head,
                edge.x,
                edge.y,
                edge.width,
            ]
            for edge in shape.edges
        ],
        "t": [list(thread) for thread in shape.threads],
        "s": [[state.x, state.y, state.width, state.height, *state.texts] for state in shape.states],
    }


def _drawing(
    shape: CellShape, rows: Sequence[EdgeRow], widths: Mapping[str, Number], size: tuple[Number, Number], title: str
) -> str:
    """As the page's script draws it: the same elements in the same order."""
    left, top = (size[0] - shape.width) / 2, (size[1] - shape.height) / 2
    words = f"{title}: " + "; ".join(f"{row.edge} {row.operation}" for row in rows)
    drawn = [
        f'<svg class="cell" viewBox="-8 -8 {size[0] + 16:g} {size[1] + 16:g}" style="max-width:{size[0] + 16:g}px" '
        f'role="img" aria-label="{escape(words)}"><g transform="translate({left:g} {top:g})">'
    ]
    for line, head in shape.threads:
        drawn.append(f'<path class="thread" d="{line}"/><path class="thread head" d="{head}"/>')
    for edge, row in zip(shape.edges, rows, strict=True):
        width = widths.get(row.edge, EVEN)
        drawn.append(f'<path class="edge {row.family}" d="{edge.line}" style="stroke-width:{width:.2f}"/>')
        drawn.append(f'<path class="head {row.family}" d="{edge.head}"/>')
    for state in shape.states:
        drawn.append(_state(state.x, state.y, state.width, state.height, *state.texts))
    for edge, row in zip(shape.edges, rows, strict=True):
        x, y = edge.x - edge.width / 2, edge.y - LABEL.height / 2
        tag = f"label {row.family}{' changed' if row.changed else ''}"
        drawn.append(
            f'<g class="{tag}"><rect x="{x:g}" y="{y:g}" width="{edge.width:g}" height="{LABEL.height:g}" rx="7"/>'
            f'<text x="{edge.x:g}" y="{edge.y + (-2 if row.second else 4):g}">{escape(row.operation)}</text>'
        )
        if row.second:
            drawn.append(f'<text class="small" x="{edge.x:g}" y="{edge.y + 11.5:g}">then {escape(row.second)}</text>')
        drawn.append("</g>")
    return "".join([*drawn, "</g></svg>"])


def _state(x: Number, y: Number, width: Number, height: Number, text: str, small: str) -> str:
    if width == 2 * RADIUS and height == 2 * RADIUS:
        form = f'<circle cx="{x:g}" cy="{y:g}" r="{RADIUS:g}"/>'
    else:
        form = f'<rect x="{x - width / 2:g}" y="{y - height / 2:g}" width="{width:g}" height="{height:g}" rx="13"/>'
    if text == "c":
        words = f'<text x="{x:g}" y="{y + 4:g}">c<tspan class="small" dy="4">{escape(small)}</tspan></text>'
    elif small:
        words = (
            f'<text x="{x:g}" y="{y - 2:g}">{escape(text)}</text>'
            f'<text class="small" x="{x:g}" y="{y + 12:g}">{escape(small)}</text>'
        )
    else:
        words = f'<text x="{x:g}" y="{y + 4.5:g}">{escape(text)}</text>'
    return f'<g class="state">{form}{words}</g>'
