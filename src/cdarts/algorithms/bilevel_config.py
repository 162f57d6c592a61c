"""What the settings of all searches by gradient on one network have in common. No torch until a search is built."""

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeVar

from cdarts.algorithms.config import Protocol, SearchConfig
from cdarts.engine.optimizers import Adam, Sgd

if TYPE_CHECKING:
    from cdarts.data import ImageData

Config = TypeVar("Config", bound="BilevelConfig")


@dataclass(frozen=True, kw_only=True)
class BilevelConfig(SearchConfig):
    """Base of the settings of `BilevelSearch` and its kin; the defaults are DARTS's (Liu et al., ICLR 2019)."""

    cells: int = 8
    """Cells of the search network."""
    affine: bool = False
    """BatchNorm inside cells has weights of its own."""
    epochs: int = 50
    """Passes over the half of the images that network weights learn from."""
    still_epochs: int = 0
    """Of these, epochs before alpha begins to move."""
    weights: Sgd = field(default_factory=lambda: Sgd(lr=0.025, lr_end=0.04, weight_decay=3e-4, clip_norm=5.0))
    """For network weights."""
    alpha: Adam = field(default_factory=lambda: Adam(lr=3e-4, betas=(0.5, 0.999), weight_decay=1e-3))
    """For the architecture logits."""

    def check(self, data: "ImageData") -> None:
        super().check(data)
        self.at_least("cells", 1)
        self.at_least("epochs", 1)
        self.at_least("still_epochs", 0)
        self.at_most("still_epochs", self.epochs - 1)
        self.weights.check("weights")
        self.alpha.check("alpha")
        self.space.layout(self.cells, self.channels)

    def under(self: Config, protocol: Protocol) -> Config:
        return replace(
            self,
            space=protocol.space,
            channels=protocol.channels,
            cells=protocol.cells,
            batch_size=protocol.batch_size,
            epochs=protocol.epochs,
            still_epochs=protocol.still_epochs,
            weights=protocol.weights,
            alpha=replace(self.alpha, lr=protocol.alpha_rate * self.alpha.lr),
        )
