"""SETN: weights never see alpha, alpha never moves weights, and candidates are drawn from alpha."""

from collections import Counter
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from cdarts.algorithms.setn import SetnConfig
from cdarts.algorithms.setn_search import SetnSearch
from cdarts.data import ImageData, load
from cdarts.engine.optimizers import Adam, Sgd
from cdarts.errors import ConfigurationError
from cdarts.spaces import DartsSpace, NasBench201Space, ToySpace

CONFIG = SetnConfig(space=ToySpace(), channels=4, cells=3, batch_size=32, epochs=2, candidates=5)


@pytest.fixture(scope="module")
def synthetic() -> ImageData:
    return load("synthetic")


def build(config: SetnConfig, data: ImageData) -> SetnSearch:
    return config.build(data, seed=0, device=torch.device("cpu"), execution="share")


def test_the_plan(synthetic: ImageData) -> None:
    task = build(replace(CONFIG, epochs=3, still_epochs=1), synthetic)
    assert [(epoch.phase, epoch.steps) for epoch in task.plan()] == [
        ("still", 4),
        ("search", 4),
        ("search", 4),
        ("select", 5),
    ]
    task.start_epoch(0, task.plan()[0])
    alpha = task.relaxation.alpha["cell"].detach().clone()
    for position, batch in enumerate(task.batches(0)):
        assert task.step(position, *batch).keys() == {"train_loss", "train_accuracy"}
    assert torch.equal(task.relaxation.alpha["cell"], alpha)


def test_the_weight_step_is_that_of_a_path_whatever_alpha_says(synthetic: ImageData) -> None:
    one, other = build(CONFIG, synthetic), build(CONFIG, synthetic)
    with torch.no_grad():
        other.relaxation.alpha["cell"].mul_(1000.0)
    for task in (one, other):
        task.start_epoch(0, task.plan()[0])
        train, _ = next(task.batches(0))
        alpha = task.relaxation.alpha["cell"].detach().clone()
        task.weight_step(0, train)
        assert torch.equal(task.relaxation.alpha["cell"], alpha)
    for name, weight in one.search_net.state_dict().items():
        assert torch.equal(weight, other.search_net.state_dict()[name]), name


def test_the_architecture_step_is_darts_first_order_one(synthetic: ImageData) -> None:
    task = build(replace(CONFIG, alpha=Adam(lr=0.01, betas=(0.5, 0.999), weight_decay=1e-3)), synthetic)
    task.start_epoch(0, task.plan()[0])
    _, val = next(task.batches(0))
    before = {name: weight.detach().clone() for name, weight in task.search_net.named_parameters()}
    alpha = task.relaxation.alpha["cell"].detach().clone().requires_grad_()
    logits = task.search_net(val.images, {"cell": torch.softmax(alpha, dim=1)}).logits
    (alpha.grad,) = torch.autograd.grad(F.cross_entropy(logits, val.labels), alpha)
    torch.optim.Adam([alpha], lr=0.01, betas=(0.5, 0.999), weight_decay=1e-3).step()
    task.architecture_step(val)
    assert torch.allclose(task.relaxation.alpha["cell"], alpha, atol=1e-6)
    assert all(torch.equal(weight, before[name]) for name, weight in task.search_net.named_parameters())


def test_candidates_are_drawn_with_the_probabilities_of_alpha(synthetic: ImageData) -> None:
    task = build(replace(CONFIG, space=NasBench201Space()), synthetic)
    probabilities = torch.tensor([0.1, 0.2, 0.05, 0.6, 0.05])
    with torch.no_grad():
        task.relaxation.alpha["cell"].copy_(probabilities.log().expand(6, 5) + 3.0)
    counts = Counter(name for number in range(500) for name in task.sample(number).operations())
    for name, probability in zip(NasBench201Space.operations, probabilities.tolist(), strict=True):
        # 3,000 edges: four standard errors of the largest are 0.036
        assert counts[name] / 3000 == pytest.approx(probability, abs=0.036)


def test_in_the_darts_space_edges_that_are_likely_none_are_drawn_less(synthetic: ImageData) -> None:
    task = build(replace(CONFIG, space=DartsSpace()), synthetic)
    with torch.no_grad():
        for alpha in task.relaxation.alpha.values():
            alpha.zero_()
            # the edges into the last node, two of five: none with probability 0.93 instead of 0.125
            alpha[9:11, DartsSpace.operations.index("none")] = 4.5
    kept: Counter[int] = Counter()
    for number in range(150):
        genotype = task.sample(number)
        DartsSpace().check(genotype)
        kept.update(choice.edge.source for choice in genotype.cells["normal"] if choice.edge.target == 5)
    assert sum(kept.values()) == 300
    assert kept[0] + kept[1] < 60, "120 if edges were even"


def test_a_decided_alpha_leaves_one_candidate(synthetic: ImageData) -> None:
    task = build(CONFIG, synthetic)
    with torch.no_grad():
        task.relaxation.alpha["cell"][:, 2] = 100.0
    index = len(task.plan()) - 1
    task.start_epoch(index, task.plan()[index])
    assert [genotype.operations() for genotype in task.candidates] == [["nor_conv_3x3"] * 3]
    for position, batch in enumerate(task.batches(index)):
        task.step(position, *batch)
    task.end_epoch(index, {})
    assert len(task.scores) == 1
    assert task.genotype().operations() == ["nor_conv_3x3"] * 3


def test_impossible_settings_are_refused_in_the_users_words(synthetic: ImageData) -> None:
    with pytest.raises(ConfigurationError, match=r"^--still-epochs 2: must be at most 1$"):
        replace(CONFIG, still_epochs=2).check(synthetic)
    with pytest.raises(ConfigurationError, match=r"^--alpha\.lr 0\.0: "):
        replace(CONFIG, alpha=Adam(lr=0.0)).check(synthetic)


def test_a_small_search_runs(synthetic: ImageData) -> None:
    config = replace(
        CONFIG, channels=8, batch_size=16, epochs=8, candidates=12, weights=Sgd(lr=0.1, lr_end=0.0), alpha=Adam(lr=0.02)
    )
    task = build(config, synthetic)
    entropies = []
    for index, epoch in enumerate(task.plan()):
        task.start_epoch(index, epoch)
        for position, batch in enumerate(task.batches(index)):
            task.step(position, *batch)
        record = task.end_epoch(index, {})
        entropies.append(record["genotypes"]["entropy"])
    assert record["metrics"]["best_score"] > 0.8, "chance is 0.25"
    assert entropies[-1] < entropies[0]
    assert task.genotype() in task.scores
