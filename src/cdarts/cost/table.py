"""What each choice in a network costs: a table from which the cost of every genotype of a space follows.

Parameters and multiply-adds of a network are exactly the sum of those of its edges and of the rest. Latency nearly is;
`cdarts.cost.latency` measures how nearly.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from cdarts.cost.counting import OPERATIONS_OF_A_MULTIPLY_ADD, network_cost
from cdarts.networks import Cell, Network, num_parameters
from cdarts.operations import Operation
from cdarts.spaces import Space
from cdarts.topology import Choice, Edge, Genotype


class Amount(NamedTuple):
    """A cost, or a part of one."""

    parameters: int
    macs: int
    """Multiply-adds for one image."""
    nanoseconds: int
    """Time for one image, alone in its batch; 0 where it is not measured."""

    def plus(self, other: "Amount", times: int = 1) -> "Amount":
        """The sum with so many of another."""
        return Amount(*(mine + times * theirs for mine, theirs in zip(self, other, strict=True)))


NOTHING = Amount(0, 0, 0)


class Place(NamedTuple):
    """Where an operation stands in a network: its shape is all that its cost depends on."""

    channels: int
    side: int
    """Of the state that it reads."""
    stride: int


@dataclass(frozen=True)
class Size:
    """A network's size, apart from its cells."""

    cells: int
    channels: int
    num_classes: int
    side: int
    """Of the images, in pixels."""
    image_channels: int

    def network(self, space: Space, genotype: Genotype, device: str = "meta") -> Network:
        """A genotype's network, on torch's ``meta`` device, where it has shapes but no numbers, unless told."""
        with torch.device(device):
            return Network(
                space,
                space.topology(genotype),
                cells=self.cells,
                channels=self.channels,
                num_classes=self.num_classes,
                image_channels=self.image_channels,
                affine=True,
            )


@dataclass(frozen=True)
class CostTable:
    """The cost of every choice in every kind of cell, summed over all cells of that kind, and that of the rest."""

    rest: Amount
    """Stem, preprocessing, fixed blocks, classifier."""
    choices: Mapping[str, Mapping[Choice, Amount]]

    def cost(self, genotype: Genotype) -> Amount:
        """The cost of a genotype's network."""
        total = self.rest
        for kind, choices in genotype.cells.items():
            for choice in choices:
                total = total.plus(self.choices[kind][choice])
        return total


def any_genotype(space: Space) -> Genotype:
    """The first alternative of every decision."""
    cell = tuple(choice for alternatives in space.decisions() for choice in alternatives[0])
    return Genotype(space.name, dict.fromkeys(space.kinds, cell))


def places(space: Space, size: Size) -> dict[str, dict[Edge, dict[Place, int]]]:
    """For each kind of cell and each edge the places it stands at in a network, and how often."""
    network = size.network(space, any_genotype(space))
    sides: dict[str, int] = {}

    def note(name: str, inputs: list[Tensor]) -> None:
        sides[name] = inputs[-1].shape[2]

    for slot in network.layout:
        if slot.kind is not None:
            cell = cast(Cell, network.get_submodule(slot.name))
            cell.register_forward_pre_hook(lambda _, given, name=slot.name: note(name, given[0]))
    network.eval()
    with torch.no_grad(), torch.device("meta"):
        network(torch.zeros(1, size.image_channels, size.side, size.side))
    found: dict[str, dict[Edge, dict[Place, int]]] = {
        kind: {edge: {} for edge in space.all_edges()} for kind in space.kinds
    }
    for slot in network.layout:
        if slot.kind is None:
            continue
        for edge, counts in found[slot.kind].items():
            enters = edge.source < space.num_inputs
            side = sides[slot.name] if enters else -(-sides[slot.name] // slot.stride)
            place = Place(slot.channels, side, slot.stride if enters else 1)
            counts[place] = counts.get(place, 0) + 1
    return found


def operation_cost(space: Space, name: str, place: Place) -> Amount:
    """Parameters and multiply-adds of one operation."""
    with torch.device("meta"):
        operation = space.operation(name, place.channels, place.stride, affine=True).eval()
        state = torch.zeros(1, place.channels, place.side, place.side)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        operation(state)
    return Amount(num_parameters(operation), counter.get_total_flops() // OPERATIONS_OF_A_MULTIPLY_ADD, 0)


@cache
def cost_table(space: Space, size: Size) -> CostTable:
    """Count every choice of a space in a network of a size; takes a second and computes nothing.

    Raises `ConfigurationError` for a size that the space cannot build.
    """
    counted: dict[tuple[str, Place], Amount] = {}
    choices: dict[str, dict[Choice, Amount]] = {}
    for kind, edges in places(space, size).items():
        choices[kind] = {}
        for edge, counts in edges.items():
            for name in space.operations:
                total = NOTHING
                for place, times in counts.items():
                    if (name, place) not in counted:
                        counted[name, place] = operation_cost(space, name, place)
                    total = total.plus(counted[name, place], times)
                choices[kind][Choice(edge, name)] = total
    some = any_genotype(space)
    whole = network_cost(size.network(space, some), size.side, size.image_channels)
    edges_alone = CostTable(NOTHING, choices).cost(some)
    rest = Amount(whole.parameters, whole.macs, 0).plus(edges_alone, times=-1)
    return CostTable(rest, choices)


# -- memory ------------------------------------------------------------------------------------------------------------


def activation_bytes(network: nn.Module, images: Float[Tensor, "B C H W"]) -> int:
    """Bytes of the tensors that the backward pass of one training step keeps, weights apart; each storage counts once.

    Real numbers are needed, since on the ``meta`` device nothing is stored.
    """
    kept: dict[int, int] = {}
    weights = {parameter.untyped_storage().data_ptr() for parameter in network.parameters()}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = network(images)
    del output
    return sum(kept.values())


def built_operation(space: Space, name: str, place: Place) -> Operation:
    """An operation with numbers in it, on the CPU, in evaluation mode."""
    return space.operation(name, place.channels, place.stride, affine=True).eval()
