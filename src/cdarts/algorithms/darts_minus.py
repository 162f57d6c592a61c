"""DARTS-: an auxiliary skip connection beside every edge, which fades (Chu et al., ICLR 2021; arXiv 2009.01027)."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from tyro.conf import Suppress

from cdarts.algorithms.bilevel_config import BilevelConfig

if TYPE_CHECKING:
    import torch

    from cdarts.algorithms.darts_minus_search import DartsMinusSearch
    from cdarts.data import ImageData


@dataclass(frozen=True, kw_only=True)
class DartsMinusConfig(BilevelConfig):
    """DARTS- (Chu et al., ICLR 2021): an auxiliary skip connection takes over what skips do for the training.

    So ``skip_connect`` competes as an operation alone. The auxiliary weight falls linearly to 0, as in the authors'
    script; all other values are DARTS's. Deviation: on an edge of stride 2, where a skip is a factorised reduction, the
    auxiliary connection shares ``skip_connect``'s module; the authors give it one of its own.
    """

    name: Suppress[Literal["darts-minus"]] = "darts-minus"
    auxiliary_weight: float = 1.0
    """Weight of the auxiliary skip connection (the paper's beta) in the first epoch."""

    def check(self, data: "ImageData") -> None:
        super().check(data)
        self.finite("auxiliary_weight")

    def build(self, data: "ImageData", *, seed: int, device: "torch.device", execution: str) -> "DartsMinusSearch":
        from cdarts.algorithms.darts_minus_search import DartsMinusSearch

        self.check(data)
        return DartsMinusSearch(self, data, seed=seed, device=device, execution=execution)
