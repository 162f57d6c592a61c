"""Limits: never exceeded, the strongest genotype within them, and refused where nothing is within."""

from dataclasses import replace
from itertools import pairwise, product

import numpy as np
import pytest
import torch
from scipy.optimize import Bounds as Between
from scipy.optimize import LinearConstraint, milp

from cdarts.cost import Amount, Bounds, CostTable, Selection, Size, activation_bytes, cost_table, network_cost
from cdarts.cost.latency import measure_operations, network_timing, timed, with_latency
from cdarts.errors import ConfigurationError
from cdarts.latency_table import LatencyTable
from cdarts.limits import Limits, parse_count
from cdarts.randomness import generator
from cdarts.settings import from_json, to_json
from cdarts.spaces import DartsSpace, NasBench201Space, Space, ToySpace
from cdarts.spaces.base import Strengths
from cdarts.topology import Choice, Genotype

SIZES: list[tuple[Space, Size]] = [
    (DartsSpace(), Size(20, 36, 10, 32, 3)),
    (DartsSpace(stem_name="imagenet", pool_batchnorm=True), Size(5, 8, 7, 65, 3)),
    (NasBench201Space(), Size(15, 16, 10, 32, 3)),
    (NasBench201Space(), Size(4, 6, 10, 9, 1)),
    (ToySpace(), Size(3, 4, 5, 9, 1)),
]
IDS = ["darts", "odd darts", "nasbench201", "odd nasbench201", "toy"]
FIVE = (0.02, 0.2, 0.4, 0.6, 0.9)
"""Limits, as parts of the way from the cheapest network to the one without limits."""


def strengths(space: Space, number: int) -> Strengths:
    draw = generator(number, "strengths")
    return {
        kind: torch.rand((len(space.all_edges()), len(space.operations)), generator=draw).tolist()
        for kind in space.kinds
    }


@pytest.fixture(scope="module")
def tables() -> dict[str, CostTable]:
    return {name: timed_table(space, cost_table(space, size)) for name, (space, size) in zip(IDS, SIZES, strict=True)}


def timed_table(space: Space, table: CostTable) -> CostTable:
    """With times that are made up, so that tests are the same everywhere."""
    times = {name: 1_000 * (3 + 7 * number) for number, name in enumerate(space.operations)}
    return CostTable(
        table.rest._replace(nanoseconds=500_000),
        {
            kind: {
                choice: amount._replace(nanoseconds=times[choice.operation] + 100 * (kind == "reduce"))
                for choice, amount in choices.items()
            }
            for kind, choices in table.choices.items()
        },
    )


# -- the table ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("space", "size"), SIZES, ids=IDS)
def test_the_table_gives_the_cost_of_a_network(space: Space, size: Size) -> None:
    table = cost_table(space, size)
    for number in range(4):
        genotype = space.derive(strengths(space, number))
        cost = network_cost(size.network(space, genotype), size.side, size.image_channels)
        assert table.cost(genotype) == Amount(cost.parameters, cost.macs, 0)


@pytest.mark.parametrize("space", [DartsSpace(), NasBench201Space(), ToySpace()], ids=lambda space: space.name)
def test_deriving_takes_the_strongest_of_every_decision(space: Space) -> None:
    edges = space.all_edges()
    for number in range(3):
        rows = strengths(space, number)
        cells = {}
        for kind in space.kinds:

            def score(kept: tuple[Choice, ...], rows: Strengths = rows, kind: str = kind) -> float:
                return sum(rows[kind][edges.index(c.edge)][space.operations.index(c.operation)] for c in kept)

            cells[kind] = tuple(choice for decision in space.decisions() for choice in max(decision, key=score))
        assert Genotype(space.name, cells) == space.derive(rows)


# -- the selection -----------------------------------------------------------------------------------------------------


def five_bounds(selection: Selection, free: Amount) -> list[Bounds]:
    """Each amount limited by itself, two together, and all, at five heights."""
    least = selection.least()
    found = []
    for part in FIVE:
        between = [int(low + part * max(high - low, 0)) for low, high in zip(least, free, strict=True)]
        found += [Bounds(parameters=between[0]), Bounds(macs=between[1]), Bounds(nanoseconds=between[2])]
        # together they may be out of reach where each is at its least, so these are looser
        loose = [int(low + (0.3 + 0.7 * part) * max(high - low, 0)) for low, high in zip(least, free, strict=True)]
        found += [Bounds(loose[0], loose[1]), Bounds(*loose)]
    return found


def all_of_nasbench201(table: CostTable, rows: Strengths) -> tuple[np.ndarray, np.ndarray, list[tuple[str, ...]]]:
    """Costs, scores and operations of all 15,625 cells."""
    space = NasBench201Space()
    names = list(product(space.operations, repeat=6))
    columns = np.array(list(product(range(5), repeat=6)))
    costs = np.array(
        [[table.choices["cell"][Choice(edge, name)] for name in space.operations] for edge in space.all_edges()]
    )
    total = np.array(table.rest) + sum(costs[edge][columns[:, edge]] for edge in range(6))
    scores = sum(np.array(rows["cell"])[edge][columns[:, edge]] for edge in range(6))
    return total, scores, names


@pytest.mark.parametrize("number", range(3))
def test_on_nasbench201_it_is_what_looking_at_every_cell_gives(tables: dict[str, CostTable], number: int) -> None:
    space, table, rows = NasBench201Space(), tables["nasbench201"], strengths(NasBench201Space(), number)
    costs, scores, names = all_of_nasbench201(table, rows)
    assert len(costs) == 15_625
    free = table.cost(space.derive(rows))
    for bounds in five_bounds(Selection(space, table, Bounds()), free):
        selection = Selection(space, table, bounds)
        found = selection.derive(rows)
        inside = (costs <= np.array(bounds.limits())).all(axis=1)
        best = int(np.argmax(np.where(inside, scores, -np.inf)))
        assert tuple(found.operations()) == names[best]
        assert bounds.holds(table.cost(found))
        assert selection.score(found, rows) == pytest.approx(scores[best], abs=1e-12)


@pytest.mark.parametrize("number", range(2))
def test_on_darts_it_is_what_integer_programming_gives(tables: dict[str, CostTable], number: int) -> None:
    space, table, rows = DartsSpace(), tables["darts"], strengths(DartsSpace(), number)
    free = table.cost(space.derive(rows))
    edges = space.all_edges()
    alternatives = [
        (kind, group, kept) for kind in space.kinds for group in range(4) for kept in space.decisions()[group]
    ]
    scores = [
        sum(rows[kind][edges.index(c.edge)][space.operations.index(c.operation)] for c in kept)
        for kind, _, kept in alternatives
    ]
    costs = np.array([np.sum([table.choices[kind][c] for c in kept], axis=0) for kind, _, kept in alternatives])
    groups = sorted({(kind, group) for kind, group, _ in alternatives})
    one_each = np.array(
        [[(kind, group) == wanted for kind, group, _ in alternatives] for wanted in groups], dtype=float
    )
    for bounds in five_bounds(Selection(space, table, Bounds()), free)[::4]:
        selection = Selection(space, table, bounds)
        found = selection.derive(rows)
        assert bounds.holds(table.cost(found))
        limited = [axis for axis, limit in enumerate(bounds.limits()) if limit < np.iinfo(np.int64).max]
        most = np.array([bounds.limits()[axis] - table.rest[axis] for axis in limited], dtype=float)
        solved = milp(
            -np.array(scores),
            constraints=[
                LinearConstraint(one_each, 1, 1),
                LinearConstraint(costs[:, limited].T / most[:, None], -np.inf, 1.0),
            ],
            integrality=np.ones(len(scores)),
            bounds=Between(0, 1),
            options={"mip_rel_gap": 0.0},
        )
        assert solved.success
        assert selection.score(found, rows) == pytest.approx(-solved.fun, abs=1e-6)


@pytest.mark.parametrize("name", IDS)
def test_five_limits_of_each_kind_are_never_exceeded(tables: dict[str, CostTable], name: str) -> None:
    space, size = SIZES[IDS.index(name)]
    table, rows = tables[name], strengths(space, 7)
    free = space.derive(rows)
    for position, bounds in enumerate(five_bounds(Selection(space, table, Bounds()), table.cost(free))):
        found = Selection(space, table, bounds).derive(rows)
        space.check(found)
        if position % 5 == 0:  # counted by building the network
            cost = network_cost(size.network(space, found), size.side, size.image_channels)
            assert bounds.holds(Amount(cost.parameters, cost.macs, 0))
        assert bounds.holds(table.cost(found))


def test_more_room_is_never_worse_and_enough_room_changes_nothing(tables: dict[str, CostTable]) -> None:
    space, table, rows = DartsSpace(), tables["darts"], strengths(DartsSpace(), 1)
    free = space.derive(rows)
    wide = Selection(space, table, Bounds(*table.cost(free)))
    assert wide.derive(rows) == free
    least, most = wide.least().macs, table.cost(free).macs
    scores = []
    for part in FIVE:
        selection = Selection(space, table, Bounds(macs=int(least + part * (most - least))))
        scores.append(selection.score(selection.derive(rows), rows))
    assert all(before <= after for before, after in pairwise(scores))


def test_a_genotype_that_fits_stays_and_another_keeps_what_it_can(tables: dict[str, CostTable]) -> None:
    space, table = NasBench201Space(), tables["nasbench201"]
    heavy = Genotype("nasbench201", {"cell": tuple(Choice(edge, "nor_conv_3x3") for edge in space.all_edges())})
    assert Selection(space, table, Bounds(macs=table.cost(heavy).macs)).fitting(heavy) == heavy
    one_less = Selection(space, table, Bounds(macs=table.cost(heavy).macs - 1)).fitting(heavy)
    assert one_less.operations().count("nor_conv_3x3") == 5


# -- what a user states ------------------------------------------------------------------------------------------------


def test_counts_with_units() -> None:
    texts = {
        "3.5M": 3_500_000,
        "600M": 600_000_000,
        "120000": 120_000,
        "80K": 80_000,
        "50k": 50_000,
        "1.25G": 1_250_000_000,
    }
    for text, count in texts.items():
        assert parse_count("--max-params", text) == count
    for text in ("", "M", "-1M", "1e6", "3,5M", "0", "0.0000001K", "1T", "nan", "３M"):
        with pytest.raises(ConfigurationError, match=r"--max-macs .*: write a positive number"):
            parse_count("--max-macs", text)


def test_impossible_limits_name_the_least_there_is() -> None:
    space, size = SIZES[2]
    with pytest.raises(
        ConfigurationError, match=r"^--max-params 70K: a network .* 15 cells .* at least 73,306 parameters"
    ):
        Limits(max_params="70K").selection(space, size)
    with pytest.raises(ConfigurationError, match=r"--max-macs 7M: .* at least 7,783,040 multiply-adds"):
        Limits(max_macs="7M").selection(space, size)
    with pytest.raises(ConfigurationError, match=r"--limit-cells 5: .* none is given"):
        Limits(limit_cells=5).check()
    for value in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ConfigurationError, match="--max-latency-ms"):
            Limits(max_latency_ms=value).check()


def test_limits_that_are_possible_one_by_one_but_not_together() -> None:
    space, size = ToySpace(), SIZES[4][1]
    table = cost_table(space, size)
    # `none` costs nothing but is made slow here, so that what is small is slow
    keys = {f"{kind} {c.edge} {c.operation}": c for kind, choices in table.choices.items() for c in choices}
    slow = LatencyTable(
        device="cpu",
        threads=1,
        rest_nanoseconds=0,
        nanoseconds={key: 1_000 if table.choices[key.split()[0]][c].parameters else 10**9 for key, c in keys.items()},
        mean_error=0.0,
    )
    least = Selection(space, table, Bounds()).least()
    with pytest.raises(ConfigurationError, match=r"--max-params .* --max-latency-ms 1.0: each is possible by itself"):
        Limits(max_params=str(least.parameters), max_latency_ms=1.0, latency=slow).selection(space, size)


def test_a_cost_beside_its_limits() -> None:
    limits = Limits(max_params="1M", max_latency_ms=2.5)
    assert limits.against(Amount(999_000, 5, 2_345_678)) == {
        "--max-params": ("999,000 parameters", "1M"),
        "--max-latency-ms": ("2.35 ms", "2.5"),
    }


# -- measuring ---------------------------------------------------------------------------------------------------------


def test_measured_operations_make_a_table_that_settings_hold() -> None:
    space, size, cpu = ToySpace(), SIZES[4][1], torch.device("cpu")
    latency = measure_operations(space, size, device=cpu, threads=1)
    assert latency.device == "cpu"
    assert 0 <= latency.mean_error < 5
    limits = replace(Limits(max_latency_ms=1e6), latency=latency)
    assert from_json(Limits, to_json(limits), "config.json") == limits
    table = with_latency(cost_table(space, size), latency)
    genotype = space.derive(strengths(space, 0))
    assert table.cost(genotype).nanoseconds > 0
    assert limits.selection(space, size).derive(strengths(space, 0)) == genotype
    assert limits.measured(space, size, cpu, 1) is limits  # a resumed search measures nothing


def test_timings_are_medians_with_quartiles() -> None:
    timing = timed(lambda: sum(range(1000)), torch.device("cpu"), repeats=9)
    assert 0 < timing.low <= timing.median <= timing.high
    assert timing.repeats == 9
    assert (
        network_timing(ToySpace(), SIZES[4][1], ToySpace().derive(strengths(ToySpace(), 0)), torch.device("cpu")).median
        > 0
    )


def test_activation_memory_is_what_the_backward_pass_keeps() -> None:
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, padding=1, bias=False), torch.nn.ReLU())
    images = torch.rand(2, 3, 8, 8)
    # the images, for the convolution, and the ReLU's output; the weights are not counted
    assert activation_bytes(network, images) == 4 * (2 * 3 * 64 + 2 * 4 * 64)
    assert activation_bytes(network, images[:1].clone()) == 4 * (3 * 64 + 4 * 64)
