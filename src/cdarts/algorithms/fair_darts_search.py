"""The search of FairDARTS: sigmoids in place of the softmax, and the zero-one loss."""

import torch
from jaxtyping import Float
from torch import Tensor

from cdarts.algorithms.bilevel import BilevelSearch
from cdarts.algorithms.fair_darts import FairDartsConfig
from cdarts.randomness import generator
from cdarts.relaxations import Matrix, Relaxation
from cdarts.topology import Topology


class Sigmoid(Relaxation):
    """A sigmoid for each operation, on its own; alpha starts at 0. ``none`` weighs nothing.

    An operation's strength is its sigmoid; that of ``none`` is the threshold that the others have to exceed.
    """

    def __init__(self, topology: Topology, generator: torch.Generator, candidates: list[int], threshold: float) -> None:
        """`candidates`: the columns of all operations but ``none``."""
        super().__init__(topology, generator, scale=0.0)
        self.candidates = candidates
        self.threshold = threshold

    def mix(self, alpha: Matrix, draw: torch.Generator | None) -> Matrix:  # noqa: ARG002 - nothing is sampled
        return self.sigmoids(alpha, others=0.0)

    def expected(self, alpha: Matrix) -> Matrix:
        return self.sigmoids(alpha, others=self.threshold)

    def sigmoids(self, alpha: Matrix, others: float) -> Matrix:
        """The sigmoids of the candidates, and `others` for what is no candidate."""
        weights = torch.full_like(alpha, others)
        weights[:, self.candidates] = torch.sigmoid(alpha[:, self.candidates])
        return weights

    def zero_one_loss(self) -> Float[Tensor, ""]:
        """Minus the mean over all candidates of (sigmoid - 1/2) squared: least where each is 0 or 1."""
        sigmoids = torch.cat([torch.sigmoid(alpha[:, self.candidates]) for alpha in self.alpha.values()])
        return -(sigmoids - 0.5).square().mean()


class FairDartsSearch(BilevelSearch):
    """First-order DARTS with sigmoids and the zero-one loss."""

    config: FairDartsConfig
    relaxation: Sigmoid

    def relax(self) -> Sigmoid:
        space = self.config.space
        candidates = [column for column, name in enumerate(space.operations) if name != "none"]
        return Sigmoid(space.supernet(), generator(self.seed, "alpha"), candidates, self.config.threshold)

    def regularisers(self) -> dict[str, Tensor]:
        return {"zero_one": self.config.zero_one_weight * self.relaxation.zero_one_loss()}
