"""The cell as one differentiable function, computed by the passes of ``kernels.cpp``.

A source state emits *streams*: itself, its pools, and what its out-edges' operations make of it before their last
BatchNorm. A node is one weighted sum over streams, in which BatchNorm and the mixing weight of a stream are together
one factor and one offset for each channel,  weight * BatchNorm(z) = A * z + D,  so that neither normalized nor weighted
tensors are ever stored. The backward pass walks the states in reverse: sums over pixels of g and of g * z, with g the
gradient at the node, give the gradients of weight, gamma and beta and, in closed form, that at z.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from cdarts.execution.base import DropPath
from cdarts.execution.compiler import kernels
from cdarts.execution.kernels import ClosedForm, Kernels, Part, images, pixels
from cdarts.execution.normalization import Normalization, normalizable, normalization
from cdarts.execution.share import share
from cdarts.operations import (
    AvgPool3x3,
    BatchNormalized,
    DepthwisePointwise,
    DilatedConv,
    FactorizedReduce,
    Identity,
    MaxPool3x3,
    Operation,
    Pool,
    ReluConvBatchNorm,
    SeparableConv,
    Zero,
)
from cdarts.topology import CellTopology

KERNELS = (3, 5)
"""Sides of depthwise kernels that ``kernels.cpp`` is compiled for."""


class Fused:
    """The execution of one cell: what it emits is found out once for each topology."""

    def __init__(self, *, recompute: bool = False) -> None:
        """`recompute`: what streams are made of is not kept for the backward pass, but computed again."""
        self.recompute = recompute
        self.program: _Program | None = None

    def __call__(
        self,
        cell: CellTopology,
        operations: Sequence[Sequence[Operation]],
        inputs: Sequence[Tensor],
        weights: Tensor | None,
        drop_path: DropPath | None,
    ) -> list[Tensor]:
        """The same nodes as `plain`. `share` computes what the kernels do not cover: drop-path, GPUs, other
        types; and what they are slower at: cells of few dense convolutions."""
        program = self.program
        if program is None or program.cell is not cell:
            program = self.program = _Program.of(cell, operations)
        pays = weights is not None or program.pays_unmixed
        if drop_path is not None or not pays or not program.covers(inputs) or kernels(inputs[0].dtype) is None:
            return share(cell, operations, inputs, weights, drop_path)
        nodes: tuple[Tensor, ...] = _FusedCell.apply(program, self.recompute, weights, *inputs, *program.parameters())
        return list(nodes)


# -- what a state emits ------------------------------------------------------------------------------------------------


class Stream(NamedTuple):
    """One summand of a node."""

    target: int
    place: tuple[int, int]
    """Row and column of its mixing weight."""
    operation: Operation
    norm: nn.BatchNorm2d | None
    """The last."""


@dataclass(frozen=True)
class Emission:
    """The streams of one state, those of a kind one after another; `rows` has them in this order."""

    same: list[Stream] = field(default_factory=list)
    pools: dict[MaxPool3x3 | AvgPool3x3, list[Stream]] = field(default_factory=dict)
    dense: dict[int, list[Stream]] = field(default_factory=dict)
    """By the kernel's side."""
    reductions: list[Stream] = field(default_factory=list)
    separable: list[Stream] = field(default_factory=list)

    def add(self, stream: Stream) -> bool:
        """False if there are no kernels for the stream's operation."""
        match stream.operation:
            case Identity():
                self.same.append(stream)
            case Pool(prologue=MaxPool3x3() | AvgPool3x3() as pool):
                self.pools.setdefault(pool, []).append(stream)
            case BatchNormalized(prologue=MaxPool3x3() | AvgPool3x3() as pool, operation=Pool()):
                self.pools.setdefault(pool, []).append(stream)
            case ReluConvBatchNorm(conv=conv) if conv.stride[0] == 1 or conv.kernel_size[0] == 1:
                self.dense.setdefault(conv.kernel_size[0], []).append(stream)
            case FactorizedReduce():
                self.reductions.append(stream)
            case DilatedConv() | SeparableConv() if all(
                block.depthwise.kernel_size[0] in KERNELS for block in blocks_of(stream)
            ):
                self.separable.append(stream)
            case _:
                return False
        return True

    @cached_property
    def rows(self) -> list[Stream]:
        groups = [self.same, *self.pools.values(), *self.dense.values(), self.reductions, self.separable]
        return [stream for group in groups for stream in group]

    def channels(self, state: Tensor) -> int:
        """Of every stream: the state's, unless convolutions change them, as those before a cell do."""
        if self.dense:
            return convs_of(next(iter(self.dense.values())))[0].out_channels
        if self.reductions:
            return sum(half.out_channels for _, half in halves_of(self.reductions[0]))
        return state.shape[3]

    @cached_property
    def targets(self) -> dict[int, list[int]]:
        """Rows by node, in order."""
        chosen: dict[int, list[int]] = {}
        for row, stream in enumerate(self.rows):
            chosen.setdefault(stream.target, []).append(row)
        return dict(sorted(chosen.items()))

    @cached_property
    def by_target(self) -> Tensor:
        """Rows in the order of the nodes."""
        return torch.tensor([row for rows in self.targets.values() for row in rows])

    @cached_property
    def membership(self) -> Tensor:
        """(targets, rows): 1 where a row belongs to a node."""
        return torch.tensor(
            [[float(row in rows) for row in range(len(self.rows))] for rows in self.targets.values()],
            dtype=torch.float64,
        )

    @cached_property
    def places(self) -> tuple[Tensor, Tensor]:
        """Of the rows' mixing weights."""
        return torch.tensor([s.place[0] for s in self.rows]), torch.tensor([s.place[1] for s in self.rows])

    def mixing(self, weights: Tensor | None) -> Tensor | float:
        """(rows, 1)."""
        return 1.0 if weights is None else weights[self.places][:, None]


def blocks_of(stream: Stream) -> list[DepthwisePointwise]:
    """Of a separable or dilated convolution."""
    operation = stream.operation
    if isinstance(operation, SeparableConv):
        return [operation.first, operation.second]
    assert isinstance(operation, DilatedConv)
    return [operation.conv]


def convs_of(streams: Sequence[Stream]) -> list[nn.Conv2d]:
    """Of dense convolutions."""
    return [cast(ReluConvBatchNorm, stream.operation).conv for stream in streams]


def halves_of(stream: Stream) -> list[tuple[int, nn.Conv2d]]:
    """Of a reduction: by how many pixels its input is shifted, and the convolution."""
    operation = cast(FactorizedReduce, stream.operation)
    return list(enumerate((operation.even, operation.odd)))


@dataclass
class _Program:
    """What the states of a cell emit, and the cell's parameters in order."""

    cell: CellTopology
    emissions: list[Emission]
    known: bool
    """Whether there are kernels for all operations."""
    norms: list[nn.BatchNorm2d]
    slots: list[tuple[nn.Module, str]]
    """Where the parameters are: a module, and the name of one of its own."""
    empty: dict[int, tuple[int, int]]
    """Nodes that nothing but ``none`` leads to: a source, and the stride."""

    @property
    def pays_unmixed(self) -> bool:
        """Whether the kernels are faster than `share` where each edge has one operation: with separable convolutions,
        or before a cell. Dense ones PyTorch computes as fast, and with fewer calls."""
        return len(self.cell.edges) == 1 or any(emission.separable for emission in self.emissions)

    @classmethod
    def of(cls, cell: CellTopology, operations: Sequence[Sequence[Operation]]) -> "_Program":
        emissions = [Emission() for _ in range(cell.num_inputs + cell.num_nodes)]
        known, norms, slots = True, [], []
        zeros: dict[int, tuple[int, int]] = {}
        for position, (edge, _) in enumerate(cell.edges):
            for column, operation in enumerate(operations[position]):
                if isinstance(operation, Zero):
                    zeros[edge.target] = (edge.source, operation.stride)
                    continue
                modules = list(operation.modules())
                own = [module for module in modules if isinstance(module, nn.BatchNorm2d)]
                last = own[-1] if own else None
                known &= emissions[edge.source].add(Stream(edge.target, (position, column), operation, last))
                norms += own
                slots += [(module, name) for module in modules for name, _ in module.named_parameters(recurse=False)]
        reached = {stream.target for emission in emissions for stream in emission.rows}
        empty = {target: zero for target, zero in zeros.items() if target not in reached}
        return cls(cell, emissions, known and normalizable(norms), norms, slots, empty)

    def covers(self, inputs: Sequence[Tensor]) -> bool:
        """Whether the kernels compute this cell on these inputs; BatchNorm needs more than one value a channel."""
        training = [norm.training for norm in self.norms]
        least = min(x.shape[0] * max(x.shape[2] // 2, 1) * max(x.shape[3] // 2, 1) for x in inputs)
        return (
            self.known
            and least > 1
            and all(training) == any(training)
            and all(x.device.type == "cpu" and x.dtype == inputs[0].dtype for x in inputs)
            and all(parameter.dtype == inputs[0].dtype for parameter in self.parameters())
        )

    def parameters(self) -> list[Tensor]:
        return [getattr(module, name) for module, name in self.slots]


# -- forward -----------------------------------------------------------------------------------------------------------


class _Emitted(NamedTuple):
    """What a state emitted, before the streams' last BatchNorm, each (B, H, W, C)."""

    pooled: list[Tensor]
    dense: list[Tensor]
    """By kernel, (B, H, W, streams * C)."""
    reduced: list[Tensor]
    separated: list[Tensor]
    inner: list[Tensor | None]
    """Between the two blocks of a separable convolution."""

    def parts(self, state: Tensor, emission: Emission) -> list[Part]:
        """Each stream's, in the order of the rows."""
        parts: list[Part] = [(state, 0)] * len(emission.same)
        for pooled, streams in zip(self.pooled, emission.pools.values(), strict=True):
            parts += [(pooled, 0)] * len(streams)
        for z, streams in zip(self.dense, emission.dense.values(), strict=True):
            parts += [(z, number * emission.channels(state)) for number in range(len(streams))]
        return parts + [(z, 0) for z in (*self.reduced, *self.separated)]


class _Inner(NamedTuple):
    """BatchNorm between the blocks of separable convolutions: as its statistics have it, and as the kernels read it."""

    norm: Normalization
    a: Tensor
    b: Tensor

    def affine(self, row: int) -> tuple[Tensor, Tensor]:
        return self.a[row], self.b[row]


def _first_blocks(run: Kernels, state: Tensor, emission: Emission) -> tuple[list[Tensor | None], _Inner | None]:
    """The first blocks of separable convolutions, and the BatchNorm after them."""
    chains = [blocks_of(stream) for stream in emission.separable]
    if all(len(chain) == 1 for chain in chains):
        return [None] * len(chains), None
    moments = torch.zeros(2, len(chains), state.shape[3], dtype=torch.float64)
    inner = [
        run.separable(state, None, chain[0], moments[:, row]) if len(chain) > 1 else None
        for row, chain in enumerate(chains)
    ]
    some = next(z for z in inner if z is not None)
    norm = normalization([chain[0].norm if len(chain) > 1 else None for chain in chains], moments, _values(some))
    a, b = norm.factors()
    return inner, _Inner(norm, run.own(a), run.own(b))


def _last_blocks(
    run: Kernels,
    state: Tensor,
    emission: Emission,
    inner: list[Tensor | None],
    inner_norm: _Inner | None,
    moments: Tensor | None,
) -> _Emitted:
    """What a state emits. `moments` (2, rows, C) are written if given."""
    channels = emission.channels(state)
    row = len(emission.same)

    def moments_of(row: int, streams: int = 1, begin: int = 0) -> Tensor | None:
        return None if moments is None else moments[:, row : row + streams].flatten(1)[:, begin:]

    pooled = _pooled(run, state, emission)
    for x, streams in zip(pooled, emission.pools.values(), strict=True):
        if moments is not None and any(stream.norm is not None for stream in streams):
            run.moments(x, moments[:, row])
            moments[:, row + 1 : row + len(streams)] = moments[:, row : row + 1]
        row += len(streams)
    dense: list[Tensor] = []
    for streams in emission.dense.values():
        convs = convs_of(streams)
        dense.append(_room(run, state, convs[0].stride[0], len(streams) * channels))
        run.dense(state, convs, 0, (dense[-1], 0), moments_of(row, len(streams)))
        row += len(streams)
    reduced: list[Tensor] = []
    for stream in emission.reductions:
        reduced.append(_room(run, state, 2, channels))
        for shift, half in halves_of(stream):
            begin = shift * (channels // 2)
            run.dense(state, [half], shift, (reduced[-1], begin), moments_of(row, begin=begin))
        row += 1
    separated: list[Tensor] = []
    for number, stream in enumerate(emission.separable):
        last, middle = blocks_of(stream)[-1], inner[number]
        u = state if middle is None else middle
        affine = None if middle is None or inner_norm is None else inner_norm.affine(number)
        separated.append(run.separable(u, affine, last, moments_of(row)))
        row += 1
    return _Emitted(pooled, dense, reduced, separated, inner)


def _pooled(run: Kernels, state: Tensor, emission: Emission) -> list[Tensor]:
    return [run.pool(state, pool) for pool in emission.pools]


def _room(run: Kernels, state: Tensor, stride: int, channels: int) -> Tensor:
    height, width = (-(-side // stride) for side in state.shape[1:3])
    return run.room(state.shape[0], height, width, channels)


def _values(z: Tensor) -> int:
    """How many each channel has."""
    return z.numel() // z.shape[3]


class _Kept(NamedTuple):
    """What the backward pass needs of a state besides tensors: its BatchNorms, and how many tensors of each kind.

    Only those between blocks if the others are to be computed again."""

    norm: Normalization
    inner: _Inner | None
    lengths: list[int]


class _FusedCell(torch.autograd.Function):
    """From (program, whether to recompute, mixing weights or None, inputs, parameters) to the nodes."""

    @staticmethod
    def forward(
        ctx: Any, program: _Program, recompute: bool, weights: Tensor | None, *tensors: Tensor
    ) -> tuple[Tensor, ...]:
        library = kernels(tensors[0].dtype)
        assert library is not None
        run, cell = Kernels(library, tensors[0].dtype), program.cell
        mixing = None if weights is None else weights.detach().double()
        states = [pixels(x.detach()) for x in tensors[: cell.num_inputs]]
        sums: dict[int, Tensor] = {}
        kept: list[_Kept | None] = []
        saved: list[Tensor | None] = []
        for source, emission in enumerate(program.emissions):
            if source >= cell.num_inputs:
                if source in program.empty:
                    origin, stride = program.empty[source]
                    sums[source] = _room(run, states[origin], stride, states[origin].shape[3]).zero_()
                states.append(sums[source])
            if not emission.rows:
                kept.append(None)
                continue
            state = states[source]
            inner, inner_norm = _first_blocks(run, state, emission)
            moments = torch.zeros(2, len(emission.rows), emission.channels(state), dtype=torch.float64)
            emitted = _last_blocks(run, state, emission, inner, inner_norm, moments)
            parts = emitted.parts(state, emission)
            norm = normalization([stream.norm for stream in emission.rows], moments, _values(parts[-1][0]))
            scale, offset = norm.factors(emission.mixing(mixing))
            factors, offsets = run.own(scale[emission.by_target]), run.own(emission.membership @ offset)
            begin = 0
            for number, (target, rows) in enumerate(emission.targets.items()):
                fresh = target not in sums
                if fresh:
                    sums[target] = _room(run, parts[-1][0], 1, emission.channels(state))
                run.combine(
                    [parts[row] for row in rows], factors[begin:], offsets[number], (sums[target], 0), not fresh
                )
                begin += len(rows)
            groups: list[Any] = [inner] if recompute else [emitted.dense, emitted.reduced, emitted.separated, inner]
            kept.append(_Kept(norm, inner_norm, [len(group) for group in groups]))
            saved += [x for group in groups for x in group]
        nodes = [images(state) for state in states[cell.num_inputs :]]
        ctx.program, ctx.kept, ctx.mixing = program, kept, mixing
        ctx.save_for_backward(*tensors[: cell.num_inputs], *nodes, *saved)
        ctx.set_materialize_grads(False)
        return tuple(nodes)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *outer: Tensor | None) -> tuple[Tensor | None, ...]:
        program: _Program = ctx.program
        cell = program.cell
        num_states = cell.num_inputs + cell.num_nodes
        states, saved = [pixels(x) for x in ctx.saved_tensors[:num_states]], list(ctx.saved_tensors[num_states:])
        library = kernels(states[0].dtype)
        assert library is not None
        needs_inputs = ctx.needs_input_grad[3 : 3 + cell.num_inputs]
        back = _Backward(
            Kernels(library, states[0].dtype),
            ctx.mixing,
            torch.zeros_like(ctx.mixing) if ctx.needs_input_grad[2] else None,
            {slot: position for position, slot in enumerate(program.slots)},
            ctx.needs_input_grad[3 + cell.num_inputs :],
            [None] * num_states,
        )
        for source in reversed(range(num_states)):
            emission, kept = program.emissions[source], ctx.kept[source]
            if source >= cell.num_inputs:
                given = outer[source - cell.num_inputs]
                # what comes from outside is not ours to add to
                back.at_states[source] = torch.zeros_like(states[source]) if given is None else pixels(given).clone()
            elif needs_inputs[source]:
                back.at_states[source] = torch.zeros_like(states[source])
            if kept is None:
                continue
            groups: list[Any] = []
            for length in reversed(kept.lengths):
                groups.insert(0, saved[len(saved) - length :])
                del saved[len(saved) - length :]
            if len(groups) == 1:
                emitted = _last_blocks(back.run, states[source], emission, groups[0], kept.inner, None)
            else:
                pooled = _pooled(back.run, states[source], emission)
                emitted = _Emitted(pooled, *groups)
            back.through(emission, states[source], emitted, kept, back.at_states[source])
            back.run.give_back(emitted.pooled)
            if len(groups) == 1:
                back.run.give_back([*emitted.dense, *emitted.reduced, *emitted.separated])
        inputs = [None if x is None else images(x) for x in back.at_states[: cell.num_inputs]]
        mixing = None if back.at_mixing is None else back.at_mixing.to(states[0].dtype)
        return (None, None, mixing, *inputs, *back.at_parameters)


# -- backward ----------------------------------------------------------------------------------------------------------


class _Backward:
    """Gradients of one cell while its states are walked in reverse."""

    def __init__(
        self,
        run: Kernels,
        mixing: Tensor | None,
        at_mixing: Tensor | None,
        positions: dict[tuple[nn.Module, str], int],
        needed: Sequence[bool],
        at_states: list[Tensor | None],
    ) -> None:
        self.run = run
        self.mixing = mixing
        self.at_mixing = at_mixing
        self.positions = positions
        self.needed = needed
        self.at_states = at_states
        self.at_parameters: list[Tensor | None] = [None] * len(positions)

    def wanted(self, *modules: nn.Module) -> bool:
        """Whether any of these modules has a weight of its own that learns."""
        positions = (self.positions.get((module, "weight")) for module in modules)
        return any(position is not None and self.needed[position] for position in positions)

    def put(self, module: nn.Module, name: str, value: Tensor) -> None:
        self.at_parameters[self.positions[module, name]] = value

    def put_norm(self, norm: nn.BatchNorm2d | None, gamma: Tensor, beta: Tensor) -> None:
        if norm is not None and norm.affine:
            self.put(norm, "weight", self.run.own(gamma))
            self.put(norm, "bias", self.run.own(beta))

    def at_node(self, stream: Stream) -> Tensor:
        gradient = self.at_states[stream.target]
        assert gradient is not None
        return gradient

    def through(self, emission: Emission, state: Tensor, emitted: _Emitted, kept: _Kept, into: Tensor | None) -> None:
        """All that the streams of one state pass back: to the state (`into`), to mixing weights and parameters."""
        rows, norm, run = emission.rows, kept.norm, self.run
        parts = emitted.parts(state, emission)
        values = _values(parts[-1][0])
        pivot = run.own(norm.mean)
        product, total = self.sums(emission, parts, pivot)
        mixing = emission.mixing(self.mixing)
        scale, _ = norm.factors(mixing)
        normalized, slope, constant = norm.backward(product, pivot, total, scale, values)
        if self.at_mixing is not None:
            self.at_mixing[emission.places] = norm.passed(normalized, total)
        if norm.gamma is not None:
            for stream, gamma, beta in zip(rows, mixing * normalized, mixing * total, strict=True):
                self.put_norm(stream.norm, gamma, beta)
        factor, slope, constant = run.own(scale), run.own(slope), run.own(constant)
        row = 0

        def closed_form(streams: int = 1, begin: int = 0) -> ClosedForm:
            """Of so many streams from this row on, one after another, from a channel on."""
            rows = slice(row, row + streams)
            return ClosedForm(*(vectors[rows].flatten()[begin:] for vectors in (factor, slope, constant)))

        if emission.same:
            if into is not None:
                run.combine(
                    [(self.at_node(stream), 0) for stream in emission.same],
                    factor[: len(emission.same)],
                    None,
                    (into, 0),
                    True,
                )
            row += len(emission.same)
        for pooled, (pool, streams) in zip(emitted.pooled, emission.pools.items(), strict=True):
            chosen = slice(row, row + len(streams))
            if into is not None:
                gradient = run.room(*pooled.shape)
                gradients = [(self.at_node(stream), 0) for stream in streams]
                factors = torch.cat([factor[chosen], slope[chosen].sum(0, keepdim=True)])
                run.combine([*gradients, (pooled, 0)], factors, constant[chosen].sum(0), (gradient, 0), False)
                run.pool_backward(state, pool, pooled, gradient, into)
                run.give_back([gradient])
            row += len(streams)
        for z, streams in zip(emitted.dense, emission.dense.values(), strict=True):
            convs = convs_of(streams)
            wanted = self.wanted(*convs)
            if wanted or into is not None:
                gradients = [(self.at_node(stream), 0) for stream in streams]
                results = run.dense_backward(
                    state, convs, 0, gradients, (z, 0), closed_form(len(streams)), into, wanted
                )
                for conv, result in zip(convs, results or (), strict=False):
                    self.put(conv, "weight", result)
            row += len(streams)
        for z, stream in zip(emitted.reduced, emission.reductions, strict=True):
            for shift, half in halves_of(stream):
                wanted, begin = self.wanted(half), shift * (z.shape[3] // 2)
                if wanted or into is not None:
                    at = [(self.at_node(stream), begin)]
                    form = closed_form(begin=begin)
                    results = run.dense_backward(state, [half], shift, at, (z, begin), form, into, wanted)
                    for result in results or ():
                        self.put(half, "weight", result)
            row += 1
        for number, (z, stream) in enumerate(zip(emitted.separated, emission.separable, strict=True)):
            blocks, middle, gradient = blocks_of(stream), emitted.inner[number], self.at_node(stream)
            if middle is None or kept.inner is None:
                self.separable(state, None, blocks[0], gradient, z, closed_form(), into, None)
            elif into is not None or self.wanted(*(module for block in blocks for module in block.modules())):
                at_middle = run.room(*middle.shape)
                sums = torch.zeros(2, middle.shape[3], dtype=torch.float64)
                one = kept.inner.norm[number]
                center = run.own(one.mean)
                affine = kept.inner.affine(number)
                self.separable(middle, affine, blocks[1], gradient, z, closed_form(), at_middle, (center, sums))
                inner_scale, _ = one.factors()
                passed, *rest = one.backward(sums[1:], center, sums[:1], inner_scale, values)
                self.put_norm(blocks[0].norm, passed[0], sums[0])
                first = ClosedForm(*(run.own(x[0]) for x in (inner_scale, *rest)))
                self.separable(state, None, blocks[0], at_middle, middle, first, into, None)
                run.give_back([at_middle])
            row += 1

    def sums(self, emission: Emission, parts: Sequence[Part], pivot: Tensor) -> tuple[Tensor, Tensor]:
        """Over pixels, of  g * (z - pivot)  and of g, each (rows, C)."""
        rows = emission.rows
        sums = torch.zeros(len(rows) + len(emission.targets), self.at_node(rows[0]).shape[3], dtype=torch.float64)
        pivots = pivot[emission.by_target]
        begin, done, products, totals = 0, 0, [0] * len(rows), [0] * len(rows)
        for chosen in emission.targets.values():
            gradient = self.at_node(rows[chosen[0]])
            self.run.products([parts[row] for row in chosen], pivots[done:], gradient, sums[begin:])
            done += len(chosen)
            for position, row in enumerate(chosen):
                products[row], totals[row] = begin + position, begin + len(chosen)
            begin += len(chosen) + 1
        return sums[products], sums[totals]

    def separable(
        self,
        u: Tensor,
        affine: tuple[Tensor, Tensor] | None,
        block: DepthwisePointwise,
        gradient: Tensor,
        z: Tensor,
        closed_form: ClosedForm,
        into: Tensor | None,
        sums: tuple[Tensor, Tensor] | None,
    ) -> None:
        wanted = self.wanted(block.depthwise, block.pointwise)
        if into is None and not wanted:
            return
        results = self.run.separable_backward(u, affine, block, gradient, z, closed_form, into, sums, wanted)
        if results is not None:
            self.put(block.depthwise, "weight", results[0])
            self.put(block.pointwise, "weight", results[1])
