"""BatchNorm of many tensors at once, in closed form: a factor and an offset for each channel, and their backward."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn


def normalizable(norms: Sequence[nn.BatchNorm2d]) -> bool:
    """Whether the closed form covers these: running statistics by momentum, and all of the same kind.

    What may change between two steps, whether they train and keep their statistics, is looked at in every step.
    """
    return all(
        norm.running_mean is not None
        and norm.momentum is not None
        and (norm.momentum, norm.eps, norm.affine) == (norms[0].momentum, norms[0].eps, norms[0].affine)
        for norm in norms
    )


@dataclass(frozen=True)
class Normalization:
    """Of some streams z of C channels each: mean, 1 / sigma, gamma and beta, all (streams, C) in double precision.

    A stream without BatchNorm has mean 0 and sigma 1. xhat = (z - mean) / sigma.
    """

    mean: Tensor
    inverse: Tensor
    gamma: Tensor | None
    beta: Tensor | None
    live: Tensor | float
    """(streams, 1) or for all: 1 where mean and sigma are the batch's own, so that gradients pass through them."""

    def __getitem__(self, number: int) -> "Normalization":
        """That of one stream."""
        one = slice(number, number + 1)
        return Normalization(
            self.mean[one],
            self.inverse[one],
            None if self.gamma is None else self.gamma[one],
            None if self.beta is None else self.beta[one],
            self.live if isinstance(self.live, float) else self.live[one],
        )

    def factors(self, weights: Tensor | float = 1.0) -> tuple[Tensor, Tensor]:
        """A and D of  weight * (gamma * xhat + beta) = A * z + D;  `weights`: (streams, 1)."""
        scale = weights * self.inverse if self.gamma is None else weights * self.gamma * self.inverse
        offset = -scale * self.mean
        return scale, offset if self.beta is None else offset + weights * self.beta

    def backward(
        self, product: Tensor, pivot: Tensor, total: Tensor, scale: Tensor, values: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """From the sums of  g * (z - pivot)  and of g over the batch's `values` pixels: the sum of g * xhat, B and D.

        `pivot` is the mean as it was rounded, so that nothing cancels. The gradient at z is  A * g + B * z + D  with
        A = `scale`, which is  A * (g - mean of g - xhat * mean of g * xhat)  (Ioffe & Szegedy, ICML 2015).
        """
        normalized = self.inverse * (product - (self.mean - pivot) * total)
        part = scale * (self.live / values)
        slope = -part * self.inverse * normalized
        return normalized, slope, -slope * self.mean - part * total

    def passed(self, normalized: Tensor, total: Tensor) -> Tensor:
        """Gradient of each stream's mixing weight (streams,): the sum of g * (gamma * xhat + beta)."""
        if self.gamma is None or self.beta is None:
            return normalized.sum(1)
        return (self.gamma * normalized + self.beta * total).sum(1)


def normalization(norms: Sequence[nn.BatchNorm2d | None], moments: Tensor, values: int) -> Normalization:
    """From `moments` (2, streams, C): each channel's mean over `values` pixels, and its sum of squared deviations.

    Keeps the running statistics up to date.
    """
    present = [norm for norm in norms if norm is not None]
    bare = [row for row, norm in enumerate(norms) if norm is None]
    if not present:
        return Normalization(torch.zeros_like(moments[0]), torch.ones_like(moments[0]), None, None, 0.0)
    training = present[0].training
    if training:
        mean, variance = moments[0].clone(), moments[1] / values
        _keep_running(norms, mean, variance * (values / (values - 1)))
    else:
        mean, variance = (
            _of_each(norms, moments[0], name, default)
            for name, default in (("running_mean", 0.0), ("running_var", 1.0))
        )
    inverse = (variance + present[0].eps).rsqrt_()
    live: Tensor | float = float(training)
    if bare:
        mean[bare], inverse[bare] = 0.0, 1.0
        live = torch.full((len(norms), 1), float(training), dtype=torch.float64)
        live[bare] = 0.0
    if not present[0].affine:
        return Normalization(mean, inverse, None, None, live)
    gamma, beta = (_of_each(norms, mean, name, default) for name, default in (("weight", 1.0), ("bias", 0.0)))
    return Normalization(mean, inverse, gamma, beta, live)


def _of_each(norms: Sequence[nn.BatchNorm2d | None], like: Tensor, name: str, default: float) -> Tensor:
    result = torch.full_like(like, default)
    for row, norm in enumerate(norms):
        if norm is not None:
            result[row] = getattr(norm, name).detach()
    return result


def _keep_running(norms: Sequence[nn.BatchNorm2d | None], mean: Tensor, variance: Tensor) -> None:
    present = [
        (norm, *rows)
        for norm, *rows in zip(norms, mean, variance, strict=True)
        if norm is not None and norm.track_running_stats  # which scores with batch statistics switch off
    ]
    if not present:
        return
    first, *_ = present[0]
    dtype, momentum = cast(Tensor, first.running_mean).dtype, cast(float, first.momentum)
    running = [cast(Tensor, buffer) for norm, *_ in present for buffer in (norm.running_mean, norm.running_var)]
    observed = [row.to(dtype) for _, *rows in present for row in rows]
    torch._foreach_lerp_(running, observed, momentum)
    torch._foreach_add_([cast(Tensor, norm.num_batches_tracked) for norm, *_ in present], 1)
