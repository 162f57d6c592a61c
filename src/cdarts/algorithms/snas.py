"""SNAS: stochastic neural architecture search (Xie et al., ICLR 2019; arXiv 1812.09926)."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from tyro.conf import Suppress

from cdarts.algorithms.gumbel_config import GumbelConfig
from cdarts.engine.optimizers import Adam

if TYPE_CHECKING:
    import torch

    from cdarts.algorithms.snas_search import SnasSearch
    from cdarts.data import ImageData


@dataclass(frozen=True, kw_only=True)
class SnasConfig(GumbelConfig):
    """SNAS (Xie et al., ICLR 2019): a concrete draw mixes all operations; weights and alpha share batch and loss.

    Defaults: the authors' code for the DARTS space. The paper does not search in NAS-Bench-201.
    """

    name: Suppress[Literal["snas"]] = "snas"
    epochs: int = 300
    """Passes over a half of the images; the halves take turns. The authors make 150 over all of them."""
    alpha: Adam = field(default_factory=lambda: Adam(lr=3e-4, betas=(0.5, 0.999), weight_decay=1e-3, clip_norm=10.0))
    """For the architecture logits."""
    temperature: float = 1.0
    """Of the concrete distribution in the first epoch."""
    temperature_end: float = 0.03
    """In the last epoch: low, a draw is almost one operation."""

    def build(self, data: "ImageData", *, seed: int, device: "torch.device", execution: str) -> "SnasSearch":
        from cdarts.algorithms.snas_search import SnasSearch

        self.check(data)
        return SnasSearch(self, data, seed=seed, device=device, execution=execution)
