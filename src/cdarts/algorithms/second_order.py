"""DARTS's second-order step: alpha's gradient through one step of the weights, by finite differences."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from cdarts.algorithms.bilevel import BilevelSearch
from cdarts.data import Batch
from cdarts.engine.descent import descend_along
from cdarts.engine.task import Losses
from cdarts.networks import accuracy

WIDTH = 0.01
"""Half the finite difference's length (DARTS, footnote to section 2.3)."""


class SecondOrderSearch(BilevelSearch):
    """Alpha goes down L_val(w - xi * v, alpha), v the direction in which the weights' optimizer will go (eq. 7)."""

    def architecture_step(self, position: int, train: Batch, val: Batch) -> Losses:
        weights, alphas = self.weight_optimizer.parameters, self.alpha_optimizer.parameters
        kept = [weight.detach().clone() for weight in weights]
        xi = self.config.weights.lr_at(self.progress)

        _place(weights, kept, self._direction(position, train), -xi)
        logits = self.logits(val.images, self.draw("alpha", position), learns_alpha=True)
        losses = {"val_loss": F.cross_entropy(logits, val.labels), **self.regularisers()}
        total = torch.stack(list(losses.values())).sum()
        gradients = torch.autograd.grad(total, [*alphas, *weights])
        direct, ahead = gradients[: len(alphas)], gradients[len(alphas) :]

        # the second derivative times `ahead`, from alpha's gradients at two points on a line (eq. 8)
        length = WIDTH / torch.linalg.vector_norm(torch.stack(torch._foreach_norm(ahead)))
        sides = []
        for side in (1.0, -1.0):
            _place(weights, kept, ahead, side * length)
            loss = self._train_loss(position, train, learns_alpha=True)
            sides.append(torch.autograd.grad(loss, alphas))
        _place(weights, kept)
        implicit = [(plus - minus) / (2 * length) for plus, minus in zip(*sides, strict=True)]
        total_gradient = [first - xi * second for first, second in zip(direct, implicit, strict=True)]
        descend_along(total_gradient, self.alpha_optimizer)
        return {
            **{name: loss.detach() for name, loss in losses.items()},
            "val_accuracy": accuracy(logits, val.labels),
        }

    def _direction(self, position: int, train: Batch) -> list[Tensor]:
        """Gradient, weight decay and momentum, as the weights' optimizer adds them up."""
        config, optimizer = self.config.weights, self.weight_optimizer
        gradients = torch.autograd.grad(self._train_loss(position, train, learns_alpha=False), optimizer.parameters)
        directions = []
        for weight, gradient in zip(optimizer.parameters, gradients, strict=True):
            direction = gradient + config.weight_decay * weight.detach()
            momentum = optimizer.optimizer.state[weight].get("momentum_buffer")
            directions.append(direction if momentum is None else direction + config.momentum * momentum)
        return directions

    def _train_loss(self, position: int, train: Batch, *, learns_alpha: bool) -> Tensor:
        logits = self.logits(train.images, self.draw("weights", position), learns_alpha=learns_alpha)
        return F.cross_entropy(logits, train.labels)


@torch.no_grad()
def _place(
    weights: Sequence[Tensor], origin: Sequence[Tensor], direction: Sequence[Tensor] = (), length: Tensor | float = 0.0
) -> None:
    """Put the weights at ``origin + length * direction``, or, without a direction, at `origin` to the bit."""
    for weight, start in zip(weights, origin, strict=True):
        weight.copy_(start)
    for weight, towards in zip(weights, direction, strict=bool(direction)):
        weight.add_(length * towards)
