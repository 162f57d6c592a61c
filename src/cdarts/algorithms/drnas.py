"""DrNAS: mixing weights drawn from Dirichlet distributions (Chen et al., ICLR 2021; arXiv 2006.10355)."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from tyro.conf import Suppress

from cdarts.algorithms.bilevel_config import BilevelConfig
from cdarts.engine.optimizers import Adam, Sgd

if TYPE_CHECKING:
    import torch

    from cdarts.algorithms.drnas_search import DrnasSearch
    from cdarts.data import ImageData


@dataclass(frozen=True, kw_only=True)
class DrnasConfig(BilevelConfig):
    """DrNAS (Chen et al., ICLR 2021): each edge's mixing weights are drawn from a Dirichlet distribution that learns.

    Values of the authors' code for the DARTS space; for NAS-Bench-201 it searches for 100 epochs, none of them still,
    with learning rates from 0.025 to 0.001 for weights and 3e-4 for alpha. Distributions are held near the uniform one
    by weight decay on alpha, which is what that code does unless told otherwise. Deviations: no progressive scheme
    (there searches begin on a part of the channels and go on, halfway, on more of them with fewer operations), so that
    channels and cells are DARTS's; in the DARTS space ``none`` is a candidate; edges are compared by the distribution's
    mean, as in the paper, and not by a softmax of alpha, as in the code.
    """

    name: Suppress[Literal["drnas"]] = "drnas"
    kl_weight: float = 0.0
    """Weight of the divergence from the uniform distribution, the other way to hold alpha; weight decay is then 0."""
    still_epochs: int = 10
    """Of these, epochs before alpha begins to move."""
    weights: Sgd = field(default_factory=lambda: Sgd(lr=0.1, lr_end=0.0, weight_decay=3e-4, clip_norm=5.0))
    """For network weights."""
    alpha: Adam = field(default_factory=lambda: Adam(lr=6e-4, betas=(0.5, 0.999), weight_decay=1e-3))
    """For the logits of the concentrations."""

    def check(self, data: "ImageData") -> None:
        super().check(data)
        self.finite("kl_weight")

    def build(self, data: "ImageData", *, seed: int, device: "torch.device", execution: str) -> "DrnasSearch":
        from cdarts.algorithms.drnas_search import DrnasSearch

        self.check(data)
        return DrnasSearch(self, data, seed=seed, device=device, execution=execution)
