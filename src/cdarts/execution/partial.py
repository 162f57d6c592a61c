"""Partial channels: operations work on a part of the channels, the rest goes past them, and channels are shuffled."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from cdarts.execution.base import DropPath
from cdarts.execution.plain import messages_of
from cdarts.operations import Operation
from cdarts.topology import CellTopology


class PartialChannels:
    """PC-DARTS's edges (Xu et al., ICLR 2020, eq. 3): one channel in K takes the operations, the others pass.

    Channels that pass an edge of stride 2 are max-pooled 2x2. After each edge the K groups of channels are interleaved,
    so that the next edge's operations see other channels. The channels that pass carry the edge's whole weight, which
    is the sum of its mixing weights.
    """

    def __init__(self, fraction: int) -> None:
        """`fraction`: K."""
        self.fraction = fraction

    def __call__(
        self,
        cell: CellTopology,
        operations: Sequence[Sequence[Operation]],
        inputs: Sequence[Tensor],
        weights: Tensor | None,
        drop_path: DropPath | None,
    ) -> list[Tensor]:
        states = list(inputs)
        for node in range(cell.num_inputs, cell.num_inputs + cell.num_nodes):
            messages = []
            for position in cell.incoming(node):
                edge, _ = cell.edges[position]
                state = states[edge.source]
                worked = state.shape[1] // self.fraction
                row = None if weights is None else weights[position]
                mixed = messages_of(operations[position], state[:, :worked], row, drop_path)
                through = sum(mixed[1:], start=mixed[0])
                past = state[:, worked:]
                if past.shape[2:] != through.shape[2:]:
                    past = F.max_pool2d(past, 2, ceil_mode=True)
                if row is not None:
                    past = row.sum() * past
                messages.append(self.shuffled(torch.cat([through, past], dim=1)))
            states.append(sum(messages[1:], start=messages[0]))
        return states[cell.num_inputs :]

    def shuffled(self, x: Tensor) -> Tensor:
        """Channel g * C/K + c moves to c * K + g."""
        batch, channels, height, width = x.shape
        groups = x.reshape(batch, self.fraction, channels // self.fraction, height, width)
        return groups.transpose(1, 2).reshape(batch, channels, height, width)
