"""The compiled kernels: equal to the reference for any shape, and the same on any number of threads."""

import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from cdarts import zoo
from cdarts.errors import ConfigurationError
from cdarts.execution import Fused, choose_execution, plain
from cdarts.execution import compiler as compiling
from cdarts.execution import fused as fusing
from cdarts.networks import Network, frozen
from cdarts.operations import OPERATIONS, BatchNormalized, Operation, Pool, SeparableConv
from cdarts.randomness import generator, seeded
from cdarts.relaxations import Softmax
from cdarts.spaces import DartsSpace, NasBench201Space
from cdarts.topology import CellTopology, Edge

CPU = torch.device("cpu")

NAMES = [name for name in OPERATIONS if name != "none"]


def a_bundle(channels: int, stride: int, names: Sequence[str], affine: bool, pools_normalized: bool) -> list[Operation]:
    """Operations of one edge, with BatchNorm weights that matter."""
    bundle: list[Operation] = []
    for name in names:
        operation = OPERATIONS[name](channels, channels, stride, affine)
        if pools_normalized and isinstance(operation, Pool):
            operation = BatchNormalized(operation, channels)
        bundle.append(operation)
    draw = generator(0, "affine")
    for operation in bundle:
        for module in operation.modules():
            if isinstance(module, nn.BatchNorm2d) and module.affine:
                module.weight.data.uniform_(0.5, 1.5, generator=draw)
                module.bias.data.normal_(generator=draw)
    return [operation.double() for operation in bundle]


def results_of(
    execute: Fused | object, cell: CellTopology, operations: list[list[Operation]], x: Tensor, weights: Tensor | None
) -> list[Tensor]:
    """Node, gradients and running statistics."""
    leaves = [
        x,
        *([] if weights is None else [weights]),
        *(p for bundle in operations for op in bundle for p in op.parameters()),
    ]
    norms = [m for bundle in operations for op in bundle for m in op.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
    node = torch.cat(execute(cell, operations, [x], weights, None), dim=1)  # type: ignore[operator]
    form = torch.randn(node.shape, dtype=torch.float64, generator=generator(0, "form")).to(node.dtype)
    gradients = torch.autograd.grad((node * form).sum(), leaves, materialize_grads=True)
    statistics = [buffer.clone() for norm in norms for buffer in norm.buffers()]
    return [node.detach(), *gradients, *statistics]


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    names=st.lists(st.sampled_from(NAMES), min_size=1, max_size=4, unique=True),
    nodes=st.integers(1, 3),
    stride=st.sampled_from([1, 1, 2]),
    channels=st.sampled_from([2, 4, 6, 8, 10, 12, 16, 18, 24, 32, 36, 40, 64]),
    batch=st.integers(1, 5),
    height=st.integers(2, 13),
    width=st.integers(2, 19),
    affine=st.booleans(),
    pools_normalized=st.booleans(),
    mixed=st.booleans(),
    train=st.booleans(),
)
def test_any_shape(
    names: list[str],
    nodes: int,
    stride: int,
    channels: int,
    batch: int,
    height: int,
    width: int,
    affine: bool,
    pools_normalized: bool,
    mixed: bool,
    train: bool,
) -> None:
    if stride == 2:
        names = [name for name in names if not name.startswith("nor_conv")] or ["skip_connect"]
    # all from one state, whose streams are computed together
    cell = CellTopology(1, nodes, tuple((Edge(target=1 + node, source=0), tuple(names)) for node in range(nodes)))
    with seeded(0, "bundle"):
        operations = [
            [op.train(train) for op in a_bundle(channels, stride, names, affine, pools_normalized)]
            for _ in range(nodes)
        ]
    if train and batch * (-(-height // stride)) * (-(-width // stride)) == 1:
        batch = 2  # BatchNorm needs more than one value
    draw = generator(0, "any shape")
    x = torch.randn(batch, channels, height, width, dtype=torch.float64, generator=draw).requires_grad_()
    weights = torch.rand(nodes, len(names), dtype=torch.float64, generator=draw).requires_grad_() if mixed else None
    execute = Fused()
    expected = results_of(plain, cell, operations, x, weights)
    for fused in (execute, execute, Fused(recompute=True)):
        for first, second in zip(expected, results_of(fused, cell, operations, x, weights), strict=True):
            scale = max(1.0, float(first.abs().max()))
            torch.testing.assert_close(second, first, rtol=1e-9, atol=1e-9 * scale)


SHAPES = [(channels, stride) for channels in (2, 6, 8, 10, 16, 18, 24, 40) for stride in (1, 2)]


def check_shape(channels: int, stride: int, dtype: torch.dtype, tolerance: float) -> None:
    """Every operation that has the stride, against the reference in double precision."""
    names = [name for name in NAMES if stride == 1 or not name.startswith("nor_conv")]
    cell = CellTopology(1, 1, ((Edge(target=1, source=0), tuple(names)),))
    with seeded(0, "bundle"):
        operations = [a_bundle(channels, stride, names, True, False)]
    x = torch.randn(3, channels, 9, 11, dtype=torch.float64, generator=generator(0, "shape", channels)).requires_grad_()
    expected = results_of(plain, cell, operations, x, None)
    for operation in operations[0]:
        operation.to(dtype)
    found = results_of(Fused(), cell, operations, x.detach().to(dtype).requires_grad_(), None)
    for first, second in zip(expected, found, strict=True):
        distance = float((second.double() - first).norm()) / max(1.0, float(first.double().norm()))
        assert distance < tolerance, (channels, stride, first.shape)


@pytest.mark.parametrize(("channels", "stride"), SHAPES)
def test_single_precision_in_any_number_of_channels(channels: int, stride: int) -> None:
    """Whatever part of a register the last of them fill."""
    check_shape(channels, stride, torch.float32, 1e-4)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="compiles for other processors of the same family")
@pytest.mark.parametrize(
    ("architecture", "flag"),
    [("x86-64", "sse2"), pytest.param("x86-64-v3", "avx2", marks=pytest.mark.slow)],
)
def test_registers_of_another_width(
    architecture: str, flag: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What other processors compute by, compiled for them here."""
    if flag not in Path("/proc/cpuinfo").read_text().split():
        pytest.skip(f"this processor lacks {flag}")
    flags = tuple(f"-march={architecture}" if each == "-march=native" else each for each in compiling.FLAGS)
    assert flags != compiling.FLAGS
    monkeypatch.setattr(compiling, "FLAGS", flags)
    monkeypatch.setattr(compiling, "_LOADED", {})
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for channels, stride in SHAPES:
        check_shape(channels, stride, torch.float32, 1e-4)
    (library,) = (tmp_path / "cdarts").iterdir()
    assert library.name.startswith("kernels-float-")


# cells of the space of nor_conv_3x3 have no stride
@pytest.mark.parametrize(("name", "stride"), [(n, s) for n in NAMES for s in (1, 2) if (n, s) != ("nor_conv_3x3", 2)])
def test_gradients_are_those_of_finite_differences(name: str, stride: int) -> None:
    cell = CellTopology(1, 1, ((Edge(target=1, source=0), (name,)),))
    with seeded(1, "bundle"):
        operations = [a_bundle(2, stride, [name], True, True)]
    parameters = [parameter for op in operations[0] for parameter in op.parameters()]
    # far from the kinks of ReLU and pools
    x = torch.randn(2, 2, 4, 5, dtype=torch.float64, generator=generator(3, "gradcheck")).requires_grad_()
    weights = torch.tensor([[0.7]], dtype=torch.float64, requires_grad=True)
    execute = Fused()

    def node(x: Tensor, weights: Tensor, *_: Tensor) -> Tensor:
        return execute(cell, operations, [x], weights, None)[0]

    assert torch.autograd.gradcheck(node, (x, weights, *parameters), eps=1e-7, atol=1e-5, nondet_tol=0.0)


def networks(space: DartsSpace | NasBench201Space, affine: bool, *executions: str) -> list[Network]:
    made = []
    for execution in executions:
        with seeded(0, "network"):
            made.append(
                Network(space, space.supernet(), cells=3, channels=8, num_classes=5, affine=affine, execution=execution)
            )
    return made


def step(network: Network, space: DartsSpace | NasBench201Space, images: Tensor) -> list[Tensor]:
    weights = Softmax(space.supernet(), generator(0, "alpha"), scale=1.0)()
    loss = network(images, weights).logits.square().sum()
    leaves = list(network.parameters())
    return [loss.detach(), *torch.autograd.grad(loss, leaves), *(b.clone() for b in network.buffers())]


@pytest.mark.parametrize("space", [DartsSpace(pool_batchnorm=True), NasBench201Space()], ids=["darts", "nasbench201"])
def test_single_precision_is_as_near_to_the_truth_as_the_reference(space: DartsSpace | NasBench201Space) -> None:
    truth_net, plain_net, fused_net = networks(space, False, "plain", "plain", "fused")
    images = torch.randn(8, 3, 16, 16, generator=generator(0, "images"))
    truth = step(truth_net.double(), space, images.double())
    distances = []
    for network in (plain_net, fused_net):
        values = step(network, space, images)
        distances.append(
            max(
                float((value.double() - exact).norm() / exact.norm().clamp(min=1e-12))
                for value, exact in zip(values, truth, strict=True)
                if exact.is_floating_point()
            )
        )
    assert distances[1] <= 10 * distances[0]


def test_the_number_of_threads_changes_no_bit_of_the_kernels() -> None:
    names = ("skip_connect", "sep_conv_3x3", "dil_conv_5x5", "max_pool_3x3", "nor_conv_3x3", "avg_pool_3x3")
    cell = CellTopology(1, 1, ((Edge(target=1, source=0), names),))
    with seeded(0, "bundle"):
        operations = [a_bundle(16, 1, names, True, True)]
    x = torch.randn(7, 16, 9, 9, dtype=torch.float64, generator=generator(0, "threads")).requires_grad_()
    weights = torch.rand(1, len(names), dtype=torch.float64, generator=generator(0, "w")).requires_grad_()
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append(results_of(Fused(), cell, operations, x, weights))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", NAMES)
def test_what_is_not_finite_shows(name: str, value: float) -> None:
    cell = CellTopology(1, 1, ((Edge(target=1, source=0), (name,)),))
    with seeded(0, "bundle"):
        operations = [a_bundle(4, 1, [name], False, True)]
    x = torch.randn(2, 4, 6, 6, dtype=torch.float64, generator=generator(0, "nan"))
    x[0, 1, 2, 2] = value
    (node,) = Fused()(cell, operations, [x], None, None)
    assert not node.isfinite().all()


@pytest.mark.parametrize("kernel", [1, 3, 5, 7])
def test_kernels_that_were_not_compiled_are_left_to_share(kernel: int) -> None:
    cell = CellTopology(1, 1, ((Edge(target=1, source=0), ("sep_conv",)),))
    with seeded(0, "bundle"):
        operations: list[list[Operation]] = [[SeparableConv(4, 4, kernel, 1, True).double()]]
    x = torch.randn(2, 4, 9, 9, dtype=torch.float64, generator=generator(0, "kernel")).requires_grad_()
    for first, second in zip(*(results_of(e, cell, operations, x, None) for e in (plain, Fused())), strict=True):
        torch.testing.assert_close(first, second, rtol=1e-9, atol=1e-9)


def test_equal_maxima_pass_their_gradient_to_the_first() -> None:
    cell = CellTopology(1, 1, ((Edge(target=1, source=0), ("max_pool_3x3",)),))
    operations = [a_bundle(4, 1, ["max_pool_3x3"], False, False)]
    x = torch.ones(1, 4, 5, 5, dtype=torch.float64, requires_grad=True)
    for first, second in zip(*(results_of(e, cell, operations, x, None) for e in (plain, Fused())), strict=True):
        torch.testing.assert_close(first, second)


def test_frozen_weights_get_no_gradient_and_alpha_the_same() -> None:
    space = DartsSpace()
    gradients = []
    for held in (False, True):
        (network,) = networks(space, True, "fused")
        relaxation = Softmax(space.supernet(), generator(0, "alpha"))
        images = torch.randn(4, 3, 8, 8, generator=generator(0, "images"))
        if held:
            with frozen(network, except_for=[network.classifier.bias]):
                loss = network(images, relaxation()).logits.square().sum()
        else:
            loss = network(images, relaxation()).logits.square().sum()
        learned = [*relaxation.parameters(), network.classifier.bias]
        rest = [p for p in network.parameters() if p is not network.classifier.bias]
        both = torch.autograd.grad(loss, [*learned, *rest], allow_unused=True)
        gradients.append(both[: len(learned)])
        assert all(gradient is None for gradient in both[len(learned) :]) == held
        assert all(parameter.requires_grad for parameter in network.parameters())
    for first, second in zip(*gradients, strict=True):
        assert torch.equal(first, second)


# -- the compiler ------------------------------------------------------------------------------------------------------


def chosen_in(environment: dict[str, str], cache: Path) -> str:
    """What ``auto`` chooses in a process with this environment, and what the choice says."""
    program = (
        "import torch; from cdarts.execution import choose_execution; "
        "print(*choose_execution('auto', torch.device('cpu'), lambda line: print('report:', line)), sep=' | ')"
    )
    whole = {**os.environ, "XDG_CACHE_HOME": str(cache), **environment}
    return subprocess.run([sys.executable, "-c", program], env=whole, capture_output=True, text=True, check=True).stdout


def test_compiled_once_and_kept(tmp_path: Path) -> None:
    assert chosen_in({}, tmp_path).splitlines() == [
        "report: compiling the kernels of fused execution for this machine, once",
        "fused | None",
    ]
    (library,) = (tmp_path / "cdarts").iterdir()
    assert library.name.startswith("kernels-float-")
    made = library.stat().st_mtime_ns
    assert chosen_in({}, tmp_path) == "fused | None\n"
    assert library.stat().st_mtime_ns == made


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({compiling.OPT_OUT: "1"}, f"{compiling.OPT_OUT} is set"),
        ({"CXX": "/nowhere/c++"}, "no C++ compiler (/nowhere/c++) was found"),
        ({"CXX": "false"}, "failed"),
    ],
)
def test_without_kernels_auto_is_share_and_says_why(environment: dict[str, str], words: str, tmp_path: Path) -> None:
    answer = chosen_in(environment, tmp_path)
    assert answer.splitlines()[-1].startswith("share | execution share, not fused: ")
    assert words in answer


def test_a_cache_that_cannot_be_written_is_a_reason_not_a_crash(tmp_path: Path) -> None:
    (tmp_path / "cdarts").write_text("a file where the directory should be")
    assert "share | execution share, not fused: the kernels could not be compiled" in chosen_in({}, tmp_path)


def test_what_was_asked_for_and_is_not_there_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling, "_LOADED", {torch.float32: "no C++ compiler (/nowhere/c++) was found"})
    with pytest.raises(ConfigurationError, match=r"--execution fused: no C\+\+ compiler .* use --execution auto"):
        choose_execution("fused", CPU)
    assert choose_execution("share", CPU) == ("share", None)
    assert choose_execution("auto", torch.device("cuda"))[0] != "fused"


def test_without_kernels_a_fused_network_still_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    space = NasBench201Space()
    share_net, fused_net = networks(space, False, "share", "fused")
    images = torch.randn(4, 3, 8, 8, generator=generator(0, "images"))
    monkeypatch.setattr(compiling, "_LOADED", {torch.float32: "not here"})
    for first, second in zip(step(share_net, space, images), step(fused_net, space, images), strict=True):
        assert torch.equal(first, second)


def test_cells_that_pytorch_computes_as_fast_are_left_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few dense convolutions, each edge with one operation: `fused` gives the bits of `share` and calls no kernel."""
    space = NasBench201Space()
    genotype = zoo.load("cdarts-nasbench201-1")
    made = []
    for execution in ("share", "fused"):
        with seeded(0, "network"):
            made.append(
                Network(
                    space,
                    space.topology(genotype),
                    cells=3,
                    channels=8,
                    num_classes=5,
                    affine=True,
                    execution=execution,
                )
            )
    images = torch.randn(4, 3, 16, 16, generator=generator(0, "images"))
    monkeypatch.setattr(fusing._FusedCell, "forward", None)
    first, second = (network(images).logits for network in made)
    assert torch.equal(first, second)
