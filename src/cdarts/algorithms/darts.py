"""DARTS: differentiable architecture search, first and second order (Liu et al., ICLR 2019; arXiv 1806.09055)."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from tyro.conf import Suppress

from cdarts.algorithms.bilevel_config import BilevelConfig

if TYPE_CHECKING:
    import torch

    from cdarts.algorithms.bilevel import BilevelSearch
    from cdarts.data import ImageData


@dataclass(frozen=True, kw_only=True)
class DartsConfig(BilevelConfig):
    """DARTS (Liu et al., ICLR 2019): softmax over all operations of an edge, weights and alpha in turn."""

    name: Suppress[Literal["darts"]] = "darts"
    second_order: bool = False
    """Alpha's gradient looks one step of the weights ahead (eq. 7 and 8); about three times the time of a step."""

    def build(self, data: "ImageData", *, seed: int, device: "torch.device", execution: str) -> "BilevelSearch":
        from cdarts.algorithms.bilevel import BilevelSearch
        from cdarts.algorithms.second_order import SecondOrderSearch

        self.check(data)
        search = SecondOrderSearch if self.second_order else BilevelSearch
        return search(self, data, seed=seed, device=device, execution=execution)
