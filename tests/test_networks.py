"""One network class: published sizes, and the search network with one-hot weights as the genotype's own network."""

import copy
import random
from typing import Any

import jaxtyping
import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from cdarts.errors import ConfigurationError
from cdarts.execution import EXECUTIONS, WHOLE
from cdarts.networks import Network, accuracy
from cdarts.randomness import generator, seeded
from cdarts.relaxations import Softmax
from cdarts.spaces import SPACES, DartsSpace, NasBench201Space, Space, ToySpace
from cdarts.topology import CellTopology, Genotype

EVERY_SPACE: dict[str, Space] = {name: kind() for name, kind in SPACES.items()} | {  # type: ignore[call-arg]
    "darts, pools normalized": DartsSpace(pool_batchnorm=True),
}
spaces = pytest.mark.parametrize("space", EVERY_SPACE.values(), ids=EVERY_SPACE)
executions = pytest.mark.parametrize("execution", [name for name in EXECUTIONS if name not in WHOLE])


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def random_genotype(space: Space, seed: int) -> Genotype:
    draw = random.Random(seed)
    return space.derive(
        {kind: [[draw.random() for _ in space.operations] for _ in space.all_edges()] for kind in space.kinds}
    )


def one_hot(space: Space, genotype: Genotype, dtype: torch.dtype) -> dict[str, Tensor]:
    """Mixing weights that are one for the genotype's choices; on the edges that it dropped, for ``none``."""
    weights = {}
    for kind in space.kinds:
        chosen = {choice.edge: choice.operation for choice in genotype.cells[kind]}
        rows = [[float(name == chosen.get(edge, "none")) for name in space.operations] for edge in space.all_edges()]
        weights[kind] = torch.tensor(rows, dtype=dtype)
    return weights


def inherit(network: Network, source: Network) -> None:
    """Load every weight and statistic by name."""
    state = source.state_dict()
    network.load_state_dict({name: state[name] for name in network.state_dict()})


# -- published sizes ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pool_batchnorm", [False, True])
@pytest.mark.parametrize(("affine", "expected"), [(False, 1_930_618), (True, 1_987_194)])
def test_parameters_of_the_search_network(pool_batchnorm: bool, affine: bool, expected: int) -> None:
    space = DartsSpace(pool_batchnorm=pool_batchnorm)
    network = Network(space, space.supernet(), cells=8, channels=16, num_classes=10, affine=affine)
    assert parameters(network) == expected
    # the parts: stem convolution 3 * 48 * 9 and its BatchNorm, classifier 256 * 10 + 10
    assert parameters(network.stem) == 1_392
    assert parameters(network.classifier) == 2_570
    assert network.feature_channels == [128, 256]


def test_features_are_what_the_embeddings_read() -> None:
    space = DartsSpace()
    network = Network(
        space, space.topology(random_genotype(space, 0)), cells=20, channels=16, num_classes=10, affine=False
    )
    output = network(torch.randn(2, 3, 32, 32))
    assert output.logits.shape == (2, 10)
    assert [tuple(x.shape) for x in output.features] == [(2, 128, 16, 16), (2, 256, 8, 8)]


def test_features_at_imagenet_size() -> None:
    space = DartsSpace(stem_name="imagenet")
    network = Network(
        space, space.topology(random_genotype(space, 0)), cells=14, channels=4, num_classes=7, affine=True
    )
    output = network(torch.randn(2, 3, 224, 224))
    assert [tuple(x.shape) for x in output.features] == [(2, 32, 14, 14), (2, 64, 7, 7)]


def exactness(execution: str) -> dict[str, float]:
    """To the bit, except where compiled kernels round as the number of channels computed together has it."""
    return {"rtol": 0.0, "atol": 0.0} if execution in ("plain", "share") else {"rtol": 1e-5, "atol": 1e-5}


# -- S-Net with one-hot weights is E-Net -------------------------------------------------------------------------------


@spaces
@executions
@pytest.mark.parametrize(
    ("seed", "affine"),
    [
        (0, False),
        (1, True),
        *(pytest.param(seed, bool(seed % 2), marks=pytest.mark.slow) for seed in (2, 3, 4, 5)),
    ],
)
def test_one_hot_search_network_is_the_evaluation_network(
    space: Space, execution: str, affine: bool, seed: int
) -> None:
    genotype = random_genotype(space, seed)
    size = {"cells": 3, "channels": 2, "num_classes": 5}
    with seeded(seed, "search"):
        search_net = Network(space, space.supernet(), **size, affine=affine, execution=execution)  # type: ignore[arg-type]
    eval_net = Network(space, space.topology(genotype), **size, affine=affine, execution=execution)  # type: ignore[arg-type]
    for module in search_net.modules():  # BatchNorm weights and statistics that matter
        if isinstance(module, nn.BatchNorm2d):
            draw = generator(seed, "norm", module.num_features)
            for tensor in (*module.parameters(), module.running_mean, module.running_var):
                assert tensor is not None
                tensor.data.uniform_(0.5, 1.5, generator=draw)
    inherit(eval_net, search_net)
    weights = one_hot(space, genotype, torch.float32)
    for train in (True, False):
        search_net.train(train)
        eval_net.train(train)
        for side in (8, 7):
            images = torch.randn(4, 3, side, side, generator=generator(seed, "images", side))
            with torch.no_grad():
                one, other = search_net(images, weights), eval_net(images)
            for first, second in zip([one.logits, *one.features], [other.logits, *other.features], strict=True):
                torch.testing.assert_close(first, second, **exactness(execution))
        # and the running statistics that the two have moved
        state = search_net.state_dict()
        for name, tensor in eval_net.state_dict().items():
            torch.testing.assert_close(tensor, state[name], **exactness(execution))


@spaces
@executions
def test_one_hot_gradients_are_the_evaluation_networks(space: Space, execution: str) -> None:
    genotype = random_genotype(space, 3)
    size = {"cells": 3, "channels": 4, "num_classes": 5}
    with seeded(3, "search"):
        search_net = Network(space, space.supernet(), **size, affine=True, execution=execution).double()  # type: ignore[arg-type]
    eval_net = Network(space, space.topology(genotype), **size, affine=True, execution=execution).double()  # type: ignore[arg-type]
    inherit(eval_net, search_net)
    images = torch.randn(4, 3, 8, 8, dtype=torch.float64, generator=generator(3, "images"))
    labels = torch.arange(4)
    nn.functional.cross_entropy(search_net(images, one_hot(space, genotype, torch.float64)).logits, labels).backward()
    nn.functional.cross_entropy(eval_net(images).logits, labels).backward()
    for name, parameter in search_net.named_parameters():
        if name not in dict(eval_net.named_parameters()):
            assert parameter.grad is None or not parameter.grad.any(), f"{name} has no part in the genotype"
        elif (expected := eval_net.get_parameter(name).grad) is not None:
            torch.testing.assert_close(parameter.grad, expected, rtol=1e-10, atol=1e-12)


# -- a part of a network -----------------------------------------------------------------------------------------------


@spaces
@executions
def test_paths_compute_the_evaluation_network_within_the_search_network(space: Space, execution: str) -> None:
    genotype = random_genotype(space, 4)
    size = {"cells": 3, "channels": 4, "num_classes": 5}
    with seeded(4, "search"):
        search_net = Network(space, space.supernet(), **size, affine=True, execution=execution)  # type: ignore[arg-type]
    eval_net = Network(space, space.topology(genotype), **size, affine=True, execution=execution)  # type: ignore[arg-type]
    inherit(eval_net, search_net)
    computed = set()
    for name, module in search_net.named_modules():
        module.register_forward_hook(lambda *_, name=name: computed.add(name))
    images = torch.randn(4, 3, 8, 8, generator=generator(4, "images"))
    one, other = search_net(images, paths=space.topology(genotype)), eval_net(images)
    torch.testing.assert_close(one.logits, other.logits, **exactness(execution))
    # nothing else is part of the graph, nor computed: compiled kernels call no modules
    gradients = torch.autograd.grad(one.logits.sum(), list(search_net.parameters()), allow_unused=True)
    names = [name for name, _ in search_net.named_parameters()]
    reached = {name for name, gradient in zip(names, gradients, strict=True) if gradient is not None}
    assert reached <= {name for name, _ in eval_net.named_parameters()}
    convolutions = {name for name, module in search_net.named_modules() if isinstance(module, nn.Conv2d)}
    expected = {n for n, module in eval_net.named_modules() if isinstance(module, nn.Conv2d)}
    if execution in ("plain", "share"):
        assert computed & convolutions == expected
    # and an edge's mixing weights scale it
    ones = {kind: torch.ones(len(cell.edges), 1) for kind, cell in space.topology(genotype).items()}
    weighted = search_net(images, ones, paths=space.topology(genotype)).logits
    torch.testing.assert_close(weighted, other.logits, **exactness(execution))


# -- names -------------------------------------------------------------------------------------------------------------


@spaces
def test_names_are_shared(space: Space) -> None:
    size = {"cells": 4, "channels": 4, "num_classes": 5}
    search_net = Network(space, space.supernet(), **size, affine=True)  # type: ignore[arg-type]
    shapes = {name: tensor.shape for name, tensor in search_net.state_dict().items()}
    for seed in range(3):
        eval_net = Network(space, space.topology(random_genotype(space, seed)), **size, affine=True)  # type: ignore[arg-type]
        own = {name: tensor.shape for name, tensor in eval_net.state_dict().items()}
        assert own.items() <= shapes.items()


def test_how_weights_are_named() -> None:
    space = DartsSpace()
    network = Network(space, space.supernet(), cells=3, channels=4, num_classes=5, affine=True)
    names = set(network.state_dict())
    assert "cells.0.edges.0-2.sep_conv_3x3.first.depthwise.weight" in names
    assert "cells.2.edges.4-5.dil_conv_5x5.conv.norm.running_mean" in names
    assert "cells.1.preprocess.0.conv.weight" in names
    assert {name.split(".")[0] for name in names} == {"stem", "cells", "classifier"}
    benchmark = Network(
        NasBench201Space(), NasBench201Space().supernet(), cells=3, channels=4, num_classes=5, affine=True
    )
    assert {name.split(".")[0] for name in benchmark.state_dict()} == {
        "stem",
        "cells",
        "reductions",
        "tail",
        "classifier",
    }


def test_a_topology_between_supernet_and_genotype() -> None:
    """As a progressive search has them: some operations on some edges."""
    space = ToySpace()
    (kind,) = space.kinds
    full = space.supernet()[kind]
    edges = tuple((edge, names[:2] if edge.source else names[1:]) for edge, names in full.edges)
    pruned = {kind: CellTopology(full.num_inputs, full.num_nodes, edges)}
    network = Network(space, pruned, cells=2, channels=4, num_classes=5, affine=True)
    weights = {kind: torch.full((3, 2), 0.5)}
    assert network(torch.randn(2, 3, 8, 8), weights).logits.isfinite().all()
    assert not any("1-2.nor_conv_3x3" in name for name in network.state_dict())
    assert Softmax(pruned, generator(0, "alpha")).alpha[kind].shape == (3, 2)


# -- building ----------------------------------------------------------------------------------------------------------


def test_a_stem_can_be_shared() -> None:
    space = ToySpace()
    first = Network(space, space.supernet(), cells=2, channels=4, num_classes=5, affine=True)
    second = Network(space, space.supernet(), cells=3, channels=4, num_classes=5, affine=True, stem=first.stem)
    assert second.stem is first.stem


@executions
def test_a_copy_is_its_own_network(execution: str) -> None:
    space = DartsSpace()
    topology = space.topology(random_genotype(space, 0))
    network = Network(space, topology, cells=2, channels=4, num_classes=5, affine=True, execution=execution).eval()
    twin = copy.deepcopy(network)
    images = torch.randn(2, 3, 8, 8, generator=generator(0, "images"))
    expected = network(images).logits
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
    assert torch.equal(twin(images).logits, expected)
    assert not torch.equal(network(images).logits, expected)


def test_image_channels_and_classes() -> None:
    space = NasBench201Space()
    network = Network(
        space,
        space.topology(random_genotype(space, 0)),
        cells=3,
        channels=4,
        num_classes=17,
        image_channels=1,
        affine=True,
    )
    assert network(torch.randn(2, 1, 8, 8)).logits.shape == (2, 17)


def test_impossible_sizes_are_refused() -> None:
    space = DartsSpace()
    with pytest.raises(ConfigurationError, match="channels 7: must be a positive even number"):
        Network(space, space.supernet(), cells=8, channels=7, num_classes=10, affine=False)


def test_every_layout_of_memory_gives_the_same_logits() -> None:
    space = DartsSpace()
    network = Network(space, space.topology(random_genotype(space, 1)), cells=3, channels=4, num_classes=5, affine=True)
    images = torch.randn(2, 3, 8, 8, generator=generator(0, "images"))
    network.eval()
    assert torch.equal(network(images).logits, network(images.contiguous(memory_format=torch.channels_last)).logits)


class Convolutions(TorchDispatchMode):
    """Which kernel, stride and groups PyTorch's convolutions have been called with, forward and backward."""

    def __init__(self) -> None:
        super().__init__()
        self.called: set[tuple[int, int, int]] = set()

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if function is torch.ops.aten.convolution.default:
            self.called.add((args[1].shape[2], args[3][0], args[8]))
        if function is torch.ops.aten.convolution_backward.default:
            self.called.add((args[2].shape[2], args[4][0], args[9]))
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("partial", [1, 2])
@executions
def test_no_strided_1x1_convolution_is_left_to_the_library(execution: str, partial: int) -> None:
    """Its weights' gradient overruns memory on CPUs without AVX-512, where channels are last and few."""
    space = DartsSpace()
    for topology in (space.supernet(), space.topology(random_genotype(space, 0))):
        network = Network(
            space, topology, cells=3, channels=4, num_classes=5, affine=True, execution=execution, partial=partial
        )
        weights = {
            kind: torch.rand(len(cell.edges), len(space.operations), requires_grad=True)
            for kind, cell in topology.items()
        }
        with Convolutions() as convolutions:
            output = network(torch.randn(4, 3, 8, 8), weights if topology == space.supernet() else None)
            output.logits.sum().backward()
        assert (3, 1, 1) in convolutions.called, "the stem's"
        assert not any(kernel == 1 and stride > 1 and groups == 1 for kernel, stride, groups in convolutions.called)


def test_shapes_in_annotations_are_checked() -> None:
    """By ``conftest.py``, in every test of the modules that give them."""
    assert accuracy(torch.eye(3), torch.arange(3)) == 1.0
    with pytest.raises(jaxtyping.TypeCheckError, match="labels"):
        accuracy(torch.eye(3), torch.arange(2))
