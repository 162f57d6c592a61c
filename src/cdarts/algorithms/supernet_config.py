"""What the settings of all searches that train one network have in common. No torch until a search is built."""

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeVar

from cdarts.algorithms.config import Protocol, SearchConfig
from cdarts.engine.optimizers import Sgd

if TYPE_CHECKING:
    from cdarts.data import ImageData

Config = TypeVar("Config", bound="SupernetConfig")


@dataclass(frozen=True, kw_only=True)
class SupernetConfig(SearchConfig):
    """Base of the settings of searches by gradient on one network and of those that train one path of it at a time."""

    cells: int = 8
    """Cells of the search network."""
    affine: bool = False
    """BatchNorm inside cells has weights of its own."""
    epochs: int = 50
    """Passes over the half of the images that network weights learn from."""
    weights: Sgd = field(default_factory=lambda: Sgd(lr=0.025, lr_end=0.04, weight_decay=3e-4, clip_norm=5.0))
    """For network weights."""

    def check(self, data: "ImageData") -> None:
        super().check(data)
        self.at_least("cells", 1)
        self.at_least("epochs", 1)
        self.weights.check("weights")
        self.space.layout(self.cells, self.channels)

    def under(self: Config, protocol: Protocol) -> Config:
        return replace(
            self,
            space=protocol.space,
            channels=protocol.channels,
            cells=protocol.cells,
            batch_size=protocol.batch_size,
            epochs=protocol.epochs,
            weights=protocol.weights,
        )
