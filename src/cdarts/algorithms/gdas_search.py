"""GDAS's step: the network is cut down to the drawn operations before it is computed."""

import torch
from torch import Tensor

from cdarts.algorithms.bilevel import BilevelSearch
from cdarts.algorithms.gdas import GdasConfig
from cdarts.algorithms.gumbel import OneHot
from cdarts.engine.task import Epoch
from cdarts.randomness import generator
from cdarts.relaxations import Relaxation
from cdarts.topology import CellTopology


class GdasSearch(BilevelSearch):
    """DARTS's alternation with a network of one drawn operation an edge, multiplied by a one that carries alpha.

    The factor of edge (i, j)'s drawn operation o is 1 + p_o - stop(p_o), p = softmax((alpha + G) / temperature) the
    Gumbel-softmax (eq. 5 to 8): its value is one, its gradient reaches all logits of the edge through the softmax. A
    drawn ``none`` is not computed, and its edge gets no gradient in that step, which is also what multiplying zeros
    would give.

    The draw is one for all cells of a kind. The authors' code also adds the factors of the operations that were not
    drawn, zeros by value, to the node, which gives them a gradient of their own; the paper has no such term, and
    neither has this search.
    """

    config: GdasConfig
    relaxation: OneHot

    def relax(self) -> Relaxation:
        return OneHot(self.config.space.supernet(), generator(self.seed, "alpha"))

    def start_epoch(self, index: int, epoch: Epoch) -> None:
        super().start_epoch(index, epoch)
        self.relaxation.temperature = self.config.temperature_at(index)

    def logits(self, images: Tensor, draw: torch.Generator, *, learns_alpha: bool) -> Tensor:
        one_hot = self.relaxation(draw)
        factors, paths = {}, {}
        for kind, cell in self.config.space.supernet().items():
            drawn = one_hot[kind].argmax(dim=1)
            factor = one_hot[kind].gather(1, drawn.unsqueeze(1))
            factors[kind] = factor if learns_alpha else factor.detach()
            # which operations run is decided on the CPU: the one thing a step waits for
            paths[kind] = path(cell, drawn.tolist())
        logits: Tensor = self.search_net(images, factors, paths=paths).logits
        return logits


def path(cell: CellTopology, columns: list[int]) -> CellTopology:
    """The part of a cell that has one operation on every edge: for each edge the one of this column."""
    edges = [(edge, (names[column],)) for (edge, names), column in zip(cell.edges, columns, strict=True)]
    return CellTopology(cell.num_inputs, cell.num_nodes, tuple(edges))
