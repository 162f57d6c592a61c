"""DARTS-: an auxiliary skip connection that fades and does not count."""

from dataclasses import replace

import pytest
import torch

from cdarts.algorithms.darts_minus import DartsMinusConfig
from cdarts.algorithms.darts_minus_search import AuxiliarySkip, DartsMinusSearch
from cdarts.data import ImageData, load
from cdarts.errors import ConfigurationError
from cdarts.networks import Network
from cdarts.randomness import generator, seeded
from cdarts.relaxations import Softmax
from cdarts.spaces import SPACES, NasBench201Space, Space, ToySpace

CPU = torch.device("cpu")
TOY = DartsMinusConfig(space=ToySpace(), channels=4, cells=3, batch_size=32, epochs=4)
EVERY_SPACE: dict[str, Space] = {name: kind() for name, kind in SPACES.items()}  # type: ignore[call-arg]
spaces = pytest.mark.parametrize("space", EVERY_SPACE.values(), ids=EVERY_SPACE)


@pytest.fixture(scope="module")
def synthetic() -> ImageData:
    return load("synthetic")


def build(config: DartsMinusConfig, data: ImageData, seed: int = 0) -> DartsMinusSearch:
    return config.build(data, seed=seed, device=CPU, execution="share")


def relaxations(space: Space) -> tuple[AuxiliarySkip, Softmax]:
    topology, skip = space.supernet(), space.operations.index("skip_connect")
    return AuxiliarySkip(topology, generator(0, "alpha"), skip), Softmax(topology, generator(0, "alpha"))


@spaces
def test_the_auxiliary_connection_adds_to_the_skip_and_to_nothing_else(space: Space) -> None:
    auxiliary, softmax = relaxations(space)
    auxiliary.auxiliary = 0.75
    for kind, weights in softmax().items():
        difference = (auxiliary()[kind] - weights).detach()
        expected = torch.zeros_like(difference)
        expected[:, space.operations.index("skip_connect")] = 0.75
        torch.testing.assert_close(difference, expected)
    assert auxiliary.strengths() == softmax.strengths()


def test_it_is_a_connection_past_every_edge() -> None:
    """A cell with it is the cell without, each node having in addition 0.5 times the sum of the states before it."""
    space = NasBench201Space()
    auxiliary, softmax = relaxations(space)
    auxiliary.auxiliary = 0.5
    with seeded(0, "network"):
        network = Network(space, space.supernet(), cells=1, channels=4, num_classes=5, affine=False).double()
    cell = network.get_submodule("cells.0")
    topology = space.supernet()["cell"]
    states = [torch.randn(2, 4, 5, 5, generator=generator(0, "x"), dtype=torch.float64)]
    weights = softmax()["cell"].double().detach()
    for node in range(1, 4):
        total = 0.5 * torch.stack(states).sum(dim=0)
        for position in topology.incoming(node):
            edge, names = topology.edges[position]
            for column, name in enumerate(names):
                operation = cell.get_submodule(f"edges.{edge}.{name}")
                total = total + weights[position, column] * operation(states[edge.source])
        states.append(total)
    found = cell([states[0]], auxiliary()["cell"].double().detach(), None)
    torch.testing.assert_close(found, states[-1])


def test_its_weight_falls_linearly(synthetic: ImageData) -> None:
    task = build(TOY, synthetic)
    weights = []
    for index, epoch in enumerate(task.plan()):
        task.start_epoch(index, epoch)
        weights.append(task.relaxation.auxiliary)
    assert weights == [1.0, 0.75, 0.5, 0.25]


def test_alpha_gets_the_gradient_of_the_softmax_alone() -> None:
    space = ToySpace()
    auxiliary, softmax = relaxations(space)
    auxiliary.auxiliary = 1.0
    target = torch.randn(3, 3, generator=generator(0, "target"))
    gradients = [
        torch.autograd.grad((target * relaxation()["cell"]).sum(), [relaxation.alpha["cell"]])[0]
        for relaxation in (auxiliary, softmax)
    ]
    torch.testing.assert_close(*gradients)


def test_a_small_search_in_nasbench201(synthetic: ImageData) -> None:
    task = build(replace(TOY, space=NasBench201Space(), batch_size=64, epochs=2), synthetic)
    for index, epoch in enumerate(task.plan()):
        task.start_epoch(index, epoch)
        for position, batch in enumerate(task.batches(index)):
            assert all(torch.isfinite(loss) for loss in task.step(position, *batch).values())
    task.config.space.check(task.genotype())


def test_a_negative_weight_is_refused(synthetic: ImageData) -> None:
    with pytest.raises(ConfigurationError, match=r"^--auxiliary-weight -1.0: must be at least 0 and finite$"):
        build(replace(TOY, auxiliary_weight=-1.0), synthetic)
