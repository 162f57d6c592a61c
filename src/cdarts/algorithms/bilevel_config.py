"""What the settings of all searches by gradient on one network have in common. No torch until a search is built."""

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeVar

from cdarts.algorithms.config import Protocol
from cdarts.algorithms.supernet_config import SupernetConfig
from cdarts.engine.optimizers import Adam

if TYPE_CHECKING:
    from cdarts.data import ImageData

Config = TypeVar("Config", bound="BilevelConfig")


@dataclass(frozen=True, kw_only=True)
class BilevelConfig(SupernetConfig):
    """Base of the settings of `BilevelSearch` and its kin; the defaults are DARTS's (Liu et al., ICLR 2019)."""

    still_epochs: int = 0
    """Of the epochs, those before alpha begins to move."""
    alpha: Adam = field(default_factory=lambda: Adam(lr=3e-4, betas=(0.5, 0.999), weight_decay=1e-3))
    """For the architecture logits."""

    def check(self, data: "ImageData") -> None:
        super().check(data)
        self.at_least("still_epochs", 0)
        self.at_most("still_epochs", self.epochs - 1)
        self.alpha.check("alpha")

    def under(self: Config, protocol: Protocol) -> Config:
        alpha = replace(self.alpha, lr=protocol.alpha_rate * self.alpha.lr)
        return replace(super().under(protocol), still_epochs=protocol.still_epochs, alpha=alpha)
