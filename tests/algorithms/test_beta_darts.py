"""beta-DARTS: the penalty that grows, and what it does to alpha."""

from dataclasses import replace

import pytest
import torch

from cdarts.algorithms.beta_darts import BetaDartsConfig
from cdarts.algorithms.beta_darts_search import BetaDartsSearch
from cdarts.data import ImageData, load
from cdarts.engine.optimizers import Adam
from cdarts.errors import ConfigurationError
from cdarts.spaces import NasBench201Space, ToySpace

CPU = torch.device("cpu")
TOY = BetaDartsConfig(space=ToySpace(), channels=4, cells=3, batch_size=32, epochs=4)


@pytest.fixture(scope="module")
def synthetic() -> ImageData:
    return load("synthetic")


def build(config: BetaDartsConfig, data: ImageData, seed: int = 0) -> BetaDartsSearch:
    return config.build(data, seed=seed, device=CPU, execution="share")


def walk(task: BetaDartsSearch) -> list[float]:
    """Search to the end; the mean penalty of each epoch."""
    penalties = []
    for index, epoch in enumerate(task.plan()):
        task.start_epoch(index, epoch)
        losses = [task.step(position, *batch)["beta_decay"] for position, batch in enumerate(task.batches(index))]
        penalties.append(float(torch.stack(losses).mean()))
    return penalties


def test_the_penalty_is_the_mean_log_sum_exp_times_a_weight_that_rises_linearly(synthetic: ImageData) -> None:
    task = build(TOY, synthetic)
    alpha = task.relaxation.alpha["cell"]
    expected = sum(float(row.exp().sum().log()) for row in alpha.detach()) / len(alpha)
    for index, epoch in enumerate(task.plan()):
        task.start_epoch(index, epoch)
        assert float(task.regularisers()["beta_decay"].detach()) == pytest.approx(50 * index / 4 * expected, rel=1e-5)


def test_its_gradient_is_the_softmax(synthetic: ImageData) -> None:
    task = build(TOY, synthetic)
    task.start_epoch(2, task.plan()[2])
    alpha = task.relaxation.alpha["cell"]
    with torch.no_grad():
        alpha.copy_(torch.arange(9.0).reshape(3, 3).sin())
    (gradient,) = torch.autograd.grad(task.regularisers()["beta_decay"], [alpha])
    torch.testing.assert_close(gradient, 25.0 * torch.softmax(alpha.detach(), dim=1) / 3)


def test_alpha_ends_more_even_with_it_than_without(synthetic: ImageData) -> None:
    quick = replace(TOY, epochs=6, alpha=Adam(lr=0.1, weight_decay=0.0))
    spreads = []
    for config in (quick, replace(quick, decay_weight=0.0)):
        task = build(config, synthetic)
        walk(task)
        spreads.append(float(task.relaxation.alpha["cell"].detach().std(dim=1).mean()))
    assert spreads[0] < 0.6 * spreads[1]


def test_a_small_search_in_nasbench201(synthetic: ImageData) -> None:
    task = build(BetaDartsConfig(space=NasBench201Space(), channels=4, cells=3, batch_size=64, epochs=2), synthetic)
    penalties = walk(task)
    assert penalties[0] == 0.0
    assert penalties[1] > 0.0
    task.config.space.check(task.genotype())


def test_a_negative_weight_is_refused(synthetic: ImageData) -> None:
    with pytest.raises(ConfigurationError, match=r"^--decay-weight -1.0: must be at least 0 and finite$"):
        build(replace(TOY, decay_weight=-1.0), synthetic)
