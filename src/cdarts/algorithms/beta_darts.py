"""beta-DARTS: alpha kept small and even by a growing penalty (Ye et al., CVPR 2022; arXiv 2203.01665)."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from tyro.conf import Suppress

from cdarts.algorithms.bilevel_config import BilevelConfig

if TYPE_CHECKING:
    import torch

    from cdarts.algorithms.beta_darts_search import BetaDartsSearch
    from cdarts.data import ImageData


@dataclass(frozen=True, kw_only=True)
class BetaDartsConfig(BilevelConfig):
    """beta-DARTS (Ye et al., CVPR 2022): first-order DARTS, and a penalty on the log-sum-exp of each edge's alpha.

    The other values are DARTS's, weight decay on alpha included, as in the authors' code; it searches NAS-Bench-201
    for 100 epochs. Deviation: their code shows the penalty's weight for NAS-Bench-201 alone; the same is used in the
    DARTS space.
    """

    name: Suppress[Literal["beta-darts"]] = "beta-darts"
    decay_weight: float = 50.0
    """The penalty's weight at the end of the search; it rises linearly from 0."""

    def check(self, data: "ImageData") -> None:
        super().check(data)
        self.finite("decay_weight")

    def build(self, data: "ImageData", *, seed: int, device: "torch.device", execution: str) -> "BetaDartsSearch":
        from cdarts.algorithms.beta_darts_search import BetaDartsSearch

        self.check(data)
        return BetaDartsSearch(self, data, seed=seed, device=device, execution=execution)
