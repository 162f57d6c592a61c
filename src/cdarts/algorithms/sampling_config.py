"""What the settings of searches that train one path of a network at a time have in common. No torch until one is built.

Such searches end with a selection: candidates are scored with the shared weights on the half of the images that these
have not seen. A score is one forward pass over that half, about a third of the time of a training epoch.
"""

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeVar

from cdarts.algorithms.config import Protocol
from cdarts.algorithms.supernet_config import SupernetConfig
from cdarts.engine.optimizers import Sgd

if TYPE_CHECKING:
    from cdarts.data import ImageData

BestOf = TypeVar("BestOf", bound="BestOfConfig")


@dataclass(frozen=True, kw_only=True)
class SamplingConfig(SupernetConfig):
    """Base of the settings of `SamplingSearch`; the defaults are those of NAS-Bench-201's runs (Dong & Yang, 2020)."""

    epochs: int = 250
    """Passes over the half of the images that the weights, which all paths share, learn from."""
    weights: Sgd = field(default_factory=lambda: Sgd(lr=0.025, lr_end=0.04, weight_decay=5e-4, clip_norm=5.0))
    """For network weights."""


@dataclass(frozen=True, kw_only=True)
class BestOfConfig(SamplingConfig):
    """Base of the settings of `BestOfSearch`: some genotypes are drawn and scored, and the best is the answer."""

    candidates: int = 100
    """Genotypes that are scored after the training."""

    def check(self, data: "ImageData") -> None:
        super().check(data)
        self.at_least("candidates", 1)

    def under(self: BestOf, protocol: Protocol) -> BestOf:
        """At most four times as many candidates as epochs: scoring then takes about as long as training."""
        return replace(super().under(protocol), candidates=min(self.candidates, 4 * protocol.epochs))
