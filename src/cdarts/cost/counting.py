"""What a network costs: parameters and multiply-adds."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from cdarts.execution import PartialChannels, plain
from cdarts.networks import Cell, Network, num_parameters

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

    BatchNorm, activations, pools and sums are not counted. Cells are computed plainly meanwhile, since compiled kernels
    are nothing that could be counted. The network may lie on torch's ``meta`` device, which counts
    without computing; it is left in the training mode it came in.
    """
    weight = next(network.parameters())
    image = torch.zeros(1, image_channels, side, side, dtype=weight.dtype, device=weight.device)
    with _executed_plainly(network):
        _, macs = _computed(network, image)
    return Cost(parameters=num_parameters(network), macs=macs)


@contextlib.contextmanager
def _executed_plainly(network: Network) -> Iterator[None]:
    """Every cell edge by edge within the block."""
    cells = [module for module in network.modules() if isinstance(module, Cell)]
    own = [(cell.execute, cell.enter) for cell in cells]
    for cell in cells:
        if not isinstance(cell.execute, PartialChannels):  # that is plain already
            cell.execute = plain
        cell.enter = [plain for _ in cell.enter]
    try:
        yield
    finally:
        for cell, (execute, enter) in zip(cells, own, strict=True):
            cell.execute, cell.enter = execute, enter


def _computed(module: nn.Module, x: Tensor) -> tuple[Any, int]:
    """What a module makes of an input in evaluation mode, and the multiply-adds that it takes."""
    modes = [(part, part.training) for part in module.modules()]
    counter = FlopCounterMode(display=False)
    module.eval()
    try:
        with torch.no_grad(), counter:
            result = module(x)
    finally:
        for part, training in modes:
            part.training = training
    return result, counter.get_total_flops() // OPERATIONS_OF_A_MULTIPLY_ADD


def cost_by_part(network: Network, side: int, image_channels: int) -> dict[str, Cost]:
    """What a discrete network's stem, preprocessing, operations by name, other blocks and classifier cost.

    The parts add up to `network_cost`. Each operation is counted alone on what reaches it, so that any way of executing
    cells counts alike; those that have no multiply-adds are named as well.
    """
    weight = next(network.parameters())
    parts: dict[str, Cost] = {}

    def add(name: str, module: nn.Module, macs: int) -> None:
        before = parts.get(name, Cost(0, 0))
        parts[name] = Cost(before.parameters + num_parameters(module), before.macs + macs)

    def count_cell(cell: nn.Module, inputs: tuple[Any, ...], _: Any) -> None:
        assert isinstance(cell, Cell)
        for name, module, macs in _parts_of_cell(cell, inputs[0]):
            add(name, module, macs)

    image = torch.zeros(1, image_channels, side, side, dtype=weight.dtype, device=weight.device)
    add("stem", network.stem, _computed(network.stem, image)[1])
    total = network_cost(network, side, image_channels)
    cells = [module for module in network.modules() if isinstance(module, Cell)]
    hooks = [cell.register_forward_hook(count_cell) for cell in cells]
    modes = [(module, module.training) for module in network.modules()]
    try:
        with torch.no_grad(), _executed_plainly(network):
            network.eval()(image)
    finally:
        for hook in hooks:
            hook.remove()
        for module, training in modes:
            module.training = training
    classifier = network.classifier
    rest = Cost(
        total.parameters - sum(part.parameters for part in parts.values()) - num_parameters(classifier),
        total.macs - sum(part.macs for part in parts.values()) - classifier.in_features * classifier.out_features,
    )
    if rest != Cost(0, 0):
        parts["fixed blocks"] = rest
    add("classifier", classifier, classifier.in_features * classifier.out_features)
    return parts


def _parts_of_cell(cell: Cell, inputs: Sequence[Tensor]) -> Iterator[tuple[str, nn.Module, int]]:
    """Name, module and multiply-adds of what one cell is made of. inputs: (1, C, H, W) each."""
    states: dict[int, Tensor] = {}
    for number, (module, x) in enumerate(zip(cell.preprocess, inputs, strict=True)):
        states[number], macs = _computed(module, x)
        yield "preprocessing", module, macs
    for (edge, names), operations in zip(cell.topology.edges, cell.operations(cell.topology), strict=True):
        for name, operation in zip(names, operations, strict=True):
            # of a state the size alone matters, and every operation that ends in it gives that size
            states[edge.target], macs = _computed(operation, states[edge.source])
            yield name, operation, macs
