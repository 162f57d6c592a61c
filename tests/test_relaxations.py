"""Where alpha lives: its start, the mixing weights it gives, and what is derived from it."""

import math

import pytest
import torch

from cdarts.networks import Network
from cdarts.randomness import generator, seeded
from cdarts.relaxations import Softmax, edge_weights, logsumexp_decay
from cdarts.spaces import SPACES, DartsSpace, NasBench201Space, Space
from cdarts.topology import Topology

EVERY_SPACE: dict[str, Space] = {name: kind() for name, kind in SPACES.items()}  # type: ignore[call-arg]
spaces = pytest.mark.parametrize("space", EVERY_SPACE.values(), ids=EVERY_SPACE)


def softmax(topology: Topology, *, scale: float = 1.0, mean_nodes: bool = False) -> Softmax:
    return Softmax(topology, generator(0, "alpha"), scale=scale, mean_nodes=mean_nodes)


def test_alpha_has_the_papers_shapes() -> None:
    assert {k: tuple(a.shape) for k, a in softmax(DartsSpace().supernet()).alpha.items()} == {
        "normal": (14, 8),
        "reduce": (14, 8),
    }
    assert {k: tuple(a.shape) for k, a in softmax(NasBench201Space().supernet()).alpha.items()} == {"cell": (6, 5)}


@spaces
def test_alpha_starts_small_and_seeded(space: Space) -> None:
    first, again = (Softmax(space.supernet(), generator(5, "alpha")) for _ in range(2))
    draw = generator(5, "alpha")
    for kind, alpha in first.alpha.items():
        assert torch.equal(alpha, again.alpha[kind])
        assert torch.equal(alpha, 1e-3 * torch.randn(alpha.shape, generator=draw))
        assert alpha.requires_grad
    assert [name for name, _ in first.named_parameters()] == [f"alpha.{kind}" for kind in space.kinds]


@spaces
def test_alpha_is_all_that_is_saved(space: Space) -> None:
    topology = space.supernet()
    relaxation = softmax(topology, mean_nodes=True)
    assert set(relaxation.state_dict()) == {f"alpha.{kind}" for kind in space.kinds}
    other = Softmax(topology, generator(1, "alpha"), mean_nodes=True)
    other.load_state_dict(relaxation.state_dict())
    for kind, weights in relaxation().items():
        assert torch.equal(weights, other()[kind])


@spaces
def test_mixing_weights_are_the_softmax_of_each_edge(space: Space) -> None:
    relaxation = softmax(space.supernet(), scale=2.0)
    for kind, weights in relaxation().items():
        for row, alpha in zip(weights.tolist(), relaxation.alpha[kind].tolist(), strict=True):
            total = sum(map(math.exp, alpha))
            assert row == pytest.approx([math.exp(value) / total for value in alpha], rel=1e-5)
            assert sum(row) == pytest.approx(1.0, rel=1e-6)


@spaces
def test_mean_nodes_divide_by_the_number_of_incoming_edges(space: Space) -> None:
    topology = space.supernet()
    plain, mean = softmax(topology), softmax(topology, mean_nodes=True)
    for kind, cell in topology.items():
        # in a supernet, as many edges enter a state as there are states before it
        counts = torch.tensor([[float(edge.target)] for edge, _ in cell.edges])
        assert torch.equal(edge_weights(cell, mean_nodes=True), 1 / counts)
        assert torch.equal(edge_weights(cell, mean_nodes=False), torch.ones(len(cell.edges), 1))
        torch.testing.assert_close(mean()[kind] * counts, plain()[kind])
        for node in range(cell.num_inputs, cell.num_inputs + cell.num_nodes):
            assert float(mean()[kind][cell.incoming(node)].detach().sum()) == pytest.approx(1.0, rel=1e-6)


@spaces
def test_mean_nodes_with_edge_weights_of_one_are_sum_nodes(space: Space) -> None:
    topology = space.supernet()
    relaxation = softmax(topology, mean_nodes=True)
    for kind in space.kinds:
        relaxation.get_buffer(f"edge_weights_{kind}").fill_(1.0)
    with seeded(0, "network"):
        network = Network(space, topology, cells=3, channels=4, num_classes=5, affine=False)
    images = torch.randn(4, 3, 8, 8, generator=generator(0, "images"))
    summed = network(images, softmax(topology)()).logits
    assert torch.equal(network(images, relaxation()).logits, summed)
    assert not torch.allclose(network(images, softmax(topology, mean_nodes=True)()).logits, summed)


@spaces
def test_strengths_are_plain_numbers_whatever_the_nodes(space: Space) -> None:
    topology = space.supernet()
    strengths, of_means = (softmax(topology, mean_nodes=mean).strengths() for mean in (False, True))
    assert strengths == of_means
    for kind, weights in softmax(topology)().items():
        torch.testing.assert_close(torch.tensor(strengths[kind]), weights.detach())
        assert all(isinstance(value, float) for row in strengths[kind] for value in row)
    assert space.derive(strengths) == space.derive({kind: a.tolist() for kind, a in softmax(topology)().items()})


def test_the_mass_of_none_lowers_its_edge() -> None:
    """``none`` is dropped after the softmax, not before: two edges with equal preferences, one of them mostly none."""
    space = DartsSpace()
    relaxation = softmax(space.supernet())
    sep, none = space.operations.index("sep_conv_3x3"), space.operations.index("none")
    with torch.no_grad():
        alpha = relaxation.alpha["normal"].zero_()
        alpha[:5, sep] = 3.0
        alpha[2, none] = 5.0  # edge 0-3
    kept = [str(choice.edge) for choice in space.derive(relaxation.strengths()).cells["normal"]]
    assert kept[2:4] == ["1-3", "2-3"]


@spaces
def test_gradients_reach_alpha(space: Space) -> None:
    relaxation = softmax(space.supernet()).double()
    target = {
        kind: torch.randn(alpha.shape, dtype=torch.float64, generator=generator(0, kind))
        for kind, alpha in relaxation.alpha.items()
    }
    torch.stack([(target[kind] * weights).sum() for kind, weights in relaxation().items()]).sum().backward()
    for kind, alpha in relaxation.alpha.items():
        # d softmax_o / d alpha_k = softmax_o * (delta_ok - softmax_k)
        weights = relaxation()[kind].detach()
        expected = weights * (target[kind] - (weights * target[kind]).sum(dim=1, keepdim=True))
        torch.testing.assert_close(alpha.grad, expected, rtol=1e-10, atol=1e-12)


def test_sharpness_multiplies_alpha_but_not_what_is_derived() -> None:
    relaxation = softmax(NasBench201Space().supernet())
    before = relaxation.strengths()
    relaxation.sharpness = 20.0
    alpha = relaxation.alpha["cell"].detach()
    torch.testing.assert_close(relaxation()["cell"].detach(), torch.softmax(20.0 * alpha, dim=1))
    assert relaxation.strengths() == before


@spaces
def test_decay_pulls_alpha_down_by_its_softmax(space: Space) -> None:
    relaxation = softmax(space.supernet()).double()
    logsumexp_decay(relaxation).backward()
    for alpha in relaxation.alpha.values():
        torch.testing.assert_close(alpha.grad, torch.softmax(alpha.detach(), dim=1) / len(alpha), rtol=1e-12, atol=0)
