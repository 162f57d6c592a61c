"""Optimizers as settings: plain data, without torch until one is built."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from cdarts.settings import STRICT

if TYPE_CHECKING:
    from torch import nn

    from cdarts.engine.descent import Optimizer


@dataclass(frozen=True, kw_only=True)
class Sgd:
    """Stochastic gradient descent with momentum."""

    __pydantic_config__: ClassVar = STRICT

    lr: float
    lr_end: float = 1.0
    """Learning rate at the end as a fraction of `lr`, reached along half a cosine; 1 keeps it constant."""
    momentum: float = 0.9
    weight_decay: float = 3e-4
    clip_norm: float | None = 5.0
    """Largest norm of the gradient of this optimizer's parameters; a larger one is scaled down to it."""

    def build(self, parameters: "Iterable[tuple[str, nn.Parameter]]") -> "Optimizer":
        """An optimizer of named parameters."""
        import torch

        from cdarts.engine.descent import Optimizer

        named = dict(parameters)
        sgd = torch.optim.SGD(named.values(), self.lr, self.momentum, weight_decay=self.weight_decay, foreach=True)
        return Optimizer(sgd, named, self.clip_norm)

    def lr_at(self, progress: float) -> float:
        """The learning rate when a fraction `progress` of the plan is done."""
        return self.lr * (self.lr_end + (1.0 - self.lr_end) * 0.5 * (1.0 + math.cos(math.pi * progress)))


@dataclass(frozen=True, kw_only=True)
class Adam:
    """Adam, for alpha."""

    __pydantic_config__: ClassVar = STRICT

    lr: float = 3e-4
    betas: tuple[float, float] = (0.5, 0.999)
    weight_decay: float = 0.0
    clip_norm: float | None = None

    def build(self, parameters: "Iterable[tuple[str, nn.Parameter]]") -> "Optimizer":
        """An optimizer of named parameters."""
        import torch

        from cdarts.engine.descent import Optimizer

        named = dict(parameters)
        adam = torch.optim.Adam(named.values(), self.lr, self.betas, weight_decay=self.weight_decay, foreach=True)
        return Optimizer(adam, named, self.clip_norm)
