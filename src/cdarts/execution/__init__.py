"""How the nodes of a cell are computed. Every execution takes the same weights and computes the same mathematics."""

from collections.abc import Callable

from cdarts.execution.base import DropPath, Execution
from cdarts.execution.captured import Captured
from cdarts.execution.choice import choose_execution
from cdarts.execution.fused import Fused
from cdarts.execution.merged import Merged
from cdarts.execution.partial import PartialChannels
from cdarts.execution.plain import plain
from cdarts.execution.share import share

EXECUTIONS: dict[str, Callable[[], Execution]] = {
    "plain": lambda: plain,
    "share": lambda: share,
    "merged": Merged,
    "captured": Merged,
    "fused": Fused,
    "recompute": lambda: Fused(recompute=True),
}
"""For one cell each. ``plain`` is the reference, edge by edge; ``share`` computes once what the edges of one state have
in common; ``merged`` computes in one what they have alike, for devices that wait for kernels to be launched;
``captured`` is ``merged``, and `WHOLE` for the network; ``fused`` computes the cell in few passes over memory with
kernels that are compiled on first use; ``recompute`` is ``fused`` with less memory, for a little more time."""

WHOLE: dict[str, Callable[[], Captured]] = {"captured": Captured}
"""What an execution does for a network as a whole, beside its cells."""

__all__ = [
    "EXECUTIONS",
    "WHOLE",
    "Captured",
    "DropPath",
    "Execution",
    "Fused",
    "Merged",
    "PartialChannels",
    "choose_execution",
    "plain",
    "share",
]
