"""RSPS: random search with parameter sharing (Li & Talwalkar, UAI 2019; arXiv 1902.07638)."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from tyro.conf import Suppress

from cdarts.algorithms.sampling_config import BestOfConfig

if TYPE_CHECKING:
    import torch

    from cdarts.algorithms.sampling import BestOfSearch
    from cdarts.data import ImageData


@dataclass(frozen=True, kw_only=True)
class RspsConfig(BestOfConfig):
    """RSPS (Li & Talwalkar, UAI 2019): weights of random paths are trained; then the best of random genotypes.

    Defaults: NAS-Bench-201's run of it (Dong & Yang, ICLR 2020), with plain momentum where that has Nesterov's. In the
    DARTS space the paper scores 1,000 candidates on ten batches and the ten best of them on all images; here each is
    scored on all images of the val half, and there are fewer.
    """

    name: Suppress[Literal["rsps"]] = "rsps"

    def build(self, data: "ImageData", *, seed: int, device: "torch.device", execution: str) -> "BestOfSearch":
        from cdarts.algorithms.sampling import BestOfSearch

        self.check(data)
        return BestOfSearch(self, data, seed=seed, device=device, execution=execution)
