"""What a network costs: parameters and multiply-adds."""

from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from cdarts.networks import Network, num_parameters

OPERATIONS_OF_A_MULTIPLY_ADD = 2
"""The counter counts a multiplication and an addition apart."""


@dataclass(frozen=True)
class Cost:
    """The cost of one network."""

    parameters: int
    """All weights, the classifier's included."""
    macs: int
    """Multiply-adds of convolutions and linear layers for one image, as NAS-Bench-201 and CDARTS count them."""


def network_cost(network: Network, side: int, image_channels: int) -> Cost:
    """Count a network's weights, and its multiply-adds for one image of `side` x `side` pixels.

    BatchNorm, activations, pools and sums are not counted. The network may lie on torch's ``meta`` device, which counts
    without computing; it is left in the training mode it came in.
    """
    weight = next(network.parameters())
    image = torch.zeros(1, image_channels, side, side, dtype=weight.dtype, device=weight.device)
    modes = [(module, module.training) for module in network.modules()]
    counter = FlopCounterMode(display=False)
    network.eval()
    try:
        with torch.no_grad(), counter:
            network(image)
    finally:
        for module, training in modes:
            module.training = training
    return Cost(
        parameters=num_parameters(network),
        macs=counter.get_total_flops() // OPERATIONS_OF_A_MULTIPLY_ADD,
    )
