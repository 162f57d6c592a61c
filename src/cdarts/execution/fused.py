"""The cell as one differentiable function, computed by the passes of ``kernels.cpp``.

A source state emits *streams*: itself, its pools, and what its out-edges' operations make of it before their last
BatchNorm. A node is one weighted sum over streams, in which BatchNorm and the mixing weight of a stream are together
one factor A and one offset D for each channel:

    BatchNorm(z) * weight  =  A * z + D,    A = weight * gamma / sigma,    D = weight * beta - A * mean

so that neither normalized nor weighted tensors are ever stored. The backward pass walks the states in reverse. With
g the gradient at the node and xhat the normalized stream, sums over the batch's M pixels of g and of g * xhat give the
gradients of weight, gamma and beta, and that at z in closed form:

    gz = A * (g - sum(g) / M - xhat * sum(g * xhat) / M)
"""

import ctypes
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from cdarts.execution.base import DropPath
from cdarts.execution.compiler import kernels
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


def fused(
    cell: CellTopology,
    operations: Sequence[Sequence[Operation]],
    inputs: Sequence[Tensor],
    weights: Tensor | None,
    drop_path: DropPath | None,
) -> list[Tensor]:
    """The same nodes as `plain`. What the kernels do not cover (drop-path, other devices and types) `share` computes."""
    library = None
    if drop_path is None and all(x.device.type == "cpu" and x.dtype == inputs[0].dtype for x in inputs):
        library = kernels(inputs[0].dtype)
    emissions = None if library is None else _emissions(cell, operations)
    if library is None or emissions is None or not _normalizable(emissions, inputs):
        return share(cell, operations, inputs, weights, drop_path)
    parameters = list(dict.fromkeys(p for bundle in operations for op in bundle for p in op.parameters()))
    program = _Program(library, cell, emissions, {p: i for i, p in enumerate(parameters)})
    nodes: tuple[Tensor, ...] = _FusedCell.apply(program, weights, *inputs, *parameters)  # type: ignore[no-untyped-call]
    return list(nodes)


# -- what a state emits ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Stream:
    """One summand of a node."""

    target: int
    place: tuple[int, int]
    """Row and column of its mixing weight."""
    operation: Operation
    norm: nn.BatchNorm2d | None


@dataclass
class _Emission:
    """The streams of one state, those of a kind one after another."""

    stride: int = 1
    same: list[_Stream] = field(default_factory=list)
    pools: dict[MaxPool3x3 | AvgPool3x3, list[_Stream]] = field(default_factory=dict)
    dense: dict[int, list[_Stream]] = field(default_factory=dict)
    """By kernel."""
    reductions: list[_Stream] = field(default_factory=list)
    separable: list[_Stream] = field(default_factory=list)

    def rows(self) -> list[_Stream]:
        """All streams in order."""
        groups: Iterable[list[_Stream]] = (self.same, *self.pools.values(), *self.dense.values())
        return [stream for group in groups for stream in group] + self.reductions + self.separable


def _emissions(cell: CellTopology, operations: Sequence[Sequence[Operation]]) -> list[_Emission] | None:
    """What each state emits; None if an operation is not known here."""
    emissions = [_Emission() for _ in range(cell.num_inputs + cell.num_nodes)]
    for position, (edge, _) in enumerate(cell.edges):
        emission = emissions[edge.source]
        for column, operation in enumerate(operations[position]):
            place = (position, column)
            match operation:
                case Zero(stride=stride):
                    emission.stride = max(emission.stride, stride)
                case Identity():
                    emission.same.append(_Stream(edge.target, place, operation, None))
                case Pool(prologue=pool) | BatchNormalized(operation=Pool(prologue=pool)):
                    norm = operation.norm if isinstance(operation, BatchNormalized) else None
                    emission.stride = max(emission.stride, pool.stride)
                    emission.pools.setdefault(pool, []).append(_Stream(edge.target, place, operation, norm))
                case ReluConvBatchNorm(conv=conv, norm=norm):
                    if conv.stride[0] > 1 and conv.kernel_size[0] > 1:
                        return None
                    emission.stride = max(emission.stride, conv.stride[0])
                    stream = _Stream(edge.target, place, operation, norm)
                    emission.dense.setdefault(conv.kernel_size[0], []).append(stream)
                case FactorizedReduce(norm=norm):
                    emission.stride = 2
                    emission.reductions.append(_Stream(edge.target, place, operation, norm))
                case DilatedConv() | SeparableConv():
                    blocks = _blocks(operation)
                    emission.stride = max(emission.stride, blocks[0].depthwise.stride[0])
                    emission.separable.append(_Stream(edge.target, place, operation, blocks[-1].norm))
                case _:
                    return None
    return emissions


def _blocks(operation: Operation) -> list[DepthwisePointwise]:
    if isinstance(operation, SeparableConv):
        return [operation.first, operation.second]
    assert isinstance(operation, DilatedConv)
    return [operation.conv]


def _normalizable(emissions: Sequence[_Emission], inputs: Sequence[Tensor]) -> bool:
    """Whether BatchNorm is as the closed form has it: running averages, one epsilon; more than one value a channel."""
    norms = [module for emission in emissions for stream in emission.rows() for module in stream.operation.modules()]
    norms = [norm for norm in norms if isinstance(norm, nn.BatchNorm2d)]
    values = min((x.shape[0] * (x.shape[2] // 2) * (x.shape[3] // 2) for x in inputs), default=0)
    return values > 1 and all(
        norm.track_running_stats and norm.momentum == norms[0].momentum is not None
        and norm.eps == norms[0].eps and norm.training == norms[0].training
        for norm in norms
    )  # fmt: skip


@dataclass(frozen=True)
class _Program:
    """What a cell computes, apart from numbers."""

    library: ctypes.CDLL
    cell: CellTopology
    emissions: list[_Emission]
    index: dict[nn.Parameter, int]


# -- calling the kernels -----------------------------------------------------------------------------------------------


class _Geometry(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_long)
        for name in (
            "batch", "height", "width", "channels", "out_height", "out_width", "out_channels",
            "kernel", "stride", "pad", "dilation",
        )
    ]  # fmt: skip


def _geometry(x: Tensor, out_channels: int, kernel: int, stride: int, pad: int, dilation: int = 1) -> _Geometry:
    """`x`: (B, H, W, C)."""
    batch, height, width, channels = x.shape
    sides = (-(-height // stride), -(-width // stride))
    return _Geometry(batch, height, width, channels, *sides, out_channels, kernel, stride, pad, dilation)


def _at(tensor: Tensor | None, offset: int = 0) -> ctypes.c_void_p:
    """Address of a tensor's element; the caller keeps the tensor alive."""
    return ctypes.c_void_p(None if tensor is None else tensor.data_ptr() + offset * tensor.element_size())


def _addresses(tensors: Sequence[tuple[Tensor, int]]) -> ctypes.Array[ctypes.c_void_p]:
    return (ctypes.c_void_p * len(tensors))(*(t.data_ptr() + o * t.element_size() for t, o in tensors))


def _longs(values: Sequence[int]) -> ctypes.Array[ctypes.c_long]:
    return (ctypes.c_long * len(values))(*values)


def _pixels(x: Tensor) -> Tensor:
    """(B, C, H, W) as contiguous (B, H, W, C)."""
    return x.permute(0, 2, 3, 1).contiguous()


def _images(x: Tensor) -> Tensor:
    """(B, H, W, C) as (B, C, H, W), channels last."""
    return x.permute(0, 3, 1, 2)


# -- BatchNorm of many streams at once ---------------------------------------------------------------------------------


@dataclass
class _Normalization:
    """Mean, 1 / sigma, gamma and beta of streams, each (streams, C) in double precision; beta None for zeros."""

    mean: Tensor
    inverse: Tensor
    gamma: Tensor | None
    beta: Tensor | None
    live: Tensor | None
    """(streams, 1): 1 where the statistics are the batch's own, so that gradients pass through them."""

    def factors(self, weights: Tensor | None) -> tuple[Tensor, Tensor]:
        """A and D of the streams, whose mixing weights are (streams, 1)."""
        scale = self.inverse if self.gamma is None else self.gamma * self.inverse
        if weights is not None:
            scale = weights * scale
        offset = -scale * self.mean
        if self.beta is not None:
            offset = offset + (self.beta if weights is None else weights * self.beta)
        return scale, offset

    def row(self, number: int) -> "_Normalization":
        """Of one stream."""
        one = slice(number, number + 1)
        parts = (self.mean, self.inverse, self.gamma, self.beta, self.live)
        return _Normalization(*(None if part is None else part[one] for part in parts))  # type: ignore[arg-type]

    def backward(self, product: Tensor, total: Tensor, scale: Tensor, values: int) -> tuple[Tensor, Tensor, Tensor]:
        """From sums of g * z and of g: sum of g * xhat, and B and D of  gz = A * g + B * z + D."""
        normalized = self.inverse * (product - self.mean * total)
        if self.live is None:
            zeros = torch.zeros_like(scale)
            return normalized, zeros, zeros
        share_of_all = scale * self.live / values
        slope = -share_of_all * self.inverse * normalized
        return normalized, slope, -slope * self.mean - share_of_all * total


def _normalization(norms: Sequence[nn.BatchNorm2d | None], sums: Tensor, values: int) -> _Normalization:
    """From (2, streams, C) sums of z and z * z over `values` pixels. Keeps running statistics as PyTorch does."""
    present = [norm for norm in norms if norm is not None]
    rows = [row for row, norm in enumerate(norms) if norm is not None]
    training = bool(present) and present[0].training
    if training:
        mean = sums[0] / values
        variance = (sums[1] / values - mean * mean).clamp_(min=0.0)
        _keep_running(present, mean, variance * (values / (values - 1)), rows)
    else:
        mean, variance = torch.zeros_like(sums[0]), torch.ones_like(sums[0])
        for row, norm in zip(rows, present, strict=True):
            assert norm.running_mean is not None and norm.running_var is not None
            mean[row], variance[row] = norm.running_mean, norm.running_var
    inverse = (variance + present[0].eps).rsqrt_() if present else torch.ones_like(variance)
    live = torch.ones(len(norms), 1, dtype=torch.float64) if training else None
    if len(present) < len(norms):
        bare = [row for row, norm in enumerate(norms) if norm is None]
        inverse[bare] = 1.0
        if live is not None:
            live[bare] = 0.0
    gamma = beta = None
    if any(norm.affine for norm in present):
        gamma, beta = torch.ones_like(mean), torch.zeros_like(mean)
        for row, norm in zip(rows, present, strict=True):
            if norm.affine:
                gamma[row], beta[row] = norm.weight.detach(), norm.bias.detach()
    return _Normalization(mean, inverse, gamma, beta, live)


def _keep_running(norms: Sequence[nn.BatchNorm2d], mean: Tensor, variance: Tensor, rows: Sequence[int]) -> None:
    running = [buffer for norm in norms for buffer in (norm.running_mean, norm.running_var)]
    observed = [x[row] for row in rows for x in (mean.to(running[0].dtype), variance.to(running[0].dtype))]
    torch._foreach_lerp_(running, observed, norms[0].momentum)
    torch._foreach_add_([norm.num_batches_tracked for norm in norms], 1)


# -- one pass ----------------------------------------------------------------------------------------------------------


@dataclass
class _Emitted:
    """What a state emitted, before the streams' last BatchNorm; tensors are (B, H, W, C)."""

    pooled: list[Tensor]
    dense: list[Tensor]
    """By kernel, (B, H, W, targets * C)."""
    reduced: list[Tensor]
    separated: list[Tensor]
    inner: list[Tensor | None]
    """Between the two blocks of a separable convolution."""

    def located(self, state: Tensor, emission: _Emission) -> list[tuple[Tensor, int]]:
        """Each stream's tensor and the channel at which it begins, in the order of the rows."""
        channels = state.shape[3]
        places = [(state, 0)] * len(emission.same)
        for pooled, streams in zip(self.pooled, emission.pools.values(), strict=True):
            places += [(pooled, 0)] * len(streams)
        for z, streams in zip(self.dense, emission.dense.values(), strict=True):
            places += [(z, number * channels) for number in range(len(streams))]
        return places + [(z, 0) for z in (*self.reduced, *self.separated)]


class _Kernels:
    """The passes over tensors of one type."""

    def __init__(self, library: ctypes.CDLL, dtype: torch.dtype) -> None:
        self.library = library
        self.dtype = dtype
        self.threads = torch.get_num_threads()

    def own(self, x: Tensor) -> Tensor:
        """Contiguous and of this type."""
        return x.detach().to(self.dtype).contiguous()

    # -- forward --

    def emit(self, state: Tensor, emission: _Emission) -> tuple[_Emitted, Tensor, "_Inner | None"]:
        """What a state emits, the sums (2, streams, C) for its BatchNorm, and the inner BatchNorm of separables."""
        channels = state.shape[3]
        sums = torch.zeros(2, len(emission.rows()), channels, dtype=torch.float64)
        inner, between = self.first_blocks(state, emission)
        emitted = self.last_blocks(state, emission, sums, between, inner)
        return emitted, sums, inner

    def first_blocks(self, state: Tensor, emission: _Emission) -> tuple["_Inner | None", list[Tensor | None]]:
        chains = [_blocks(stream.operation) for stream in emission.separable]
        if all(len(chain) == 1 for chain in chains):
            return None, [None] * len(chains)
        sums = torch.zeros(2, len(chains), state.shape[3], dtype=torch.float64)
        between = [
            self.separable(state, None, None, chain[0], sums, row) if len(chain) > 1 else None
            for row, chain in enumerate(chains)
        ]
        norms = [chain[0].norm if len(chain) > 1 else None for chain in chains]
        some = next(z for z in between if z is not None)
        norm = _normalization(norms, sums, some.numel() // some.shape[3])
        scale, offset = norm.factors(None)
        return _Inner(norm, scale, self.own(scale), self.own(offset)), between

    def last_blocks(
        self,
        state: Tensor,
        emission: _Emission,
        sums: Tensor,
        between: list[Tensor | None],
        inner: "_Inner | None",
    ) -> _Emitted:
        row = len(emission.same)
        pooled, dense, reduced, separated = [], [], [], []
        for pool, streams in emission.pools.items():
            pooled.append(self.pool(state, pool))
            if any(stream.norm is not None for stream in streams):
                squares_and_sum = self.products([(pooled[-1], 0)], pooled[-1])
                sums[:, row : row + len(streams)] = squares_and_sum.flip(0)[:, None]
            row += len(streams)
        for kernel, streams in emission.dense.items():
            convs = [stream.operation.conv for stream in streams]
            weight = torch.cat([self.own(conv.weight.permute(2, 3, 1, 0)) for conv in convs], dim=3)
            channels = weight.shape[3]
            geometry = _geometry(state, channels, kernel, convs[0].stride[0], kernel // 2)
            z = state.new_empty(state.shape[0], geometry.out_height, geometry.out_width, channels)
            self.dense(geometry, state, weight, z, 0, sums, row)
            dense.append(z)
            row += len(streams)
        for stream in emission.reductions:
            halves = (stream.operation.even, stream.operation.odd)
            channels = sum(half.out_channels for half in halves)
            begin = 0
            for shift, half in enumerate(halves):
                geometry = _geometry(state, half.out_channels, 1, 2, -shift)
                if not begin:
                    z = state.new_empty(state.shape[0], geometry.out_height, geometry.out_width, channels)
                self.dense(geometry, state, self.own(half.weight.permute(2, 3, 1, 0)), z, begin, sums, row)
                begin += half.out_channels
            reduced.append(z)
            row += 1
        for number, stream in enumerate(emission.separable):
            last, middle = _blocks(stream.operation)[-1], between[number]
            if middle is None:
                separated.append(self.separable(state, None, None, last, sums, row))
            else:
                assert inner is not None
                separated.append(self.separable(middle, inner.a[number], inner.b[number], last, sums, row))
            row += 1
        return _Emitted(pooled, dense, reduced, separated, between)

    def separable(
        self, u: Tensor, a: Tensor | None, b: Tensor | None, block: DepthwisePointwise, sums: Tensor, row: int
    ) -> Tensor:
        geometry = _block_geometry(u, block)
        z = u.new_empty(u.shape[0], geometry.out_height, geometry.out_width, geometry.out_channels)
        depth, point = self.depthwise_weight(block), self.own(block.pointwise.weight.flatten(1).t())
        self.library.separable_forward(
            ctypes.byref(geometry), self.threads, _at(u), _at(a), _at(b), _at(depth), _at(point), _at(z),
            _at(sums[0, row]), _at(sums[1, row]),
        )  # fmt: skip
        return z

    def depthwise_weight(self, block: DepthwisePointwise) -> Tensor:
        return self.own(block.depthwise.weight.flatten(1).t())

    def dense(
        self, geometry: _Geometry, x: Tensor, weight: Tensor, z: Tensor, begin: int, sums: Tensor, row: int
    ) -> None:
        self.library.dense_forward(
            ctypes.byref(geometry), self.threads, _at(x), _at(weight), _at(z, begin), z.shape[3],
            _at(sums[0, row], begin), _at(sums[1, row], begin),
        )  # fmt: skip

    def pool(self, x: Tensor, pool: MaxPool3x3 | AvgPool3x3) -> Tensor:
        geometry = _geometry(x, x.shape[3], 3, pool.stride, 1)
        result = x.new_empty(x.shape[0], geometry.out_height, geometry.out_width, x.shape[3])
        maximum = isinstance(pool, MaxPool3x3)
        self.library.pool_forward(ctypes.byref(geometry), self.threads, maximum, _at(x), _at(result))
        return result

    def combine(
        self, places: Sequence[tuple[Tensor, int]], factors: Tensor, offset: Tensor, out: Tensor, accumulate: bool
    ) -> None:
        """out (+)= sum of factors[k] * tensors[k] + offset; factors (tensors, C)."""
        channels = out.shape[3]
        self.library.combine(
            out.numel() // channels, channels, self.threads, len(places), _addresses(places),
            _longs([x.shape[3] for x, _ in places]), _at(factors), _at(offset), _at(out), accumulate,
        )  # fmt: skip

    def products(self, places: Sequence[tuple[Tensor, int]], gradient: Tensor) -> Tensor:
        """Sums over pixels of gradient * tensor, and of the gradient: (tensors + 1, C)."""
        channels = gradient.shape[3]
        sums = torch.zeros(len(places) + 1, channels, dtype=torch.float64)
        self.library.products(
            gradient.numel() // channels, channels, self.threads, len(places), _addresses(places),
            _longs([x.shape[3] for x, _ in places]), _at(gradient), _at(sums),
        )  # fmt: skip
        return sums

    # -- backward --

    def separable_backward(
        self,
        u: Tensor,
        affine: tuple[Tensor, Tensor] | None,
        block: DepthwisePointwise,
        gradient: Tensor,
        z: Tensor,
        closed_form: tuple[Tensor, Tensor, Tensor],
        into: Tensor | None,
        parameters: "_Gradients",
        sums: Tensor | None = None,
    ) -> None:
        """Adds to `into` the gradient at the block's input, after its affine map, or writes it if `sums` are asked."""
        geometry = _block_geometry(u, block)
        depth_gradient = point_gradient = None
        if parameters.wanted(block.depthwise.weight, block.pointwise.weight):
            depth_gradient = u.new_zeros(geometry.kernel**2, geometry.channels)
            point_gradient = u.new_zeros(geometry.channels, geometry.out_channels)
        elif into is None:
            return
        a, b = affine if affine is not None else (None, None)
        depth, point = self.depthwise_weight(block), self.own(block.pointwise.weight.flatten(1))
        A, B, D = closed_form
        self.library.separable_backward(
            ctypes.byref(geometry), self.threads, _at(u), _at(a), _at(b), _at(depth), _at(point), _at(gradient), _at(z),
            _at(A), _at(B), _at(D), _at(into), sums is None, _at(depth_gradient), _at(point_gradient), _at(sums),
        )  # fmt: skip
        if depth_gradient is not None and point_gradient is not None:
            parameters.put(block.depthwise.weight, depth_gradient.t())
            parameters.put(block.pointwise.weight, point_gradient.t())

    def dense_backward(
        self,
        geometry: _Geometry,
        u: Tensor,
        convs: Sequence[nn.Conv2d],
        gradients: Sequence[tuple[Tensor, int]],
        z: Tensor,
        begin: int,
        closed_form: tuple[Tensor, Tensor, Tensor],
        into: Tensor | None,
        parameters: "_Gradients",
    ) -> None:
        weights = [conv.weight for conv in convs]
        wanted = parameters.wanted(*weights)
        if into is None and not wanted:
            return
        backwards = torch.cat([self.own(weight.flip(2, 3).permute(2, 3, 0, 1)) for weight in weights], dim=2)
        kernel = geometry.kernel
        total = u.new_zeros(kernel, kernel, geometry.channels, geometry.out_channels) if wanted else None
        A, B, D = closed_form
        self.library.dense_backward(
            ctypes.byref(geometry), self.threads, _at(u), _at(backwards), len(convs), _addresses(gradients),
            gradients[0][0].shape[3], _at(z, begin), z.shape[3], _at(A), _at(B), _at(D), _at(into), _at(total),
        )  # fmt: skip
        if total is not None:
            for weight, part in zip(weights, total.chunk(len(weights), dim=3), strict=True):
                parameters.put(weight, part.permute(3, 2, 0, 1))

    def pool_backward(
        self, x: Tensor, pool: MaxPool3x3 | AvgPool3x3, pooled: Tensor, gradient: Tensor, into: Tensor
    ) -> None:
        geometry = _geometry(x, x.shape[3], 3, pool.stride, 1)
        maximum = isinstance(pool, MaxPool3x3)
        self.library.pool_backward(
            ctypes.byref(geometry), self.threads, maximum, _at(x), _at(pooled), _at(gradient), _at(into)
        )


@dataclass(frozen=True)
class _Inner:
    """BatchNorm between the blocks of separable convolutions: as sums have it, and as the kernels read it."""

    norm: _Normalization
    scale: Tensor
    a: Tensor
    b: Tensor


def _block_geometry(u: Tensor, block: DepthwisePointwise) -> _Geometry:
    depthwise = block.depthwise
    kernel, stride, pad, dilation = (
        depthwise.kernel_size[0],
        depthwise.stride[0],
        int(depthwise.padding[0]),
        depthwise.dilation[0],
    )
    return _geometry(u, block.pointwise.out_channels, kernel, stride, pad, dilation)


class _Gradients:
    """Gradients of a cell's parameters, by their position."""

    def __init__(self, index: dict[nn.Parameter, int], needed: Sequence[bool]) -> None:
        self.index = index
        self.needed = needed
        self.values: list[Tensor | None] = [None] * len(index)

    def wanted(self, *parameters: nn.Parameter) -> bool:
        return any(self.needed[self.index[parameter]] for parameter in parameters)

    def put(self, parameter: nn.Parameter, value: Tensor) -> None:
        self.values[self.index[parameter]] = value.reshape(parameter.shape).to(parameter.dtype)

    def put_norm(self, norm: nn.BatchNorm2d | None, gamma: Tensor, beta: Tensor) -> None:
        if norm is not None and norm.affine:
            self.put(norm.weight, gamma)
            self.put(norm.bias, beta)


# -- the function ------------------------------------------------------------------------------------------------------


class _FusedCell(torch.autograd.Function):
    """From (program, mixing weights or None, inputs, parameters) to the nodes."""

    @staticmethod
    def forward(ctx: Any, program: _Program, weights: Tensor | None, *tensors: Tensor) -> tuple[Tensor, ...]:
        cell = program.cell
        kernels_ = _Kernels(program.library, tensors[0].dtype)
        states = [_pixels(x.detach()) for x in tensors[: cell.num_inputs]]
        sums: dict[int, Tensor] = {}
        saved: list[Tensor | None] = []
        kept = []
        mixing = None if weights is None else weights.detach().double()
        for source in range(cell.num_inputs + cell.num_nodes):
            emission = program.emissions[source]
            if source >= cell.num_inputs:
                states.append(sums[source])
            rows = emission.rows()
            if not rows:
                _add_zeros(cell, source, emission, states[source], sums)
                kept.append(None)
                continue
            emitted, totals, inner = kernels_.emit(states[source], emission)
            places = emitted.located(states[source], emission)
            values = places[-1][0].numel() // places[-1][0].shape[3]
            norm = _normalization([stream.norm for stream in rows], totals, values)
            scale, offset = norm.factors(_mixing(mixing, rows))
            for target, chosen in _by_target(rows).items():
                out = sums.get(target)
                fresh = out is None
                if out is None:
                    out = places[-1][0].new_empty(*places[-1][0].shape[:3], states[source].shape[3])
                    sums[target] = out
                kernels_.combine(
                    [places[row] for row in chosen],
                    kernels_.own(scale[chosen]),
                    kernels_.own(offset[chosen].sum(0)),
                    out,
                    accumulate=not fresh,
                )
            _add_zeros(cell, source, emission, states[source], sums)
            parts = [emitted.pooled, emitted.dense, emitted.reduced, emitted.separated, emitted.inner]
            kept.append((norm, inner, [len(part) for part in parts]))
            saved += [x for part in parts for x in part]
        ctx.program, ctx.kept, ctx.mixing = program, kept, mixing
        ctx.weights_dtype = None if weights is None else weights.dtype
        nodes = [_images(states[node]) for node in range(cell.num_inputs, cell.num_inputs + cell.num_nodes)]
        ctx.save_for_backward(*tensors[: cell.num_inputs], *nodes, *saved)
        ctx.set_materialize_grads(False)
        return tuple(nodes)

    @staticmethod
    @torch.autograd.function.once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, *outer: Tensor | None) -> tuple[Tensor | None, ...]:
        program: _Program = ctx.program
        cell = program.cell
        num_states = cell.num_inputs + cell.num_nodes
        states = [_pixels(x) for x in ctx.saved_tensors[:num_states]]
        saved = list(ctx.saved_tensors[num_states:])
        kernels_ = _Kernels(program.library, states[0].dtype)
        needs_inputs = ctx.needs_input_grad[2 : 2 + cell.num_inputs]
        parameters = _Gradients(program.index, ctx.needs_input_grad[2 + cell.num_inputs :])
        mixing_gradient = None
        if ctx.needs_input_grad[1]:
            mixing_gradient = torch.zeros_like(ctx.mixing)
        gradients: list[Tensor | None] = [None] * num_states
        for source in reversed(range(num_states)):
            gradient = None
            if source >= cell.num_inputs:
                given = outer[source - cell.num_inputs]
                gradient = torch.zeros_like(states[source]) if given is None else _pixels(given)
                if given is not None and program.emissions[source].rows():
                    gradient = gradient.clone() if gradient.data_ptr() == given.data_ptr() else gradient
            elif needs_inputs[source]:
                gradient = torch.zeros_like(states[source])
            gradients[source] = gradient
            kept = ctx.kept[source]
            if kept is None:
                continue
            norm, inner, lengths = kept
            parts: list[list[Any]] = []
            for length in reversed(lengths):
                parts.insert(0, saved[len(saved) - length :])
                del saved[len(saved) - length :]
            _source_backward(
                kernels_, program.emissions[source], states[source], _Emitted(*parts), norm, inner, gradients, gradient,
                ctx.mixing, mixing_gradient, parameters,
            )  # fmt: skip
        inputs = [
            _images(x) if x is not None and needed else None
            for x, needed in zip(gradients[: cell.num_inputs], needs_inputs, strict=True)
        ]
        mixing = None if mixing_gradient is None else mixing_gradient.to(ctx.weights_dtype)
        return (None, mixing, *inputs, *parameters.values)


def _source_backward(
    kernels_: _Kernels,
    emission: _Emission,
    state: Tensor,
    emitted: _Emitted,
    norm: _Normalization,
    inner: _Inner | None,
    gradients: Sequence[Tensor | None],
    into: Tensor | None,
    mixing: Tensor | None,
    mixing_gradient: Tensor | None,
    parameters: _Gradients,
) -> None:
    """Everything that the streams of one state pass back: to the state (`into`), mixing weights and parameters."""
    rows = emission.rows()
    places = emitted.located(state, emission)
    channels = state.shape[3]
    values = places[-1][0].numel() // places[-1][0].shape[3]
    product = torch.empty(len(rows), channels, dtype=torch.float64)
    total = torch.empty_like(product)
    for target, chosen in _by_target(rows).items():
        g = gradients[target]
        assert g is not None
        result = kernels_.products([places[row] for row in chosen], g)
        product[chosen], total[chosen] = result[:-1], result[-1]
    weight = _mixing(mixing, rows)
    scale, _ = norm.factors(weight)
    normalized, slope, constant = norm.backward(product, total, scale, values)
    if mixing_gradient is not None:
        passed = normalized if norm.gamma is None else norm.gamma * normalized
        if norm.beta is not None:
            passed = passed + norm.beta * total
        for stream, value in zip(rows, passed.sum(1), strict=True):
            mixing_gradient[stream.place] = value
    if norm.gamma is not None:
        by_weight = 1.0 if weight is None else weight
        for stream, gamma, beta in zip(rows, by_weight * normalized, by_weight * total, strict=True):
            parameters.put_norm(stream.norm, gamma, beta)
    A, B, D = kernels_.own(scale), kernels_.own(slope), kernels_.own(constant)
    at = [(gradients[stream.target], 0) for stream in rows]
    if emission.same and into is not None:
        chosen = slice(0, len(emission.same))
        kernels_.combine(at[chosen], A[chosen], torch.zeros_like(D[0]), into, accumulate=True)  # type: ignore[arg-type]
    row = len(emission.same)
    for pooled, (pool, streams) in zip(emitted.pooled, emission.pools.items(), strict=True):
        chosen = slice(row, row + len(streams))
        if into is not None:
            gradient = torch.empty_like(pooled)
            factors = torch.cat([A[chosen], B[chosen].sum(0, keepdim=True)])
            kernels_.combine([*at[chosen], (pooled, 0)], factors, D[chosen].sum(0), gradient, accumulate=False)  # type: ignore[list-item]
            kernels_.pool_backward(state, pool, pooled, gradient, into)
        row += len(streams)
    for z, (kernel, streams) in zip(emitted.dense, emission.dense.items(), strict=True):
        chosen = slice(row, row + len(streams))
        convs = [stream.operation.conv for stream in streams]
        geometry = _geometry(state, z.shape[3], kernel, convs[0].stride[0], kernel // 2)
        kernels_.dense_backward(
            geometry, state, convs, at[chosen], z, 0, (A[row], B[row], D[row]), into, parameters  # type: ignore[arg-type]
        )  # fmt: skip
        row += len(streams)
    for z, stream in zip(emitted.reduced, emission.reductions, strict=True):
        begin = 0
        for shift, half in enumerate((stream.operation.even, stream.operation.odd)):
            geometry = _geometry(state, half.out_channels, 1, 2, -shift)
            closed = (A[row, begin:], B[row, begin:], D[row, begin:])
            g = gradients[stream.target]
            assert g is not None
            kernels_.dense_backward(geometry, state, [half], [(g, begin)], z, begin, closed, into, parameters)
            begin += half.out_channels
        row += 1
    for number, (z, stream) in enumerate(zip(emitted.separated, emission.separable, strict=True)):
        blocks, middle, g = _blocks(stream.operation), emitted.inner[number], gradients[stream.target]
        assert g is not None
        closed = (A[row], B[row], D[row])
        row += 1
        if middle is None:
            kernels_.separable_backward(state, None, blocks[0], g, z, closed, into, parameters)
            continue
        if into is None and not parameters.wanted(*stream.operation.parameters()):
            continue
        assert inner is not None
        between = torch.empty_like(middle)
        sums = torch.zeros(2, channels, dtype=torch.float64)
        affine = (inner.a[number], inner.b[number])
        kernels_.separable_backward(middle, affine, blocks[1], g, z, closed, between, parameters, sums)
        one = inner.norm.row(number)
        scale_of_one = inner.scale[number : number + 1]
        normalized, slope, constant = one.backward(sums[1:], sums[:1], scale_of_one, values)
        parameters.put_norm(blocks[0].norm, normalized[0], sums[0])
        closed = (kernels_.own(scale_of_one[0]), kernels_.own(slope[0]), kernels_.own(constant[0]))
        kernels_.separable_backward(state, None, blocks[0], between, middle, closed, into, parameters)


def _by_target(rows: Sequence[_Stream]) -> dict[int, list[int]]:
    chosen: dict[int, list[int]] = {}
    for row, stream in enumerate(rows):
        chosen.setdefault(stream.target, []).append(row)
    return chosen


def _mixing(weights: Tensor | None, rows: Sequence[_Stream]) -> Tensor | None:
    """(streams, 1)."""
    if weights is None:
        return None
    positions, columns = zip(*(stream.place for stream in rows), strict=True)
    return weights[list(positions), list(columns)][:, None]


def _add_zeros(cell: CellTopology, source: int, emission: _Emission, state: Tensor, sums: dict[int, Tensor]) -> None:
    """A node that only ``none`` leads to is zero: made when the last edge into it has been walked."""
    for position, (edge, _) in enumerate(cell.edges):
        if edge.source == source and edge.target not in sums and cell.incoming(edge.target)[-1] == position:
            height, width = (-(-side // emission.stride) for side in state.shape[1:3])
            sums[edge.target] = state.new_zeros(state.shape[0], height, width, state.shape[3])
