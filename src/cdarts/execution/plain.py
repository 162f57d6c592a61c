"""The reference execution: node by node, edge by edge, operation by operation, as the papers' formulas read."""

from collections.abc import Sequence

from torch import Tensor

from cdarts.execution.base import DropPath
from cdarts.operations import Operation
from cdarts.topology import CellTopology


def plain(
    cell: CellTopology,
    operations: Sequence[Sequence[Operation]],
    inputs: Sequence[Tensor],
    weights: Tensor | None,
    drop_path: DropPath | None,
) -> list[Tensor]:
    """x_j = sum over incoming edges (i, j) and their operations o of weight[(i, j), o] * o(x_i)  (DARTS, eq. 1, 2)."""
    states = list(inputs)
    for node in range(cell.num_inputs, cell.num_inputs + cell.num_nodes):
        messages = []
        for position in cell.incoming(node):
            edge, _ = cell.edges[position]
            row = None if weights is None else weights[position]
            messages += messages_of(operations[position], states[edge.source], row, drop_path)
        states.append(sum(messages[1:], start=messages[0]))
    return states[cell.num_inputs :]


def messages_of(
    operations: Sequence[Operation], state: Tensor, weights: Tensor | None, drop_path: DropPath | None
) -> list[Tensor]:
    """What each operation of an edge sends, times its mixing weight (operations,) where there are weights."""
    messages = []
    for column, operation in enumerate(operations):
        message = operation(state)
        if drop_path is not None and not operation.is_identity:
            message = drop_path(message)
        messages.append(message if weights is None else weights[column] * message)
    return messages
