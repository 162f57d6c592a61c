"""P-DARTS: three stages, each with fewer operations; skip connections dropped out and restricted."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from cdarts.algorithms.config import Protocol
from cdarts.algorithms.p_darts import PDartsConfig
from cdarts.algorithms.p_darts_search import DroppedIdentity, PDartsSearch, SkipDropout, dropout_at
from cdarts.data import ImageData, load
from cdarts.engine import checkpoint
from cdarts.engine.optimizers import Adam, Sgd
from cdarts.errors import ConfigurationError
from cdarts.operations import FactorizedReduce, Identity
from cdarts.randomness import generator
from cdarts.spaces import AnySpace, DartsSpace, NasBench201Space, ToySpace

CPU = torch.device("cpu")
SMALL = PDartsConfig(
    space=NasBench201Space(),
    channels=2,
    cells=3,
    added_cells=(0, 1, 2),
    batch_size=64,
    epochs=6,
    still_epochs=1,
    alpha=Adam(lr=0.05, clip_norm=5.0),
)
KEPT = {"darts": (8, 5, 3), "nasbench201": (5, 3, 2), "toy": (3, 2, 2)}
SPACES: dict[str, AnySpace] = {"darts": DartsSpace(), "nasbench201": NasBench201Space(), "toy": ToySpace()}
spaces = pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)


@pytest.fixture(scope="module")
def synthetic() -> ImageData:
    return load("synthetic")


def build(config: PDartsConfig, data: ImageData, seed: int = 0) -> PDartsSearch:
    return config.build(data, seed=seed, device=CPU, execution="share")


def walk(task: PDartsSearch, start: int = 0, stop: int | None = None) -> None:
    for index, epoch in list(enumerate(task.plan()))[start:stop]:
        task.start_epoch(index, epoch)
        for position, batch in enumerate(task.batches(index)):
            assert all(torch.isfinite(loss) for loss in task.step(position, *batch).values())


def flat(value: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    match value:
        case Mapping():
            for name, item in value.items():
                yield from flat(item, f"{place}/{name}")
        case list() | tuple():
            for index, item in enumerate(value):
                yield from flat(item, f"{place}/{index}")
        case _:
            yield place, value


def assert_same_state(one: PDartsSearch, other: PDartsSearch) -> None:
    first, second = dict(flat(one.state())), dict(flat(other.state()))
    assert first.keys() == second.keys()
    for place, value in first.items():
        same = torch.equal(value, second[place]) if isinstance(value, Tensor) else value == second[place]
        assert same, place


# -- stages ------------------------------------------------------------------------------------------------------------


@spaces
def test_each_stage_keeps_the_strongest_operations_of_every_edge(space: AnySpace, synthetic: ImageData) -> None:
    task = build(replace(SMALL, space=space), synthetic)
    counts = [{len(names) for cell in task.topology.values() for _, names in cell.edges}]
    for stage in (1, 2):
        with torch.no_grad():
            for kind, alpha in task.relaxation.alpha.items():
                alpha.copy_(torch.randn(alpha.shape, generator=generator(stage, kind)))
        before, strengths = task.topology, task.relaxation.strengths()
        task.open_stage(stage)
        for kind, cell in task.topology.items():
            for position, (edge, names) in enumerate(cell.edges):
                assert edge == before[kind].edges[position][0]
                had = dict(zip(space.operations, strengths[kind][position], strict=True))
                dropped = set(before[kind].edges[position][1]) - set(names)
                assert set(names) <= set(before[kind].edges[position][1])
                assert not dropped or max(had[name] for name in dropped) < min(had[name] for name in names)
                assert list(names) == [name for name in space.operations if name in names]
        counts.append({len(names) for cell in task.topology.values() for _, names in cell.edges})
        assert all(alpha.shape[1] == KEPT[space.name][stage] for alpha in task.relaxation.alpha.values())
    assert counts == [{count} for count in KEPT[space.name]]


def test_the_network_has_what_is_left_and_grows(synthetic: ImageData) -> None:
    task = build(replace(SMALL, space=DartsSpace(), channels=4), synthetic)
    for stage, cells in enumerate((3, 4, 5)):
        if stage:
            task.open_stage(stage)
        assert len(task.search_net.layout) == cells
        for slot in task.search_net.layout:
            assert slot.kind is not None
            for edge, names in task.topology[slot.kind].edges:
                assert list(task.search_net.get_submodule(f"{slot.name}.edges.{edge}")) == list(names)


def test_dropped_operations_have_no_strength(synthetic: ImageData) -> None:
    task = build(SMALL, synthetic)
    task.open_stage(1)
    for (_, names), row in zip(task.topology["cell"].edges, task.relaxation.strengths()["cell"], strict=True):
        assert len(row) == 5
        assert {name for name, value in zip(task.config.space.operations, row, strict=True) if value} == set(names)
        assert sum(row) == pytest.approx(1.0)


def test_the_plan_shares_the_epochs_and_alpha_stands_still_at_each_stages_beginning(synthetic: ImageData) -> None:
    phases = [epoch.phase for epoch in build(PDartsConfig(cells=3, added_cells=(0, 0, 0)), synthetic).plan()]
    assert phases == [
        f"{phase} {stage}"
        for stage in (1, 2, 3)
        for phase, count in (("still", 10), ("search", 15))
        for _ in range(count)
    ]
    uneven = build(replace(SMALL, epochs=8), synthetic)
    assert len(uneven.plan()) == 8
    assert [uneven.extent(stage) for stage in range(3)] == [(0, 3), (3, 3), (6, 2)]
    task = build(SMALL, synthetic)
    for index, epoch in enumerate(task.plan()):
        task.start_epoch(index, epoch)
        before = task.relaxation.alpha["cell"].detach().clone()
        for position, batch in enumerate(task.batches(index)):
            task.step(position, *batch)
        assert torch.equal(task.relaxation.alpha["cell"], before) == epoch.phase.startswith("still")
        assert task.stage == index // 2
        assert task.end_epoch(index, {})["metrics"]["stage"] == index // 2 + 1


def test_the_learning_rate_falls_in_each_stage(synthetic: ImageData) -> None:
    task = build(replace(SMALL, weights=Sgd(lr=1.0, lr_end=0.0)), synthetic)
    rates = []
    for index, epoch in enumerate(task.plan()):
        task.start_epoch(index, epoch)
        rates.append(task.weight_optimizer.optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([1.0, 0.5] * 3)


@pytest.mark.parametrize("cut", range(1, 6))
def test_resumed_is_uninterrupted(cut: int, synthetic: ImageData, tmp_path: Path) -> None:
    """The state after each epoch holds the stage, what its edges have, and all else that later steps depend on."""
    whole, first, second = (build(SMALL, synthetic) for _ in range(3))
    walk(whole)
    walk(first, 0, cut)
    checkpoint.save(tmp_path / "state", first.state())
    second.load_state(checkpoint.load(tmp_path / "state"))
    assert second.genotype() == first.genotype()
    walk(second, cut)
    assert_same_state(whole, second)


# -- skip connections --------------------------------------------------------------------------------------------------


def skips(task: PDartsSearch) -> list[str]:
    return [c.operation for c in task.genotype().cells["normal"] if c.operation == "skip_connect"]


@pytest.mark.parametrize("most", [0, 1, 2, 8])
def test_the_weakest_skips_are_struck_out_of_the_normal_cell(most: int, synthetic: ImageData) -> None:
    task = build(replace(SMALL, space=DartsSpace(), max_skips=most), synthetic)
    space = task.config.space
    skip, sep = space.operations.index("skip_connect"), space.operations.index("sep_conv_3x3")
    with torch.no_grad():
        for alpha in task.relaxation.alpha.values():
            alpha.zero_()
            alpha[:, skip] = torch.linspace(3.0, 4.0, len(alpha))
            alpha[:, sep] = 1.0
    free = space.derive(task.relaxation.strengths())
    assert [choice.operation for choice in free.cells["normal"]] == ["skip_connect"] * 8
    genotype = task.genotype()
    space.check(genotype)
    assert genotype.cells["reduce"] == free.cells["reduce"]
    assert len(skips(task)) == most
    # strengths rise along the edges, so the last ones are left; edges that lost theirs go to the next best operation
    left = [str(choice.edge) for choice in genotype.cells["normal"] if choice.operation == "skip_connect"]
    strongest = [str(choice.edge) for choice in free.cells["normal"]]
    assert left == strongest[8 - most :]
    assert {choice.operation for choice in genotype.cells["normal"]} <= {"skip_connect", "sep_conv_3x3"}


def test_three_operations_are_enough_to_restrict(synthetic: ImageData) -> None:
    """The last stage may leave an edge with none, a skip and one more."""
    task = build(replace(SMALL, space=DartsSpace(), kept=(1.0, 0.1, 0.1), max_skips=0), synthetic)
    space = task.config.space
    with torch.no_grad():
        for alpha in task.relaxation.alpha.values():
            alpha.zero_()
            for value, name in ((3.0, "none"), (2.0, "skip_connect"), (1.0, "dil_conv_5x5")):
                alpha[:, space.operations.index(name)] = value
    task.open_stage(2)
    assert {names for _, names in task.topology["normal"].edges} == {("skip_connect", "dil_conv_5x5", "none")}
    assert {choice.operation for choice in task.genotype().cells["normal"]} == {"dil_conv_5x5"}


def test_dropout_is_as_published_in_a_stage_of_25_epochs() -> None:
    rates = [dropout_at(0.4, epoch, 10, 25) for epoch in range(25)]
    assert rates[:10] == pytest.approx([0.4 * (24 - epoch) / 25 for epoch in range(10)])
    assert rates[10:] == pytest.approx([0.4 * math.exp(-0.2 * epoch) for epoch in range(15)])


def test_each_stage_has_its_own_dropout_and_it_falls(synthetic: ImageData) -> None:
    task = build(replace(SMALL, epochs=12), synthetic)
    rates: list[list[float]] = [[], [], []]
    for index, epoch in enumerate(task.plan()):
        task.start_epoch(index, epoch)
        rates[task.stage].append(task.skip_dropout.rate)
    assert rates[0] == [0.0] * 4
    assert rates[1][0] == pytest.approx(0.3)  # 0.4 * 3 / 4
    assert rates[1][1] == pytest.approx(0.4)
    assert rates[1][1] > rates[1][2] > rates[1][3] > 0
    assert [b / a for a, b in zip(rates[1], rates[2], strict=True)] == pytest.approx([1.75] * 4)


def test_dropout_stands_behind_every_skip_of_stride_1_and_nothing_else(synthetic: ImageData) -> None:
    task = build(replace(SMALL, space=DartsSpace(), channels=4), synthetic)
    found = [type(module) for module in task.search_net.modules()]
    stride_2 = sum(slot.stride == 2 for slot in task.search_net.layout) * 8
    assert Identity not in found
    assert found.count(DroppedIdentity) == len(task.search_net.layout) * 14 - stride_2
    skip_reductions = [
        name
        for name, module in task.search_net.named_modules()
        if isinstance(module, FactorizedReduce) and name.endswith("skip_connect")
    ]
    assert len(skip_reductions) == stride_2


def test_dropout_drops_that_share_and_keeps_the_mean() -> None:
    dropout = SkipDropout()
    x = torch.ones(50, 4, 10, 10)
    assert dropout(x) is x
    dropout.rate, dropout.generator = 0.7, generator(0, "dropout")
    y = dropout(x)
    assert float((y == 0).double().mean()) == pytest.approx(0.7, abs=0.02)
    assert torch.unique(y).tolist() == pytest.approx([0.0, 1 / 0.3])


def test_what_is_dropped_is_a_function_of_the_step(synthetic: ImageData) -> None:
    task = build(SMALL, synthetic)
    task.start_epoch(4, task.plan()[4])
    assert task.skip_dropout.rate > 0
    images = next(iter(task.train(4))).images
    before = torch.random.get_rng_state()
    first, again, other = (
        task.logits(images, task.draw("weights", step), learns_alpha=False).detach() for step in (0, 0, 1)
    )
    assert torch.equal(before, torch.random.get_rng_state())
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


# -- settings ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 2}, "--epochs 2: must be at least 3"),
        ({"still_epochs": 2}, "--still-epochs 2: 3 stages share 6 epochs, .* choose at most 1"),
        ({"still_epochs": -1}, "--still-epochs -1: must be at least 0"),
        ({"max_skips": -1}, "--max-skips -1: must be at least 0"),
        ({"added_cells": (0, -1, 2)}, "--added-cells 0 -1 2: none may be negative"),
        ({"kept": (1.0, 0.5, 0.6)}, "--kept 1.0 0.5 0.6: each must be above 0"),
        ({"kept": (1.0, 0.5, 0.0)}, "--kept 1.0 0.5 0.0: each must be above 0"),
        ({"skip_dropout": (0.0, 0.4, 1.0)}, "--skip-dropout 0.0 0.4 1.0: each must be at least 0 and below 1"),
    ],
)
def test_impossible_settings_are_refused(change: dict[str, Any], message: str, synthetic: ImageData) -> None:
    with pytest.raises(ConfigurationError, match=f"^{message}"):
        build(replace(SMALL, **change), synthetic)


@pytest.mark.parametrize(("epochs", "still", "expected"), [(24, 2, 2), (50, 0, 0), (5, 2, 0), (10, 5, 2)])
def test_under_a_protocol_the_stages_share_its_epochs(
    epochs: int, still: int, expected: int, synthetic: ImageData
) -> None:
    protocol = Protocol(
        data="synthetic",
        image_size=None,
        space=NasBench201Space(),
        channels=4,
        cells=6,
        batch_size=32,
        epochs=epochs,
        still_epochs=still,
        weights=Sgd(lr=0.1),
        alpha_rate=10.0,
    )
    config = PDartsConfig().under(protocol)
    task = build(config, synthetic)
    assert len(task.plan()) == epochs
    assert sum(epoch.phase.startswith("still") for epoch in task.plan()) == 3 * expected
    assert config.alpha.lr == pytest.approx(6e-3)
    for stage in (1, 2):
        task.open_stage(stage)
        assert sum(slot.kind is not None for slot in task.search_net.layout) == 6
