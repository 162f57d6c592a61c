"""What merging is for: fewer kernels, on one device, without waiting for it. And where it leaves the work to `share`.

That values, gradients and running statistics equal the reference's is tested for every execution in `test_execution`;
here for topologies in which edges have different operations, and for parts of networks.
"""

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from cdarts.errors import ConfigurationError
from cdarts.execution import EXECUTIONS, Execution, Merged, choose_execution, plain, share
from cdarts.networks import Network, frozen
from cdarts.operations import Identity, Operation, Same
from cdarts.randomness import generator, seeded
from cdarts.relaxations import Softmax
from cdarts.spaces import SPACES, DartsSpace, NasBench201Space, Space
from cdarts.topology import CellTopology, Edge, Topology

POOLS_NORMALIZED = DartsSpace(pool_batchnorm=True)
EVERY_SPACE: dict[str, Space] = {name: kind() for name, kind in SPACES.items()} | {  # type: ignore[call-arg]
    "darts, pools normalized": POOLS_NORMALIZED,
}
spaces = pytest.mark.parametrize("space", EVERY_SPACE.values(), ids=EVERY_SPACE)

VIEWS = ("alias", "detach", "expand", "permute", "select", "slice", "split", "split_with_sizes", "squeeze", "t")
MORE_VIEWS = ("transpose", "unbind", "unsqueeze", "view", "_unsafe_view")
WITHOUT_WORK = {f"aten::{name}" for name in (*VIEWS, *MORE_VIEWS, "empty", "empty_like")}
"""Operators that compute nothing."""


class Calls(TorchDispatchMode):
    """Counts the operators that are called, backward pass included."""

    def __init__(self) -> None:
        super().__init__()
        self.times: Counter[str] = Counter()

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        self.times[function._schema.name] += 1
        return function(*args, **(kwargs or {}))

    @property
    def working(self) -> int:
        return sum(times for name, times in self.times.items() if name not in WITHOUT_WORK)


def cell_of(space: Space, topology: CellTopology, stride: int, affine: bool = False) -> list[list[Operation]]:
    """A cell's operations, of 4 channels, in double precision."""
    with seeded(0, "cell"):
        return [
            [
                space.operation(name, 4, stride if edge.source < topology.num_inputs else 1, affine).double()
                for name in names
            ]
            for edge, names in topology.edges
        ]


def inputs_of(topology: CellTopology, side: int) -> list[Tensor]:
    draw = generator(0, "inputs")
    return [
        torch.randn(3, 4, side, side, dtype=torch.float64, generator=draw).requires_grad_()
        for _ in range(topology.num_inputs)
    ]


def mixing_weights(topology: CellTopology) -> Tensor:
    shape = len(topology.edges), len(topology.edges[0][1])
    return torch.rand(shape, dtype=torch.float64, generator=generator(0, "mixing")).requires_grad_()


def everything(
    execute: Execution,
    topology: CellTopology,
    operations: Sequence[Sequence[Operation]],
    inputs: Sequence[Tensor],
    weights: Tensor | None,
) -> list[Tensor]:
    """Nodes, gradients and running statistics of one pass; the operations are left as they were."""
    modules = nn.ModuleList(operation for row in operations for operation in row)
    before = {name: tensor.clone() for name, tensor in modules.state_dict().items()}
    nodes = execute(topology, operations, inputs, weights, None)
    draw = generator(0, "form")
    # inputs count too: a node may be nothing but zeros
    parts = [x * torch.randn(x.shape, dtype=x.dtype, generator=draw) for x in (*nodes, *inputs)]
    form = torch.stack([part.sum() for part in parts]).sum()
    leaves = [*inputs, *(p for p in modules.parameters() if p.requires_grad), *([] if weights is None else [weights])]
    gradients = torch.autograd.grad(form, leaves, materialize_grads=True)
    after = [buffer.clone() for buffer in modules.buffers()]
    modules.load_state_dict(before)
    return [*nodes, *gradients, *after]


def equal(one: Sequence[Tensor], other: Sequence[Tensor]) -> None:
    for first, second in zip(one, other, strict=True):
        torch.testing.assert_close(first, second, rtol=1e-10, atol=1e-10 * max(1.0, float(second.detach().abs().max())))


# -- equal to the reference --------------------------------------------------------------------------------------------


@spaces
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("seed", range(4))
def test_edges_with_different_operations(space: Space, stride: int, seed: int) -> None:
    """As a progressive search has them, in any order, the edges into some nodes perhaps of nothing but ``none``."""
    draw = random.Random(seed)
    count = draw.randint(1, len(space.operations) - 1)
    full = space.supernet()[space.kinds[0]]
    edges = tuple((edge, tuple(draw.sample(space.operations, count))) for edge, _ in full.edges)
    topology = CellTopology(full.num_inputs, full.num_nodes, edges)
    operations, inputs = cell_of(space, topology, stride, affine=seed % 2 == 0), inputs_of(topology, 5 + seed)
    weights = mixing_weights(topology)
    for given in (weights, None):
        expected = everything(plain, topology, operations, inputs, given)
        equal(everything(Merged(), topology, operations, inputs, given), expected)


@spaces
def test_parts_of_a_network(space: Space) -> None:
    """A search that samples takes another part at every step; statistics then differ from edge to edge."""
    topology = space.supernet()
    networks = []
    for execution in ("plain", "merged"):
        with seeded(0, "network"):
            network = Network(
                space, topology, cells=3, channels=2, num_classes=5, affine=True, execution=execution
            ).double()
        networks.append(network)
    draw = random.Random(0)
    images = torch.randn(3, 3, 9, 9, dtype=torch.float64, generator=generator(0, "images"))
    for step in range(4):
        part: Topology = {
            kind: CellTopology(
                cell.num_inputs,
                cell.num_nodes,
                tuple((edge, tuple(draw.sample(names, 2))) for edge, names in cell.edges),
            )
            for kind, cell in topology.items()
        }
        weights = {kind: mixing_weights(cell) for kind, cell in part.items()}
        for network in networks:
            network.train(step < 3)
        first, second = (network(images, weights, paths=part).logits for network in networks)
        equal([second], [first])
        equal(list(networks[1].buffers()), list(networks[0].buffers()))


def test_frozen_weights() -> None:
    """An alpha step: gradients reach states and mixing weights, and nothing is computed for the operations."""
    topology = NasBench201Space().supernet()["cell"]
    operations, inputs = cell_of(NasBench201Space(), topology, 1), inputs_of(topology, 6)
    weights = mixing_weights(topology)
    with frozen(nn.ModuleList(operation for row in operations for operation in row)):
        expected = everything(plain, topology, operations, inputs, weights)
        equal(everything(Merged(), topology, operations, inputs, weights), expected)


# -- fewer kernels -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize(
    ("space", "kind", "convolutions", "norms", "products"),
    [
        # each of 5 states: two separable convolutions of four, two dilated ones of two
        (POOLS_NORMALIZED, "normal", 5 * 12, 5 * 8, 5),
        # and where 2 states are halved, skips of two convolutions and a BatchNorm; nothing of theirs is bare
        (POOLS_NORMALIZED, "reduce", 5 * 12 + 2 * 2, 5 * 8 + 2, 3),
        (NasBench201Space(), "cell", 3 * 2, 3 * 2, 3),
    ],
)
def test_as_many_convolutions_as_one_edge_has(
    space: Space, kind: str, convolutions: int, norms: int, products: int, affine: bool
) -> None:
    topology = space.supernet()[kind]
    operations = cell_of(space, topology, 2 if kind == "reduce" else 1, affine)
    with torch.no_grad(), Calls() as calls:
        Merged()(topology, operations, inputs_of(topology, 6), mixing_weights(topology), None)
    assert calls.times["aten::convolution"] == convolutions
    assert calls.times["aten::native_batch_norm"] == norms
    assert calls.times["aten::mm"] == products
    assert calls.times["aten::_foreach_lerp_"] == calls.times["aten::_foreach_add_"] == 1


def test_a_step_calls_a_quarter_of_the_operators() -> None:
    space = DartsSpace()
    topology = space.supernet()
    images = torch.randn(2, 3, 8, 8, generator=generator(0, "images"))
    working = {}
    for execution in ("plain", "share", "merged"):
        network = Network(space, topology, cells=3, channels=2, num_classes=5, affine=False, execution=execution)
        relaxation = Softmax(topology, generator(0, "alpha"))
        with Calls() as calls:
            loss = network(images, relaxation()).logits.sum()
            torch.autograd.grad(loss, [*network.parameters(), *relaxation.parameters()], allow_unused=True)
        working[execution] = calls.working
    assert working["merged"] < 0.25 * working["plain"]
    assert working["merged"] < 0.27 * working["share"]


# -- on one device, without waiting for it -----------------------------------------------------------------------------


def test_nothing_of_a_step_waits_for_the_device() -> None:
    """No value is read back and none is brought from the host, once a topology is known: a graph can be captured."""
    space = POOLS_NORMALIZED
    topology = space.supernet()["reduce"]
    operations, inputs, weights = cell_of(space, topology, 2), inputs_of(topology, 6), mixing_weights(topology)
    execute = Merged()

    def step() -> Calls:
        with Calls() as calls:
            nodes = execute(topology, operations, inputs, weights, None)
            torch.autograd.grad(torch.stack([node.sum() for node in nodes]).sum(), [*inputs, weights])
        return calls

    waiting = {"aten::_local_scalar_dense", "aten::nonzero", "aten::lift_fresh", "aten::_to_copy", "aten::copy_"}
    assert waiting & step().times.keys() == {"aten::lift_fresh"}, "the first places the mixing weights"
    again = step()
    assert not waiting & again.times.keys()
    assert again.times == step().times


@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("train", [True, False])
def test_everything_stays_on_the_states_device(weighted: bool, train: bool) -> None:
    """With tensors that have shape and device but no values: PyTorch refuses to compute across devices all the same."""
    space = POOLS_NORMALIZED
    topology = space.supernet()["reduce"]
    with FakeTensorMode():
        with torch.device("cuda"):
            operations = [
                [space.operation(name, 4, 2 if edge.source < 2 else 1, False).train(train) for name in names]
                for edge, names in topology.edges
            ]
            weights = torch.rand(14, 8) if weighted else None
            inputs = [torch.randn(2, 4, 9, 9) for _ in range(2)]
        nodes = Merged()(topology, operations, inputs, weights, None)
    assert {(node.device.type, tuple(node.shape)) for node in nodes} == {("cuda", (2, 4, 5, 5))}


# -- low precision -----------------------------------------------------------------------------------------------------


def alpha_gradient(execution: str, dtype: torch.dtype, autocast: bool) -> Tensor:
    space = DartsSpace()
    topology = space.supernet()
    with seeded(0, "network"):
        network = Network(space, topology, cells=3, channels=4, num_classes=5, affine=False, execution=execution)
    network.to(dtype)
    relaxation = Softmax(topology, generator(0, "alpha")).to(dtype)
    images = torch.randn(16, 3, 16, 16, generator=generator(0, "images")).to(dtype)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        logits = network(images, relaxation()).logits
    loss = nn.functional.cross_entropy(logits.to(dtype), torch.arange(16) % 5)
    return torch.cat([x.flatten() for x in torch.autograd.grad(loss, list(relaxation.parameters()))]).double()


@pytest.mark.parametrize(("autocast", "factor"), [(False, 10.0), (True, 1.5)])
def test_as_exact_as_the_others(autocast: bool, factor: float) -> None:
    """Distance of alpha's gradient to the truth in double precision: in single precision, and with bfloat16."""
    truth = alpha_gradient("plain", torch.float64, autocast=False)
    distance = {
        execution: float((alpha_gradient(execution, torch.float32, autocast) - truth).norm() / truth.norm())
        for execution in ("plain", "share", "merged")
    }
    assert distance["merged"] <= factor * max(distance["plain"], distance["share"]), distance


# -- left to share -----------------------------------------------------------------------------------------------------


class Doubled(Operation):
    """An operation that nobody knows how to merge."""

    def __init__(self) -> None:
        super().__init__()
        self.prologue = Same()

    def finish(self, x: Tensor) -> Tensor:
        return 2 * x


def first_norm(operations: Sequence[Sequence[Operation]]) -> nn.BatchNorm2d:
    return next(m for row in operations for o in row for m in o.modules() if isinstance(m, nn.BatchNorm2d))


def hold_statistics(operations: list[list[Operation]]) -> None:
    first_norm(operations).eval()


def average_for_ever(operations: list[list[Operation]]) -> None:
    first_norm(operations).momentum = None


def another_epsilon(operations: list[list[Operation]]) -> None:
    first_norm(operations).eps = 0.1


def replace_an_operation(operations: list[list[Operation]]) -> None:
    operations[1][0] = Doubled()


def one_operation_twice(operations: list[list[Operation]]) -> None:
    operations[1][0] = operations[1][1] = Identity()


@pytest.mark.parametrize(
    "change", [hold_statistics, average_for_ever, another_epsilon, replace_an_operation, one_operation_twice]
)
def test_what_cannot_be_merged(change: Callable[[list[list[Operation]]], None]) -> None:
    space = NasBench201Space()
    topology = space.supernet()["cell"]
    operations, inputs = cell_of(space, topology, 1), inputs_of(topology, 6)
    weights = mixing_weights(topology)
    merged = Merged()
    equal(merged(topology, operations, inputs, weights, None), share(topology, operations, inputs, weights, None))
    assert merged.program is not None
    assert merged.program.merges()
    change(operations)
    merged = Merged()
    expected = everything(plain, topology, operations, inputs, weights)
    equal(everything(merged, topology, operations, inputs, weights), expected)
    assert merged.program is not None
    assert not merged.program.merges()


def test_a_cell_of_single_operations_is_shared() -> None:
    topology = CellTopology(1, 1, ((Edge(target=1, source=0), ("nor_conv_3x3",)),))
    operations, inputs = cell_of(NasBench201Space(), topology, 1), inputs_of(topology, 6)
    with Calls() as merged:
        Merged()(topology, operations, inputs, None, None)
    with Calls() as shared:
        share(topology, operations, inputs, None, None)
    assert merged.times == shared.times


# -- the choice --------------------------------------------------------------------------------------------------------


def test_which_device_takes_it() -> None:
    assert choose_execution("auto", torch.device("cuda")) == ("share", None)
    assert choose_execution("auto", torch.device("cpu"))[0] in ("fused", "share")
    for device in ("cpu", "cuda"):
        assert choose_execution("merged", torch.device(device)) == ("merged", None)
        assert choose_execution("share", torch.device(device)) == ("share", None)
    with pytest.raises(ConfigurationError, match="--execution fused: its kernels are for the CPU"):
        choose_execution("fused", torch.device("cuda"))
    assert isinstance(EXECUTIONS["merged"](), Merged)
