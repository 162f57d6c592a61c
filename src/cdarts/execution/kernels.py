"""The passes of ``kernels.cpp`` over tensors, contiguous (B, H, W, C) and of one type; weights are PyTorch's."""

import ctypes
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cdarts.operations import AvgPool3x3, DepthwisePointwise, MaxPool3x3

EVEN = 16
"""More channels than these should be a multiple of them, else our dense convolutions are slower than PyTorch's."""
LARGE = 64
"""Channels from which on PyTorch's dense convolutions are faster, though what they read and give has to be stored."""

Part = tuple[Tensor, int]
"""Some channels of a tensor: it, and the channel at which they begin."""


class ClosedForm(NamedTuple):
    """The gradient at z,  factor * g + slope * z + constant,  each (z's channels,)."""

    factor: Tensor
    slope: Tensor
    constant: Tensor


class Geometry(ctypes.Structure):
    """Shapes of one convolution or pool."""

    _fields_ = [
        (name, ctypes.c_long)
        for name in (
            "batch", "height", "width", "channels", "out_height", "out_width", "out_channels",
            "kernel", "stride", "pad", "dilation",
        )
    ]  # fmt: skip


def geometry(x: Tensor, out_channels: int, kernel: int, stride: int, pad: int, dilation: int = 1) -> Geometry:
    """Of an operation that divides the side of `x` by its stride, rounding up."""
    batch, height, width, channels = x.shape
    sides = (-(-height // stride), -(-width // stride))
    return Geometry(batch, height, width, channels, *sides, out_channels, kernel, stride, pad, dilation)


def pixels(x: Tensor) -> Tensor:
    """(B, C, H, W) as contiguous (B, H, W, C)."""
    return x.permute(0, 2, 3, 1).contiguous()


def images(x: Tensor) -> Tensor:
    """(B, H, W, C) as (B, C, H, W), channels last."""
    return x.permute(0, 3, 1, 2)


def _at(tensor: Tensor | None, offset: int = 0) -> int | None:
    """Address of a tensor's element; the caller keeps the tensor alive."""
    return None if tensor is None else tensor.data_ptr() + offset * tensor.element_size()


def _addresses(parts: Sequence[Part]) -> ctypes.Array[ctypes.c_void_p]:
    return (ctypes.c_void_p * len(parts))(*[_at(tensor, begin) for tensor, begin in parts])


def _rows(parts: Sequence[Part]) -> ctypes.Array[ctypes.c_long]:
    """How far apart the tensors' pixels lie."""
    return (ctypes.c_long * len(parts))(*[tensor.shape[3] for tensor, _ in parts])


class Kernels:
    """The passes for tensors of one type."""

    def __init__(self, library: ctypes.CDLL, dtype: torch.dtype) -> None:
        self.library = library
        self.dtype = dtype
        self.threads = torch.get_num_threads()
        self.free: dict[tuple[int, ...], list[Tensor]] = {}

    def room(self, *shape: int) -> Tensor:
        """An uninitialised tensor: one that was given back, if there is one. Fresh memory costs a page fault a page."""
        given_back = self.free.get(shape)
        return given_back.pop() if given_back else torch.empty(shape, dtype=self.dtype)

    def give_back(self, tensors: Iterable[Tensor]) -> None:
        """Their values are needed no more."""
        for tensor in tensors:
            self.free.setdefault(tuple(tensor.shape), []).append(tensor)

    def own(self, x: Tensor) -> Tensor:
        """Contiguous and of this type."""
        return x.to(self.dtype).contiguous()

    # -- separable blocks: rectify, depthwise, pointwise --

    def separable(
        self,
        u: Tensor,
        affine: tuple[Tensor, Tensor] | None,
        block: DepthwisePointwise,
        moments: Tensor | None,
    ) -> Tensor:
        """The block of  a * u + b,  without its BatchNorm, for which `moments` (2, C) are written if given."""
        shape = _block_geometry(u, block)
        z = self.room(u.shape[0], shape.out_height, shape.out_width, shape.out_channels)
        a, b = affine or (None, None)
        mean, deviation = (None, None) if moments is None else moments
        depth, point = _depth_weight(block), block.pointwise.weight.detach().flatten(1).t().contiguous()
        self.library.separable_forward(
            ctypes.byref(shape), self.threads, _at(u), _at(a), _at(b), _at(depth), _at(point), _at(z),
            _at(mean), _at(deviation),
        )  # fmt: skip
        return z

    def separable_backward(
        self,
        u: Tensor,
        affine: tuple[Tensor, Tensor] | None,
        block: DepthwisePointwise,
        gradient: Tensor,
        z: Tensor,
        closed_form: ClosedForm,
        into: Tensor | None,
        sums: tuple[Tensor, Tensor] | None,
        weights_wanted: bool,
    ) -> tuple[Tensor, Tensor] | None:
        """Gradients of the depthwise and pointwise weights, if wanted, and in `into` that at  a * u + b.

        Without `sums` it is added to `into`. With (pivot, sums) it is written, and its sums over pixels and those of
        its product with  u - pivot  are added to `sums` (2, C).
        """
        shape = _block_geometry(u, block)
        depth_gradient = u.new_zeros(shape.kernel**2, shape.channels) if weights_wanted else None
        point_gradient = u.new_zeros(shape.channels, shape.out_channels) if weights_wanted else None
        a, b = affine or (None, None)
        pivot, totals = sums or (None, None)
        depth, point = _depth_weight(block), block.pointwise.weight.detach().flatten(1).contiguous()
        self.library.separable_backward(
            ctypes.byref(shape), self.threads, _at(u), _at(a), _at(b), _at(depth), _at(point), _at(gradient), _at(z),
            *map(_at, closed_form), _at(into), sums is None,
            _at(depth_gradient), _at(point_gradient), _at(pivot), _at(totals),
        )  # fmt: skip
        if depth_gradient is None or point_gradient is None:
            return None
        return (
            depth_gradient.t().reshape(block.depthwise.weight.shape),
            point_gradient.t().reshape(block.pointwise.weight.shape),
        )

    # -- dense blocks: rectify, convolution; several of one input together --

    def dense(self, x: Tensor, convs: Sequence[nn.Conv2d], shift: int, z: Part, moments: Tensor | None) -> None:
        """Writes the convolutions' results, one after another, to channels of z, and `moments` (2, their channels).

        `shift`: pixels by which the input is moved up and left before.
        """
        shape = _dense_geometry(x, convs, shift)
        if _is_for_library(shape):
            weight, pad = _weights(convs), convs[0].padding
            z[0].copy_(pixels(F.conv2d(images(x.clamp(min=0)), weight, padding=pad)))
            if moments is not None:
                self.moments(z[0], moments)
            return
        weight = _weights(convs).permute(2, 3, 1, 0).contiguous()
        mean, deviation = (None, None) if moments is None else moments
        self.library.dense_forward(
            ctypes.byref(shape),
            self.threads,
            _at(x),
            _at(weight),
            _at(*z),
            z[0].shape[3],
            _at(mean),
            _at(deviation),
        )

    def dense_backward(
        self,
        x: Tensor,
        convs: Sequence[nn.Conv2d],
        shift: int,
        gradients: Sequence[Part],
        z: Part,
        closed_form: ClosedForm,
        into: Tensor | None,
        weights_wanted: bool,
    ) -> Sequence[Tensor] | None:
        """Gradients of the weights, if wanted; adds that at `x` to `into`. `gradients`: one for each convolution."""
        shape = _dense_geometry(x, convs, shift)
        kernel, channels, out_channels = shape.kernel, shape.channels, shape.out_channels
        if _is_for_library(shape):
            return self._library_backward(x, convs, gradients, z, closed_form, into, weights_wanted)
        backwards = _weights(convs).permute(2, 3, 0, 1).flip(0, 1).contiguous()
        total = x.new_zeros(kernel, kernel, channels, out_channels) if weights_wanted else None
        self.library.dense_backward(
            ctypes.byref(shape), self.threads, _at(x), _at(backwards), len(convs), _addresses(gradients),
            gradients[0][0].shape[3], _at(*z), z[0].shape[3], *map(_at, closed_form), _at(into), _at(total),
        )  # fmt: skip
        if total is None:
            return None
        # channels last, as the weights are
        return total.permute(3, 0, 1, 2).contiguous().permute(0, 3, 1, 2).chunk(len(convs))

    def _library_backward(
        self,
        x: Tensor,
        convs: Sequence[nn.Conv2d],
        gradients: Sequence[Part],
        z: Part,
        closed_form: ClosedForm,
        into: Tensor | None,
        weights_wanted: bool,
    ) -> Sequence[Tensor] | None:
        """`dense_backward` by PyTorch's convolutions, for which the gradient at z is stored."""
        at_z = self.room(*x.shape[:3], z[0].shape[3])
        for number, (conv, gradient) in enumerate(zip(convs, gradients, strict=True)):
            begin = number * conv.out_channels
            factor, slope, constant = (vector[begin : begin + conv.out_channels] for vector in closed_form)
            self.combine([gradient, (z[0], begin)], torch.stack([factor, slope]), constant, (at_z, begin), False)
        rectified = torch.clamp(x, min=0, out=self.room(*x.shape))
        wanted = [into is not None, weights_wanted, False]
        at_x, at_weights, _ = torch.ops.aten.convolution_backward(
            images(at_z), images(rectified), _weights(convs), None, [1, 1], convs[0].padding, [1, 1], False, [0, 0], 1,
            wanted,
        )  # fmt: skip
        if into is not None:
            into.add_(torch.ops.aten.threshold_backward(pixels(at_x), rectified, 0))
        self.give_back([at_z, rectified])
        return at_weights.chunk(len(convs)) if weights_wanted else None

    # -- pools --

    def pool(self, x: Tensor, pool: MaxPool3x3 | AvgPool3x3) -> Tensor:
        shape = geometry(x, x.shape[3], 3, pool.stride, 1)
        result = self.room(x.shape[0], shape.out_height, shape.out_width, x.shape[3])
        maximum = isinstance(pool, MaxPool3x3)
        self.library.pool_forward(ctypes.byref(shape), self.threads, maximum, _at(x), _at(result))
        return result

    def pool_backward(
        self, x: Tensor, pool: MaxPool3x3 | AvgPool3x3, pooled: Tensor, gradient: Tensor, into: Tensor
    ) -> None:
        """Adds the gradient at `x` to `into`."""
        shape = geometry(x, x.shape[3], 3, pool.stride, 1)
        maximum = isinstance(pool, MaxPool3x3)
        self.library.pool_backward(
            ctypes.byref(shape), self.threads, maximum, _at(x), _at(pooled), _at(gradient), _at(into)
        )

    # -- sums over streams and over pixels --

    def combine(
        self, parts: Sequence[Part], factors: Tensor, offset: Tensor | None, out: Part, accumulate: bool
    ) -> None:
        """out (+)= sum of factors[k] * parts[k] + offset; factors (parts, C), offset (C,)."""
        row = out[0].shape[3]
        self.library.combine(
            out[0].numel() // row, factors.shape[1], self.threads, len(parts), _addresses(parts), _rows(parts),
            _at(factors), _at(offset), _at(*out), row, accumulate,
        )  # fmt: skip

    def moments(self, x: Tensor, moments: Tensor) -> None:
        """Writes (2, C), in double precision: each channel's mean, and its sum of squared deviations from it."""
        channels = x.shape[3]
        self.library.moments(x.numel() // channels, channels, self.threads, _at(x), _at(moments[0]), _at(moments[1]))

    def products(self, parts: Sequence[Part], pivots: Tensor, gradient: Tensor, sums: Tensor) -> None:
        """Adds to `sums` (parts + 1, C), in double precision: of gradient * (part - pivot) over pixels, of gradient."""
        channels = gradient.shape[3]
        self.library.products(
            gradient.numel() // channels, channels, self.threads, len(parts), _addresses(parts), _rows(parts),
            _at(pivots), _at(gradient), _at(sums),
        )  # fmt: skip


def _block_geometry(u: Tensor, block: DepthwisePointwise) -> Geometry:
    conv = block.depthwise
    (kernel, _), (stride, _), (dilation, _) = conv.kernel_size, conv.stride, conv.dilation
    return geometry(u, block.pointwise.out_channels, kernel, stride, dilation * (kernel // 2), dilation)


def _depth_weight(block: DepthwisePointwise) -> Tensor:
    """(kernel * kernel, C)."""
    return block.depthwise.weight.detach().flatten(1).t().contiguous()


def _is_for_library(shape: Geometry) -> bool:
    """Whether a dense convolution is left to PyTorch: where our vectors would be short, or the products are large."""
    channels = shape.channels
    return bool(shape.stride == 1 and (channels >= LARGE or (channels > EVEN and channels % EVEN)))


def _weights(convs: Sequence[nn.Conv2d]) -> Tensor:
    """Of convolutions that become one."""
    return torch.cat([conv.weight.detach() for conv in convs])


def _dense_geometry(x: Tensor, convs: Sequence[nn.Conv2d], shift: int) -> Geometry:
    out_channels = sum(conv.out_channels for conv in convs)
    kernel = convs[0].kernel_size[0]
    return geometry(x, out_channels, kernel, convs[0].stride[0], kernel // 2 - shift)
