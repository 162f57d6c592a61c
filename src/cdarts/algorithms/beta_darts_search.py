"""The search of beta-DARTS: one more term in the loss that alpha goes down."""

from torch import Tensor

from cdarts.algorithms.beta_darts import BetaDartsConfig
from cdarts.algorithms.bilevel import BilevelSearch
from cdarts.relaxations import logsumexp_decay


class BetaDartsSearch(BilevelSearch):
    """Alpha goes down L_val + lambda * mean over edges of log sum_o exp(alpha_o), lambda rising from epoch to epoch."""

    config: BetaDartsConfig

    def regularisers(self) -> dict[str, Tensor]:
        return {"beta_decay": self.config.decay_weight * self.progress * logsumexp_decay(self.relaxation)}
