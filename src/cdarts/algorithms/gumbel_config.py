"""Settings of searches that draw operations with Gumbel noise. No torch until a search is built."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cdarts.algorithms.bilevel_config import BilevelConfig
from cdarts.errors import ConfigurationError

if TYPE_CHECKING:
    from cdarts.data import ImageData


@dataclass(frozen=True, kw_only=True)
class GumbelConfig(BilevelConfig):
    """Base of GDAS's and SNAS's settings: a temperature that goes along a line from the first epoch to the last."""

    temperature: float
    """Of the Gumbel-softmax in the first epoch: high, every operation has a part in the gradient."""
    temperature_end: float
    """In the last epoch: low, a draw is almost one operation."""

    def check(self, data: "ImageData") -> None:
        super().check(data)
        for name in ("temperature", "temperature_end"):
            value = getattr(self, name)
            if not 0 < value < math.inf:
                raise ConfigurationError(f"--{name.replace('_', '-')} {value}: must be positive and finite")

    def temperature_at(self, epoch: int) -> float:
        """The temperature of an epoch, counted from 0."""
        return self.temperature + (self.temperature_end - self.temperature) * epoch / max(self.epochs - 1, 1)
