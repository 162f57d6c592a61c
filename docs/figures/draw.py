"""The figures of docs/method.md: `python docs/figures/draw.py` writes them anew."""

from pathlib import Path

from cdarts import zoo
from cdarts.commands.show_drawing import layers_of
from cdarts.commands.usual import USUAL
from cdarts.report.drawing import DARK, FAMILIES, LIGHT, Ground, draw_genotype
from cdarts.report.network_drawing import draw_network
from cdarts.topology import Choice, Edge, Genotype

PUBLISHED = "cdarts-cifar10"
"""The cell of the network that is drawn."""

RUN = "cdarts search smoke --data digits --seed 1 --cycles 6 --threads 1"
"""What the cells come from."""

NORMAL_CELLS = {
    1: "dil_conv_5x5~0 max_pool_3x3~1 dil_conv_3x3~1 sep_conv_3x3~2 "
    "sep_conv_5x5~0 skip_connect~2 sep_conv_5x5~0 skip_connect~1",
    3: "sep_conv_5x5~0 max_pool_3x3~1 dil_conv_3x3~1 sep_conv_3x3~2 "
    "sep_conv_5x5~0 dil_conv_5x5~3 dil_conv_3x3~3 sep_conv_3x3~4",
    6: "sep_conv_5x5~0 sep_conv_3x3~1 sep_conv_3x3~0 dil_conv_3x3~1 "
    "sep_conv_5x5~0 dil_conv_5x5~3 dil_conv_3x3~3 sep_conv_3x3~4",
}
"""Cycle -> the normal cell that E-Net has in it: operation~source, two for each node."""


def cell(text: str) -> Genotype:
    """A normal cell alone."""
    entries = [entry.split("~") for entry in text.split()]
    choices = [Choice(Edge(2 + place // 2, int(source)), name) for place, (name, source) in enumerate(entries)]
    return Genotype("darts", {"normal": tuple(sorted(choices, key=lambda choice: choice.edge))})


# -- the cycle ---------------------------------------------------------------------------------------------------------

STATES = ((30, 95), (110, 35), (110, 155), (190, 95))
"""Where the four states of a sketched cell stand."""

EDGES = ((0, 1), (0, 2), (1, 3), (2, 3))
CANDIDATES = ("sep", "dil", "max", "skip")
KEPT = ("sep", "skip", "dil", "sep")
"""The operation that each edge keeps."""


def _line(edge: tuple[int, int], family: str, shift: float) -> str:
    (x, y), (to_x, to_y) = (STATES[end] for end in edge)
    return f'<path class="{family}" d="M{x + 17} {y + shift:g}L{to_x - 17} {to_y + shift:g}"/>'


def _sketch(title: str, below: tuple[str, str], every: bool) -> list[str]:
    """A cell of four states with all candidates on each edge, or with one."""
    lines = [f'<text class="title" x="110" y="-8">{title}</text>', '<rect width="220" height="190" rx="10"/>']
    for edge, kept in zip(EDGES, KEPT, strict=True):
        families = CANDIDATES if every else (kept,)
        lines += [_line(edge, name, 6 * (index - (len(families) - 1) / 2)) for index, name in enumerate(families)]
    lines += [f'<circle cx="{x}" cy="{y}" r="15"/>' for x, y in STATES]
    lines += [f'<text x="110" y="{212 + 18 * index}">{words}</text>' for index, words in enumerate(below)]
    return lines


def _arrow(y: int, words: tuple[str, str], back: bool) -> list[str]:
    start, end = (460, 250) if back else (250, 460)
    tip = 10 if back else -10
    return [
        f'<path class="flow" d="M{start} {y}L{end} {y}M{end + tip} {y - 6}L{end} {y}L{end + tip} {y + 6}"/>',
        f'<text x="355" y="{y - 12}">{words[0]}</text>',
        f'<text class="small" x="355" y="{y + 20}">{words[1]}</text>',
    ]


def _colours(ground: Ground, dark: bool) -> str:
    families = "".join(
        f".cycle .{name}{{stroke:{FAMILIES[name].dark if dark else FAMILIES[name].light}}}" for name in CANDIDATES
    )
    return (
        f".cycle .ground{{fill:{ground.ground}}}.cycle text{{fill:{ground.ink}}}.cycle .small{{fill:{ground.faint}}}"
        f".cycle rect,.cycle circle{{fill:{ground.fill};stroke:{ground.line}}}.cycle .flow{{stroke:{ground.ink}}}"
        f"{families}"
    )


def cycle() -> str:
    """One cycle: S-Net proposes, E-Net is built from it and teaches back."""
    style = (
        ".cycle text{font:13px system-ui,'Segoe UI',Roboto,Arial,sans-serif;text-anchor:middle}"
        ".cycle .title{font-size:15px;font-weight:600}.cycle .small{font-size:12px}"
        ".cycle path{fill:none;stroke-width:2}.cycle .ground{stroke:none}"
        f"{_colours(LIGHT, dark=False)}@media (prefers-color-scheme:dark){{{_colours(DARK, dark=True)}}}"
    )
    return "\n".join(
        [
            '<svg xmlns="http://www.w3.org/2000/svg" class="cycle" viewBox="0 0 710 290" role="img">',
            "<title>One cycle of CDARTS</title>",
            "<desc>S-Net, with every candidate operation on every edge, proposes a genotype; E-Net, with one operation "
            "on each kept edge, is built from it, and teaches S-Net by its logits.</desc>",
            f"<style>{style}</style>",
            '<path class="ground" d="M0 0H710V290H0Z"/>',
            '<g transform="translate(15 35)">',
            *_sketch("S-Net", ("every candidate on every edge,", "mixed by the softmax of alpha"), every=True),
            '</g><g transform="translate(475 35)">',
            *_sketch("E-Net", ("one operation on each kept edge;", "weights kept by name"), every=False),
            "</g>",
            *_arrow(90, ("proposes a genotype", "alpha, discretised"), back=False),
            *_arrow(180, ("teaches", "distillation of logits"), back=True),
            "</svg>",
            "",
        ]
    )


def figures() -> dict[str, str]:
    """The figures by file name."""
    cells = {f"cycle-{number}.svg": draw_genotype(cell(text)) for number, text in NORMAL_CELLS.items()}
    published = zoo.load(PUBLISHED)
    layers = layers_of(USUAL[published.space, "cifar"], published)
    return {"cycle.svg": cycle(), "network.svg": draw_network(published, layers, title=PUBLISHED), **cells}


if __name__ == "__main__":
    for name, svg in figures().items():
        (Path(__file__).parent / name).write_text(svg, encoding="utf-8")
