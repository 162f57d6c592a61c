"""Each state emits messages: what its out-edges have in common (a ReLU, a pool) is computed once; ``none`` is free."""

from collections.abc import Sequence

import torch
from torch import Tensor

from cdarts.execution.base import DropPath
from cdarts.operations import Operation, Prologue, Zero
from cdarts.topology import CellTopology


def share(
    cell: CellTopology,
    operations: Sequence[Sequence[Operation]],
    inputs: Sequence[Tensor],
    weights: Tensor | None,
    drop_path: DropPath | None,
) -> list[Tensor]:
    """The same sums as `plain`, gathered by source state instead of by node."""
    states: list[Tensor] = list(inputs)
    nodes: list[Tensor | None] = [None] * (cell.num_inputs + cell.num_nodes)
    for source in range(cell.num_inputs + cell.num_nodes - 1):
        if source >= cell.num_inputs:
            states.append(_node(nodes[source], cell, operations, states, source))
        begun: dict[Prologue, Tensor] = {}
        for position, (edge, _) in enumerate(cell.edges):
            if edge.source != source:
                continue
            for column, operation in enumerate(operations[position]):
                if isinstance(operation, Zero):
                    continue
                if operation.prologue not in begun:
                    begun[operation.prologue] = operation.prologue(states[source])
                message = operation.finish(begun[operation.prologue])
                if drop_path is not None and not operation.is_identity:
                    message = drop_path(message)
                node = nodes[edge.target]
                if weights is None:
                    nodes[edge.target] = message if node is None else node + message
                elif node is None:
                    nodes[edge.target] = weights[position, column] * message
                else:
                    nodes[edge.target] = torch.addcmul(node, message, weights[position, column])
    last = cell.num_inputs + cell.num_nodes - 1
    states.append(_node(nodes[last], cell, operations, states, last))
    return states[cell.num_inputs :]


def _node(
    node: Tensor | None,
    cell: CellTopology,
    operations: Sequence[Sequence[Operation]],
    states: Sequence[Tensor],
    target: int,
) -> Tensor:
    """A node's sum; if every edge into it carries ``none``, the zeros that such an edge gives."""
    if node is not None:
        return node
    position = cell.incoming(target)[0]
    edge, _ = cell.edges[position]
    zeros: Tensor = operations[position][0](states[edge.source])
    return zeros
