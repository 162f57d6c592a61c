"""The NAS-Bench-201 space: its skeleton, and the benchmark's own parameter counts."""

import pytest
import torch

from cdarts.errors import GenotypeError
from cdarts.networks import Network
from cdarts.spaces import NasBench201Space
from cdarts.topology import Port, parse_arch_string


def test_operations_in_the_benchmarks_order() -> None:
    assert NasBench201Space.operations == ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
    assert [str(edge) for edge in NasBench201Space().all_edges()] == ["0-1", "0-2", "1-2", "0-3", "1-3", "2-3"]


def test_the_benchmarks_skeleton() -> None:
    slots = NasBench201Space().layout(15, 16)
    cells = [f"cells.{index}" for index in range(15)]
    assert [slot.name for slot in slots] == [*cells[:5], "reductions.0", *cells[5:10], "reductions.1", *cells[10:]]
    assert [slot.channels for slot in slots] == [16] * 5 + [32] * 6 + [64] * 6
    assert [slot.out_channels for slot in slots] == [slot.channels for slot in slots]
    assert [slot.stage for slot in slots] == [0] * 6 + [1] * 6 + [2] * 5
    assert [slot.name for slot in slots if slot.closes_stage] == ["reductions.0", "reductions.1"]
    assert slots[5].inputs == (Port(5, 16, True),)
    assert slots[6].inputs == (Port(6, 32, False),)


@pytest.mark.parametrize(
    ("cells", "stages"), [(1, [1, 0, 0]), (2, [1, 1, 0]), (3, [1, 1, 1]), (4, [2, 1, 1]), (8, [3, 3, 2])]
)
def test_cells_are_spread_evenly_the_first_stages_taking_the_rest(cells: int, stages: list[int]) -> None:
    slots = NasBench201Space().layout(cells, 16)
    assert [sum(slot.kind == "cell" and slot.stage == stage for slot in slots) for stage in range(3)] == stages


@pytest.mark.parametrize(
    ("arch", "parameters"),
    [
        # row 0 of the benchmark: 0.129306 million
        ("|avg_pool_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|nor_conv_1x1~0|skip_connect~1|skip_connect~2|", 129_306),
        # no weights in any cell: stem 464, reductions 14,464 and 57,600, last BatchNorm 128, classifier 650
        ("|none~0|+|none~0|none~1|+|none~0|none~1|none~2|", 73_306),
    ],
)
def test_parameters_of_the_benchmarks_networks(arch: str, parameters: int) -> None:
    space = NasBench201Space()
    topology = space.topology(parse_arch_string(arch))
    network = Network(space, topology, cells=15, channels=16, num_classes=10, affine=True)
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters


def test_the_output_is_the_last_node_and_the_tail_normalizes() -> None:
    space = NasBench201Space()
    nodes = [torch.full((1, 2, 1, 1), float(index)) for index in range(3)]
    assert space.output(nodes) is nodes[-1]
    assert [type(module) for module in space.tail(4).children()] == [torch.nn.BatchNorm2d, torch.nn.ReLU]


def test_every_edge_carries_one_operation() -> None:
    with pytest.raises(GenotypeError, match="3 edges given; each of the 6 edges carries exactly one operation"):
        NasBench201Space().check(parse_arch_string("|none~0|+|none~0|none~1|"))
