"""Continuous relaxations: where alpha lives.

A relaxation is called for the mixing weights of a search network's edges and operations. Alpha is no weight of a
network: ``search_net(images, relaxation())``, so that any algorithm can use any relaxation.
"""

from abc import ABC, abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cdarts.spaces.base import Strengths
from cdarts.topology import CellTopology, Topology

Matrix = Float[Tensor, "edges operations"]


class Relaxation(nn.Module, ABC):
    """Alpha, one matrix edges x operations for each kind of cell, and what becomes of it.

    `mean_nodes`: each node is the mean of its incoming edges instead of their sum, as in the CDARTS authors' S-Net.
    """

    def __init__(
        self, topology: Topology, generator: torch.Generator, *, scale: float = 1e-3, mean_nodes: bool = False
    ) -> None:
        """Alpha starts at `scale` times a standard normal draw; every edge of `topology` has as many operations."""
        super().__init__()
        self.alpha = nn.ParameterDict()
        for kind, cell in topology.items():
            shape = (len(cell.edges), len(cell.edges[0][1]))
            self.alpha[kind] = nn.Parameter(scale * torch.randn(shape, generator=generator))
            # not persistent: they follow from the topology
            self.register_buffer(f"edge_weights_{kind}", edge_weights(cell, mean_nodes), persistent=False)

    def forward(self, draw: torch.Generator | None = None) -> dict[str, Matrix]:
        """For each kind of cell the mixing weights.

        `draw`: a generator on the CPU, which relaxations that sample need; the others do not look at it.
        """
        return {
            kind: self.get_buffer(f"edge_weights_{kind}") * self.mix(alpha, draw) for kind, alpha in self.alpha.items()
        }

    @abstractmethod
    def mix(self, alpha: Matrix, draw: torch.Generator | None) -> Matrix:
        """The mixing weights of one kind of cell, before nodes are averaged."""

    @abstractmethod
    def expected(self, alpha: Matrix) -> Matrix:
        """How strong each operation is, without any sampling: what the architecture is read from."""

    def strengths(self) -> Strengths:
        """`expected` as plain numbers, for `Space.derive`."""
        with torch.no_grad():
            return {kind: self.expected(alpha.double()).tolist() for kind, alpha in self.alpha.items()}


class Softmax(Relaxation):
    """Softmax over the operations of each edge, ``none`` included (DARTS, eq. 2)."""

    sharpness = 1.0
    """What alpha is multiplied by: one over the softmax's temperature."""

    def mix(self, alpha: Matrix, draw: torch.Generator | None) -> Matrix:  # noqa: ARG002 - nothing is sampled
        return torch.softmax(self.sharpness * alpha, dim=1)

    def expected(self, alpha: Matrix) -> Matrix:
        return torch.softmax(alpha, dim=1)


def edge_weights(cell: CellTopology, mean_nodes: bool) -> Float[Tensor, "edges 1"]:
    """The weight of each edge in its node: one, or one over the number of edges into that node."""
    counts = [len(cell.incoming(edge.target)) if mean_nodes else 1 for edge, _ in cell.edges]
    return 1.0 / torch.tensor(counts, dtype=torch.float32).unsqueeze(1)


def logsumexp_decay(relaxation: Relaxation) -> Float[Tensor, ""]:
    """The mean over edges of log sum_o exp(alpha_o), summed over kinds of cell.

    Its gradient is softmax(alpha): it pulls the strong logits down most and keeps alpha from running away. Source: Ye
    et al., "beta-DARTS" (CVPR 2022).
    """
    return torch.stack([torch.logsumexp(alpha, dim=1).mean() for alpha in relaxation.alpha.values()]).sum()
