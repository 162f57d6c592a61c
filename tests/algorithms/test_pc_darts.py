"""PC-DARTS: operations that see a part of the channels, and edges that compete."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from cdarts.algorithms.pc_darts import PcDartsConfig
from cdarts.algorithms.pc_darts_search import EdgeNormalised, PcDartsSearch
from cdarts.data import ImageData, load
from cdarts.errors import ConfigurationError
from cdarts.execution import PartialChannels
from cdarts.networks import Network
from cdarts.operations import Operation
from cdarts.randomness import generator, seeded
from cdarts.relaxations import Softmax
from cdarts.spaces import SPACES, AnySpace, DartsSpace, NasBench201Space, Space, ToySpace

CPU = torch.device("cpu")
TOY = PcDartsConfig(space=ToySpace(), channels=4, cells=3, batch_size=32, epochs=3, still_epochs=1)
EVERY_SPACE: dict[str, Space] = {name: kind() for name, kind in SPACES.items()}  # type: ignore[call-arg]
spaces = pytest.mark.parametrize("space", EVERY_SPACE.values(), ids=EVERY_SPACE)


@pytest.fixture(scope="module")
def synthetic() -> ImageData:
    return load("synthetic")


def build(config: PcDartsConfig, data: ImageData, seed: int = 0) -> PcDartsSearch:
    return config.build(data, seed=seed, device=CPU, execution="share")


def walk(task: PcDartsSearch, start: int = 0, stop: int | None = None) -> None:
    for index, epoch in list(enumerate(task.plan()))[start:stop]:
        task.start_epoch(index, epoch)
        for position, batch in enumerate(task.batches(index)):
            assert all(torch.isfinite(loss) for loss in task.step(position, *batch).values())


@spaces
@pytest.mark.parametrize("partial", [2, 4])
def test_operations_see_one_channel_in_k(space: AnySpace, partial: int, synthetic: ImageData) -> None:
    config = replace(TOY, space=space, channels=8, partial=partial)
    task = build(config, synthetic)
    seen: list[tuple[int, int]] = []
    for slot in task.search_net.layout:
        if slot.kind is None:
            continue
        for operation in task.search_net.get_submodule(slot.name).get_submodule("edges").modules():
            if isinstance(operation, Operation):
                channels = slot.channels
                operation.register_forward_hook(
                    lambda _, inputs, output, channels=channels: seen.append(
                        (channels // inputs[0].shape[1], channels // output.shape[1])
                    )
                )
    task.search_net(torch.randn(2, 3, 16, 16, generator=generator(0, "images")), task.relaxation())
    assert len(seen) == sum(
        len(space.supernet()[slot.kind].edges) * len(space.operations)
        for slot in task.search_net.layout
        if slot.kind is not None
    )
    assert set(seen) == {(partial, partial)}


@spaces
def test_whole_channels_and_equal_edges_are_darts_with_mean_nodes(space: Space) -> None:
    topology = space.supernet()
    normalised = EdgeNormalised(topology, generator(0, "alpha"))
    softmax = Softmax(topology, generator(1, "alpha"), mean_nodes=True)
    with torch.no_grad():
        for kind in space.kinds:
            softmax.alpha[kind].copy_(normalised.alpha[kind])
            normalised.beta[kind].fill_(0.3)
    for kind, weights in softmax().items():
        torch.testing.assert_close(normalised()[kind], weights)
    with seeded(0, "network"):
        network = Network(space, topology, cells=3, channels=4, num_classes=5, affine=False, partial=1)
    images = torch.randn(4, 3, 8, 8, generator=generator(0, "images"))
    torch.testing.assert_close(network(images, normalised()).logits, network(images, softmax()).logits)


@spaces
def test_an_edges_share_is_a_softmax_over_the_edges_into_its_node(space: Space) -> None:
    topology = space.supernet()
    relaxation = EdgeNormalised(topology, generator(0, "alpha"))
    with torch.no_grad():
        for beta in relaxation.beta.values():
            beta.mul_(2000.0)
    strengths = relaxation.strengths()
    for kind, cell in topology.items():
        weights = relaxation()[kind].detach()
        for node in range(cell.num_inputs, cell.num_inputs + cell.num_nodes):
            incoming = cell.incoming(node)
            expected = torch.softmax(relaxation.beta[kind].detach()[incoming], dim=0)
            torch.testing.assert_close(weights[incoming].sum(dim=1), expected)
        torch.testing.assert_close(torch.tensor(strengths[kind]), weights)


def test_an_edge_of_small_beta_is_not_kept() -> None:
    space = DartsSpace()
    relaxation = EdgeNormalised(space.supernet(), generator(0, "alpha"))
    with torch.no_grad():
        relaxation.beta["normal"][2] = -3.0  # edge 0-3
    kept = [str(choice.edge) for choice in space.derive(relaxation.strengths()).cells["normal"]]
    assert kept[2:4] == ["1-3", "2-3"]


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_the_shuffle_is_a_permutation_that_moves_what_was_worked_on_apart(groups: int) -> None:
    x = torch.randn(2, 8, 3, 3, generator=generator(0, "x"))
    shuffled = PartialChannels(groups).shuffled(x)
    order = [int((x[0, :, 0, 0] == value).nonzero()) for value in shuffled[0, :, 0, 0]]
    assert sorted(order) == list(range(8))
    assert torch.equal(shuffled, x[:, order])
    worked = [position for position, channel in enumerate(order) if channel < 8 // groups]
    assert worked == list(range(0, 8, groups))


def test_channels_that_pass_a_reduction_are_max_pooled_and_weigh_what_the_edge_weighs() -> None:
    """On edge 0-1 of a toy cell that halves the side, every operation ``none``."""
    space = ToySpace()
    topology = {"cell": space._cell([(edge, ("none",)) for edge in space.all_edges()])}
    network = Network(space, topology, cells=1, channels=4, num_classes=5, affine=False, partial=4)
    (slot,) = network.layout
    cell = network.get_submodule(slot.name)
    state = torch.randn(2, 8, 6, 6, generator=generator(0, "state"))
    weights = torch.tensor([[0.5], [0.25], [2.0]])
    first, second = cell.execute(topology["cell"], cell.operations(topology["cell"]), [state], weights, None)

    def passed(x: Tensor) -> Tensor:
        return PartialChannels(4).shuffled(torch.cat([torch.zeros_like(x[:, :2]), x[:, 2:]], dim=1))

    pooled = torch.nn.functional.max_pool2d(state, 2)
    torch.testing.assert_close(first, 0.5 * passed(pooled))
    torch.testing.assert_close(second, 0.25 * passed(pooled) + 2.0 * passed(first))


@pytest.mark.parametrize("side", [9, 11])
@spaces
def test_odd_sides(space: Space, side: int) -> None:
    network = Network(space, space.supernet(), cells=3, channels=4, num_classes=5, affine=False, partial=4)
    relaxation = EdgeNormalised(space.supernet(), generator(0, "alpha"))
    logits = network(torch.randn(2, 3, side, side, generator=generator(0, "x")), relaxation()).logits
    assert logits.shape == (2, 5)
    assert torch.isfinite(logits).all()


@pytest.mark.parametrize(
    ("channels", "partial", "message"),
    [
        (30, 4, r"^--channels 30: PC-DARTS needs a multiple of 4$"),
        (16, 3, r"^--channels 16: PC-DARTS needs a multiple of 3$"),
        (16, 0, r"^--partial 0: must be at least 1$"),
    ],
)
def test_channels_that_do_not_divide_are_refused(
    channels: int, partial: int, message: str, synthetic: ImageData
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        build(replace(TOY, channels=channels, partial=partial), synthetic)


def test_alpha_and_beta_stand_still_at_first_and_move_then(synthetic: ImageData) -> None:
    task = build(TOY, synthetic)
    before = {name: value.clone() for name, value in task.relaxation.state_dict().items()}
    assert set(before) == {"alpha.cell", "beta.cell"}
    walk(task, 0, 1)
    assert all(torch.equal(value, before[name]) for name, value in task.relaxation.state_dict().items())
    walk(task, 1, 2)
    assert not any(torch.equal(value, before[name]) for name, value in task.relaxation.state_dict().items())


@pytest.mark.parametrize("space", [NasBench201Space(), DartsSpace(pool_batchnorm=True)], ids=["nasbench201", "darts"])
def test_a_small_search(space: AnySpace, synthetic: ImageData) -> None:
    task = build(replace(TOY, space=space, batch_size=64, epochs=2), synthetic)
    walk(task)
    space.check(task.genotype())
    record = task.end_epoch(1, {})["genotypes"]
    assert 0 <= record["entropy"] <= 1
    assert {kind: (len(rows), len(rows[0])) for kind, rows in record["strengths"].items()} == {
        kind: (len(space.all_edges()), len(space.operations)) for kind in space.kinds
    }
