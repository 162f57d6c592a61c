"""The candidate operations, and the fixed blocks that networks of these spaces are made of.

An operation computes ``finish(prologue(x))``. The prologue has no weights, so operations that start alike (with a ReLU,
with the same pool) can share it: `execution.share` computes it once for each source state. Sources: Liu et al., "DARTS"
(ICLR 2019); Dong & Yang, "NAS-Bench-201" (ICLR 2020).

Shapes: every operation maps (B, C_in, H, W) to (B, C_out, ceil(H / stride), ceil(W / stride)).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# -- prologues: what operations begin with, compared by value ----------------------------------------------------------


@dataclass(frozen=True)
class Same:
    """The state as it is."""

    def __call__(self, x: Tensor) -> Tensor:
        return x


@dataclass(frozen=True)
class Rectify:
    """ReLU."""

    def __call__(self, x: Tensor) -> Tensor:
        return F.relu(x)


@dataclass(frozen=True)
class MaxPool3x3:
    """Maximum over 3x3, padding 1."""

    stride: int

    def __call__(self, x: Tensor) -> Tensor:
        return F.max_pool2d(x, 3, self.stride, padding=1)


@dataclass(frozen=True)
class AvgPool3x3:
    """Mean over 3x3, padding 1, the padding not counted."""

    stride: int

    def __call__(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(x, 3, self.stride, padding=1, count_include_pad=False)


Prologue = Same | Rectify | MaxPool3x3 | AvgPool3x3

# -- operations --------------------------------------------------------------------------------------------------------


class Operation(nn.Module, ABC):
    """One candidate operation."""

    prologue: Prologue
    is_identity = False
    """An identity is spared by drop-path."""

    @abstractmethod
    def finish(self, x: Tensor) -> Tensor:
        """The rest of the operation, from the prologue's result."""

    def forward(self, x: Tensor) -> Tensor:
        return self.finish(self.prologue(x))


class Zero(Operation):
    """``none``: contributes nothing; an execution need not compute it."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.prologue = Same()

    def finish(self, x: Tensor) -> Tensor:
        return torch.zeros_like(x[:, :, :: self.stride, :: self.stride])


class Identity(Operation):
    """``skip_connect`` at stride 1."""

    is_identity = True

    def __init__(self) -> None:
        super().__init__()
        self.prologue = Same()

    def finish(self, x: Tensor) -> Tensor:
        return x


class Pool(Operation):
    """A pool, all of it prologue."""

    def __init__(self, prologue: MaxPool3x3 | AvgPool3x3) -> None:
        super().__init__()
        self.prologue = prologue

    def finish(self, x: Tensor) -> Tensor:
        return x


class BatchNormalized(Operation):
    """An operation followed by BatchNorm without weights, as DARTS's search network does to its pools."""

    def __init__(self, operation: Operation, channels: int) -> None:
        super().__init__()
        self.operation = operation
        self.prologue = operation.prologue
        self.norm = nn.BatchNorm2d(channels, affine=False)

    def finish(self, x: Tensor) -> Tensor:
        result: Tensor = self.norm(self.operation.finish(x))
        return result


def pointwise(x: Tensor, weight: Tensor, stride: int) -> Tensor:
    """A dense 1x1 convolution, of the pixels that its stride meets.

    The others are left out before and not by the convolution: where channels are last and few, oneDNN computes the
    weights' gradient of a strided one outside of its memory, on CPUs without AVX-512 (uxlfoundation/oneDNN#6035, in
    torch 2.14). A process is lost by that, or its gradients are wrong.
    """
    return F.conv2d(x if stride == 1 else x[:, :, ::stride, ::stride], weight)


class Conv1x1(nn.Conv2d):
    """A dense 1x1 convolution without bias, as `pointwise` computes it."""

    def __init__(self, c_in: int, c_out: int, stride: int = 1) -> None:
        super().__init__(c_in, c_out, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return pointwise(x, self.weight, self.stride[0])


class FactorizedReduce(Operation):
    """ReLU, two 1x1 convolutions of stride 2 (the second on the input shifted by one pixel), concatenation, BatchNorm.

    ``skip_connect`` at stride 2. An odd side is first padded by one at the right and at the bottom.
    """

    def __init__(self, c_in: int, c_out: int, affine: bool) -> None:
        super().__init__()
        self.prologue = Rectify()
        self.even = Conv1x1(c_in, c_out // 2, stride=2)
        self.odd = Conv1x1(c_in, c_out // 2, stride=2)
        self.norm = nn.BatchNorm2d(c_out, affine=affine)

    def finish(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        if height % 2 or width % 2:
            x = F.pad(x, (0, width % 2, 0, height % 2))
        result: Tensor = self.norm(torch.cat([self.even(x), self.odd(x[:, :, 1:, 1:])], dim=1))
        return result


class ReluConvBatchNorm(Operation):
    """ReLU, one convolution, BatchNorm: NAS-Bench-201's ``nor_conv``, and the preprocessing of cells."""

    def __init__(self, c_in: int, c_out: int, kernel: int, stride: int, affine: bool) -> None:
        super().__init__()
        self.prologue = Rectify()
        self.conv = (
            Conv1x1(c_in, c_out, stride)
            if kernel == 1
            else nn.Conv2d(c_in, c_out, kernel, stride, padding=kernel // 2, bias=False)
        )
        self.norm = nn.BatchNorm2d(c_out, affine=affine)

    def finish(self, x: Tensor) -> Tensor:
        result: Tensor = self.norm(self.conv(x))
        return result


class DepthwisePointwise(nn.Module):
    """Depthwise kxk, pointwise 1x1, BatchNorm."""

    def __init__(self, c_in: int, c_out: int, kernel: int, stride: int, dilation: int, affine: bool) -> None:
        super().__init__()
        padding = dilation * (kernel // 2)
        self.depthwise = nn.Conv2d(c_in, c_in, kernel, stride, padding, dilation, groups=c_in, bias=False)
        self.pointwise = nn.Conv2d(c_in, c_out, 1, bias=False)
        self.norm = nn.BatchNorm2d(c_out, affine=affine)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.norm(self.pointwise(self.depthwise(x)))
        return result


class DilatedConv(Operation):
    """ReLU, depthwise kxk with dilation 2, pointwise, BatchNorm."""

    def __init__(self, c_in: int, c_out: int, kernel: int, stride: int, affine: bool) -> None:
        super().__init__()
        self.prologue = Rectify()
        self.conv = DepthwisePointwise(c_in, c_out, kernel, stride, dilation=2, affine=affine)

    def finish(self, x: Tensor) -> Tensor:
        result: Tensor = self.conv(x)
        return result


class SeparableConv(Operation):
    """Twice ReLU, depthwise kxk, pointwise, BatchNorm; the first carries the stride."""

    def __init__(self, c_in: int, c_out: int, kernel: int, stride: int, affine: bool) -> None:
        super().__init__()
        self.prologue = Rectify()
        self.first = DepthwisePointwise(c_in, c_in, kernel, stride, dilation=1, affine=affine)
        self.second = DepthwisePointwise(c_in, c_out, kernel, 1, dilation=1, affine=affine)

    def finish(self, x: Tensor) -> Tensor:
        result: Tensor = self.second(F.relu(self.first(x)))
        return result


def _skip_connect(c_in: int, c_out: int, stride: int, affine: bool) -> Operation:
    return Identity() if stride == 1 and c_in == c_out else FactorizedReduce(c_in, c_out, affine)


Builder = Callable[[int, int, int, bool], Operation]
"""From (c_in, c_out, stride, affine), `affine` saying whether BatchNorm has weights of its own."""

OPERATIONS: dict[str, Builder] = {
    "none": lambda _c_in, _c_out, stride, _affine: Zero(stride),
    "skip_connect": _skip_connect,
    "max_pool_3x3": lambda _c_in, _c_out, stride, _affine: Pool(MaxPool3x3(stride)),
    "avg_pool_3x3": lambda _c_in, _c_out, stride, _affine: Pool(AvgPool3x3(stride)),
    "sep_conv_3x3": lambda c_in, c_out, stride, affine: SeparableConv(c_in, c_out, 3, stride, affine),
    "sep_conv_5x5": lambda c_in, c_out, stride, affine: SeparableConv(c_in, c_out, 5, stride, affine),
    "dil_conv_3x3": lambda c_in, c_out, stride, affine: DilatedConv(c_in, c_out, 3, stride, affine),
    "dil_conv_5x5": lambda c_in, c_out, stride, affine: DilatedConv(c_in, c_out, 5, stride, affine),
    "nor_conv_1x1": lambda c_in, c_out, stride, affine: ReluConvBatchNorm(c_in, c_out, 1, stride, affine),
    "nor_conv_3x3": lambda c_in, c_out, stride, affine: ReluConvBatchNorm(c_in, c_out, 3, stride, affine),
}
"""Every operation by its name in the literature. A new one is one builder and one line here."""

PARAMETER_FREE = frozenset({"none", "skip_connect", "max_pool_3x3", "avg_pool_3x3"})
"""Operations without weights (at stride 1): what a collapsed search is full of."""

# -- fixed blocks ------------------------------------------------------------------------------------------------------


class ConvStem(nn.Module):
    """3x3 convolution and BatchNorm, the same tensor for every input of the first cell."""

    def __init__(self, image_channels: int, channels: tuple[int, ...], stride: int = 1) -> None:
        super().__init__()
        self.num_outputs = len(channels)
        self.conv = nn.Conv2d(image_channels, channels[0], 3, stride, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels[0])

    def forward(self, images: Tensor) -> list[Tensor]:
        return [self.norm(self.conv(images))] * self.num_outputs


class ImageNetStem(nn.Module):
    """Three 3x3 convolutions of stride 2: a quarter of the side for the first input, an eighth for the second."""

    def __init__(self, image_channels: int, channels: tuple[int, ...]) -> None:
        super().__init__()
        first, second = channels
        self.quarter = nn.Sequential(
            nn.Conv2d(image_channels, first // 2, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(first // 2),
            nn.ReLU(),
            nn.Conv2d(first // 2, first, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(first),
        )
        self.eighth = nn.Sequential(
            nn.ReLU(), nn.Conv2d(first, second, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(second)
        )

    def forward(self, images: Tensor) -> list[Tensor]:
        quarter = self.quarter(images)
        return [quarter, self.eighth(quarter)]


STEMS: dict[str, Callable[[int, tuple[int, ...]], nn.Module]] = {
    "cifar": ConvStem,
    "half": lambda image_channels, channels: ConvStem(image_channels, channels, stride=2),
    "imagenet": ImageNetStem,
}
"""From (image channels, channels of each of the stem's outputs) to the stem, by name."""


class ResidualReduction(nn.Module):
    """NAS-Bench-201's block between stages: two ReLU-3x3-BatchNorm, beside an averaged and projected shortcut."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.first = ReluConvBatchNorm(c_in, c_out, 3, 2, affine=True)
        self.second = ReluConvBatchNorm(c_out, c_out, 3, 1, affine=True)
        self.shortcut = nn.Sequential(nn.AvgPool2d(2, 2, ceil_mode=True), nn.Conv2d(c_in, c_out, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.shortcut(x) + self.second(self.first(x))
        return result
