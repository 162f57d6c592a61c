"""DrNAS: mixtures that are drawn, their mean, their gradient and the divergence that holds them."""

import math
from dataclasses import replace

import pytest
import torch

from cdarts.algorithms.drnas import DrnasConfig
from cdarts.algorithms.drnas_search import DirichletMixture, DrnasSearch
from cdarts.data import ImageData, load
from cdarts.randomness import generator
from cdarts.spaces import AnySpace, DartsSpace, NasBench201Space, ToySpace

CPU = torch.device("cpu")
TOY = DrnasConfig(space=ToySpace(), channels=4, cells=3, batch_size=32, epochs=3, still_epochs=1)


@pytest.fixture(scope="module")
def synthetic() -> ImageData:
    return load("synthetic")


def build(config: DrnasConfig, data: ImageData, seed: int = 0) -> DrnasSearch:
    return config.build(data, seed=seed, device=CPU, execution="share")


def walk(task: DrnasSearch) -> None:
    for index, epoch in enumerate(task.plan()):
        task.start_epoch(index, epoch)
        for position, batch in enumerate(task.batches(index)):
            assert all(torch.isfinite(loss) for loss in task.step(position, *batch).values())


def mixture(alpha: list[list[float]]) -> DirichletMixture:
    """Of a toy cell's three edges."""
    relaxation = DirichletMixture(ToySpace().supernet(), generator(0, "alpha"))
    with torch.no_grad():
        relaxation.alpha["cell"].copy_(torch.tensor(alpha))
    return relaxation


SOME = [[0.0, 0.0, 0.0], [1.5, -0.5, 0.2], [-1.0, 2.0, -2.0]]


def test_many_draws_have_the_distributions_mean_and_variance() -> None:
    relaxation = mixture(SOME)
    draw = generator(0, "draws")
    count = 10_000
    with torch.no_grad():
        draws = torch.stack([relaxation(draw)["cell"] for _ in range(count)]).double()
    concentrations = [[value + 1 if value > 0 else math.exp(value) for value in row] for row in SOME]
    for edge, row in enumerate(concentrations):
        total = sum(row)
        for column, concentration in enumerate(row):
            mean = concentration / total
            variance = mean * (1 - mean) / (total + 1)
            samples = draws[:, edge, column]
            assert float(samples.mean()) == pytest.approx(mean, abs=4 * math.sqrt(variance / count))
            assert float(samples.var()) == pytest.approx(variance, rel=0.1)
            assert relaxation.strengths()["cell"][edge][column] == pytest.approx(mean, rel=1e-6)


def test_every_draw_is_a_mixture_and_a_function_of_its_key() -> None:
    relaxation = mixture(SOME)
    before = torch.random.get_rng_state()
    first, again, other = (relaxation(generator(0, "step", step))["cell"].detach() for step in (1, 1, 2))
    assert torch.equal(before, torch.random.get_rng_state())
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    torch.testing.assert_close(first.sum(dim=1), torch.ones(3))
    assert (first >= 0).all()


def test_the_mean_gradient_of_draws_is_the_gradient_of_the_mean() -> None:
    """Pathwise gradients are unbiased: of E[sum of t * w] with respect to alpha."""
    relaxation = mixture(SOME)
    alpha = relaxation.alpha["cell"]
    target = torch.tensor([[1.0, -2.0, 0.5], [0.3, 1.0, -1.0], [2.0, 0.0, 1.0]])
    draw = generator(0, "draws")
    gradients = []
    for _ in range(4000):
        gradients += torch.autograd.grad((target * relaxation(draw)["cell"]).sum(), [alpha])
    found = torch.stack(gradients).double()
    (expected,) = torch.autograd.grad((target * relaxation.expected(alpha)).sum(), [alpha])
    errors = (found.mean(dim=0) - expected) / (found.std(dim=0) / math.sqrt(len(gradients)))
    assert float(errors.abs().max()) < 4.0


def test_the_divergence_is_zero_at_the_start_and_as_integrated() -> None:
    assert float(mixture([[0.0] * 3] * 3).divergence().detach()) == pytest.approx(0.0, abs=1e-6)
    relaxation = mixture(SOME)
    with torch.no_grad():
        draw = generator(0, "draws")
        concentrations = relaxation.concentrations(relaxation.alpha["cell"]).double()
        draws = torch.stack([relaxation(draw)["cell"].double() for _ in range(20_000)])
    # log density of Dirichlet(c) minus that of Dirichlet(1), whose density is 2 on three operations
    log_ratio = (
        torch.lgamma(concentrations.sum(dim=1))
        - torch.lgamma(concentrations).sum(dim=1)
        + ((concentrations - 1) * draws.clamp(min=1e-38).log()).sum(dim=2)
        - math.log(2)
    ).sum(dim=1)
    error = float(log_ratio.std()) / math.sqrt(len(log_ratio))
    assert float(relaxation.divergence().detach()) == pytest.approx(float(log_ratio.mean()), abs=4 * error)


def test_the_divergence_is_a_term_of_the_loss_if_asked_for(synthetic: ImageData) -> None:
    assert build(TOY, synthetic).regularisers() == {}
    task = build(replace(TOY, kl_weight=0.5), synthetic)
    with torch.no_grad():
        task.relaxation.alpha["cell"].copy_(torch.tensor(SOME))
    term = task.regularisers()["divergence"]
    assert float(term.detach()) == pytest.approx(0.5 * float(mixture(SOME).divergence().detach()))


@pytest.mark.parametrize("low", [-8.0, -20.0])
def test_an_operation_all_but_excluded_leaves_everything_finite(low: float) -> None:
    relaxation = mixture([[low, low, low], [low, 0.0, low], [0.0, 0.0, low]])
    draw = generator(0, "draws")
    for _ in range(200):
        weights = relaxation(draw)["cell"]
        (gradient,) = torch.autograd.grad((weights * torch.arange(3.0)).sum(), [relaxation.alpha["cell"]])
        assert torch.isfinite(weights).all()
        assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("space", [NasBench201Space(), DartsSpace()], ids=["nasbench201", "darts"])
def test_a_small_search(space: AnySpace, synthetic: ImageData) -> None:
    task = build(replace(TOY, space=space, batch_size=64, epochs=2, kl_weight=1e-3), synthetic)
    walk(task)
    space.check(task.genotype())
    record = task.end_epoch(1, {})["genotypes"]
    assert all(sum(row) == pytest.approx(1.0) for rows in record["strengths"].values() for row in rows)


def test_both_steps_draw_and_each_by_its_own_key(synthetic: ImageData) -> None:
    task = build(TOY, synthetic)
    task.start_epoch(1, task.plan()[1])
    keys = []
    task.relaxation.register_forward_pre_hook(lambda _, arguments: keys.append(arguments[0].initial_seed()))
    for position, batch in zip(range(2), task.batches(1), strict=False):
        task.step(position, *batch)
    assert len(keys) == len(set(keys)) == 4
