"""What all executions share: their signature, and drop-path."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from cdarts.operations import Operation
from cdarts.topology import CellTopology


class DropPath:
    """Drops each sample's path with probability p and scales the others by 1 / (1 - p) (Larsson et al., FractalNet, 2017)."""

    def __init__(self, probability: float, generator: torch.Generator) -> None:
        self.probability = probability
        self.generator = generator

    def __call__(self, path: Tensor) -> Tensor:
        keep = 1.0 - self.probability
        mask = torch.empty(len(path), 1, 1, 1, dtype=path.dtype, device=path.device).bernoulli_(keep, generator=self.generator)
        return path * (mask / keep)


Execution = Callable[[CellTopology, Sequence[Sequence[Operation]], Sequence[Tensor], Tensor | None, DropPath | None], list[Tensor]]
"""From (topology, operations of each edge, preprocessed inputs, mixing weights or None, drop-path or None) to the nodes.

Mixing weights are a matrix edges x operations; without them operations add up unweighted.
"""
