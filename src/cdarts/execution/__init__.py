"""How the nodes of a cell are computed. Every execution takes the same weights and computes the same mathematics."""

from cdarts.execution.base import DropPath, Execution
from cdarts.execution.fused import fused
from cdarts.execution.partial import PartialChannels
from cdarts.execution.plain import plain
from cdarts.execution.share import share

EXECUTIONS: dict[str, Execution] = {"plain": plain, "share": share, "fused": fused}
"""``plain`` is the reference, edge by edge; ``share`` computes once what the edges of one state have in common."""

__all__ = ["EXECUTIONS", "DropPath", "Execution", "PartialChannels", "fused", "plain", "share"]
