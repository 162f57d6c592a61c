"""An exponential moving average of a network's weights."""

import copy

import torch
from torch import Tensor

from cdarts.networks import Network


class WeightAverage:
    """A network of its own whose weights and BatchNorm statistics follow another's.

    average = decay * average + (1 - decay) * value after each step (Polyak and Juditsky, "Acceleration of Stochastic
    Approximation by Averaging", 1992, in the exponential form of Kingma and Ba, "Adam", section 7.2). The decay of step
    t is min(decay, (1 + t) / (10 + t)), as in TensorFlow's ExponentialMovingAverage, so that the weights that training
    began with are soon forgotten.
    """

    def __init__(self, network: Network, decay: float) -> None:
        self.decay = decay
        self.network = copy.deepcopy(network).requires_grad_(False)

    def decay_at(self, step: int) -> float:
        """Of a step, counted from 0 over the whole training."""
        return min(self.decay, (1 + step) / (10 + step))

    @torch.no_grad()
    def follow(self, network: Network, step: int) -> None:
        """Take in the weights that `step` has led to."""
        pairs = list(zip(_tensors(self.network), _tensors(network), strict=True))
        real = [(own, other) for own, other in pairs if own.is_floating_point()]
        torch._foreach_lerp_([own for own, _ in real], [other for _, other in real], 1.0 - self.decay_at(step))
        for own, other in pairs:
            if not own.is_floating_point():
                own.copy_(other)


def _tensors(network: Network) -> list[Tensor]:
    return [*(parameter.detach() for parameter in network.parameters()), *network.buffers()]
