"""Draws of operations that gradients pass through: the concrete distribution, and one operation with its gradient."""

import torch
import torch.nn.functional as F
from torch import Tensor

from cdarts.relaxations import Matrix, Relaxation


class Concrete(Relaxation):
    """softmax((alpha + G) / temperature) over each edge's operations, G Gumbel noise (Maddison et al., ICLR 2017).

    Its limit at temperature 0 is one operation, drawn with the probabilities softmax(alpha).
    """

    temperature = 1.0

    def mix(self, alpha: Matrix, draw: torch.Generator | None) -> Matrix:
        assert draw is not None, "this relaxation samples"
        return torch.softmax((alpha + gumbel(alpha.shape, draw).to(alpha)) / self.temperature, dim=1)

    def expected(self, alpha: Matrix) -> Matrix:
        return torch.softmax(alpha, dim=1)


class OneHot(Concrete):
    """The largest entry of the concrete draw as one and the others as zero, with the gradient of the draw itself."""

    def mix(self, alpha: Matrix, draw: torch.Generator | None) -> Matrix:
        soft = super().mix(alpha, draw)
        hard = F.one_hot(soft.argmax(dim=1), soft.shape[1]).to(soft)
        return hard + (soft - soft.detach())


def gumbel(shape: torch.Size, draw: torch.Generator) -> Tensor:
    """Standard Gumbel noise; the index of the largest of ``logits + noise`` is distributed as softmax(logits)."""
    exponential = torch.empty(shape).exponential_(generator=draw)
    return -torch.log(exponential.clamp_min(torch.finfo(exponential.dtype).tiny))
