"""The one descent: differentiate with respect to exactly the parameters that are stepped."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from cdarts.errors import NonFiniteError


class Optimizer:
    """A torch optimizer that knows its parameters by name, so that its state can follow them into another network."""

    def __init__(self, optimizer: torch.optim.Optimizer, parameters: Mapping[str, nn.Parameter], clip_norm: float | None) -> None:
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
            name: dict(self.optimizer.state[parameter]) for name, parameter in self.named.items() if parameter in self.optimizer.state
        }

    def load_state(self, state: Mapping[str, Mapping[str, Any]]) -> None:
        """Take over the state of the parameters that are known by name; the others start afresh."""
        for name, parameter in self.named.items():
            if name in state:
                self.optimizer.state[parameter] = {
                    entry: _like(value, parameter) if isinstance(value, Tensor) else value for entry, value in state[name].items()
                }


def _like(value: Tensor, parameter: nn.Parameter) -> Tensor:
    """A copy of a moment in its parameter's memory layout; Adam's step counter, a scalar, stays as it is."""
    if value.shape != parameter.shape:
        return value.clone()
    copy = torch.empty_like(parameter, dtype=value.dtype)
    copy.copy_(value)
    return copy


def descend(loss: Tensor, *optimizers: Optimizer, joint_clip: tuple[float, Iterable[nn.Parameter]] | None = None) -> None:
    """One step down `loss` for the parameters of `optimizers`, which step in the order given. No gradient stays behind.

    `joint_clip`: (norm, further parameters): instead of each optimizer's own clip, one norm over the gradients of all optimizers and
    of the further parameters, which are not stepped; how the CDARTS authors' code clips.

    Raises `NonFiniteError` before anything is stepped if the gradient is not finite.
    """
    stepped = [parameter for optimizer in optimizers for parameter in optimizer.parameters]
    further = [] if joint_clip is None else [parameter for parameter in joint_clip[1] if parameter.requires_grad]
    gradients = torch.autograd.grad(loss, [*stepped, *further], allow_unused=True)
    by_parameter = dict(zip(stepped, gradients, strict=False))

    groups = [[by_parameter[p] for p in optimizer.parameters] for optimizer in optimizers]
    norms = [_norm(group) for group in groups]
    if not all(torch.isfinite(norm) for norm in norms):
        raise NonFiniteError(
            f"the gradient is not finite (loss {loss.item():.4g}); nothing was stepped. Mend: a smaller learning rate, or look for "
            "broken images"
        )
    if joint_clip is not None:
        scales = [_scale(_norm(gradients), joint_clip[0])] * len(optimizers)
    else:
        scales = [
            None if optimizer.clip_norm is None else _scale(norm, optimizer.clip_norm)
            for optimizer, norm in zip(optimizers, norms, strict=True)
        ]
    for optimizer, group, scale in zip(optimizers, groups, scales, strict=True):
        for parameter, gradient in zip(optimizer.parameters, group, strict=True):
            parameter.grad = gradient if gradient is None or scale is None else gradient * scale
        optimizer.optimizer.step()
        for parameter in optimizer.parameters:
            parameter.grad = None


def _norm(gradients: Sequence[Tensor | None]) -> Tensor:
    """Euclidean norm over all gradients that exist."""
    present = [gradient for gradient in gradients if gradient is not None]
    if not present:
        return torch.zeros(())
    return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(present)))


def _scale(norm: Tensor, largest: float) -> Tensor:
    """The factor that brings a norm down to `largest`, as `torch.nn.utils.clip_grad_norm_` computes it."""
    return torch.clamp(largest / (norm + 1e-6), max=1.0)
