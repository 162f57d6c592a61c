"""Few large kernels in place of many small ones, for devices on which a step waits for kernels to be launched.

What a state's out-edges have alike is one operation on as many times the channels, (B, rows * C, H, W) with one row for
each edge: convolutions with their weights concatenated, one BatchNorm over all rows. The mixing weight of a row becomes
part of its BatchNorm's own scale and shift,  weight * (gamma * xhat + beta),  so that weighted messages cost no pass of
their own; states and pools, which have no BatchNorm, are mixed for all nodes by one matrix product. Weights stay where
they are, per edge and by name: concatenating them is part of the graph, and autograd takes their gradients apart.
"""

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cdarts.execution.base import DropPath
from cdarts.execution.fused import Stream, blocks_of, convs_of, halves_of
from cdarts.execution.normalization import normalizable
from cdarts.execution.share import share
from cdarts.operations import (
    BatchNormalized,
    Conv1x1,
    DilatedConv,
    FactorizedReduce,
    Identity,
    Operation,
    Pool,
    Prologue,
    ReluConvBatchNorm,
    SeparableConv,
    Zero,
    pointwise,
)
from cdarts.topology import CellTopology


class Merged:
    """The execution of one cell: what can be merged in it is found out once for each topology."""

    def __init__(self) -> None:
        self.program: _Program | None = None

    def __call__(
        self,
        cell: CellTopology,
        operations: Sequence[Sequence[Operation]],
        inputs: Sequence[Tensor],
        weights: Tensor | None,
        drop_path: DropPath | None,
    ) -> list[Tensor]:
        """The same nodes as `plain`. Drop-path, and cells in which nothing can be merged, are left to `share`."""
        if self.program is None or self.program.cell is not cell:
            self.program = _Program(cell, operations)
        if drop_path is not None or not self.program.merges():
            return share(cell, operations, inputs, weights, drop_path)
        return self.program.nodes(inputs, weights)


# -- what a state emits ------------------------------------------------------------------------------------------------


Group = list[Stream]
"""Operations alike, from one state to different nodes."""


def _alike(operation: Operation) -> Hashable:
    """What operations must have in common to be merged: the prologue, and every module's kind and geometry."""
    return (operation.prologue, *map(_geometry, operation.modules()))


def _geometry(module: nn.Module) -> Hashable:
    match module:
        case nn.Conv2d():
            shape = (module.in_channels, module.out_channels, module.kernel_size, module.groups)
            return (*shape, module.stride, module.padding, module.dilation)
        case nn.BatchNorm2d():
            return module.num_features, module.affine
        case _:
            return type(module).__name__


@dataclass(frozen=True)
class _Emission:
    """The streams of one state."""

    groups: dict[Hashable, Group] = field(default_factory=dict)
    """Those that end in a BatchNorm."""
    bare: dict[Prologue, Group] = field(default_factory=dict)
    """States and pools as they are."""

    def add(self, stream: Stream) -> bool:
        """False if it is not known how to merge the stream's operation."""
        match stream.operation:
            case Identity() | Pool():
                bare = self.bare.setdefault(stream.operation.prologue, [])
                if any(other.target == stream.target for other in bare):
                    return False
                bare.append(stream)
            case (
                SeparableConv()
                | DilatedConv()
                | ReluConvBatchNorm()
                | FactorizedReduce()
                | BatchNormalized(operation=Pool())
            ):
                self.groups.setdefault(_alike(stream.operation), []).append(stream)
            case _:
                return False
        return True

    @property
    def bare_targets(self) -> list[int]:
        return sorted({stream.target for streams in self.bare.values() for stream in streams})


class _Program:
    """What the states of one cell emit, and the cell's nodes computed by it."""

    def __init__(self, cell: CellTopology, operations: Sequence[Sequence[Operation]]) -> None:
        self.cell = cell
        self.emissions = [_Emission() for _ in range(cell.num_inputs + cell.num_nodes)]
        self.zeros: dict[int, tuple[int, Zero]] = {}
        """By node, an edge into it that carries ``none``: its source and operation."""
        known = True
        for position, (edge, _) in enumerate(cell.edges):
            for column, operation in enumerate(operations[position]):
                if isinstance(operation, Zero):
                    self.zeros[edge.target] = edge.source, operation
                    continue
                own = [module for module in operation.modules() if isinstance(module, nn.BatchNorm2d)]
                stream = Stream(edge.target, (position, column), operation, own[-1] if own else None)
                known &= self.emissions[edge.source].add(stream)
        self.groups = [group for emission in self.emissions for group in emission.groups.values()]
        self.norms = [
            module
            for group in self.groups
            for stream in group
            for module in stream.operation.modules()
            if isinstance(module, nn.BatchNorm2d)
        ]
        ends = [cast(nn.BatchNorm2d, stream.norm) for group in self.groups for stream in group]
        # BatchNorms of one group are affine together, but those of pools never are
        kinds = [[norm for norm in self.norms if norm.affine is affine] for affine in (True, False)]
        self.known = (
            known
            and all(normalizable(norms) for norms in kinds)
            and len({(norm.momentum, norm.eps) for norm in self.norms}) == 1
            and len({norm.num_features for norm in ends}) == 1
            and any(len(group) > 1 for group in self.groups)
        )
        self.mixing = _Mixing(self.emissions)

    def merges(self) -> bool:
        """Whether there is something to merge, in a way that is known."""
        return self.known and len({norm.training for norm in self.norms}) == 1

    def nodes(self, inputs: Sequence[Tensor], weights: Tensor | None) -> list[Tensor]:
        scales, matrices = self.mixing.parts(weights)
        normalize = _Normalize(self.norms)
        states, sums = list(inputs), _Sums()
        for source, emission in enumerate(self.emissions):
            if source >= self.cell.num_inputs:
                states.append(sums.of[source] if source in sums.of else self.nothing(source, states))
            begun = _Begun(states[source])
            merged: dict[tuple[int, ...], Tensor] = {}
            for group in emission.groups.values():
                targets = tuple(stream.target for stream in group)
                ends = [cast(nn.BatchNorm2d, stream.norm) for stream in group]
                messages = normalize(_before_last_norm(group, begun, normalize), ends, next(scales))
                merged[targets] = merged[targets] + messages if targets in merged else messages
            for targets, messages in merged.items():
                sums.add(targets, messages.chunk(len(targets), dim=1))
            if weights is None:
                for prologue, group in emission.bare.items():
                    sums.add([stream.target for stream in group], [begun(prologue)] * len(group))
            elif emission.bare:
                sums.add(emission.bare_targets, _mixed(next(matrices), [begun(prologue) for prologue in emission.bare]))
        normalize.keep_running()
        return states[self.cell.num_inputs :]

    def nothing(self, node: int, states: Sequence[Tensor]) -> Tensor:
        """A node that only ``none`` leads to."""
        source, zero = self.zeros[node]
        return cast(Tensor, zero(states[source]))


class _Sums:
    """Nodes while their summands arrive."""

    def __init__(self) -> None:
        self.of: dict[int, Tensor] = {}

    def add(self, targets: Sequence[int], messages: Sequence[Tensor]) -> None:
        for target, message in zip(targets, messages, strict=True):
            self.of[target] = self.of[target] + message if target in self.of else message


class _Begun:
    """A state's prologues, and these side by side, each computed once."""

    def __init__(self, state: Tensor) -> None:
        self.state = state
        self.results: dict[Prologue, Tensor] = {}
        self.repetitions: dict[tuple[Prologue, int], Tensor] = {}

    def __call__(self, prologue: Prologue) -> Tensor:
        if prologue not in self.results:
            self.results[prologue] = prologue(self.state)
        return self.results[prologue]

    def repeated(self, prologue: Prologue, rows: int) -> Tensor:
        """(B, rows * C, H, W), channels last."""
        if (prologue, rows) not in self.repetitions:
            pixels = self(prologue).permute(0, 2, 3, 1).unsqueeze(3)
            self.repetitions[prologue, rows] = pixels.expand(-1, -1, -1, rows, -1).flatten(3).permute(0, 3, 1, 2)
        return self.repetitions[prologue, rows]


# -- mixing weights ----------------------------------------------------------------------------------------------------


class _Mixing:
    """A cell's mixing weights as its kernels take them, gathered in one pass."""

    def __init__(self, emissions: Sequence[_Emission]) -> None:
        groups = [group for emission in emissions for group in emission.groups.values()]
        self.rows = [len(group) for group in groups]
        self.channels = max((cast(nn.BatchNorm2d, group[0].norm).num_features for group in groups), default=0)
        self.shapes = [(len(e.bare_targets), len(e.bare)) for e in emissions if e.bare]
        self.places: list[tuple[int, int] | None] = [stream.place for group in groups for stream in group]
        """Of the weights in their order; None stands for 0, where a state or pool does not reach a node."""
        for emission in emissions:
            for target in emission.bare_targets:
                for group in emission.bare.values():
                    reaching = (stream.place for stream in group if stream.target == target)
                    self.places.append(next(reaching, None))
        self.index: Tensor | None = None

    def parts(self, weights: Tensor | None) -> tuple[Iterator[Tensor | None], Iterator[Tensor]]:
        """For each group the factors of its channels (rows * C,), None without weights; for each state that emits bare
        streams, in order, its matrix nodes x streams."""
        if weights is None:
            return iter([None] * len(self.rows)), iter(())
        if self.index is None or self.index.device != weights.device:
            columns, nothing = weights.shape[1], weights.numel()
            flat = [nothing if place is None else place[0] * columns + place[1] for place in self.places]
            self.index = torch.tensor(flat, device=weights.device)
        gathered = F.pad(weights.flatten(), (0, 1)).index_select(0, self.index)
        sizes = [sum(self.rows), *(nodes * streams for nodes, streams in self.shapes)]
        factors, *matrices = gathered.split_with_sizes(sizes)
        spread = factors[:, None].expand(-1, self.channels).flatten()  # BatchNorm wants it contiguous
        scales = spread.split_with_sizes([rows * self.channels for rows in self.rows])
        return iter(scales), (matrix.view(shape) for matrix, shape in zip(matrices, self.shapes, strict=True))


def _mixed(matrix: Tensor, streams: Sequence[Tensor]) -> list[Tensor]:
    """Weighted sums: from a matrix nodes x streams and the streams (B, C, H, W) to what each node gets of them."""
    pixels = torch.stack([stream.permute(0, 2, 3, 1) for stream in streams])
    sums = (matrix @ pixels.flatten(1)).view(-1, *pixels.shape[1:])
    return [x.permute(0, 3, 1, 2) for x in sums]


# -- merged layers -----------------------------------------------------------------------------------------------------


def _before_last_norm(group: Group, begun: _Begun, normalize: "_Normalize") -> Tensor:
    """(B, rows * C, H, W): a group's operations up to their last BatchNorm."""
    operation, prologue = group[0].operation, group[0].operation.prologue
    match operation:
        case SeparableConv() | DilatedConv():
            x = begun.repeated(prologue, len(group))
            *inner, last = zip(*map(blocks_of, group), strict=True)
            for blocks in inner:
                x = _each_its_own(x, [block.depthwise for block in blocks])
                x = _each_its_own(x, [block.pointwise for block in blocks])
                x = F.relu(normalize(x, [block.norm for block in blocks]))
            x = _each_its_own(x, [block.depthwise for block in last])
            return _each_its_own(x, [block.pointwise for block in last])
        case ReluConvBatchNorm():
            return _all_the_same(begun(prologue), convs_of(group))
        case FactorizedReduce():
            x = begun(prologue)
            height, width = x.shape[2:]
            if height % 2 or width % 2:
                x = F.pad(x, (0, width % 2, 0, height % 2))
            halves = [
                _all_the_same(x[:, :, shift:, shift:], [conv for _, conv in convs]).chunk(len(group), dim=1)
                for shift, convs in enumerate(zip(*map(halves_of, group), strict=True))
            ]
            return torch.cat(list(chain(*zip(*halves, strict=True))), dim=1)
        case _:
            return begun.repeated(prologue, len(group))


def _each_its_own(x: Tensor, convs: Sequence[nn.Conv2d]) -> Tensor:
    """Convolutions alike, side by side, each of its own channels of `x`."""
    conv = convs[0]
    groups = len(convs) * conv.groups
    return F.conv2d(x, _weights(convs), None, conv.stride, conv.padding, conv.dilation, groups)


def _all_the_same(x: Tensor, convs: Sequence[nn.Conv2d]) -> Tensor:
    """Dense convolutions alike, side by side, all of the same `x`."""
    conv = convs[0]
    if isinstance(conv, Conv1x1):
        return pointwise(x, _weights(convs), conv.stride[0])
    return F.conv2d(x, _weights(convs), None, conv.stride, conv.padding, conv.dilation)


def _weights(modules: Sequence[nn.Conv2d] | Sequence[nn.BatchNorm2d]) -> Tensor:
    return _side_by_side([module.weight for module in modules])


def _side_by_side(tensors: Sequence[Tensor]) -> Tensor:
    return tensors[0] if len(tensors) == 1 else torch.cat(list(tensors))


class _Normalize:
    """BatchNorm over the channels of several modules at once, for the modules of one cell.

    While training, each keeps its running statistics; since they are not read then, all of the cell's move together at
    the end.
    """

    def __init__(self, norms: Sequence[nn.BatchNorm2d]) -> None:
        """`norms`: all that are going to be met, all in the same mode."""
        self.training = norms[0].training
        self.met: list[nn.BatchNorm2d] = []
        if self.training:
            running = cast(Tensor, norms[0].running_mean)
            self.observed = running.new_zeros(2, sum(norm.num_features for norm in norms))
            """Mean and variance of the batch."""
            self.begin = 0

    def __call__(self, x: Tensor, norms: Sequence[nn.BatchNorm2d], factor: Tensor | None = None) -> Tensor:
        """`factor`: (channels,), what the result is multiplied by."""
        scale, shift = factor, None
        if norms[0].affine:
            scale, shift = _weights(norms), _side_by_side([norm.bias for norm in norms])
            if factor is not None:
                scale, shift = scale * factor, shift * factor
        if not self.training:
            mean, variance = (
                _side_by_side([cast(Tensor, buffer) for buffer in buffers])
                for buffers in zip(*((norm.running_mean, norm.running_var) for norm in norms), strict=True)
            )
            return F.batch_norm(x, mean, variance, scale, shift, eps=norms[0].eps)
        mean, variance = self.observed.narrow(1, self.begin, x.shape[1])
        self.begin += x.shape[1]
        self.met += norms
        # by momentum 1 a running statistic is what the batch has
        return F.batch_norm(x, mean, variance, scale, shift, training=True, momentum=1.0, eps=norms[0].eps)

    def keep_running(self) -> None:
        """By their momentum, as PyTorch does; not where scoring with batch statistics has switched it off."""
        if not self.training or not all(norm.track_running_stats for norm in self.met):
            return
        with torch.no_grad():
            sizes = [norm.num_features for norm in self.met]
            observed = [part for row in self.observed for part in row.split_with_sizes(sizes)]
            buffers = [*(norm.running_mean for norm in self.met), *(norm.running_var for norm in self.met)]
            torch._foreach_lerp_(
                [cast(Tensor, buffer) for buffer in buffers], observed, cast(float, self.met[0].momentum)
            )
            torch._foreach_add_([cast(Tensor, norm.num_batches_tracked) for norm in self.met], 1)
