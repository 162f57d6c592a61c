"""One network class. Its topology decides what it is.

Every operation on every edge makes the search network (S-Net), a genotype's operations make the evaluation network
(E-Net). Weights bear the same names in every network of a space, ``cells.<i>.edges.<source>-<target>.<operation>...``,
so that networks share weights through their state dictionaries by name.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple, cast

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor, nn

from cdarts.execution import EXECUTIONS, WHOLE, DropPath, PartialChannels
from cdarts.operations import Operation
from cdarts.spaces import Space
from cdarts.topology import CellTopology, Edge, Slot, Topology

ONE_EDGE = CellTopology(num_inputs=1, num_nodes=1, edges=((Edge(target=1, source=0), ("preprocess",)),))
"""The cell that an input's preprocessing is."""


@contextmanager
def frozen(module: nn.Module, except_for: Iterable[nn.Parameter] = ()) -> Iterator[None]:
    """What is computed within the block passes no gradient to the module's weights, `except_for` some.

    A step that does not move them is spared the work.
    """
    kept = set(except_for)
    held = [parameter for parameter in module.parameters() if parameter.requires_grad and parameter not in kept]
    for parameter in held:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in held:
            parameter.requires_grad_(True)


def num_parameters(module: nn.Module) -> int:
    """How many weights a module has, whether or not they learn; one that is used in several places counts once."""
    return sum(parameter.numel() for parameter in module.parameters())


def accuracy(logits: Float[Tensor, "B K"], labels: Int64[Tensor, "B"]) -> Float64[Tensor, ""]:
    """Fraction of the batch whose largest logit is the label's, 0 to 1, apart from the graph."""
    return (logits.detach().argmax(dim=1) == labels).double().mean()


class Output(NamedTuple):
    """What a network gives: class logits (B, classes), and the stage outputs that embeddings read, in order."""

    logits: Tensor
    features: list[Tensor]


class Cell(nn.Module):
    """A searched cell: preprocessed inputs, a graph of operations, an output made of its nodes."""

    def __init__(
        self, space: Space, topology: CellTopology, slot: Slot, affine: bool, execution: str, partial: int
    ) -> None:
        super().__init__()
        self.space = space
        self.topology = topology
        self.execute = EXECUTIONS[execution]() if partial == 1 else PartialChannels(partial)
        self.preprocess = nn.ModuleList(space.preprocess(port, slot.channels, affine) for port in slot.inputs)
        self.enter = [EXECUTIONS[execution]() for _ in slot.inputs]
        self.edges = nn.ModuleDict()
        for edge, names in topology.edges:
            stride = slot.stride if edge.source < topology.num_inputs else 1
            self.edges[str(edge)] = nn.ModuleDict(
                {name: space.operation(name, slot.channels // partial, stride, affine) for name in names}
            )

    def operations(self, topology: CellTopology) -> list[list[Operation]]:
        """The operations of each edge of `topology`, which is this cell's own or a part of it."""
        bundles = [(cast(nn.ModuleDict, self.edges[str(edge)]), names) for edge, names in topology.edges]
        return [[cast(Operation, bundle[name]) for name in names] for bundle, names in bundles]

    def forward(
        self,
        inputs: Sequence[Tensor],
        weights: Tensor | None,
        drop_path: DropPath | None,
        paths: CellTopology | None = None,
    ) -> Tensor:
        states = [self.entered(number, x) for number, x in enumerate(inputs)]
        topology = self.topology if paths is None else paths
        return self.space.output(self.execute(topology, self.operations(topology), states, weights, drop_path))

    def entered(self, number: int, x: Tensor) -> Tensor:
        """An input after its preprocessing, which is executed as a cell of one edge where it is an operation."""
        preprocess = self.preprocess[number]
        if not isinstance(preprocess, Operation):
            return cast(Tensor, preprocess(x))
        (state,) = self.enter[number](ONE_EDGE, [[preprocess]], [x], None, None)
        return state


class Network(nn.Module):
    """Stem, skeleton of cells and fixed blocks, global average pooling, linear classifier."""

    def __init__(
        self,
        space: Space,
        topology: Topology,
        *,
        cells: int,
        channels: int,
        num_classes: int,
        image_channels: int = 3,
        affine: bool,
        execution: str = "share",
        stem: nn.Module | None = None,
        partial: int = 1,
    ) -> None:
        """`affine`: whether BatchNorm inside cells has weights; `stem`: a module to share instead of building one.

        `partial`: operations work on one channel in so many (PC-DARTS's K), which divides `channels`.

        Raises `ConfigurationError` for sizes that the space cannot build.
        """
        super().__init__()
        self.layout = space.layout(cells, channels)
        self.channels_last = execution != "plain"
        self.whole = WHOLE[execution]() if execution in WHOLE else None
        self.stem = space.stem(image_channels, channels) if stem is None else stem
        for slot in self.layout:
            group, index = slot.name.split(".")
            if not hasattr(self, group):
                self.add_module(group, nn.ModuleDict())
            block = (
                space.block(slot)
                if slot.kind is None
                else Cell(space, topology[slot.kind], slot, affine, execution, partial)
            )
            self.get_submodule(group).add_module(index, block)
        width = self.layout[-1].out_channels
        self.tail = space.tail(width)
        self.classifier = nn.Linear(width, num_classes)
        if self.channels_last:
            self.to(memory_format=torch.channels_last)

    @property
    def feature_channels(self) -> list[int]:
        """Channels of each tensor in `Output.features`."""
        return [slot.out_channels for slot in self.layout if slot.closes_stage]

    def forward(
        self,
        images: Float[Tensor, "B C H W"],
        weights: Mapping[str, Float[Tensor, "edges operations"]] | None = None,
        drop_path: DropPath | None = None,
        paths: Topology | None = None,
    ) -> Output:
        """`weights`: for each kind of cell its mixing weights, edges x operations; None for a discrete network.

        `paths`: the part of the network's own topology that is computed, as a search that samples uses it; the mixing
        weights are that part's, and an edge or operation outside costs nothing.
        """
        # what is drawn anew in every step cannot be part of a record, and outside of training none pays
        if self.whole is not None and self.training and torch.is_grad_enabled() and drop_path is None and paths is None:
            return Output(*self.whole(self.computed, images, weights))
        return Output(*self.computed(images, weights, drop_path, paths))

    def computed(
        self,
        images: Tensor,
        weights: Mapping[str, Tensor] | None,
        drop_path: DropPath | None = None,
        paths: Topology | None = None,
    ) -> tuple[Tensor, list[Tensor]]:
        """Logits and features, block by block."""
        if self.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        outputs: list[Tensor] = self.stem(images)
        features = []
        for slot in self.layout:
            block = self.get_submodule(slot.name)
            inputs = [outputs[port.source] for port in slot.inputs]
            if slot.kind is None:
                outputs.append(block(*inputs))
            else:
                outputs.append(
                    block(
                        inputs,
                        None if weights is None else weights[slot.kind],
                        drop_path,
                        None if paths is None else paths[slot.kind],
                    )
                )
            if slot.closes_stage:
                features.append(outputs[-1])
        pooled = self.tail(outputs[-1]).mean(dim=(2, 3))
        return self.classifier(pooled), features
