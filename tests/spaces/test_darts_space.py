"""The DARTS space: where reductions stand, how wide cells are, what it refuses."""

import pytest

from cdarts.errors import ConfigurationError, GenotypeError
from cdarts.operations import BatchNormalized, FactorizedReduce, Identity, Pool, ReluConvBatchNorm
from cdarts.spaces import DartsSpace
from cdarts.topology import Choice, Edge, Genotype, Port


def test_operations_in_the_authors_order() -> None:
    assert DartsSpace.operations == (
        "max_pool_3x3",
        "avg_pool_3x3",
        "skip_connect",
        "sep_conv_3x3",
        "sep_conv_5x5",
        "dil_conv_3x3",
        "dil_conv_5x5",
        "none",
    )
    assert len(DartsSpace().all_edges()) == 14


@pytest.mark.parametrize(
    ("cells", "reductions"),
    [
        (1, [0]),
        (2, [0, 1]),
        (3, [1, 2]),
        (4, [1, 2]),
        (5, [1, 3]),
        (6, [2, 4]),
        (8, [2, 5]),
        (14, [4, 9]),
        (20, [6, 13]),
    ],
)
def test_reductions_stand_at_one_and_two_thirds(cells: int, reductions: list[int]) -> None:
    slots = DartsSpace().layout(cells, 16)
    assert [slot.name for slot in slots] == [f"cells.{index}" for index in range(cells)]
    assert [index for index, slot in enumerate(slots) if slot.kind == "reduce"] == reductions
    assert [index for index, slot in enumerate(slots) if slot.stride == 2] == reductions
    assert [index for index, slot in enumerate(slots) if slot.closes_stage] == reductions
    assert [slot.channels for slot in slots] == [
        16 * 2 ** sum(index >= reduction for reduction in reductions) for index in range(cells)
    ]
    assert all(slot.out_channels == 4 * slot.channels for slot in slots)


def test_the_search_network_of_the_paper() -> None:
    slots = DartsSpace().layout(8, 16)
    assert DartsSpace().stem_channels(16) == (48, 48)
    assert slots[0].inputs == (Port(0, 48, False), Port(1, 48, False))
    assert slots[1].inputs == (Port(1, 48, False), Port(2, 64, False))
    assert slots[2].inputs == (Port(2, 64, False), Port(3, 64, False))
    assert slots[3].inputs == (Port(3, 64, True), Port(4, 128, False))  # the cell before was a reduction
    assert slots[4].inputs == (Port(4, 128, False), Port(5, 128, False))
    assert [slot.stage for slot in slots] == [0, 0, 0, 1, 1, 1, 2, 2]
    assert [slot.channels for slot in slots] == [16, 16, 32, 32, 32, 64, 64, 64]


def test_the_imagenet_stem_counts_as_a_reduction() -> None:
    space = DartsSpace(stem_name="imagenet")
    assert space.stem_channels(48) == (48, 48)
    slots = space.layout(14, 48)
    assert slots[0].inputs == (Port(0, 48, True), Port(1, 48, False))
    assert slots[1].inputs == (Port(1, 48, False), Port(2, 192, False))
    assert slots[5].inputs == (Port(5, 192, True), Port(6, 384, False))


def test_preprocessing() -> None:
    space = DartsSpace()
    assert isinstance(space.preprocess(Port(0, 8, True), 4, False), FactorizedReduce)
    block = space.preprocess(Port(0, 8, False), 4, False)
    assert isinstance(block, ReluConvBatchNorm)
    assert tuple(block.conv.weight.shape) == (4, 8, 1, 1)


def test_pools_have_batchnorm_where_asked() -> None:
    for name in ("max_pool_3x3", "avg_pool_3x3"):
        assert isinstance(DartsSpace().operation(name, 4, 1, False), Pool)
        normalized = DartsSpace(pool_batchnorm=True).operation(name, 4, 1, True)
        assert isinstance(normalized, BatchNormalized)
        assert not normalized.norm.affine, "BatchNorm after a pool never has weights, so that names stay shared"
    assert isinstance(DartsSpace(pool_batchnorm=True).operation("skip_connect", 4, 1, False), Identity)


def choices(*edges: tuple[int, int], operation: str = "sep_conv_3x3") -> tuple[Choice, ...]:
    return tuple(Choice(Edge(target=target, source=source), operation) for source, target in edges)


GOOD = ((0, 2), (1, 2), (0, 3), (1, 3), (0, 4), (1, 4), (0, 5), (4, 5))


@pytest.mark.parametrize(
    ("reduce", "message"),
    [
        (choices(*GOOD[:-1]), "^reduce cell, node 5: has 1 edges, must have 2"),
        (choices(*GOOD, (2, 5)), "^reduce cell, node 5: has 3 edges, must have 2"),
        (choices(*GOOD[2:]), "^reduce cell, node 2: has 0 edges, must have 2"),
        (choices(*GOOD, operation="none"), "^reduce cell: 'none' cannot be an operation"),
    ],
)
def test_two_edges_a_node_and_no_none(reduce: tuple[Choice, ...], message: str) -> None:
    DartsSpace().check(Genotype("darts", {"normal": choices(*GOOD), "reduce": choices(*GOOD)}))
    with pytest.raises(GenotypeError, match=message):
        DartsSpace().check(Genotype("darts", {"normal": choices(*GOOD), "reduce": reduce}))


def test_none_is_never_kept_however_strong() -> None:
    row = [0.0, 0.001, 0.002, 0.001, 0.0, 0.0, 0.0, 0.996]
    genotype = DartsSpace().derive({kind: [row] * 14 for kind in ("normal", "reduce")})
    assert set(genotype.operations()) == {"skip_connect"}


def test_the_strongest_two_edges_are_kept() -> None:
    rows = [[0.1] * 8 for _ in range(14)]
    rows[7][3] = 0.9  # edge 2-4
    rows[8][5] = 0.8  # edge 3-4
    rows[9][7] = 0.99  # edge 0-5, but of 'none'
    rows[13][0] = 0.2  # edge 4-5
    cell = DartsSpace().derive(dict.fromkeys(("normal", "reduce"), rows)).cells["normal"]
    assert [(str(choice.edge), choice.operation) for choice in cell[4:]] == [
        ("2-4", "sep_conv_3x3"),
        ("3-4", "dil_conv_3x3"),
        ("0-5", "max_pool_3x3"),
        ("4-5", "max_pool_3x3"),
    ]


def test_no_fixed_blocks() -> None:
    space = DartsSpace()
    with pytest.raises(ConfigurationError, match="no fixed block"):
        space.block(space.layout(3, 4)[0])
