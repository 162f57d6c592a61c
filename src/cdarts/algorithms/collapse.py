"""Watching for collapse: a search that fills its cell with operations that have no weights.

DARTS-like searches drift there because a skip-connection trains fastest early on, whatever it is worth at the end
(Liang et al., "DARTS+", arXiv 1909.06035; Zela et al., ICLR 2020).
"""

from cdarts.operations import PARAMETER_FREE
from cdarts.topology import Genotype

WATCHED = ("normal", "cell")
"""Kinds of cell that are watched; many a good reduction cell pools."""

UNDECIDED = ("still", "train", "pretrain", "warmup", "draw")
"""Phases in which a search decides nothing: its cell is drawn at random, or as the phase before has left it."""


def collapse(genotype: Genotype) -> str | None:
    """What has collapsed, in words; None while more than a third of each watched cell's edges carry weights.

    An edge of ``none`` is no edge.
    """
    for kind, choices in genotype.cells.items():
        operations = [choice.operation for choice in choices if choice.operation != "none"]
        free = sum(operation in PARAMETER_FREE for operation in operations)
        if kind in WATCHED and not operations:
            return "every edge is none"
        if kind in WATCHED and 3 * free >= 2 * len(operations):
            return f"{free} of {len(operations)} edges of the {kind} cell have no weights"
    return None
