"""A genotype's cells as one self-contained SVG: it fetches nothing from elsewhere, and its bytes are always the same.

The layout is the layered one of Sugiyama, Tagawa and Toda (1981). A state stands in the column that its longest path
gives it, and between any two such columns lies one of labels. An edge passes every column on its way at a place of its
own, in one of them under its label, and it changes its height only in the gaps between columns; so no label can meet
another label, another edge or a state.
"""

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise
from xml.sax.saxutils import escape, quoteattr

from cdarts.errors import GenotypeError
from cdarts.topology import Choice, Genotype

# -- what things are called, and their colours -------------------------------------------------------------------------


@dataclass(frozen=True)
class Family:
    """Operations that are drawn in one colour."""

    label: str
    light: str
    """Colour on white; at least 4.5 to 1 in contrast, as the dark one has on the dark ground."""
    dark: str
    dashed: bool = False


FAMILIES: dict[str, Family] = {
    "sep": Family("separable convolution", "#1a63b8", "#7db6f7"),
    "dil": Family("dilated convolution", "#8a3fb0", "#d0a0f0"),
    "nor": Family("convolution", "#b3243f", "#f795a5"),
    "max": Family("pooling", "#0a7458", "#57cfa9"),
    "avg": Family("pooling", "#0a7458", "#57cfa9"),
    "skip": Family("skip connection", "#a85400", "#f2a95c"),
    "none": Family("none", "#6a717b", "#98a1ac", dashed=True),
}
"""By the first word of an operation's name."""

OTHER = Family("other operation", "#50565f", "#b9c1cb")

CELL_NAMES = {"normal": "normal cell", "reduce": "reduction cell", "cell": "cell"}

CONCATENATING = frozenset({"darts"})
"""Spaces whose cells put out all their nodes, concatenated; in the others the last node is the cell's output."""

MAX_STATES = 24
"""States a cell may have in a drawing."""

MAX_LABEL = 24
"""Characters of a label; a longer one ends in an ellipsis."""


def operation_label(operation: str) -> str:
    """An operation's name for people: ``sep_conv_3x3`` -> ``sep conv 3x3``, ``nor_conv_1x1`` -> ``conv 1x1``."""
    return operation.removeprefix("nor_").replace("skip_connect", "skip").replace("_", " ")


def operation_family(operation: str) -> Family:
    """What an operation is drawn as."""
    return FAMILIES.get(operation.split("_")[0], OTHER)


# -- sizes, in pixels --------------------------------------------------------------------------------------------------

LABEL_HEIGHT = 20.0
CHARACTER = 7.3
"""Width of one character of a label, as wide as common sans-serif fonts have it at 12 pixels."""
RADIUS = 16.0
INPUT = (58.0, 30.0)
OUTPUT = (66.0, 46.0)
THREAD = 4.0
"""Height that an edge takes where it only passes."""
SPACING = 10.0
"""Smallest space between two things of one column; between two states it is `STATE_SPACING`."""
STATE_SPACING = 26.0
NARROWEST_GAP, WIDEST_GAP = 26.0, 78.0
ARROW = 8.0
MARGIN = 24.0
CELL_SPACING = 48.0
HEADING = 36.0

ORDER_SWEEPS = 16
HEIGHT_SWEEPS = 300
STILL = 0.05
"""The sweeps end when nothing moves by more than this."""
STATE_PULL, LABEL_PULL, THREAD_PULL = 1.0, 30.0, 0.5
"""How much it matters that a piece of an edge is level: at a state, elsewhere, on the way into the concatenation."""


# -- layout ------------------------------------------------------------------------------------------------------------


@dataclass(eq=False)
class Spot:
    """A place in one column: a state, a label, or where an edge passes."""

    column: int
    width: float
    height: float
    state: int | None = None
    choice: Choice | None = None
    """The edge whose label lies here."""
    is_concatenated: bool = False
    """Whether a node passes here on its way into the concatenation."""
    before: "list[Spot]" = field(default_factory=list)
    after: "list[Spot]" = field(default_factory=list)
    x: float = 0.0
    y: float = 0.0


@dataclass(eq=False)
class Arc:
    """An edge of the drawing: an edge of the genotype, or (without a choice) a node's way into the concatenation."""

    choice: Choice | None
    spots: list[Spot]


@dataclass(eq=False)
class Layout:
    """One cell, placed; all coordinates are centres, from the cell's own upper left corner."""

    num_inputs: int
    output: int
    """The state that the cell puts out: one more than its nodes for their concatenation, else the last node."""
    concatenates: bool
    columns: list[list[Spot]]
    arcs: list[Arc]
    width: float = 0.0
    height: float = 0.0


@dataclass(frozen=True)
class LabelSize:
    """Room that a label takes at least, in pixels."""

    height: float = LABEL_HEIGHT
    width: float = 0.0


def lay_out(choices: Sequence[Choice], concatenates: bool, label: LabelSize = LabelSize()) -> Layout:
    """Place a cell's states, edges and labels. Raises `GenotypeError` for a cell that cannot be drawn."""
    if not choices:
        raise GenotypeError("a cell without edges cannot be drawn")
    targets = sorted({choice.edge.target for choice in choices})
    num_inputs, last = targets[0], targets[-1]
    if last >= MAX_STATES:
        raise GenotypeError(f"state {last}: a cell of more than {MAX_STATES} states cannot be drawn")
    ranks = longest_paths(choices, last + 1)
    if concatenates:
        ranks.append(1 + max(ranks))
    layout = Layout(num_inputs, len(ranks) - 1, concatenates, [[] for _ in range(2 * max(ranks) + 1)], [])
    spots = []
    for state, rank in enumerate(ranks):
        width, height = INPUT if state < num_inputs else OUTPUT if state == layout.output else (2 * RADIUS, 2 * RADIUS)
        spots.append(Spot(2 * rank, width, height, state=state))
        layout.columns[2 * rank].append(spots[-1])
    # short edges have one column for their label, so they come first; a long one then takes the emptiest
    for choice in sorted(choices, key=lambda choice: (ranks[choice.edge.target] - ranks[choice.edge.source], choice)):
        _thread(layout, spots[choice.edge.source], spots[choice.edge.target], choice, label)
    if concatenates:
        for node in range(num_inputs, last + 1):
            _thread(layout, spots[node], spots[layout.output], None, label)
    _order(layout)
    _place(layout)
    return layout


def longest_paths(choices: Sequence[Choice], num_states: int) -> list[int]:
    """For each state the number of edges on the longest path that leads to it."""
    ranks = [0] * num_states
    for choice in sorted(choices):  # by target, so that a source's own rank is final when it is read
        ranks[choice.edge.target] = max(ranks[choice.edge.target], ranks[choice.edge.source] + 1)
    return ranks


def _thread(layout: Layout, source: Spot, target: Spot, choice: Choice | None, label: LabelSize) -> None:
    """Lead an edge through the columns between two states, and lay its label in one of them."""
    between = range(source.column + 1, target.column)
    labelled = None
    if choice is not None:
        labels = {column: sum(spot.choice is not None for spot in layout.columns[column]) for column in between[::2]}
        labelled = min(labels, key=lambda column: (labels[column], -column))
    spots = [source]
    for column in between:
        if choice is not None and column == labelled:
            width = len(shortened(operation_label(choice.operation))) * CHARACTER + 14
            spot = Spot(column, max(width, label.width), label.height, choice=choice)
        else:
            spot = Spot(column, 0.0, THREAD, is_concatenated=choice is None)
        layout.columns[column].append(spot)
        spots.append(spot)
    spots.append(target)
    for first, second in pairwise(spots):
        first.after.append(second)
        second.before.append(first)
    layout.arcs.append(Arc(choice, spots))


def _before(spot: Spot) -> list[Spot]:
    return spot.before


def _after(spot: Spot) -> list[Spot]:
    return spot.after


def _order(layout: Layout) -> None:
    """Order every column but the inputs' so that few edges cross.

    Barycentres, then exchanges of neighbours and of whole edges; the best order of all sweeps is kept.
    """
    columns = layout.columns
    best = [list(column) for column in columns]
    fewest = _crossings(columns)
    for sweep in range(ORDER_SWEEPS):
        forward = sweep % 2 == 0
        neighbours = _before if forward else _after
        for index in range(1, len(columns)) if forward else range(len(columns) - 2, 0, -1):
            _sort_by_barycentre(columns[index], columns[index - 1 if forward else index + 1], neighbours)
        _exchange(columns)
        _reroute(layout)
        crossings = _crossings(columns)
        if crossings < fewest:
            best, fewest = [list(column) for column in columns], crossings
    for column, ordered in zip(columns, best, strict=True):
        column[:] = ordered


def _sort_by_barycentre(column: list[Spot], beside: list[Spot], neighbours: Callable[[Spot], list[Spot]]) -> None:
    position = {spot: float(index) for index, spot in enumerate(beside)}
    centres = {}
    for index, spot in enumerate(column):
        places = [position[neighbour] for neighbour in neighbours(spot)]
        centres[spot] = sum(places) / len(places) if places else float(index)
    column.sort(key=lambda spot: centres[spot])


def _exchange(columns: list[list[Spot]]) -> None:
    """Exchange neighbours for as long as that removes crossings."""
    improved = True
    while improved:
        improved = False
        for index in range(1, len(columns)):
            column = columns[index]
            for position in range(len(column) - 1):
                around = columns[index - 1 : index + 2]
                before = _crossings(around)
                column[position], column[position + 1] = column[position + 1], column[position]
                if _crossings(around) < before:
                    improved = True
                else:
                    column[position], column[position + 1] = column[position + 1], column[position]


def _reroute(layout: Layout) -> None:
    """Lead whole edges around the cell, above or below everything else, where that removes crossings."""
    for arc in layout.arcs:
        for place in (0, len(layout.arcs)):
            before = [list(column) for column in layout.columns]
            for spot in arc.spots[1:-1]:
                column = layout.columns[spot.column]
                column.remove(spot)
                column.insert(place, spot)
            if _crossings(layout.columns) >= _crossings(before):
                for column, ordered in zip(layout.columns, before, strict=True):
                    column[:] = ordered


def _crossings(columns: Sequence[Sequence[Spot]]) -> int:
    """Crossings of edges counted twice, those with a way into the concatenation once."""
    count = 0
    for left, right in pairwise(columns):
        position = {spot: index for index, spot in enumerate(right)}
        ends = [
            (index, position[after], 1 if spot.is_concatenated or after.is_concatenated else 2)
            for index, spot in enumerate(left)
            for after in spot.after
        ]
        for place, (a, b, weight) in enumerate(ends):
            count += sum(min(weight, other) for c, d, other in ends[:place] if (a - c) * (b - d) < 0)
    return count


def _place(layout: Layout) -> None:
    """Heights first: every spot as level with its neighbours as the others of its column allow. Then the columns."""
    separated = [(column, _separations(column)) for column in layout.columns]
    for column, gaps in separated:
        heights = _spread([(0.0, 1.0)] * len(column), gaps)
        middle = sum(heights) / len(heights)
        for spot, y in zip(column, heights, strict=True):
            spot.y = y - middle
    for sweep in range(HEIGHT_SWEEPS):
        farthest = 0.0
        for column, gaps in separated if sweep % 2 else reversed(separated):
            for spot, y in zip(column, _spread([_desired(spot) for spot in column], gaps), strict=True):
                farthest = max(farthest, abs(y - spot.y))
                spot.y = y
        if farthest < STILL:
            break
    top = min(spot.y - spot.height / 2 for column in layout.columns for spot in column)
    layout.height = max(spot.y + spot.height / 2 for column in layout.columns for spot in column) - top
    right = 0.0
    for column in layout.columns:
        climb = max((abs(spot.y - before.y) for spot in column for before in spot.before), default=0.0)
        gap = min(max(0.5 * climb, NARROWEST_GAP), WIDEST_GAP) if right else 0.0
        width = max(spot.width for spot in column)
        for spot in column:
            spot.x = right + gap + width / 2
        right += gap + width
    for column in layout.columns:
        for spot in column:
            spot.y -= top
    layout.width = right


def _desired(spot: Spot) -> tuple[float, float]:
    """The height at which the edges at a spot are most nearly level, by least squares, and the weight of that wish."""
    pulls = [(_pull(spot, other), other.y) for other in (*spot.before, *spot.after)]
    weight = sum(pull for pull, _ in pulls)
    return (sum(pull * y for pull, y in pulls) / weight, weight) if pulls else (spot.y, STATE_PULL)


def _pull(spot: Spot, other: Spot) -> float:
    if spot.is_concatenated or other.is_concatenated:
        return THREAD_PULL
    return LABEL_PULL if spot.state is None and other.state is None else STATE_PULL


def _separations(column: Sequence[Spot]) -> list[float]:
    return [
        (above.height + below.height) / 2 + (SPACING if above.state is None or below.state is None else STATE_SPACING)
        for above, below in pairwise(column)
    ]


def _spread(desired: Sequence[tuple[float, float]], separations: Sequence[float]) -> list[float]:
    """The heights nearest to the desired (height, weight), by least squares, that keep their order and separations.

    Isotonic regression by pooling adjacent violators, after the separations have been taken off.
    """
    offsets = [0.0]
    for separation in separations:
        offsets.append(offsets[-1] + separation)
    pools: list[tuple[float, float, int]] = []  # (mean, weight, size), means rising
    for (height, weight), offset in zip(desired, offsets, strict=False):
        mean, size = height - offset, 1
        while pools and pools[-1][0] > mean:
            above, heavy, count = pools.pop()
            mean, weight, size = (above * heavy + mean * weight) / (heavy + weight), heavy + weight, count + size
        pools.append((mean, weight, size))
    levels = [mean for mean, _, size in pools for _ in range(size)]
    return [level + offset for level, offset in zip(levels, offsets, strict=False)]


# -- drawing -----------------------------------------------------------------------------------------------------------

Point = tuple[float, float]

_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
CHARACTER_OF_TITLE = 8.2
CHARACTER_OF_LEGEND = 6.8


def draw_genotype(genotype: Genotype, *, title: str = "") -> str:
    """The genotype's cells one below another, as the text of an SVG document; `title` stands above them.

    Raises `GenotypeError` for a cell without edges or of more than `MAX_STATES` states. That operations and edges are
    its space's own is not checked: see `Space.check`.
    """
    shape = genotype_shape(genotype, title)
    width, height = shape.width, shape.height
    body = [f'<rect class="ground" width="{number(width)}" height="{number(height)}" rx="8"/>']
    if title:
        words = xml_text(shape.title)
        body.append(f'<text class="title" x="{number(MARGIN)}" y="{number(MARGIN + 14)}">{words}</text>')
    for kind, layout, top in shape.cells:
        body.append(f'<g class="cell" transform="translate({number(MARGIN)} {number(top)})">')
        body.append(f'<text class="heading" x="0" y="{number(14 - HEADING)}">{xml_text(cell_name(kind))}</text>')
        body += cell_elements(layout)
        body.append("</g>")
    place = f"translate({number(MARGIN)} {number(shape.legend_top)})"
    body += [f'<g transform="{place}">', *legend_elements(shape.legend), "</g>"]
    name = title or f"Cells of a genotype, space {genotype.space}"
    size = f'width="{number(width)}" height="{number(height)}" viewBox="0 0 {number(width)} {number(height)}"'
    role = f'class="genotype" role="img" aria-label={xml_attribute(name)}'
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" {role} {size}>',
            f"<title>{xml_text(name)}</title>",
            f"<desc>{xml_text(description(genotype))}</desc>",
            f"<style>{style_rules(families_of(genotype))}</style>",
            *body,
            "</svg>\n",
        ]
    )


@dataclass(frozen=True)
class GenotypeShape:
    """All cells of a genotype, placed one below another and ready to be drawn: as SVG here, or in pixels."""

    width: float
    height: float
    title: str
    """Its upper left corner, as that of all cells and of the legend, lies `MARGIN` from the left."""
    cells: tuple[tuple[str, Layout, float], ...]
    """Kind, layout, and where the cell begins from above; its heading is `HEADING` higher."""
    legend: "Legend"
    legend_top: float


def genotype_shape(genotype: Genotype, title: str) -> GenotypeShape:
    """Place a genotype's cells. Raises what `draw_genotype` raises."""
    layouts = lay_out_cells(genotype)
    cells_width = max(layout.width for layout in layouts.values())
    legend = legend_of(families_of(genotype), cells_width)
    width = max(cells_width, legend.width, min(len(title), 60) * CHARACTER_OF_TITLE) + 2 * MARGIN
    cells, top = [], MARGIN + (34 if title else 0)
    for kind, layout in layouts.items():
        cells.append((kind, layout, top + HEADING))
        top += HEADING + layout.height + CELL_SPACING
    legend_top = top - CELL_SPACING + 30
    return GenotypeShape(
        width=width,
        height=legend_top + legend.height + MARGIN,
        title=shortened(title, int((width - 2 * MARGIN) / CHARACTER_OF_TITLE)),
        cells=tuple(cells),
        legend=legend,
        legend_top=legend_top,
    )


def lay_out_cells(genotype: Genotype) -> dict[str, Layout]:
    """A genotype's cells by kind, each placed. Raises `GenotypeError`, naming the cell, as `lay_out` does."""
    layouts = {}
    for kind, choices in genotype.cells.items():
        try:
            layouts[kind] = lay_out(choices, genotype.space in CONCATENATING)
        except GenotypeError as error:
            raise GenotypeError(f"{kind} cell: {error}") from error
    if not layouts:
        raise GenotypeError("a genotype without cells cannot be drawn")
    return layouts


def families_of(genotype: Genotype) -> list[Family]:
    """The families of a genotype's operations, each once, in the order of the legend."""
    families = list(dict.fromkeys(operation_family(operation) for operation in genotype.operations()))
    return sorted(families, key=[*FAMILIES.values(), OTHER].index)


def description(genotype: Genotype) -> str:
    """The drawing in words: every cell with its edges."""
    parts = []
    for kind, choices in genotype.cells.items():
        num_inputs = min(choice.edge.target for choice in choices)
        edges = "; ".join(_edge_in_words(choice, num_inputs) for choice in choices)
        end = "the output concatenates all nodes" if genotype.space in CONCATENATING else "the last node is the output"
        parts.append(f"{cell_name(kind).capitalize()}: {edges}; {end}.")
    return " ".join(parts)


def _edge_in_words(choice: Choice, num_inputs: int) -> str:
    source, target = (_plain_name(state, num_inputs) for state in (choice.edge.source, choice.edge.target))
    return f"{source} to {target} by {operation_label(choice.operation)}"


def cell_name(kind: str) -> str:
    """What a kind of cell is called: ``reduce`` -> ``reduction cell``."""
    return CELL_NAMES.get(kind, f"{kind} cell")


def _plain_name(state: int, num_inputs: int) -> str:
    if state >= num_inputs:
        return f"node {state}"
    return "the input" if num_inputs == 1 else f"c_{{k-{num_inputs - state}}}"


def cell_elements(layout: Layout) -> Iterator[str]:
    """Edges first, then what lies on them."""
    entries = _entries(layout)
    for arc in layout.arcs:
        yield from _arc(arc, layout, entries)
    for spot in entries:
        yield _state(spot, layout)
    for arc in layout.arcs:
        for spot in arc.spots:
            if spot.choice is not None:
                yield from _label(spot, spot.choice)


def _ports(state: Spot) -> dict[Spot, tuple[Point, Point]]:
    """Where each incoming edge meets a state: by the spot it comes from, the point and the direction it arrives in."""
    sources = sorted(state.before, key=lambda spot: spot.y)
    steps = max(len(sources) - 1, 1)
    if state.height > 2 * RADIUS:  # the output's box: one below the other
        half = state.height / 2 - 8
        heights = _fan([spot.y - state.y for spot in sources], min(10.0, 2 * half / steps), half)
        x = state.x - state.width / 2
        return {spot: ((x, state.y + y), (1.0, 0.0)) for spot, y in zip(sources, heights, strict=True)}
    angles = [math.degrees(math.atan2(spot.y - state.y, 60.0)) for spot in sources]
    ports = {}
    for spot, angle in zip(sources, _fan(angles, min(34.0, 150.0 / steps), 75.0), strict=True):
        x, y = -math.cos(math.radians(angle)), math.sin(math.radians(angle))
        ports[spot] = ((state.x + RADIUS * x, state.y + RADIUS * y), (-x, -y))
    return ports


def _fan(wanted: Sequence[float], step: float, limit: float) -> list[float]:
    """The values nearest to the wanted ones, rising, that lie at least a step apart and not beyond the limit."""
    if not wanted:
        return []
    clipped = [(max(-limit, min(value, limit)), 1.0) for value in wanted]
    values = _spread(clipped, [step] * (len(wanted) - 1))
    shift = max(-limit - values[0], 0.0) + min(limit - values[-1], 0.0)
    return [value + shift for value in values]


Entries = dict[Spot, dict[Spot, tuple[Point, Point]]]
"""For each state, where the edges that reach it arrive."""


def _entries(layout: Layout) -> Entries:
    return {spot: _ports(spot) for column in layout.columns for spot in column if spot.state is not None}


def _arc(arc: Arc, layout: Layout, entries: Entries) -> Iterator[str]:
    line, head = _paths(arc, layout, entries)
    tag = "thread" if arc.choice is None else f"edge {css_class(operation_family(arc.choice.operation))}"
    yield f'<path class="{tag}" d="{line}"/>'
    yield f'<path class="{tag} head" d="{head}"/>'


def _paths(arc: Arc, layout: Layout, entries: Entries) -> tuple[str, str]:
    """An edge's line and its arrow's head, as SVG paths."""
    source, *between, target = arc.spots
    end, direction = entries[target][between[-1]]
    # an arrow's line ends inside its head, whose tip touches the state
    stop = (end[0] - 0.7 * ARROW * direction[0], end[1] - 0.7 * ARROW * direction[1])
    x, y, path = _start(source, between[0])
    drawn = [f"M{number(x)} {number(y)}"]
    for spot in between:
        half = max(other.width for other in layout.columns[spot.column]) / 2
        if not half:  # a column without labels: nothing to keep clear of
            continue
        drawn.append(_curve((x, y), path, (spot.x - half, spot.y), (1.0, 0.0)) + f"H{number(spot.x + half)}")
        x, y, path = spot.x + half, spot.y, (1.0, 0.0)
    drawn.append(_curve((x, y), path, stop, direction))
    return "".join(drawn), arrow_head(end, direction)


def _start(source: Spot, first: Spot) -> tuple[float, float, Point]:
    """Where an edge leaves a state, and the unit direction it leaves in."""
    if source.width > 2 * RADIUS:
        half = source.height / 2 - 9
        return source.x + source.width / 2, source.y + max(-half, min(0.12 * (first.y - source.y), half)), (1.0, 0.0)
    angle = max(-0.9, min(math.atan2(first.y - source.y, 90.0), 0.9))
    direction = (math.cos(angle), math.sin(angle))
    return source.x + RADIUS * direction[0], source.y + RADIUS * direction[1], direction


def _curve(start: Point, leaving: Point, end: Point, arriving: Point) -> str:
    """A cubic Bezier curve from one point and direction to another."""
    reach = 0.5 * (end[0] - start[0])
    points = (
        (start[0] + reach * leaving[0], start[1] + reach * leaving[1]),
        (end[0] - reach * arriving[0], end[1] - reach * arriving[1]),
        end,
    )
    return "C" + " ".join(f"{number(x)} {number(y)}" for x, y in points)


def arrow_head(tip: Point, direction: Point) -> str:
    """An arrow's head as an SVG path; `direction` is the unit vector it points in."""
    (x, y), (dx, dy) = tip, direction
    corners = [(x - ARROW * dx - side * dy, y - ARROW * dy + side * dx) for side in (0.45 * ARROW, -0.45 * ARROW)]
    return f"M{number(x)} {number(y)}" + "".join(f"L{number(a)} {number(b)}" for a, b in corners) + "Z"


def _label(spot: Spot, choice: Choice) -> Iterator[str]:
    whole = f"{choice.edge.source} to {choice.edge.target}: {choice.operation}"
    yield f'<g class="label {css_class(operation_family(choice.operation))}"><title>{xml_text(whole)}</title>'
    yield f'<rect class="halo" {_box(spot, 6.0)}/>'
    label = xml_text(shortened(operation_label(choice.operation)))
    yield f'<text x="{number(spot.x)}" y="{number(spot.y + 4.2)}">{label}</text></g>'


def _box(spot: Spot, corner: float) -> str:
    return rectangle(spot.x - spot.width / 2, spot.y - spot.height / 2, spot.width, spot.height, corner)


def rectangle(x: float, y: float, width: float, height: float, corner: float) -> str:
    """The attributes of an SVG rectangle, from its upper left corner."""
    size = f'width="{number(width)}" height="{number(height)}"'
    return f'x="{number(x)}" y="{number(y)}" {size} rx="{number(corner)}"'


def _state(spot: Spot, layout: Layout) -> str:
    state = -1 if spot.state is None else spot.state
    x, y = number(spot.x), number(spot.y + 4.6)
    if state == layout.output:
        name, way = ("output", "concat") if layout.concatenates else (str(state), "output")
        texts = f'<text x="{x}" y="{number(spot.y - 2)}">{name}</text>'
        texts += f'<text class="small" x="{x}" y="{number(spot.y + 13)}">{way}</text>'
        return f'<g class="state end"><rect {_box(spot, 15.0)}/>{texts}</g>'
    if state < layout.num_inputs:
        name = "input"
        if layout.num_inputs > 1:
            name = f'c<tspan class="small" dy="4">k\u2212{layout.num_inputs - state}</tspan>'
        return f'<g class="state end"><rect {_box(spot, 15.0)}/><text x="{x}" y="{y}">{name}</text></g>'
    circle = f'<circle cx="{x}" cy="{number(spot.y)}" r="{number(RADIUS)}"/>'
    return f'<g class="state node">{circle}<text x="{x}" y="{y}">{state}</text></g>'


# -- a cell as data ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class EdgeShape:
    """One edge of a cell: its operation, and where its line, its arrow's head and its label lie."""

    choice: Choice
    line: str
    head: str
    x: float
    y: float
    width: float
    """Of the label, whose centre is at x, y."""


@dataclass(frozen=True)
class StateShape:
    """A state; a circle where it is as wide as it is high."""

    x: float
    y: float
    width: float
    height: float
    texts: tuple[str, str]
    """What stands in it, and what stands small: beside the ``c`` of an input, below the word of an output."""


@dataclass(frozen=True)
class CellShape:
    """A cell, placed and ready to be drawn by whoever draws it: here, or a page's own script."""

    width: float
    height: float
    edges: tuple[EdgeShape, ...]
    threads: tuple[tuple[str, str], ...]
    """Line and head of each node's way into the concatenation."""
    states: tuple[StateShape, ...]


@lru_cache(maxsize=4096)
def cell_shape(choices: tuple[Choice, ...], concatenates: bool, label: LabelSize) -> CellShape:
    """The shape of one cell. Raises `GenotypeError` for a cell that cannot be drawn."""
    return shape_of(lay_out(choices, concatenates, label))


def shape_of(layout: Layout) -> CellShape:
    """What the layout of a cell says to whoever draws it."""
    entries = _entries(layout)
    edges, threads = [], []
    for arc in layout.arcs:
        line, head = _paths(arc, layout, entries)
        if arc.choice is None:
            threads.append((line, head))
            continue
        spot = next(spot for spot in arc.spots if spot.choice is not None)
        edges.append(EdgeShape(arc.choice, line, head, round(spot.x, 1), round(spot.y, 1), round(spot.width, 1)))
    states = tuple(
        StateShape(round(spot.x, 1), round(spot.y, 1), spot.width, spot.height, _state_texts(spot, layout))
        for spot in entries
    )
    ordered = tuple(sorted(edges, key=lambda edge: edge.choice))
    return CellShape(math.ceil(layout.width) + 0.0, math.ceil(layout.height) + 0.0, ordered, tuple(threads), states)


def _state_texts(spot: Spot, layout: Layout) -> tuple[str, str]:
    state = -1 if spot.state is None else spot.state
    if state == layout.output:
        return ("output", "concat") if layout.concatenates else (str(state), "output")
    if state < layout.num_inputs:
        return ("input", "") if layout.num_inputs == 1 else ("c", f"k\u2212{layout.num_inputs - state}")
    return str(state), ""


@dataclass(frozen=True)
class Legend:
    """The families, each at the upper left corner of its entry, in as many lines as the room asks for."""

    places: tuple[tuple[Family, float, float], ...]
    width: float
    height: float


def legend_of(families: Sequence[Family], room: float) -> Legend:
    """Lay out the legend; `room` is the width that a line may have, in pixels."""
    places, x, y, widest = [], 0.0, 0.0, 0.0
    for family in families:
        width = 30 + len(family.label) * CHARACTER_OF_LEGEND
        if x and x + width > room:
            x, y = 0.0, y + 22
        places.append((family, x, y))
        widest = max(widest, x + width)
        x += width + 18
    return Legend(tuple(places), widest, y + 16)


def legend_elements(legend: Legend) -> Iterator[str]:
    """The legend as elements of an SVG document."""
    for family, x, y in legend.places:
        line = f'<path class="edge {css_class(family)}" d="M{number(x)} {number(y + 8)}h22"/>'
        name = f'<text x="{number(x + 29)}" y="{number(y + 12)}">{xml_text(family.label)}</text>'
        yield f'<g class="key">{line}{name}</g>'


def css_class(family: Family) -> str:
    """The family's class in the style sheet."""
    return family.label.replace(" ", "-")


@dataclass(frozen=True)
class Ground:
    """The colours that do not come from a family, on a light or a dark ground."""

    ground: str
    ink: str
    faint: str
    thread: str
    fill: str
    line: str


LIGHT = Ground(ground="#ffffff", ink="#1f2328", faint="#59626d", thread="#9aa3ae", fill="#eef1f5", line="#57606a")
DARK = Ground(ground="#15191f", ink="#e8ebef", faint="#a3adb8", thread="#606b78", fill="#262d36", line="#9aa5b1")


def style_rules(families: Sequence[Family]) -> str:
    """Every rule begins with the drawing's own class, so that a page may hold many drawings and styles of its own."""
    fonts = "system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica Neue',Arial,sans-serif"
    return "\n".join(
        [
            "",
            f".genotype text{{font:12px {fonts}}}",
            ".genotype .title{font-size:16px;font-weight:600}",
            ".genotype .heading{font-size:14px;font-weight:600}",
            ".genotype .label text,.genotype .state text{text-anchor:middle}",
            ".genotype .state text{font-size:13px;font-weight:600}",
            ".genotype .small,.genotype .state .small{font-size:11px;font-weight:400}",
            ".genotype .edge,.genotype .thread{fill:none;stroke-width:1.8;stroke-linecap:round}",
            ".genotype .thread{stroke-width:1.2}",
            ".genotype .state rect,.genotype .state circle{stroke-width:1.4}",
            ".genotype .halo{stroke-width:1;stroke-opacity:.45}",
            *(f".genotype .edge.{css_class(family)}{{stroke-dasharray:5 5}}" for family in families if family.dashed),
            *_colours(LIGHT, {css_class(family): family.light for family in families}),
            "@media (prefers-color-scheme:dark){",
            *_colours(DARK, {css_class(family): family.dark for family in families}),
            "}",
            "",
        ]
    )


def _colours(ground: Ground, families: Mapping[str, str]) -> Iterator[str]:
    """The rules that differ between light and dark; `families` are colours by class."""
    yield f".genotype .ground,.genotype .halo{{fill:{ground.ground}}}"
    yield f".genotype text{{fill:{ground.ink}}}"
    yield f".genotype .small,.genotype .heading,.genotype .key text{{fill:{ground.faint}}}"
    yield f".genotype .state rect,.genotype .state circle{{fill:{ground.fill};stroke:{ground.line}}}"
    yield f".genotype .thread{{stroke:{ground.thread}}}"
    yield f".genotype .thread.head{{fill:{ground.thread};stroke:none}}"
    for family, colour in families.items():
        yield f".genotype .edge.{family},.genotype .{family} .halo{{stroke:{colour}}}"
        yield f".genotype .{family} text{{fill:{colour}}}"
        yield f".genotype .head.{family}{{fill:{colour};stroke:none}}"


def number(value: float) -> str:
    """At most one decimal, and no minus before zero: the same text wherever the drawing is made."""
    rounded = round(value, 1) + 0.0
    return str(int(rounded)) if rounded == int(rounded) else str(rounded)


def shortened(text: str, length: int = MAX_LABEL) -> str:
    """At most so many characters; where some are cut off, an ellipsis is the last."""
    return text if len(text) <= length else text[: length - 1] + "\u2026"


def xml_text(text: str) -> str:
    """Escaped; characters that XML does not admit become replacement characters."""
    return escape(_NOT_XML.sub("\ufffd", text))


def xml_attribute(text: str) -> str:
    """In quotes and escaped, as `xml_text` has it."""
    return quoteattr(_NOT_XML.sub("\ufffd", text))
