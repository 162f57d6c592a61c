"""What all executions share: their signature, and drop-path."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from cdarts.operations import Operation
from cdarts.topology import CellTopology


class DropPath:
    """Drops each sample's path with probability p and scales the others by 1 / (1 - p).

    Source: Larsson et al., "FractalNet" (ICLR 2017), as the DARTS family applies it: each operation's result, for each
    sample. The generator decides; executions differ in the order in which they draw from it.
    """

    def __init__(self, probability: float, generator: torch.Generator) -> None:
        self.probability = probability
        self.generator = generator

    def __call__(self, path: Tensor) -> Tensor:
        keep = 1.0 - self.probability
        mask = torch.empty(len(path), 1, 1, 1, dtype=path.dtype, device=path.device).bernoulli_(
            keep, generator=self.generator
        )
        return path * (mask / keep)


Execution = Callable[
    [CellTopology, Sequence[Sequence[Operation]], Sequence[Tensor], Tensor | None, DropPath | None], list[Tensor]
]
"""From (topology, each edge's operations, preprocessed inputs, mixing weights or None, drop-path or None) to the nodes.

Mixing weights are a matrix edges x operations; without them operations add up unweighted.
"""
