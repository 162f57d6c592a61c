"""The one descent: differentiate with respect to exactly the parameters that are stepped."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from cdarts.errors import NonFiniteError


class Optimizer:
    """A torch optimizer that knows its parameters by name, so that its state can follow them into another network."""

    def __init__(
        self, optimizer: torch.optim.Optimizer, parameters: Mapping[str, nn.Parameter], clip_norm: float | None
    ) -> None:
        self.optimizer = optimizer
        self.named = dict(parameters)
        self.clip_norm = clip_norm

    @property
    def parameters(self) -> list[nn.Parameter]:
        return list(self.named.values())

    def set_lr(self, lr: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = lr

    def state(self) -> dict[str, dict[str, Any]]:
        """Momentum or moments by the parameter's name, for the parameters that were stepped."""
        return {
            name: dict(self.optimizer.state[parameter])
            for name, parameter in self.named.items()
            if parameter in self.optimizer.state
        }

    def load_state(self, state: Mapping[str, Mapping[str, Any]]) -> None:
        """Take over the state of the parameters that are known by name; the others start afresh."""
        self.optimizer.state.clear()
        for name, parameter in self.named.items():
            if name in state:
                self.optimizer.state[parameter] = {
                    entry: _like(value, parameter) if isinstance(value, Tensor) else value
                    for entry, value in state[name].items()
                }


def _like(value: Tensor, parameter: nn.Parameter) -> Tensor:
    """A copy of a moment in its parameter's memory layout; Adam's step counter, a scalar, stays as it is."""
    if value.shape != parameter.shape:
        return value.clone()
    copy = torch.empty_like(parameter, dtype=value.dtype)
    copy.copy_(value)
    return copy


def descend(
    loss: Tensor,
    *optimizers: Optimizer,
    joint_clip: tuple[float, Iterable[nn.Parameter]] | None = None,
    terms: Mapping[str, Tensor] | None = None,
) -> None:
    """One step down `loss` for the parameters of `optimizers`, which step in the order given. No gradient stays behind.

    `joint_clip`: (norm, further parameters): instead of each optimizer's own clip, one norm over the gradients of all
    optimizers and of the further parameters, which are not stepped; how the CDARTS authors' code clips.

    `terms`: what the loss is made of, by name; an error says how each stands.

    Raises `NonFiniteError` before anything is stepped if the gradient is not finite.
    """
    stepped = [parameter for optimizer in optimizers for parameter in optimizer.parameters]
    further = [] if joint_clip is None else [parameter for parameter in joint_clip[1] if parameter.requires_grad]
    gradients: Sequence[Tensor | None] = [None] * len([*stepped, *further])
    if loss.requires_grad:  # otherwise it depends on nothing that learns
        gradients = torch.autograd.grad(loss, [*stepped, *further], allow_unused=True)
    norms = _norms(gradients)
    joint_norm = _total(norms)
    if not torch.isfinite(joint_norm):
        words = ", ".join(f"{name} {term.item():.4g}" for name, term in (terms or {"loss": loss}).items())
        raise NonFiniteError(
            f"the gradient is not finite ({words}); nothing was stepped. Mend: a smaller learning rate"
        )
    position = 0
    for optimizer in optimizers:
        own = slice(position, position := position + len(optimizer.named))
        scale: Tensor | None
        if joint_clip is not None:
            scale = _scale(joint_norm, joint_clip[0])
        else:
            scale = None if optimizer.clip_norm is None else _scale(_total(norms[own]), optimizer.clip_norm)
        _step(optimizer, gradients[own], scale)


def accumulated(losses: Iterable[Tensor], optimizer: Optimizer) -> list[Tensor | None]:
    """The gradient of a sum of losses, one for each parameter of `optimizer`; None where none depends on it.

    Losses are taken one at a time: what one needs for its gradient is freed before the next is computed.
    """
    total: list[Tensor | None] = [None] * len(optimizer.named)
    for loss in losses:
        gradients = torch.autograd.grad(loss, optimizer.parameters, allow_unused=True)
        total = [
            new if so_far is None else so_far if new is None else so_far + new
            for so_far, new in zip(total, gradients, strict=True)
        ]
        del loss, gradients
    return total


def descend_along(gradients: Sequence[Tensor | None], optimizer: Optimizer) -> None:
    """One step of an optimizer with gradients that are not those of a single loss, one for each of its parameters.

    Raises `NonFiniteError` before anything is stepped if one is not finite.
    """
    norm = _total(_norms(gradients))
    if not torch.isfinite(norm):
        raise NonFiniteError("the gradient is not finite; nothing was stepped. Mend: a smaller learning rate")
    _step(optimizer, gradients, None if optimizer.clip_norm is None else _scale(norm, optimizer.clip_norm))


def _step(optimizer: Optimizer, gradients: Sequence[Tensor | None], scale: Tensor | None) -> None:
    parameters, given = [], []
    for parameter, gradient in zip(optimizer.parameters, gradients, strict=True):
        if gradient is not None:
            parameters.append(parameter)
            given.append(gradient)
    if scale is not None and given:
        given = list(torch._foreach_mul(given, scale))
    for parameter, gradient in zip(parameters, given, strict=True):
        parameter.grad = gradient
    optimizer.optimizer.step()
    for parameter in parameters:
        parameter.grad = None


def _norms(gradients: Sequence[Tensor | None]) -> list[Tensor | None]:
    """The Euclidean norm of each gradient that exists."""
    present = [gradient for gradient in gradients if gradient is not None]
    norms = iter(torch._foreach_norm(present) if present else ())
    return [None if gradient is None else next(norms) for gradient in gradients]


def _total(norms: Sequence[Tensor | None]) -> Tensor:
    """The norm of several gradients together, from the norm of each."""
    present = [norm for norm in norms if norm is not None]
    if not present:
        return torch.zeros(())
    total: Tensor = torch.linalg.vector_norm(torch.stack(present))
    return total


def _scale(norm: Tensor, largest: float) -> Tensor:
    """The factor that brings a norm down to `largest`, as `torch.nn.utils.clip_grad_norm_` computes it."""
    return torch.clamp(largest / (norm + 1e-6), max=1.0)
