"""SETN: one-shot search by a self-evaluated template network (Dong & Yang, ICCV 2019; arXiv 1910.05733)."""

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, TypeVar

from tyro.conf import Suppress

from cdarts.algorithms.config import Protocol
from cdarts.algorithms.sampling_config import BestOfConfig
from cdarts.engine.optimizers import Adam

if TYPE_CHECKING:
    import torch

    from cdarts.algorithms.setn_search import SetnSearch
    from cdarts.data import ImageData

Config = TypeVar("Config", bound="SetnConfig")


@dataclass(frozen=True, kw_only=True)
class SetnConfig(BestOfConfig):
    """SETN (Dong & Yang, ICCV 2019): weights of random paths are trained, while alpha learns where good ones are.

    Defaults: NAS-Bench-201's run of it (Dong & Yang, ICLR 2020), with plain momentum where that has Nesterov's. In the
    DARTS space the authors score 1,000 candidates, each on a single batch; here it is fewer, on all of the val half.
    """

    name: Suppress[Literal["setn"]] = "setn"
    still_epochs: int = 0
    """Of these epochs, those before alpha begins to move."""
    alpha: Adam = field(default_factory=lambda: Adam(lr=3e-4, betas=(0.5, 0.999), weight_decay=1e-3))
    """For the architecture logits."""

    def check(self, data: "ImageData") -> None:
        super().check(data)
        self.at_least("still_epochs", 0)
        self.at_most("still_epochs", self.epochs - 1)
        self.alpha.check("alpha")

    def build(self, data: "ImageData", *, seed: int, device: "torch.device", execution: str) -> "SetnSearch":
        from cdarts.algorithms.setn_search import SetnSearch

        self.check(data)
        return SetnSearch(self, data, seed=seed, device=device, execution=execution)

    def under(self: Config, protocol: Protocol) -> Config:
        return replace(
            super().under(protocol),
            still_epochs=protocol.still_epochs,
            alpha=replace(self.alpha, lr=protocol.alpha_rate * self.alpha.lr),
        )
