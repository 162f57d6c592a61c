"""The search of PC-DARTS: a network of partial channels, and alpha with one more logit for each edge."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cdarts.algorithms.bilevel import BilevelSearch
from cdarts.algorithms.pc_darts import PcDartsConfig
from cdarts.networks import Network
from cdarts.randomness import generator
from cdarts.relaxations import Matrix, Softmax
from cdarts.spaces.base import Strengths
from cdarts.topology import Topology


class EdgeNormalised(Softmax):
    """Softmax over an edge's operations, times the edge's share in its node: a softmax over the node's incoming edges.

    Source: PC-DARTS, edge normalisation. An operation's strength is the product as well.
    """

    def __init__(self, topology: Topology, generator: torch.Generator) -> None:
        super().__init__(topology, generator)
        self.beta = nn.ParameterDict()
        self.incoming: dict[str, list[int]] = {}
        """For each kind of cell the number of edges into each node; edges are sorted by node."""
        for kind, cell in topology.items():
            self.beta[kind] = nn.Parameter(1e-3 * torch.randn(len(cell.edges), generator=generator))
            nodes = range(cell.num_inputs, cell.num_inputs + cell.num_nodes)
            self.incoming[kind] = [len(cell.incoming(node)) for node in nodes]

    def forward(self, draw: torch.Generator | None = None) -> dict[str, Matrix]:
        return {kind: self.shares(kind) * weights for kind, weights in super().forward(draw).items()}

    def shares(self, kind: str) -> Float[Tensor, "edges 1"]:
        """Each edge's share in its node."""
        nodes = self.beta[kind].split(self.incoming[kind])
        return torch.cat([torch.softmax(beta, dim=0) for beta in nodes]).unsqueeze(1)

    def strengths(self) -> Strengths:
        with torch.no_grad():
            return {
                kind: (self.shares(kind).double() * self.expected(alpha.double())).tolist()
                for kind, alpha in self.alpha.items()
            }


class PcDartsSearch(BilevelSearch):
    """First-order DARTS on partial channels."""

    config: PcDartsConfig

    def relax(self) -> EdgeNormalised:
        return EdgeNormalised(self.config.space.supernet(), generator(self.seed, "alpha"))

    def make_search_net(self) -> Network:
        config = self.config
        supernet = config.space.supernet()
        return self.make_network(supernet, cells=config.cells, affine=config.affine, partial=config.partial)
