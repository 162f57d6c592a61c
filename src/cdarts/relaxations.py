"""Continuous relaxations: where alpha lives.

A relaxation is called for the mixing weights of a search network's edges and operations. Alpha is no weight of a
network: ``search_net(images, relaxation())``, so that any algorithm can use any relaxation.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cdarts.spaces.base import Strengths
from cdarts.topology import CellTopology, Topology


class Softmax(nn.Module):
    """Softmax over the operations of each edge, ``none`` included (DARTS, eq. 2).

    `mean_nodes`: each node is the mean of its incoming edges instead of their sum, as in the CDARTS authors' S-Net.
    """

    def __init__(
        self, topology: Topology, generator: torch.Generator, *, scale: float = 1e-3, mean_nodes: bool = False
    ) -> None:
        """Alpha starts at `scale` times a standard normal draw."""
        super().__init__()
        self.alpha = nn.ParameterDict()
        for kind, cell in topology.items():
            shape = (len(cell.edges), len(cell.edges[0][1]))
            self.alpha[kind] = nn.Parameter(scale * torch.randn(shape, generator=generator))
            # not persistent: they follow from the topology
            self.register_buffer(f"edge_weights_{kind}", edge_weights(cell, mean_nodes), persistent=False)

    def forward(self) -> dict[str, Float[Tensor, "edges operations"]]:
        """For each kind of cell the mixing weights."""
        return {
            kind: self.get_buffer(f"edge_weights_{kind}") * torch.softmax(alpha, dim=1)
            for kind, alpha in self.alpha.items()
        }

    def strengths(self) -> Strengths:
        """The softmax of alpha as plain numbers, for `Space.derive`."""
        with torch.no_grad():
            return {kind: torch.softmax(alpha.double(), dim=1).tolist() for kind, alpha in self.alpha.items()}


def edge_weights(cell: CellTopology, mean_nodes: bool) -> Float[Tensor, "edges 1"]:
    """The weight of each edge in its node: one, or one over the number of edges into that node."""
    counts = [len(cell.incoming(edge.target)) if mean_nodes else 1 for edge, _ in cell.edges]
    return 1.0 / torch.tensor(counts, dtype=torch.float32).unsqueeze(1)
