"""Costs: the published sizes of published networks, to the last weight and multiply-add."""

import csv
import gzip
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from cdarts import zoo
from cdarts.cost import Cost, cost_by_part, network_cost
from cdarts.networks import Network
from cdarts.randomness import generator
from cdarts.spaces import DartsSpace, NasBench201Space, Space, ToySpace
from cdarts.topology import Choice, Genotype, Topology, parse_arch_string


def on_meta(
    space: Space, topology: Topology, cells: int, channels: int, num_classes: int, *, affine: bool = True
) -> Network:
    """A network that has shapes but no numbers: it costs nothing to build and to run."""
    with torch.device("meta"):
        return Network(space, topology, cells=cells, channels=channels, num_classes=num_classes, affine=affine)


def nasbench201_cost(genotype: Genotype) -> Cost:
    space = NasBench201Space()
    return network_cost(on_meta(space, space.topology(genotype), 15, 16, 10), 32, 3)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("darts-v1", 3_169_414),
        ("darts-v2", 3_349_342),
        ("p-darts", 3_433_798),
        ("pc-darts-cifar10", 3_634_678),
        ("cdarts-cifar10", 3_859_318),
    ],
)
def test_parameters_on_cifar(name: str, parameters: int) -> None:
    space = DartsSpace()
    network = on_meta(space, space.topology(zoo.load(name)), 20, 36, 10)
    assert network_cost(network, 32, 3).parameters == parameters


def test_multiply_adds_on_cifar() -> None:
    space = DartsSpace()
    network = on_meta(space, space.topology(zoo.load("cdarts-cifar10")), 20, 36, 10)
    assert network_cost(network, 32, 3).macs / 1e6 == pytest.approx(590.1, abs=0.05)


@pytest.mark.parametrize(("name", "macs"), [("cdarts-imagenet", 712.9), ("darts-v2", 529.9), ("p-darts", 542.8)])
def test_multiply_adds_on_imagenet(name: str, macs: float) -> None:
    # the papers of DARTS and P-DARTS print 574 and 557 M for the same networks: they count otherwise
    space = DartsSpace(stem_name="imagenet")
    cost = network_cost(on_meta(space, space.topology(zoo.load(name)), 14, 48, 1000), 224, 3)
    assert cost.macs / 1e6 == pytest.approx(macs, abs=0.05)


def test_parameters_on_imagenet() -> None:
    space = DartsSpace(stem_name="imagenet")
    network = on_meta(space, space.topology(zoo.load("cdarts-imagenet")), 14, 48, 1000)
    assert network_cost(network, 224, 3).parameters == 6_360_256


@pytest.mark.parametrize(
    ("space", "affine", "parameters"),
    [
        (DartsSpace(), False, 1_930_618),
        (DartsSpace(pool_batchnorm=True), False, 1_930_618),
        (DartsSpace(), True, 1_987_194),
    ],
    ids=["search", "pools with BatchNorm", "affine"],
)
def test_parameters_of_the_search_network(space: DartsSpace, affine: bool, parameters: int) -> None:
    network = on_meta(space, space.supernet(), 8, 16, 10, affine=affine)
    assert network_cost(network, 32, 3).parameters == parameters


# -- NAS-Bench-201 ---------------------------------------------------------------------------------------------------


def uniform(operation: str) -> Genotype:
    """The cell that has one operation on every edge."""
    return Genotype("nasbench201", {"cell": tuple(Choice(edge, operation) for edge in NasBench201Space().all_edges())})


def test_the_benchmark_counts_convolutions_and_linear_layers_only() -> None:
    # Stem, two reduction blocks and the classifier make 7.78304 M, the constant of the benchmark's closed form, and
    # cells of pools and skips add nothing to it: the benchmark counts no BatchNorm and no pool, as we do.
    stem = 9 * 3 * 16 * 32 * 32
    reductions = 2 * (9 * 16 * 32 * 16 * 16 + 9 * 32 * 32 * 16 * 16 + 16 * 32 * 16 * 16)
    classifier = 64 * 10
    base = stem + reductions + classifier
    assert base == 7_783_040
    for operation in ("none", "skip_connect", "avg_pool_3x3"):
        assert nasbench201_cost(uniform(operation)).macs == base
    assert nasbench201_cost(uniform("nor_conv_1x1")).macs == base + 6 * 3_932_160
    assert nasbench201_cost(uniform("nor_conv_3x3")).macs == base + 6 * 35_389_440


def rows() -> Iterator[dict[str, str]]:
    """The benchmark's architectures, in its order."""
    root = os.environ.get("CDARTS_DATA")
    table = Path(root or ".") / "nasbench201.csv.gz"
    if root is None or not table.is_file():
        pytest.skip("needs nasbench201.csv.gz in the folder that $CDARTS_DATA names")
    with gzip.open(table, "rt") as file:
        yield from csv.DictReader(file)


@pytest.mark.parametrize("number", [20, pytest.param(200, marks=pytest.mark.slow)])
def test_networks_of_the_benchmark_have_its_parameters(number: int) -> None:
    table = list(rows())
    drawn = torch.randperm(len(table), generator=generator(0, "rows"))[:number].tolist()
    for position, row in enumerate(table[index] for index in drawn):
        cost = nasbench201_cost(parse_arch_string(row["arch"]))
        assert cost.parameters / 1e6 == pytest.approx(float(row["params_m"]), abs=5e-7), row["arch"]
        if position < 10:
            assert cost.macs / 1e6 == pytest.approx(float(row["flops_m"]), abs=5e-7), row["arch"]


def test_all_architectures_of_the_benchmark_by_formula() -> None:
    # a cell's cost is a sum over its edges, so three networks give the cost of all
    base, one, three = (nasbench201_cost(uniform(name)) for name in ("none", "nor_conv_1x1", "nor_conv_3x3"))
    count = 0
    for row in rows():
        ones, threes = (row["arch"].count(name) for name in ("nor_conv_1x1", "nor_conv_3x3"))
        for column, attribute in (("params_m", "parameters"), ("flops_m", "macs")):
            start = getattr(base, attribute)
            cost = (
                start + (ones * (getattr(one, attribute) - start) + threes * (getattr(three, attribute) - start)) // 6
            )
            assert cost / 1e6 == pytest.approx(float(row[column]), abs=5e-7), row["arch"]
        count += 1
    assert count == 15_625


# -- how it is counted -----------------------------------------------------------------------------------------------


def toy(*, execution: str = "share", device: str = "cpu") -> Network:
    space = ToySpace()
    with torch.device(device):
        return Network(
            space,
            space.supernet(),
            cells=3,
            channels=4,
            num_classes=5,
            image_channels=1,
            affine=True,
            execution=execution,
        )


def test_devices_and_executions_agree() -> None:
    expected = network_cost(toy(), 9, 1)
    assert expected.macs > 0
    assert network_cost(toy(device="meta"), 9, 1) == expected
    assert network_cost(toy(execution="plain"), 9, 1) == expected


def test_counting_leaves_the_network_as_it_was() -> None:
    network = toy()
    network.train()
    network.stem.eval()
    modes = [module.training for module in network.modules()]
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    network_cost(network, 8, 1)
    assert [module.training for module in network.modules()] == modes
    assert len(set(modes)) == 2
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, state[name]), name
    assert all(parameter.grad is None for parameter in network.parameters())


def test_the_mode_comes_back_when_counting_fails() -> None:
    network = toy()
    with pytest.raises(RuntimeError):
        network_cost(network, 8, image_channels=3)
    assert network.training


@pytest.mark.parametrize("space", [DartsSpace(), DartsSpace(stem_name="imagenet"), NasBench201Space(), ToySpace()])
@pytest.mark.parametrize("execution", ["share", "plain", "merged", "fused"])
def test_parts_add_up_to_the_network(space: Space, execution: str) -> None:
    strengths = {
        kind: torch.rand(len(space.all_edges()), len(space.operations), generator=generator(0, "parts", kind)).tolist()
        for kind in space.kinds
    }
    genotype = space.derive(strengths)
    side = 64 if space == DartsSpace(stem_name="imagenet") else 32
    network = Network(
        space,
        space.topology(genotype),
        cells=5,
        channels=4,
        num_classes=7,
        affine=True,
        execution=execution,
    ).train()
    parts, total = cost_by_part(network, side, 3), network_cost(network, side, 3)
    in_plain = Network(
        space, space.topology(genotype), cells=5, channels=4, num_classes=7, affine=True, execution="plain"
    )
    assert total == network_cost(in_plain, side, 3), "whatever computes the cells"
    assert Cost(sum(part.parameters for part in parts.values()), sum(part.macs for part in parts.values())) == total
    assert set(genotype.operations()) <= set(parts)
    assert all(part.parameters >= 0 and part.macs >= 0 for part in parts.values())
    assert network.training and all(module.training for module in network.modules())


def test_the_parts_of_a_published_network() -> None:
    parts = cost_by_part(on_meta(DartsSpace(), DartsSpace().topology(zoo.load("pc-darts-cifar10")), 20, 36, 10), 32, 3)
    assert parts["classifier"] == Cost(5770, 5760)
    assert parts["max_pool_3x3"] == Cost(0, 0), "it is named, though it has neither weights nor multiply-adds"
