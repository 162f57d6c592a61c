"""SNAS: a concrete draw mixes all operations; one loss teaches weights and alpha."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from cdarts.algorithms.gumbel import Concrete
from cdarts.algorithms.snas import SnasConfig
from cdarts.algorithms.snas_search import SnasSearch
from cdarts.data import ImageData, load
from cdarts.engine.optimizers import Adam, Sgd
from cdarts.randomness import generator
from cdarts.spaces import NasBench201Space, ToySpace


@pytest.fixture(scope="module")
def synthetic() -> ImageData:
    return load("synthetic")


CONFIG = SnasConfig(space=ToySpace(), channels=4, cells=3, batch_size=32, epochs=4)


def build(config: SnasConfig, data: ImageData) -> SnasSearch:
    return config.build(data, seed=0, device=torch.device("cpu"), execution="share")


def test_a_draw_is_a_distribution_over_every_edges_operations() -> None:
    relaxation = Concrete(NasBench201Space().supernet(), generator(0, "alpha"))
    weights = relaxation(generator(0, "draw"))["cell"]
    assert weights.shape == (6, 5)
    assert torch.allclose(weights.sum(dim=1), torch.ones(6))
    assert (weights > 0).all()
    assert torch.equal(weights, relaxation(generator(0, "draw"))["cell"])
    assert not torch.equal(weights, relaxation(generator(1, "draw"))["cell"])


def test_a_cold_draw_is_one_operation_with_the_probabilities_of_alpha() -> None:
    relaxation = Concrete(ToySpace().supernet(), generator(0, "alpha"))
    relaxation.temperature = 0.001
    probabilities = torch.tensor([0.6, 0.1, 0.3])
    with torch.no_grad():
        relaxation.alpha["cell"].copy_(probabilities.log().expand(3, 3))
    draw = generator(0, "draws")
    draws = torch.stack([relaxation(draw)["cell"].detach() for _ in range(1500)])
    assert (draws.max(dim=2).values > 0.99).double().mean() > 0.98
    # 4,500 rows: three standard errors are 0.022
    assert torch.allclose(draws.mean(dim=(0, 1)), probabilities, atol=0.022)


def test_one_step_is_the_gradient_of_one_loss_for_weights_and_alpha(synthetic: ImageData) -> None:
    plain = Sgd(lr=0.1, momentum=0.0, weight_decay=0.0, clip_norm=None)
    config = replace(CONFIG, weights=plain, alpha=Adam(lr=0.01))
    task, hand = build(config, synthetic), build(config, synthetic)
    for search in (task, hand):
        search.start_epoch(1, search.plan()[1])
    (batch,) = next(task.batches(1))

    parameters = dict(hand.search_net.named_parameters())
    mixing = hand.relaxation(hand.draw("weights", 0))
    loss = F.cross_entropy(hand.search_net(batch.images, mixing).logits, batch.labels)
    alpha = hand.relaxation.alpha["cell"]
    *gradients, alpha_gradient = torch.autograd.grad(loss, [*parameters.values(), alpha])
    adam = torch.optim.Adam([alpha], lr=0.01, betas=(0.5, 0.999))
    alpha.grad = alpha_gradient
    adam.step()
    with torch.no_grad():
        for weight, gradient in zip(parameters.values(), gradients, strict=True):
            weight -= 0.1 * hand.config.weights.lr_at(hand.progress) / 0.1 * gradient

    losses = task.step(0, batch)
    assert losses["train_loss"].item() == pytest.approx(loss.item())
    assert torch.allclose(task.relaxation.alpha["cell"], alpha, atol=1e-6)
    for name, weight in task.search_net.named_parameters():
        assert torch.allclose(weight, parameters[name], atol=1e-5), name


def test_alpha_stands_still_in_still_epochs(synthetic: ImageData) -> None:
    task = build(replace(CONFIG, still_epochs=2), synthetic)
    assert [epoch.phase for epoch in task.plan()] == ["still", "still", "search", "search"]
    alpha = task.relaxation.alpha["cell"].detach().clone()
    moved = []
    for index, epoch in enumerate(task.plan()):
        task.start_epoch(index, epoch)
        task.step(0, *next(task.batches(index)))
        moved.append(not torch.equal(task.relaxation.alpha["cell"], alpha))
    assert moved == [False, False, True, True]


def test_two_epochs_see_every_training_image_once(synthetic: ImageData) -> None:
    """Single level: there is no half that alpha alone learns from."""
    task = build(CONFIG, synthetic)
    labels, pixels = [], []
    task.train.augmentation = task.val.augmentation = type(task.train.augmentation)()
    for index, epoch in enumerate(task.plan()[:2]):
        task.start_epoch(index, epoch)
        batches = list(task.batches(index))
        assert len(batches) == epoch.steps
        labels += [batch.labels for (batch,) in batches]
        pixels += [batch.images for (batch,) in batches]
    assert len(torch.cat(labels)) == len(synthetic.train)
    assert len(torch.cat(pixels).flatten(1).unique(dim=0)) == len(synthetic.train)


def test_the_temperature_goes_from_one_down(synthetic: ImageData) -> None:
    task = build(CONFIG, synthetic)
    temperatures = []
    for index, epoch in enumerate(task.plan()):
        task.start_epoch(index, epoch)
        temperatures.append(task.relaxation.temperature)
    assert temperatures == pytest.approx([1.0, 0.677, 0.353, 0.03], abs=1e-3)


def test_a_small_search_learns_the_images(synthetic: ImageData) -> None:
    config = replace(CONFIG, channels=8, epochs=10, weights=Sgd(lr=0.1, lr_end=0.0), alpha=Adam(lr=0.02))
    task = build(config, synthetic)
    for index, epoch in enumerate(task.plan()):
        task.start_epoch(index, epoch)
        accuracies = [
            task.step(position, *batch)["train_accuracy"] for position, batch in enumerate(task.batches(index))
        ]
    assert torch.stack(accuracies).mean() > 0.8, "chance is 0.25"
    config.space.check(task.genotype())
