"""All of capturing but the recording, which needs a GPU: networks traced whole, their graphs run as they are."""

import copy
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext

import pytest
import torch
from torch import Tensor
from torch._dynamo.utils import counters

from cdarts import zoo
from cdarts.errors import ConfigurationError
from cdarts.execution import DropPath, choose_execution
from cdarts.networks import Network, frozen
from cdarts.randomness import generator, seeded
from cdarts.relaxations import Softmax
from cdarts.spaces import NasBench201Space, Space
from cdarts.topology import Topology

NASBENCH201 = NasBench201Space()


def network_of(space: Space, topology: Topology, execution: str, affine: bool = True, device: str = "cpu") -> Network:
    with seeded(0, "network"):
        network = Network(space, topology, cells=3, channels=2, num_classes=5, affine=affine, execution=execution)
    return network.double().to(device)


def images_of(side: int = 8, device: str = "cpu") -> Tensor:
    return torch.randn(3, 3, side, side, dtype=torch.float64, generator=generator(0, "images", side)).to(device)


def graphs() -> int:
    """How many were traced so far."""
    return counters["stats"]["unique_graphs"]


def four_steps(network: Network, relaxation: Softmax | None) -> list[Tensor]:
    """Of plain gradient descent; with a relaxation, in turns the network's weights and alpha learn. Gives every loss,
    gradient, weight and statistic."""
    device = network.classifier.weight.device.type
    results = []
    for step in range(4):
        weights = None if relaxation is None else relaxation()
        learns_alpha = relaxation is not None and step % 2
        learners = list(relaxation.parameters() if learns_alpha and relaxation else network.parameters())
        with frozen(network) if learns_alpha else nullcontext():
            output = network(images_of(device=device), weights)
        loss = output.logits.square().sum() + torch.stack([x.square().mean() for x in output.features]).sum()
        gradients = torch.autograd.grad(loss, learners, materialize_grads=True)
        with torch.no_grad():
            for learner, gradient in zip(learners, gradients, strict=True):
                learner -= 0.01 * gradient
        results += [loss.detach().clone(), *(gradient.clone() for gradient in gradients)]
    return [*results, *network.state_dict().values()]


def compare(space: Space, topology: Topology, device: str) -> None:
    """The reference and the captured network, of one seed: the same four steps."""
    searches = topology == space.supernet()
    found = []
    for execution in ("plain", "captured"):
        relaxation = Softmax(topology, generator(0, "alpha"), scale=1.0).double().to(device) if searches else None
        found.append(four_steps(network_of(space, topology, execution, not searches, device), relaxation))
    for expected, value in zip(*found, strict=True):
        torch.testing.assert_close(value, expected, rtol=1e-10, atol=1e-10 * max(1.0, float(expected.abs().max())))


SEARCH = NASBENCH201, NASBENCH201.supernet()
EVALUATION = NASBENCH201, NASBENCH201.topology(zoo.load("cdarts-nasbench201-1"))
BOTH = pytest.mark.parametrize(("space", "topology"), [SEARCH, EVALUATION], ids=["search", "evaluation"])


def in_a_process_of_its_own(function: Callable[[], None]) -> None:
    """What tests check at every call of the package cannot be traced; a process without pytest has none of it."""
    subprocess.run([sys.executable, __file__, function.__name__], check=True, timeout=280)


def search_network() -> None:
    compare(*SEARCH, "cpu")
    assert graphs() == 2, graphs()  # for four steps


def evaluation_networks() -> None:
    with torch._dynamo.config.patch(recompile_limit=1):
        compare(*EVALUATION, "cpu")
        compare(NASBENCH201, NASBENCH201.topology(zoo.load("cdarts-nasbench201-2")), "cpu")
    assert graphs() == 2, graphs()


@pytest.mark.slow
def test_a_search_network_has_a_graph_for_each_kind_of_learner() -> None:
    in_a_process_of_its_own(search_network)


def test_a_network_of_another_topology_has_graphs_of_its_own() -> None:
    """However many networks there were: a search has one in each cycle."""
    in_a_process_of_its_own(evaluation_networks)


def test_what_cannot_be_recorded_is_computed_as_it_is() -> None:
    before = graphs()
    network = network_of(*EVALUATION, "captured")
    drop_path = DropPath(0.5, generator(0, "drop"))
    for _ in range(3):
        network(images_of(), drop_path=drop_path)
        with torch.no_grad():
            network(images_of())
    network.eval()
    for _ in range(3):
        network(images_of())
    assert graphs() == before
    assert network.whole is not None
    assert not network.whole.has_computed


def test_a_copy_has_no_graphs_of_the_original() -> None:
    network = network_of(*EVALUATION, "captured")
    network(images_of())
    copied = copy.deepcopy(network)
    assert network.whole is not None
    assert network.whole.has_computed
    assert copied.whole is not None
    assert not copied.whole.has_computed


def test_a_machine_without_a_gpu_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="--execution captured: it records kernels of a GPU; use"):
        choose_execution("captured", torch.device("cpu"))
    assert choose_execution("captured", torch.device("cuda")) == ("captured", None)


def test_an_old_torch_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda model: model)
    with pytest.raises(ConfigurationError, match=r"needs PyTorch 2\.14 or newer"):
        choose_execution("captured", torch.device("cuda"))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@BOTH
def test_replayed_graphs_compute_the_reference(space: Space, topology: Topology) -> None:
    compare(space, topology, "cuda")


if __name__ == "__main__":
    {"search_network": search_network, "evaluation_networks": evaluation_networks}[sys.argv[1]]()
