"""The search of DrNAS: a relaxation that draws, and a divergence that holds it."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Dirichlet, kl_divergence

from cdarts.algorithms.bilevel import BilevelSearch
from cdarts.algorithms.drnas import DrnasConfig
from cdarts.randomness import generator
from cdarts.relaxations import Matrix, Relaxation


class DirichletMixture(Relaxation):
    """Each edge's weights are one draw from Dirichlet(elu(alpha) + 1) (DrNAS, section 3.1); gradients pass through it.

    The draw is normalised gamma variates in double precision, on the CPU, where `draw` lives. Strengths are the mean.
    """

    def concentrations(self, alpha: Matrix) -> Matrix:
        """Of each edge's distribution; 1 where alpha is 0, and then every mixture is equally likely."""
        return F.elu(alpha) + 1.0

    def mix(self, alpha: Matrix, draw: torch.Generator | None) -> Matrix:
        assert draw is not None, "a mixture is drawn: call the relaxation with a generator"
        concentrations = self.concentrations(alpha.to("cpu", torch.float64))
        gammas = torch._standard_gamma(concentrations, generator=draw)
        return (gammas / gammas.sum(dim=1, keepdim=True)).to(alpha.device, alpha.dtype)

    def expected(self, alpha: Matrix) -> Matrix:
        concentrations = self.concentrations(alpha)
        return concentrations / concentrations.sum(dim=1, keepdim=True)

    def divergence(self) -> Float[Tensor, ""]:
        """KL(Dirichlet(elu(alpha) + 1) || Dirichlet(1)), summed over edges and kinds of cell."""
        divergences = []
        for alpha in self.alpha.values():
            concentrations = self.concentrations(alpha)
            learned = Dirichlet(concentrations, validate_args=False)
            uniform = Dirichlet(torch.ones_like(concentrations), validate_args=False)
            divergences.append(kl_divergence(learned, uniform).sum())
        return torch.stack(divergences).sum()


class DrnasSearch(BilevelSearch):
    """First-order DARTS whose mixing weights are drawn anew in every step."""

    config: DrnasConfig
    relaxation: DirichletMixture

    def relax(self) -> DirichletMixture:
        return DirichletMixture(self.config.space.supernet(), generator(self.seed, "alpha"))

    def regularisers(self) -> dict[str, Tensor]:
        if not self.config.kl_weight:
            return {}
        return {"divergence": self.config.kl_weight * self.relaxation.divergence()}
