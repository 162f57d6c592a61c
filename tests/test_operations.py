"""Operations against sums of plain convolutions written by hand, and against their contract."""

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cdarts.operations import (
    OPERATIONS,
    PARAMETER_FREE,
    STEMS,
    AvgPool3x3,
    BatchNormalized,
    ConvStem,
    DilatedConv,
    FactorizedReduce,
    Identity,
    ImageNetStem,
    MaxPool3x3,
    Operation,
    Pool,
    Rectify,
    ReluConvBatchNorm,
    ResidualReduction,
    Same,
    SeparableConv,
    Zero,
)
from cdarts.randomness import generator, seeded

EPSILON = 1e-5
SIDES = [(8, 8), (7, 7), (9, 6), (1, 3)]


def image(*shape: int, stream: str = "image") -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=generator(0, stream, *shape))


def built(build: Callable[[], nn.Module]) -> nn.Module:
    """A module with seeded weights, in double precision, BatchNorm weights moved away from one and zero."""
    with seeded(0, "module"):
        module = build().double()
        for submodule in module.modules():
            if isinstance(submodule, nn.BatchNorm2d) and submodule.affine:
                nn.init.uniform_(submodule.weight, 0.5, 1.5)
                nn.init.uniform_(submodule.bias, -0.5, 0.5)
    return module


def close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)


# -- references written by hand ----------------------------------------------------------------------------------------


def by_hand_batchnorm(x: Tensor, norm: nn.BatchNorm2d) -> Tensor:
    mean = x.mean(dim=(0, 2, 3), keepdim=True)
    variance = ((x - mean) ** 2).mean(dim=(0, 2, 3), keepdim=True)
    y = (x - mean) / torch.sqrt(variance + EPSILON)
    if norm.affine:
        y = y * norm.weight[:, None, None] + norm.bias[:, None, None]
    return y


def by_hand_depthwise(x: Tensor, weight: Tensor, stride: int, dilation: int) -> Tensor:
    """sum over the taps (i, j) of weight[:, i, j] * x, shifted: no convolution routine involved."""
    kernel = weight.shape[-1]
    padding = dilation * (kernel // 2)
    height, width = x.shape[2:]
    padded = F.pad(x, (padding,) * 4)
    total = torch.zeros_like(x[:, :, ::stride, ::stride])
    for i in range(kernel):
        for j in range(kernel):
            shifted = padded[:, :, i * dilation : i * dilation + height, j * dilation : j * dilation + width]
            total = total + weight[:, 0, i, j, None, None] * shifted[:, :, ::stride, ::stride]
    return total


def by_hand_pointwise(x: Tensor, weight: Tensor) -> Tensor:
    return torch.einsum("oc,bchw->bohw", weight[:, :, 0, 0], x)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("affine", [False, True])
def test_separable_convolution(side: tuple[int, int], stride: int, kernel: int, affine: bool) -> None:
    operation = built(lambda: SeparableConv(4, 6, kernel, stride, affine))
    assert isinstance(operation, SeparableConv)
    x = image(3, 4, *side)
    expected = x
    for half, step in ((operation.first, stride), (operation.second, 1)):
        expected = by_hand_depthwise(expected.clamp(min=0), half.depthwise.weight, step, 1)
        expected = by_hand_batchnorm(by_hand_pointwise(expected, half.pointwise.weight), half.norm)
    close(operation(x), expected)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [3, 5])
def test_dilated_convolution(side: tuple[int, int], stride: int, kernel: int) -> None:
    operation = built(lambda: DilatedConv(4, 6, kernel, stride, affine=True))
    assert isinstance(operation, DilatedConv)
    x = image(3, 4, *side)
    expected = by_hand_depthwise(x.clamp(min=0), operation.conv.depthwise.weight, stride, 2)
    expected = by_hand_batchnorm(by_hand_pointwise(expected, operation.conv.pointwise.weight), operation.conv.norm)
    close(operation(x), expected)


@pytest.mark.parametrize("side", [(8, 8), (7, 7), (9, 6), (4, 5)])
def test_factorized_reduce(side: tuple[int, int]) -> None:
    operation = built(lambda: FactorizedReduce(4, 6, affine=True))
    assert isinstance(operation, FactorizedReduce)
    x = image(3, 4, *side)
    rectified = x.clamp(min=0)
    # the odd rows and columns; where a side is odd, a row or column of zeros stands in for the one that is missing
    height, width = math.ceil(side[0] / 2), math.ceil(side[1] / 2)
    shifted = torch.zeros(3, 4, height, width, dtype=x.dtype)
    shifted[:, :, : side[0] // 2, : side[1] // 2] = rectified[:, :, 1::2, 1::2]
    even = by_hand_pointwise(rectified[:, :, ::2, ::2], operation.even.weight)
    odd = by_hand_pointwise(shifted, operation.odd.weight)
    close(operation(x), by_hand_batchnorm(torch.cat([even, odd], dim=1), operation.norm))


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [1, 3])
def test_relu_convolution_batchnorm(side: tuple[int, int], stride: int, kernel: int) -> None:
    operation = built(lambda: ReluConvBatchNorm(4, 6, kernel, stride, affine=True))
    assert isinstance(operation, ReluConvBatchNorm)
    x = image(3, 4, *side)
    # a full convolution as a sum over input channels of depthwise ones
    weight, rectified = operation.conv.weight, x.clamp(min=0)
    expected = sum(
        by_hand_depthwise(rectified[:, [c]].expand(-1, 6, -1, -1), weight[:, [c]], stride, 1) for c in range(4)
    )
    assert isinstance(expected, Tensor)
    close(operation(x), by_hand_batchnorm(expected, operation.norm))


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("stride", [1, 2])
def test_pools(side: tuple[int, int], stride: int) -> None:
    x = image(2, 3, *side)
    rows, columns = range(0, side[0], stride), range(0, side[1], stride)
    largest = torch.empty(2, 3, len(rows), len(columns), dtype=x.dtype)
    mean = torch.empty_like(largest)
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            window = x[:, :, max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2]  # no padding is counted
            largest[:, :, i, j] = window.amax(dim=(2, 3))
            mean[:, :, i, j] = window.mean(dim=(2, 3))
    close(OPERATIONS["max_pool_3x3"](3, 3, stride, False)(x), largest)
    close(OPERATIONS["avg_pool_3x3"](3, 3, stride, False)(x), mean)
    normalized = BatchNormalized(Pool(AvgPool3x3(stride)), 3).double()
    if len(rows) * len(columns) > 1:
        close(normalized(x), by_hand_batchnorm(mean, normalized.norm))
    assert not list(normalized.parameters())


def test_none_and_skip() -> None:
    x = image(2, 4, 5, 5)
    zero = OPERATIONS["none"](4, 4, 2, False)(x)
    assert zero.shape == (2, 4, 3, 3)
    assert not zero.any()
    skip = OPERATIONS["skip_connect"](4, 4, 1, False)
    assert skip(x) is x
    assert skip.is_identity
    for strided in (OPERATIONS["skip_connect"](4, 4, 2, False), OPERATIONS["skip_connect"](4, 6, 1, False)):
        assert isinstance(strided, FactorizedReduce)
        assert not strided.is_identity


# -- the contract, for every entry -------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", [(8, 8), (7, 7), (9, 6), (2, 2)])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("name", OPERATIONS)
def test_shapes_and_gradients(name: str, stride: int, side: tuple[int, int]) -> None:
    operation = built(lambda: OPERATIONS[name](4, 4, stride, True))
    x = image(3, 4, *side).requires_grad_()
    y = operation(x)
    assert y.shape == (3, 4, math.ceil(side[0] / stride), math.ceil(side[1] / stride))
    if name == "none":
        assert not y.requires_grad
        return
    (y * image(*y.shape, stream="weights")).sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    assert x.grad.any()
    for parameter in operation.parameters():
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all()
        assert parameter.grad.any()


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_is_its_prologue_and_its_rest(name: str, stride: int, affine: bool) -> None:
    operation = built(lambda: OPERATIONS[name](4, 4, stride, affine))
    assert isinstance(operation, Operation)
    x = image(3, 4, 7, 7)
    begun = operation.prologue(x)
    kept = begun.clone()
    assert torch.equal(operation.finish(begun), operation(x))
    assert torch.equal(begun, kept), "a shared prologue must not be written to"
    norms = [module for module in operation.modules() if isinstance(module, nn.BatchNorm2d)]
    assert all(norm.affine is affine for norm in norms)


@pytest.mark.parametrize("name", OPERATIONS)
def test_parameter_free_means_what_it_says(name: str) -> None:
    assert (not list(OPERATIONS[name](4, 4, 1, True).parameters())) is (name in PARAMETER_FREE)


def test_prologues_compare_by_value() -> None:
    assert Rectify() == Rectify()
    assert MaxPool3x3(2) == MaxPool3x3(2)
    prologues = {Same(), Rectify(), MaxPool3x3(1), MaxPool3x3(2), AvgPool3x3(1), AvgPool3x3(2)}
    assert len(prologues) == 6
    for name in ("sep_conv_3x3", "sep_conv_5x5", "dil_conv_3x3", "dil_conv_5x5", "nor_conv_1x1", "nor_conv_3x3"):
        assert OPERATIONS[name](4, 4, 1, False).prologue == Rectify()
    assert OPERATIONS["max_pool_3x3"](4, 4, 2, False).prologue == MaxPool3x3(2)
    assert Identity().prologue == Zero(1).prologue == Same()


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("none", 0),
        ("max_pool_3x3", 0),
        ("avg_pool_3x3", 0),
        ("skip_connect", 16 * 16),
        ("sep_conv_3x3", 2 * (16 * 9 + 16 * 16)),
        ("sep_conv_5x5", 2 * (16 * 25 + 16 * 16)),
        ("dil_conv_3x3", 16 * 9 + 16 * 16),
        ("dil_conv_5x5", 16 * 25 + 16 * 16),
        ("nor_conv_1x1", 16 * 16),
        ("nor_conv_3x3", 16 * 16 * 9),
    ],
)
def test_parameter_counts(name: str, parameters: int) -> None:
    assert sum(p.numel() for p in OPERATIONS[name](16, 16, 2, False).parameters()) == parameters


# -- fixed blocks ------------------------------------------------------------------------------------------------------


def test_conv_stem() -> None:
    stem = built(lambda: ConvStem(3, (8, 8)))
    assert isinstance(stem, ConvStem)
    x = image(2, 3, 9, 9)
    first, second = stem(x)
    assert first is second
    expected = F.conv2d(x, stem.conv.weight, padding=1)
    close(first, by_hand_batchnorm(expected, stem.norm))


@pytest.mark.parametrize(
    ("name", "side", "sides"),
    [
        ("cifar", 32, (32, 32)),
        ("cifar", 7, (7, 7)),
        ("half", 32, (16, 16)),
        ("half", 9, (5, 5)),
        ("imagenet", 224, (56, 28)),
        ("imagenet", 64, (16, 8)),
        ("imagenet", 33, (9, 5)),
    ],
)
def test_sides_after_each_stem(name: str, side: int, sides: tuple[int, int]) -> None:
    outputs = STEMS[name](3, (8, 8))(torch.zeros(1, 3, side, side))
    assert [tuple(x.shape) for x in outputs] == [(1, 8, size, size) for size in sides]


def test_imagenet_stem_parameters() -> None:
    """conv 3 -> 8, 8 -> 16, 16 -> 16, each 3x3, with affine BatchNorm."""
    stem = ImageNetStem(3, (16, 16))
    assert sum(p.numel() for p in stem.parameters()) == 9 * (3 * 8 + 8 * 16 + 16 * 16) + 2 * (8 + 16 + 16)


@pytest.mark.parametrize("side", [8, 7])
def test_residual_reduction(side: int) -> None:
    block = built(lambda: ResidualReduction(4, 8))
    assert isinstance(block, ResidualReduction)
    x = image(2, 4, side, side)
    size = math.ceil(side / 2)
    pooled = torch.stack(
        [torch.stack([x[:, :, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].mean(dim=(2, 3)) for j in range(size)], dim=-1)
         for i in range(size)],
        dim=-2,
    )  # fmt: skip
    shortcut = by_hand_pointwise(pooled, block.shortcut[1].weight)
    straight = by_hand_batchnorm(
        F.conv2d(x.clamp(min=0), block.first.conv.weight, stride=2, padding=1), block.first.norm
    )
    straight = by_hand_batchnorm(
        F.conv2d(straight.clamp(min=0), block.second.conv.weight, padding=1), block.second.norm
    )
    close(block(x), shortcut + straight)
