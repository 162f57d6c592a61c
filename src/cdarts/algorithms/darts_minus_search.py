"""The search of DARTS-: the weight of skip connections is larger by a term that no alpha controls and that fades."""

import torch

from cdarts.algorithms.bilevel import BilevelSearch
from cdarts.algorithms.darts_minus import DartsMinusConfig
from cdarts.engine.task import Epoch
from cdarts.randomness import generator
from cdarts.relaxations import Matrix, Softmax
from cdarts.topology import Topology


class AuxiliarySkip(Softmax):
    """Softmax, and beta more on every edge's skip: beta * x + w_skip * x = (beta + w_skip) * x.

    Strengths are the softmax's: the auxiliary connection does not count.
    """

    auxiliary = 0.0
    """The paper's beta."""

    def __init__(self, topology: Topology, generator: torch.Generator, skip: int) -> None:
        """`skip`: the column of ``skip_connect``."""
        super().__init__(topology, generator)
        self.skip = skip

    def mix(self, alpha: Matrix, draw: torch.Generator | None) -> Matrix:
        auxiliary = torch.zeros_like(alpha)
        auxiliary[:, self.skip] = self.auxiliary
        return super().mix(alpha, draw) + auxiliary


class DartsMinusSearch(BilevelSearch):
    """First-order DARTS with the auxiliary skip connection."""

    config: DartsMinusConfig
    relaxation: AuxiliarySkip

    def relax(self) -> AuxiliarySkip:
        space = self.config.space
        return AuxiliarySkip(
            space.supernet(), generator(self.seed, "alpha"), skip=space.operations.index("skip_connect")
        )

    def start_epoch(self, index: int, epoch: Epoch) -> None:
        super().start_epoch(index, epoch)
        self.relaxation.auxiliary = self.config.auxiliary_weight * (1.0 - self.progress)
