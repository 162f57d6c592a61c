"""FairDARTS: operations that do not compete, and a loss that decides them (Chu et al., ECCV 2020; arXiv 1911.12126)."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from tyro.conf import Suppress

from cdarts.algorithms.bilevel_config import BilevelConfig
from cdarts.engine.optimizers import Adam, Sgd
from cdarts.errors import ConfigurationError

if TYPE_CHECKING:
    import torch

    from cdarts.algorithms.fair_darts_search import FairDartsSearch
    from cdarts.data import ImageData


@dataclass(frozen=True, kw_only=True)
class FairDartsConfig(BilevelConfig):
    """FairDARTS (Chu et al., ECCV 2020): a sigmoid for each operation, and a loss that drives sigmoids to 0 or 1.

    As in the paper, ``none`` is no candidate. Of each node the paper keeps at most two edges, those whose strongest
    operation passes a threshold. Deviation: a cell of the DARTS space has exactly two edges into each node, so the
    threshold is not asked there. Not published in the NAS-Bench-201 space: there an edge none of whose operations
    passes the threshold becomes ``none``.
    """

    name: Suppress[Literal["fair-darts"]] = "fair-darts"
    zero_one_weight: float = 10.0
    """Weight of the zero-one loss."""
    threshold: float = 0.85
    """What an operation's sigmoid must exceed for its edge to be kept, in spaces that let an edge be ``none``."""
    batch_size: int = 128
    """Images a step takes from each half."""
    weights: Sgd = field(default_factory=lambda: Sgd(lr=0.005, lr_end=0.2, weight_decay=3e-4, clip_norm=5.0))
    """For network weights."""
    alpha: Adam = field(default_factory=lambda: Adam(lr=3e-3, betas=(0.9, 0.999), weight_decay=1e-3))
    """For the architecture logits."""

    def check(self, data: "ImageData") -> None:
        super().check(data)
        self.finite("zero_one_weight")
        if not 0 <= self.threshold <= 1:
            raise ConfigurationError(f"--threshold {self.threshold}: must lie between 0 and 1")

    def build(self, data: "ImageData", *, seed: int, device: "torch.device", execution: str) -> "FairDartsSearch":
        from cdarts.algorithms.fair_darts_search import FairDartsSearch

        self.check(data)
        return FairDartsSearch(self, data, seed=seed, device=device, execution=execution)
