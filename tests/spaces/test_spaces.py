"""What every space in the registry must keep to, and how strengths become a genotype."""

import random
from collections.abc import Mapping
from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cdarts.errors import ConfigurationError, GenotypeError
from cdarts.networks import Network
from cdarts.operations import OPERATIONS
from cdarts.randomness import generator, seeded
from cdarts.relaxations import Softmax
from cdarts.spaces import SPACES, DartsSpace, Space
from cdarts.topology import Choice, Edge, Genotype

EVERY_SPACE: dict[str, Space] = {name: kind() for name, kind in SPACES.items()} | {  # type: ignore[call-arg]
    "darts, pools normalized": DartsSpace(pool_batchnorm=True),
    "darts, half stem": DartsSpace(stem_name="half"),
    "darts, ImageNet stem": DartsSpace(stem_name="imagenet"),
}
spaces = pytest.mark.parametrize("space", EVERY_SPACE.values(), ids=EVERY_SPACE)

Matrix = list[list[float]]


def random_strengths(space: Space, seed: int) -> dict[str, Matrix]:
    draw = random.Random(seed)
    return {kind: [[draw.random() for _ in space.operations] for _ in space.all_edges()] for kind in space.kinds}


def one_hot(space: Space, genotype: Genotype) -> dict[str, Matrix]:
    """Strength one for what the genotype chose, ``none`` on the edges that it dropped."""
    chosen = {kind: {choice.edge: choice.operation for choice in genotype.cells[kind]} for kind in space.kinds}
    return {
        kind: [
            [float(name == chosen[kind].get(edge, "none")) for name in space.operations] for edge in space.all_edges()
        ]
        for kind in space.kinds
    }


# -- topologies --------------------------------------------------------------------------------------------------------


@spaces
def test_the_supernet_has_every_operation_on_every_edge(space: Space) -> None:
    topology = space.supernet()
    assert set(topology) == set(space.kinds)
    first, last = space.num_inputs, space.num_inputs + space.num_nodes
    expected = [Edge(target=j, source=i) for j in range(first, last) for i in range(j)]
    for cell in topology.values():
        assert (cell.num_inputs, cell.num_nodes) == (space.num_inputs, space.num_nodes)
        assert [edge for edge, _ in cell.edges] == expected == sorted(expected)
        assert all(names == space.operations for _, names in cell.edges)
    assert set(space.operations) <= set(OPERATIONS)


@spaces
@pytest.mark.parametrize("seed", range(5))
def test_a_genotypes_topology_is_its_choices(space: Space, seed: int) -> None:
    genotype = space.derive(random_strengths(space, seed))
    for kind, cell in space.topology(genotype).items():
        assert cell.edges == tuple((choice.edge, (choice.operation,)) for choice in genotype.cells[kind])
        # every node can be reached, so that every execution has something to add up
        assert all(cell.incoming(node) for node in range(space.num_inputs, space.num_inputs + space.num_nodes))


@spaces
def test_what_a_space_refuses(space: Space) -> None:
    good = space.derive(random_strengths(space, 0))
    kind = space.kinds[0]
    first, *rest = good.cells[kind]

    def refused(cells: Mapping[str, tuple[Choice, ...]], message: str, of: str = space.name) -> None:
        with pytest.raises(GenotypeError, match=message):
            space.check(Genotype(of, cells))
        with pytest.raises(GenotypeError, match=message):
            space.topology(Genotype(of, cells))

    edge = f"{kind} cell, edge {first.edge}"
    last = space.num_inputs + space.num_nodes
    refused(good.cells, f"belongs to space 'moon', not to '{space.name}'", of="moon")
    refused({**good.cells, "other": ()}, f"space {space.name} has cells .*; found .*other")
    refused({**good.cells, kind: (Choice(first.edge, "conv_9x9"), *rest)}, f"{edge}: unknown operation 'conv_9x9'")
    refused({**good.cells, kind: tuple(rest)}, f"{kind}.*edges")
    beyond = Choice(Edge(target=last, source=0), first.operation)
    refused({**good.cells, kind: (*good.cells[kind], beyond)}, f"edge 0-{last}: a node is one of")
    if space.num_inputs > 1:
        into_input = Choice(Edge(target=1, source=0), first.operation)
        refused({**good.cells, kind: (*good.cells[kind], into_input)}, "edge 0-1: a node is one of")


# -- discretisation ----------------------------------------------------------------------------------------------------


def by_brute_force(space: Space, strengths: Mapping[str, Matrix]) -> Genotype:
    """Rank all (edge, operation) pairs of a node; walk down the ranking, each edge at its first appearance."""
    darts = isinstance(space, DartsSpace)
    cells = {}
    for kind in space.kinds:
        choices = []
        for node in range(space.num_inputs, space.num_inputs + space.num_nodes):
            pairs = [
                (-strengths[kind][position][column], edge, column)
                for position, edge in enumerate(space.all_edges())
                for column, name in enumerate(space.operations)
                if edge.target == node and not (darts and name == "none")
            ]
            best: dict[Edge, str] = {}
            for _, edge, column in sorted(pairs):
                best.setdefault(edge, space.operations[column])
            choices += [Choice(*item) for item in list(best.items())[: 2 if darts else None]]
        cells[kind] = tuple(choices)
    return Genotype(space.name, cells)


def strengths_of(space: Space, elements: st.SearchStrategy[float]) -> st.SearchStrategy[dict[str, Matrix]]:
    columns = len(space.operations)
    row = st.lists(elements, min_size=columns, max_size=columns)
    rows = len(space.all_edges())
    matrix = st.lists(row, min_size=rows, max_size=rows)
    return st.fixed_dictionaries(dict.fromkeys(space.kinds, matrix))


@pytest.mark.parametrize("name", SPACES)
@given(st.data())
def test_derive_equals_brute_force(name: str, data: st.DataObject) -> None:
    space = EVERY_SPACE[name]
    # few distinct values, so that ties are the rule
    strengths = data.draw(strengths_of(space, st.sampled_from([0.0, 0.25, 0.5]) | st.floats(0, 1)))
    genotype = space.derive(strengths)
    space.check(genotype)
    assert genotype == by_brute_force(space, strengths)


@spaces
def test_ties_break_by_lowest_edge_then_lowest_operation(space: Space) -> None:
    flat = {kind: [[0.125] * len(space.operations) for _ in space.all_edges()] for kind in space.kinds}
    for choices in space.derive(flat).cells.values():
        assert {choice.operation for choice in choices} == {space.operations[0]}
        if isinstance(space, DartsSpace):
            assert [str(choice.edge) for choice in choices] == ["0-2", "1-2", "0-3", "1-3", "0-4", "1-4", "0-5", "1-5"]


@spaces
@pytest.mark.parametrize("seed", range(10))
def test_one_hot_strengths_give_the_genotype_back(space: Space, seed: int) -> None:
    genotype = space.derive(random_strengths(space, seed))
    assert space.derive(one_hot(space, genotype)) == genotype


@spaces
def test_derive_depends_on_order_only(space: Space) -> None:
    strengths = random_strengths(space, 3)
    cubed = {kind: [[7 * value**3 for value in row] for row in rows] for kind, rows in strengths.items()}
    assert space.derive(cubed) == space.derive(strengths)


@spaces
def test_derive_refuses_a_matrix_of_another_size(space: Space) -> None:
    strengths = random_strengths(space, 3)
    strengths[space.kinds[0]].pop()
    with pytest.raises(ValueError, match="zip"):
        space.derive(strengths)


# -- skeletons ---------------------------------------------------------------------------------------------------------


@spaces
@pytest.mark.parametrize("cells", range(1, 21))
def test_every_port_fits_what_it_reads(space: Space, cells: int) -> None:
    slots = space.layout(cells, 4)
    assert sum(slot.kind is not None for slot in slots) == cells
    assert len({slot.name for slot in slots}) == len(slots)
    # channels and relative side of each stem output and block
    sides = (
        [Fraction(2), Fraction(1)] if space == DartsSpace(stem_name="imagenet") else [Fraction(1)] * space.num_inputs
    )
    outputs = list(zip(space.stem_channels(4), sides, strict=True))
    stage = 0
    for slot in slots:
        assert slot.stage == stage
        assert slot.kind is None or (slot.kind in space.kinds and len(slot.inputs) == space.num_inputs)
        entered = []
        for port in slot.inputs:
            assert port.source < len(outputs)
            channels, side = outputs[port.source]
            assert port.channels == channels
            entered.append(side / 2 if port.halve else side)
        assert len(set(entered)) == 1, "all inputs have one side"
        outputs.append((slot.out_channels, entered[0] / (slot.stride if slot.kind else 1)))
        stage += slot.closes_stage


@spaces
@pytest.mark.parametrize(
    ("cells", "channels", "message"),
    [(0, 4, "cells 0"), (-1, 4, "cells -1"), (3, 0, "channels 0"), (3, 7, "channels 7"), (3, -2, "channels -2")],
)
def test_impossible_sizes(space: Space, cells: int, channels: int, message: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^{message}: "):
        space.layout(cells, channels)


def finite_step(space: Space, network: Network, images: torch.Tensor, weights: dict[str, torch.Tensor] | None) -> None:
    output = network(images, weights)
    assert output.logits.shape == (len(images), 5)
    assert [x.shape[1] for x in output.features] == network.feature_channels
    torch.nn.functional.cross_entropy(output.logits, torch.arange(len(images)) % 5).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is None or parameter.grad.isfinite().all(), name
    gradient = network.stem.get_parameter(next(name for name, _ in network.stem.named_parameters())).grad
    assert gradient is not None
    assert gradient.any(), f"nothing reaches the stem of {space.name}"


@spaces
@pytest.mark.parametrize("cells", [*range(1, 9), 14, 20])
def test_discrete_networks_of_any_depth_run(space: Space, cells: int) -> None:
    strengths = random_strengths(space, cells)
    for rows in strengths.values():  # a cell of nothing but ``none`` passes no gradient on
        for row in rows:
            row[space.operations.index("none")] = 0.0
    topology = space.topology(space.derive(strengths))
    with seeded(0, "network", cells):
        network = Network(space, topology, cells=cells, channels=2, num_classes=5, affine=True)
    for side in (32, 33) if space == DartsSpace(stem_name="imagenet") else (8, 9):
        network.zero_grad()
        finite_step(space, network, torch.randn(4, 3, side, side, generator=generator(0, "images")), None)


@spaces
@pytest.mark.parametrize("cells", [1, 2, 3, 8])
def test_supernets_of_any_depth_run(space: Space, cells: int) -> None:
    topology = space.supernet()
    with seeded(0, "network", cells):
        network = Network(space, topology, cells=cells, channels=2, num_classes=5, affine=False)
    relaxation = Softmax(topology, generator(0, "alpha"))
    side = 33 if space == DartsSpace(stem_name="imagenet") else 9
    finite_step(space, network, torch.randn(4, 3, side, side, generator=generator(0, "images")), relaxation())
    used = {slot.kind for slot in network.layout}
    for kind, alpha in relaxation.alpha.items():
        assert (alpha.grad is not None) is (kind in used)
        assert alpha.grad is None or (alpha.grad.isfinite().all() and alpha.grad.any())
