"""Every execution computes the same mathematics as the reference, in values, gradients and running statistics."""

import random

import pytest
import torch
from torch import Tensor, nn

from cdarts.algorithms.sampling import batch_statistics
from cdarts.execution import EXECUTIONS, WHOLE, DropPath, Execution, plain, share
from cdarts.networks import Network
from cdarts.operations import OPERATIONS, Operation, Zero
from cdarts.randomness import generator, seeded
from cdarts.relaxations import Softmax
from cdarts.spaces import SPACES, DartsSpace, Space
from cdarts.topology import CellTopology, Edge, Topology

EVERY_SPACE: dict[str, Space] = {name: kind() for name, kind in SPACES.items()} | {  # type: ignore[call-arg]
    "darts, pools normalized": DartsSpace(pool_batchnorm=True),
}
spaces = pytest.mark.parametrize("space", EVERY_SPACE.values(), ids=EVERY_SPACE)
executions = pytest.mark.parametrize("execute", [make() for make in EXECUTIONS.values()], ids=EXECUTIONS)
# what computes networks whole has tests of its own; its cells are another's
others = pytest.mark.parametrize("execution", [name for name in EXECUTIONS if name not in ("plain", *WHOLE)])


def random_topology(space: Space, seed: int) -> Topology:
    """A discrete topology of random strengths."""
    draw = random.Random(seed)
    return space.topology(
        space.derive(
            {kind: [[draw.random() for _ in space.operations] for _ in space.all_edges()] for kind in space.kinds}
        )
    )


def one_of_each(space: Space, topology: Topology, execution: str, affine: bool) -> tuple[Network, Network]:
    """A network of the reference execution and one of another, with the same weights."""
    networks = []
    for name in ("plain", execution):
        with seeded(0, "network"):
            network = Network(space, topology, cells=3, channels=2, num_classes=5, affine=affine, execution=name)
        networks.append(network.double())
    first, second = networks
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    return first, second


def scalar(network: Network, images: Tensor, weights: dict[str, Tensor] | None, drop_path: DropPath | None) -> Tensor:
    """A random linear form of everything that a network gives, so that every gradient counts."""
    output = network(images, weights, drop_path)
    parts = [output.logits, *output.features]
    draw = generator(0, "form")
    return torch.stack([(x * torch.randn(x.shape, dtype=x.dtype, generator=draw)).sum() for x in parts]).sum()


def agree(
    one: Network, other: Network, images: Tensor, weights: dict[str, Tensor] | None, drop_path: DropPath | None
) -> None:
    results = []
    for network in (one, other):
        leaves = [images, *network.parameters(), *(weights or {}).values()]
        value = scalar(network, images, weights, drop_path)
        gradients = torch.autograd.grad(value, leaves, materialize_grads=True)
        results.append([value.detach(), *gradients, *network.buffers()])
    for first, second in zip(*results, strict=True):
        torch.testing.assert_close(first, second, rtol=1e-10, atol=1e-10 * max(1.0, float(first.abs().max())))


def mixing_weights(topology: Topology, mean_nodes: bool) -> dict[str, Tensor]:
    """Far from those of a start, so that they differ; leaves, so that they have gradients of their own."""
    relaxation = Softmax(topology, generator(0, "alpha"), scale=1.0, mean_nodes=mean_nodes).double()
    return {kind: weights.detach().requires_grad_() for kind, weights in relaxation().items()}


def images_of(side: int) -> Tensor:
    return torch.randn(3, 3, side, side, dtype=torch.float64, generator=generator(0, "images", side)).requires_grad_()


@spaces
@others
@pytest.mark.parametrize(("side", "train"), [(8, True), (7, True), (9, True), (13, True), (7, False)])
def test_search_networks(space: Space, execution: str, side: int, train: bool) -> None:
    topology = space.supernet()
    first, second = one_of_each(space, topology, execution, affine=side == 8)
    weights = mixing_weights(topology, mean_nodes=side == 9)
    agree(first.train(train), second.train(train), images_of(side), weights, None)


@spaces
@others
@pytest.mark.parametrize(
    ("side", "seed"),
    [
        pytest.param(side, seed, marks=[] if number % 3 == seed else pytest.mark.slow)
        for number, side in enumerate((8, 7, 9, 13))
        for seed in range(3)
    ],
)
def test_evaluation_networks(space: Space, execution: str, side: int, seed: int) -> None:
    first, second = one_of_each(space, random_topology(space, seed), execution, affine=True)
    agree(first, second, images_of(side), None, None)
    agree(first.eval(), second.eval(), images_of(side), None, None)


class Halve(DropPath):
    """Stands in for drop-path: halves every path, whatever the order of the calls, and counts them."""

    def __init__(self) -> None:
        super().__init__(0.5, torch.Generator())
        self.calls = 0

    def __call__(self, path: Tensor) -> Tensor:
        self.calls += 1
        return 0.5 * path


@spaces
@others
@pytest.mark.parametrize("discrete", [True, False])
def test_drop_path_is_applied_to_the_same_paths(space: Space, execution: str, discrete: bool) -> None:
    topology = random_topology(space, 1) if discrete else space.supernet()
    first, second = one_of_each(space, topology, execution, affine=True)
    weights = None if discrete else mixing_weights(topology, mean_nodes=False)
    drop_path = Halve()
    agree(first, second, images_of(9), weights, drop_path)
    assert drop_path.calls > 0
    halved, whole = (scalar(first, images_of(9), weights, drop) for drop in (drop_path, None))
    assert not torch.allclose(halved, whole)


@spaces
@others
@pytest.mark.parametrize("steps_before", [0, 1])
def test_batch_statistics_leave_running_ones_alone(space: Space, execution: str, steps_before: int) -> None:
    topology = space.supernet()
    first, second = one_of_each(space, topology, execution, affine=False)
    weights = mixing_weights(topology, mean_nodes=False)
    with torch.no_grad():
        for network in (first, second):
            for _ in range(steps_before):  # whatever is found out once must not outlive the change
                network(images_of(8), weights)
        before = [buffer.clone() for buffer in second.buffers()]
        with batch_statistics(first), batch_statistics(second):
            expected, found = first(images_of(9), weights).logits, second(images_of(9), weights).logits
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    assert all(torch.equal(a, b) for a, b in zip(before, second.buffers(), strict=True))


# -- single cells ------------------------------------------------------------------------------------------------------


def a_cell(*edges: tuple[int, int, str], num_nodes: int) -> tuple[CellTopology, list[list[Operation]]]:
    """A cell of one input from (source, target, operation), with its operations of 4 channels in double precision."""
    topology = CellTopology(
        1, num_nodes, tuple((Edge(target=target, source=source), (name,)) for source, target, name in edges)
    )
    with seeded(0, "cell"):
        return topology, [[OPERATIONS[name](4, 4, 1, True).double()] for _, _, name in edges]


def state(batch: int = 2) -> Tensor:
    return torch.randn(batch, 4, 5, 5, dtype=torch.float64, generator=generator(0, "state"))


@executions
def test_a_node_is_the_weighted_sum_of_its_messages(execute: Execution) -> None:
    edges = [Edge(target=1, source=0), Edge(target=2, source=0), Edge(target=2, source=1)]
    names = ("none", "skip_connect", "nor_conv_3x3", "max_pool_3x3")
    topology = CellTopology(1, 2, tuple((edge, names) for edge in edges))
    with seeded(0, "cell"):
        operations = [[OPERATIONS[name](4, 4, 1, True).double() for name in names] for _ in edges]
    weights = torch.rand(3, 4, dtype=torch.float64, generator=generator(0, "weights"))
    x = state()
    zero_to_one, zero_to_two, one_to_two = (
        lambda y, row=row, edge=edge: row[1] * y + row[2] * edge[2](y) + row[3] * edge[3](y)
        for row, edge in zip(weights, operations, strict=True)
    )
    first = zero_to_one(x)
    second = zero_to_two(x) + one_to_two(first)
    for node, expected in zip(execute(topology, operations, [x], weights, None), (first, second), strict=True):
        torch.testing.assert_close(node, expected, rtol=1e-12, atol=1e-12)


@executions
def test_without_weights_messages_add_up(execute: Execution) -> None:
    cell, operations = a_cell((0, 1, "skip_connect"), (0, 2, "skip_connect"), (1, 2, "skip_connect"), num_nodes=2)
    x = state()
    first, second = execute(cell, operations, [x], None, None)
    assert torch.equal(first, x)
    assert torch.equal(second, 2 * x)


@executions
@pytest.mark.parametrize("weighted", [True, False])
def test_a_node_of_nothing_but_none_is_zero(execute: Execution, weighted: bool) -> None:
    cell, operations = a_cell((0, 1, "none"), (0, 2, "skip_connect"), (1, 2, "nor_conv_1x1"), num_nodes=2)
    x = state()
    first, second = execute(cell, operations, [x], torch.ones(3, 1).double() if weighted else None, None)
    assert first.shape == x.shape
    assert not first.any()
    assert torch.equal(second, x + operations[2][0](torch.zeros_like(x)))


def test_none_costs_nothing_in_share(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_self: Zero, _x: Tensor) -> Tensor:
        raise AssertionError("'none' was computed")

    space = DartsSpace()
    topology = space.supernet()["normal"]
    operations = [[space.operation(name, 4, 1, False) for name in names] for _, names in topology.edges]
    inputs = [torch.randn(2, 4, 6, 6), torch.randn(2, 4, 6, 6)]
    monkeypatch.setattr(Zero, "finish", refuse)
    share(topology, operations, inputs, torch.ones(14, 8), None)
    with pytest.raises(AssertionError, match="was computed"):
        plain(topology, operations, inputs, torch.ones(14, 8), None)


def test_share_begins_each_prologue_once(monkeypatch: pytest.MonkeyPatch) -> None:
    space = DartsSpace()
    topology = space.supernet()["normal"]
    operations = [[space.operation(name, 4, 1, False) for name in names] for _, names in topology.edges]
    inputs = [torch.randn(2, 4, 6, 6), torch.randn(2, 4, 6, 6)]
    calls: dict[str, int] = {}
    for row in operations:
        for operation in row:
            kind = type(operation.prologue)
            original = kind.__call__

            def counted(self: object, x: Tensor, original: object = original) -> Tensor:
                calls[type(self).__name__] = calls.get(type(self).__name__, 0) + 1
                return original(self, x)  # type: ignore[operator,no-any-return]

            if not hasattr(original, "counts"):
                counted.counts = True  # type: ignore[attr-defined]
                monkeypatch.setattr(kind, "__call__", counted)
    weights = torch.ones(14, 8)
    share(topology, operations, inputs, weights, None)
    # states 0 to 4 have out-edges
    assert calls == {"MaxPool3x3": 5, "AvgPool3x3": 5, "Same": 5, "Rectify": 5}
    calls.clear()
    plain(topology, operations, inputs, weights, None)
    assert calls == {"MaxPool3x3": 14, "AvgPool3x3": 14, "Same": 28, "Rectify": 56}


# -- drop-path ---------------------------------------------------------------------------------------------------------


def test_drop_path_keeps_or_drops_whole_samples() -> None:
    path = torch.rand(4000, 2, 3, 3, dtype=torch.float64, generator=generator(0, "path")) + 0.5
    dropped = DropPath(0.3, generator(0, "drop"))(path)
    kept = dropped.flatten(1).any(dim=1)
    torch.testing.assert_close(dropped[kept], path[kept] / 0.7)
    assert not dropped[~kept].any()
    # 4 standard deviations of a binomial share
    assert abs(float(kept.double().mean()) - 0.7) < 4 * (0.7 * 0.3 / 4000) ** 0.5
    assert torch.equal(DropPath(0.0, generator(0, "drop"))(path), path)
    assert torch.equal(DropPath(0.3, generator(0, "drop"))(path), dropped), "a function of its generator's key"


@executions
def test_drop_path_in_an_execution(execute: Execution) -> None:
    cell, operations = a_cell((0, 1, "avg_pool_3x3"), (0, 2, "skip_connect"), (1, 2, "avg_pool_3x3"), num_nodes=2)
    x = state(4000).abs() + 0.5
    first, second = execute(cell, operations, [x], None, DropPath(0.25, generator(0, "drop")))
    pooled = operations[0][0](x)
    kept = first.flatten(1).any(dim=1)
    torch.testing.assert_close(first[kept], pooled[kept] / 0.75)
    tail = second - x  # the skip is spared
    kept_twice = tail.abs().amax(dim=(1, 2, 3)) > 1e-9
    torch.testing.assert_close(tail[kept_twice], operations[2][0](first)[kept_twice] / 0.75)
    # a path of two is dropped independently at each step: 4 standard deviations
    for share_kept, expected in ((kept, 0.75), (kept_twice, 0.75**2)):
        assert abs(float(share_kept.double().mean()) - expected) < 4 * (expected * (1 - expected) / 4000) ** 0.5
    again = execute(cell, operations, [x], None, DropPath(0.25, generator(0, "drop")))
    assert torch.equal(again[1], second)


@executions
def test_drop_path_spares_identities_only(execute: Execution) -> None:
    cell, operations = a_cell((0, 1, "skip_connect"), (0, 2, "skip_connect"), (1, 2, "skip_connect"), num_nodes=2)
    x = state(50)
    nodes = execute(cell, operations, [x], None, DropPath(0.99, generator(0, "drop")))
    assert torch.equal(nodes[1], 2 * x)


def test_buffers_are_tracked() -> None:
    """That `agree` compares running statistics that really move."""
    space = SPACES["toy"]()  # type: ignore[call-arg]
    network = Network(space, space.supernet(), cells=2, channels=2, num_classes=2, affine=False)
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    network(torch.randn(4, 3, 8, 8), Softmax(space.supernet(), generator(0, "alpha"))())
    for norm in norms:
        assert norm.running_mean is not None
        assert norm.running_mean.any()
