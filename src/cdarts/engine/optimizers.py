"""Optimizers as settings: plain data, without torch until one is built."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from cdarts.errors import ConfigurationError
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

    def check(self, flag: str = "") -> None:
        """Raise `ConfigurationError` for a value that cannot work.

        `flag`: the user's name of these settings, without dashes, as in ``--search-weights.lr``; empty where the fields
        are flags themselves, as in ``--lr``.
        """
        _check_common(self, flag)
        _demand(0 <= self.momentum < 1, flag, "momentum", self.momentum, "must be at least 0 and below 1")

    def build(self, parameters: "Iterable[tuple[str, nn.Parameter]]") -> "Optimizer":
        """An optimizer of named parameters."""
        import torch

        from cdarts.engine.descent import Optimizer

        named = dict(parameters)
        # not torch's fused step: on a CPU it takes a gradient to lie in memory as its parameter does, which autograd
        # does not promise, and where strides differ it steps other weights than it should
        sgd = torch.optim.SGD(named.values(), self.lr, self.momentum, weight_decay=self.weight_decay, foreach=True)
        return Optimizer(sgd, named, self.clip_norm)

    def lr_at(self, progress: float) -> float:
        """The learning rate when a fraction `progress` of the plan is done."""
        return _cosine(self.lr, self.lr_end, progress)


@dataclass(frozen=True, kw_only=True)
class Adam:
    """Adam, for alpha."""

    __pydantic_config__: ClassVar = STRICT

    lr: float = 3e-4
    lr_end: float = 1.0
    """Learning rate at the end as a fraction of `lr`, reached along half a cosine; 1 keeps it constant."""
    betas: tuple[float, float] = (0.5, 0.999)
    weight_decay: float = 0.0
    clip_norm: float | None = None

    def check(self, flag: str = "") -> None:
        """Raise `ConfigurationError` for a value that cannot work; `flag` as in `Sgd.check`."""
        _check_common(self, flag)
        first, second = self.betas
        valid = 0 <= first < 1 and 0 <= second < 1
        _demand(valid, flag, "betas", f"{first} {second}", "each must be at least 0 and below 1")

    def build(self, parameters: "Iterable[tuple[str, nn.Parameter]]") -> "Optimizer":
        """An optimizer of named parameters."""
        import torch

        from cdarts.engine.descent import Optimizer

        named = dict(parameters)
        adam = torch.optim.Adam(named.values(), self.lr, self.betas, weight_decay=self.weight_decay, foreach=True)
        return Optimizer(adam, named, self.clip_norm)

    def lr_at(self, progress: float) -> float:
        """The learning rate when a fraction `progress` of the plan is done."""
        return _cosine(self.lr, self.lr_end, progress)


def _cosine(lr: float, lr_end: float, progress: float) -> float:
    """From `lr` along half a cosine to the fraction `lr_end` of it."""
    return lr * (lr_end + (1.0 - lr_end) * 0.5 * (1.0 + math.cos(math.pi * progress)))


def _check_common(optimizer: Sgd | Adam, flag: str) -> None:
    """What holds for every optimizer."""
    _demand(0 < optimizer.lr < math.inf, flag, "lr", optimizer.lr, "must be positive and finite")
    _demand(0 <= optimizer.lr_end <= 1, flag, "lr-end", optimizer.lr_end, "must lie between 0 and 1")
    decay, clip_norm = optimizer.weight_decay, optimizer.clip_norm
    _demand(0 <= decay < math.inf, flag, "weight-decay", decay, "must be at least 0 and finite")
    clips = clip_norm is None or 0 < clip_norm < math.inf
    _demand(clips, flag, "clip-norm", clip_norm, "must be positive and finite, or None for no clipping")


def _demand(met: bool, flag: str, name: str, value: object, what: str) -> None:
    """Raise `ConfigurationError` in the user's words unless a condition (false for NaN) is met."""
    if not met:
        raise ConfigurationError(f"--{f'{flag}.' if flag else ''}{name} {value}: {what}")
