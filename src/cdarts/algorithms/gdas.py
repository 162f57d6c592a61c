"""GDAS: a sampler of one operation an edge, learned by gradient (Dong & Yang, CVPR 2019; arXiv 1910.04465)."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from tyro.conf import Suppress

from cdarts.algorithms.gumbel_config import GumbelConfig
from cdarts.engine.optimizers import Sgd

if TYPE_CHECKING:
    import torch

    from cdarts.algorithms.gdas_search import GdasSearch
    from cdarts.data import ImageData


@dataclass(frozen=True, kw_only=True)
class GdasConfig(GumbelConfig):
    """GDAS (Dong & Yang, CVPR 2019): each step draws one operation an edge and computes no other.

    Defaults: the authors' code for the DARTS space. Its momentum is Nesterov's, here it is plain.
    """

    name: Suppress[Literal["gdas"]] = "gdas"
    batch_size: int = 256
    """Images a step takes from each half."""
    epochs: int = 250
    """Passes over the half of the images that network weights learn from."""
    weights: Sgd = field(default_factory=lambda: Sgd(lr=0.025, lr_end=0.04, weight_decay=5e-4, clip_norm=5.0))
    """For network weights."""
    temperature: float = 10.0
    """Of the Gumbel-softmax in the first epoch: high, every operation has a part in the gradient."""
    temperature_end: float = 0.1
    """In the last epoch: low, the gradient is that of the drawn operation."""

    def build(self, data: "ImageData", *, seed: int, device: "torch.device", execution: str) -> "GdasSearch":
        from cdarts.algorithms.gdas_search import GdasSearch

        self.check(data)
        return GdasSearch(self, data, seed=seed, device=device, execution=execution)
