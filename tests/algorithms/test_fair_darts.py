"""FairDARTS: operations that do not compete, and a loss that decides them."""

from dataclasses import replace

import pytest
import torch

from cdarts.algorithms.fair_darts import FairDartsConfig
from cdarts.algorithms.fair_darts_search import FairDartsSearch
from cdarts.data import ImageData, load
from cdarts.engine.optimizers import Adam
from cdarts.errors import ConfigurationError
from cdarts.spaces import AnySpace, DartsSpace, NasBench201Space, ToySpace

CPU = torch.device("cpu")
TOY = FairDartsConfig(space=ToySpace(), channels=4, cells=3, batch_size=32, epochs=3)


@pytest.fixture(scope="module")
def synthetic() -> ImageData:
    return load("synthetic")


def build(config: FairDartsConfig, data: ImageData, seed: int = 0) -> FairDartsSearch:
    return config.build(data, seed=seed, device=CPU, execution="share")


def walk(task: FairDartsSearch) -> None:
    for index, epoch in enumerate(task.plan()):
        task.start_epoch(index, epoch)
        for position, batch in enumerate(task.batches(index)):
            assert all(torch.isfinite(loss) for loss in task.step(position, *batch).values())


def test_a_logit_moves_its_own_operation_alone(synthetic: ImageData) -> None:
    relaxation = build(replace(TOY, space=DartsSpace()), synthetic).relaxation
    before = relaxation()["normal"].detach()
    with torch.no_grad():
        relaxation.alpha["normal"][3, 4] = 2.0
    after = relaxation()["normal"].detach()
    changed = (before != after).nonzero().tolist()
    assert changed == [[3, 4]]
    assert float(after[3, 4]) == pytest.approx(1 / (1 + 2.718281828459045**-2))


def test_it_begins_with_one_half_for_all_but_none(synthetic: ImageData) -> None:
    task = build(replace(TOY, space=NasBench201Space()), synthetic)
    none = task.config.space.operations.index("none")
    weights = task.relaxation()["cell"].detach()
    expected = torch.full((6, 5), 0.5)
    expected[:, none] = 0.0
    assert torch.equal(weights, expected)


def test_the_zero_one_loss_is_the_mean_square_over_both_cells(synthetic: ImageData) -> None:
    task = build(replace(TOY, space=DartsSpace()), synthetic)
    with torch.no_grad():
        for alpha in task.relaxation.alpha.values():
            alpha.copy_(torch.linspace(-3, 4, alpha.numel()).reshape(alpha.shape))
    squares = [
        (float(value.sigmoid()) - 0.5) ** 2
        for alpha in task.relaxation.alpha.values()
        for row in alpha.detach()
        for name, value in zip(task.config.space.operations, row, strict=True)
        if name != "none"
    ]
    assert len(squares) == 2 * 14 * 7
    assert float(task.regularisers()["zero_one"].detach()) == pytest.approx(-10 * sum(squares) / len(squares), rel=1e-5)


def test_the_loss_drives_sigmoids_apart(synthetic: ImageData) -> None:
    quick = replace(TOY, epochs=6, alpha=Adam(lr=0.1, betas=(0.9, 0.999), weight_decay=0.0))
    distances = []
    for config in (quick, replace(quick, zero_one_weight=0.0)):
        task = build(config, synthetic)
        walk(task)
        weights = task.relaxation()["cell"].detach()[:, task.relaxation.candidates]
        distances.append(float((weights - 0.5).abs().mean()))
    assert distances[0] > 1.2 * distances[1]


def test_an_edge_below_the_threshold_becomes_none_where_that_is_allowed(synthetic: ImageData) -> None:
    task = build(TOY, synthetic)
    operations = task.config.space.operations
    with torch.no_grad():
        alpha = task.relaxation.alpha["cell"]
        alpha[0, operations.index("nor_conv_3x3")] = 1.7  # sigmoid 0.846
        alpha[1, operations.index("nor_conv_3x3")] = 1.8  # sigmoid 0.858
        alpha[2, operations.index("skip_connect")] = 3.0
        alpha[:, operations.index("none")] = 9.0
    assert [choice.operation for choice in task.genotype().cells["cell"]] == ["none", "nor_conv_3x3", "skip_connect"]


@pytest.mark.parametrize("space", [NasBench201Space(), DartsSpace()], ids=["nasbench201", "darts"])
def test_a_small_search(space: AnySpace, synthetic: ImageData) -> None:
    task = build(replace(TOY, space=space, batch_size=64, epochs=2), synthetic)
    walk(task)
    space.check(task.genotype())
    none = space.operations.index("none")
    assert all(float(alpha.detach()[:, none].abs().max()) == 0 for alpha in task.relaxation.alpha.values())


@pytest.mark.parametrize("threshold", [-0.1, 1.5, float("nan")])
def test_an_impossible_threshold_is_refused(threshold: float, synthetic: ImageData) -> None:
    with pytest.raises(ConfigurationError, match=r"^--threshold .*: must lie between 0 and 1$"):
        build(replace(TOY, threshold=threshold), synthetic)
