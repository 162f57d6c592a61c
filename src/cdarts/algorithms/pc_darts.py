"""PC-DARTS: partial channel connections and edge normalisation (Xu et al., ICLR 2020; arXiv 1907.05737)."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from tyro.conf import Suppress

from cdarts.algorithms.bilevel_config import BilevelConfig
from cdarts.engine.optimizers import Adam, Sgd
from cdarts.errors import ConfigurationError

if TYPE_CHECKING:
    import torch

    from cdarts.algorithms.pc_darts_search import PcDartsSearch
    from cdarts.data import ImageData


@dataclass(frozen=True, kw_only=True)
class PcDartsConfig(BilevelConfig):
    """PC-DARTS (Xu et al., ICLR 2020): operations work on a part of the channels, and edges have weights of their own.

    The saved memory goes into larger batches. Weights' learning rate falls to 0 as the paper says (0.001 in the
    authors' code). The authors have not published it in the NAS-Bench-201 space; there an edge's weight does not change
    which of its operations is strongest, so that it acts on the search alone.
    """

    name: Suppress[Literal["pc-darts"]] = "pc-darts"
    partial: int = 4
    """Operations work on one channel in so many (the paper's K)."""
    batch_size: int = 256
    """Images a step takes from each half."""
    still_epochs: int = 15
    """Of these, epochs before alpha begins to move."""
    weights: Sgd = field(default_factory=lambda: Sgd(lr=0.1, lr_end=0.0, weight_decay=3e-4, clip_norm=5.0))
    """For network weights."""
    alpha: Adam = field(default_factory=lambda: Adam(lr=6e-4, betas=(0.5, 0.999), weight_decay=1e-3))
    """For the architecture logits, those of edges included."""

    def check(self, data: "ImageData") -> None:
        super().check(data)
        self.at_least("partial", 1)
        if self.channels % self.partial:
            raise ConfigurationError(f"--channels {self.channels}: PC-DARTS needs a multiple of {self.partial}")

    def build(self, data: "ImageData", *, seed: int, device: "torch.device", execution: str) -> "PcDartsSearch":
        from cdarts.algorithms.pc_darts_search import PcDartsSearch

        self.check(data)
        return PcDartsSearch(self, data, seed=seed, device=device, execution=execution)
