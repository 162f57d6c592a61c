"""Retraining as a task: what it trains on, how it learns, and what it remembers."""

from collections.abc import Callable
from dataclasses import replace
from itertools import chain, pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from cdarts import zoo
from cdarts.data import ImageData, Images, evaluation_batches, load
from cdarts.distillation import Embedding
from cdarts.errors import ConfigurationError, GenotypeError
from cdarts.execution import DropPath
from cdarts.randomness import generator
from cdarts.retraining import Retraining, size_rule
from cdarts.retraining.task import RetrainTask, evaluate
from cdarts.spaces import DartsSpace, ToySpace
from cdarts.topology import Choice, Edge, Genotype

CPU = torch.device("cpu")
TOY_CELL = Genotype(
    "toy",
    {
        "cell": (
            Choice(Edge(1, 0), "nor_conv_3x3"),
            Choice(Edge(2, 0), "skip_connect"),
            Choice(Edge(2, 1), "nor_conv_3x3"),
        )
    },
)
TOY = Retraining(
    space=ToySpace(),
    cells=3,
    channels=8,
    epochs=4,
    batch_size=64,
    lr=0.05,
    auxiliary_weight=0.0,
    cutout=0,
    drop_path=0.0,
)
DARTS = Retraining(cells=3, channels=4, epochs=4, batch_size=64, cutout=2)


@pytest.fixture(scope="module")
def digits() -> ImageData:
    return load("digits")


@pytest.fixture(scope="module")
def synthetic() -> ImageData:
    return load("synthetic")


def toy(data: ImageData, training: Retraining = TOY, seed: int = 0) -> RetrainTask:
    return training.build(TOY_CELL, data, seed=seed, device=CPU, execution="share")


def darts(data: ImageData, training: Retraining = DARTS, seed: int = 0) -> RetrainTask:
    return training.build(zoo.load("darts-v2"), data, seed=seed, device=CPU, execution="share")


def train(task: RetrainTask, epochs: range) -> list[dict[str, object]]:
    """As the loop does; returns the metrics of each epoch."""
    lines = []
    for index in epochs:
        task.start_epoch(index, task.plan()[index])
        losses: dict[str, list[float]] = {}
        for position, batch in enumerate(task.batches(index)):
            for name, loss in task.step(position, *batch).items():
                losses.setdefault(name, []).append(loss.item())
        lines.append(
            dict(task.end_epoch(index, {name: float(np.mean(values)) for name, values in losses.items()})["metrics"])
        )
    return lines


def weights(task: RetrainTask) -> dict[str, Tensor]:
    return {
        f"{name}.{key}": tensor.clone()
        for name, module in task._modules().items()
        for key, tensor in module.state_dict().items()
    }


def assert_equal(left: dict[str, Tensor], right: dict[str, Tensor]) -> None:
    assert left.keys() == right.keys()
    for name, tensor in left.items():
        assert torch.equal(tensor, right[name]), name


# -- behaviour ---------------------------------------------------------------------------------------------------------


def test_64_images_are_overfitted(synthetic: ImageData) -> None:
    few = replace(synthetic, train=synthetic.train.take(np.arange(64)))
    training = replace(TOY, epochs=30, batch_size=32, weight_decay=0.0)
    task = toy(few, training)
    train(task, range(training.epochs))
    scores = evaluate(task.network, evaluation_batches(few.train, few, 64, CPU))
    assert scores.accuracy == 1.0


def test_a_darts_network_learns_real_digits(digits: ImageData) -> None:
    some = replace(digits, train=digits.train.take(np.arange(640)))
    training = replace(DARTS, epochs=8, batch_size=32, lr=0.1, cutout=0)
    lines = train(darts(some, training), range(8))
    assert lines[-1]["test_accuracy"] > 0.7  # type: ignore[operator]
    assert lines[-1]["loss"] < 0.7 * lines[0]["loss"]  # type: ignore[operator]


# -- the recipe --------------------------------------------------------------------------------------------------------


def test_losses_leave_no_graph_behind(synthetic: ImageData) -> None:
    task = darts(synthetic)
    task.start_epoch(0, task.plan()[0])
    losses = task.step(0, *next(task.batches(0)))
    assert losses.keys() == {"loss", "auxiliary_loss", "accuracy"}
    for name, loss in losses.items():
        assert loss.grad_fn is None and not loss.requires_grad, name


def test_the_size_rule_fills_what_is_left_open(digits: ImageData) -> None:
    task = darts(digits)
    assert (task.config.weight_decay, task.config.drop_path) == size_rule(task.num_parameters())
    (group,) = task.optimizer.optimizer.param_groups
    assert group["weight_decay"] == 3e-4
    chosen = darts(digits, replace(DARTS, weight_decay=0.0, drop_path=0.0))
    assert (chosen.config.weight_decay, chosen.config.drop_path) == (0.0, 0.0)
    assert chosen.optimizer.optimizer.param_groups[0]["weight_decay"] == 0.0


def test_the_size_counts_the_network_alone(digits: ImageData) -> None:
    with_head, without = darts(digits), darts(digits, replace(DARTS, auxiliary_weight=0.0))
    assert with_head.auxiliary is not None and without.auxiliary is None
    assert (
        with_head.num_parameters() == without.num_parameters() == sum(p.numel() for p in without.network.parameters())
    )
    # the head is trained all the same
    names = set(with_head.optimizer.named)
    assert {name.split(".")[0] for name in names} == {"network", "auxiliary"}
    assert {name.split(".")[0] for name in without.optimizer.named} == {"network"}


def test_drop_path_ramps_up_linearly(digits: ImageData) -> None:
    task = darts(digits, replace(DARTS, epochs=600, drop_path=0.3))
    for index in (0, 1, 300, 599):
        task.start_epoch(index, task.plan()[index])
        assert task.drop_path == pytest.approx(0.3 * index / 600)


def test_drop_path_draws_by_epoch_and_step(digits: ImageData) -> None:
    task = darts(digits, replace(DARTS, drop_path=0.5))
    task.start_epoch(3, task.plan()[3])
    (batch,) = next(iter(task.batches(3)))
    images, labels = batch
    expected = []
    for step in (0, 1):
        draw = DropPath(0.5 * 3 / 4, generator(0, "drop_path", 3, step))
        with torch.no_grad():
            # statistics of BatchNorm move, but in training mode nothing depends on them
            expected.append(F.cross_entropy(task.network(images, drop_path=draw).logits, labels).item())
    assert expected[0] != expected[1]
    before = task.state()["modules"]["network"]
    saved = {name: tensor.clone() for name, tensor in before.items()}
    for step in (1, 0):
        task.network.load_state_dict(saved)
        assert task.step(step, batch)["loss"].item() == pytest.approx(expected[step], rel=1e-6)


def test_the_learning_rate_of_each_epoch_reaches_the_optimizer(digits: ImageData) -> None:
    task = darts(digits, replace(DARTS, epochs=10, warmup_epochs=2))
    for index in range(10):
        task.start_epoch(index, task.plan()[index])
        assert task.optimizer.optimizer.param_groups[0]["lr"] == task.config.lr_at(index)


def test_one_step_is_cross_entropy_with_smoothing_and_the_auxiliary_loss(digits: ImageData) -> None:
    training = replace(DARTS, label_smoothing=0.1, drop_path=0.0, clip_norm=None, momentum=0.0, weight_decay=0.0)
    ours, theirs = darts(digits, training), darts(digits, training)
    for task in (ours, theirs):
        task.start_epoch(0, task.plan()[0])
    batch = next(iter(ours.batches(0)))
    losses = ours.step(0, *batch)
    images, labels = batch[0]
    assert theirs.auxiliary is not None
    output = theirs.network(images)
    loss = F.cross_entropy(output.logits, labels, label_smoothing=0.1)
    auxiliary = F.cross_entropy(theirs.auxiliary(output.features[1]), labels, label_smoothing=0.1)
    (loss + 0.4 * auxiliary).backward()
    assert losses["loss"].item() == loss.item()
    assert losses["auxiliary_loss"].item() == auxiliary.item()
    assert losses["accuracy"].item() == (output.logits.argmax(1) == labels).double().mean().item()
    for name, parameter in theirs.optimizer.named.items():
        if parameter.grad is not None:
            stepped = parameter.detach() - 0.025 * parameter.grad
            torch.testing.assert_close(ours.optimizer.named[name].data, stepped, msg=name)


def test_the_auxiliary_head_of_each_stem(digits: ImageData) -> None:
    cifar = darts(digits).auxiliary
    imagenet = darts(load("digits", image_size=16), replace(DARTS, space=DartsSpace(stem_name="imagenet"))).auxiliary
    assert isinstance(cifar, Embedding) and isinstance(imagenet, Embedding)
    assert isinstance(cifar.expand_norm, torch.nn.BatchNorm2d)
    assert isinstance(imagenet.expand_norm, torch.nn.Identity)


def test_cutout_is_at_most_half_the_side(digits: ImageData) -> None:
    assert darts(digits, replace(DARTS, cutout=16)).train.augmentation.cutout == 4
    assert darts(digits, replace(DARTS, cutout=3)).train.augmentation.cutout == 3
    assert darts(digits).train.augmentation.crop_padding == digits.augmentation.crop_padding


def test_too_few_reductions_for_the_auxiliary_head(synthetic: ImageData) -> None:
    with pytest.raises(ConfigurationError, match=r"--cells 3: the auxiliary head .* --auxiliary-weight 0"):
        toy(synthetic, replace(TOY, auxiliary_weight=0.4))


def test_a_genotype_of_another_space(synthetic: ImageData) -> None:
    with pytest.raises(GenotypeError, match="belongs to space 'darts'"):
        TOY.build(zoo.load("darts-v2"), synthetic, seed=0, device=CPU, execution="share")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 257}, "257"),
        ({"batch_size": 1}, "at least 2"),
        ({"channels": 7}, "even"),
        ({"cells": 0}, "at least 1"),
    ],
)
def test_sizes_that_cannot_work(synthetic: ImageData, change: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        toy(synthetic, replace(TOY, **change))  # type: ignore[arg-type]


# -- what it says and remembers ----------------------------------------------------------------------------------------


def scripted(task: RetrainTask, accuracies: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the test images be answered with these accuracies, evaluation by evaluation."""
    left = iter(accuracies)

    def answer() -> object:
        return evaluate(task.network, evaluation_batches(task.data.test, task.data, 64, CPU))._replace(
            accuracy=next(left)
        )

    monkeypatch.setattr(task, "test", answer)


def test_last_and_best_epoch_apart(synthetic: ImageData, monkeypatch: pytest.MonkeyPatch) -> None:
    task = toy(synthetic)
    scripted(task, [0.5, 0.75, 0.7, 0.6], monkeypatch)
    lines = train(task, range(4))
    assert [line["test_accuracy"] for line in lines] == [0.5, 0.75, 0.7, 0.6]
    assert (task.last_accuracy, task.best_accuracy) == (0.6, 0.75)
    again = toy(synthetic)
    again.load_state(task.state())
    assert (again.last_accuracy, again.best_accuracy) == (0.6, 0.75)


def test_evaluated_now_and_then_and_always_at_the_end(synthetic: ImageData, monkeypatch: pytest.MonkeyPatch) -> None:
    task = toy(synthetic, replace(TOY, epochs=5, evaluate_every=2))
    scripted(task, [0.1, 0.2, 0.3], monkeypatch)
    lines = train(task, range(5))
    assert [line.get("test_accuracy") for line in lines] == [None, 0.1, None, 0.2, 0.3]


def test_evaluate_counts_every_image_once(synthetic: ImageData) -> None:
    task = toy(synthetic)
    train(task, range(1))
    task.network.train()
    whole, parts = (
        evaluate(task.network, evaluation_batches(synthetic.test, synthetic, size, CPU)) for size in (64, 10)
    )
    assert task.network.training, "the mode is restored"
    with torch.no_grad():
        task.network.eval()
        (images, labels) = next(evaluation_batches(synthetic.test, synthetic, 64, CPU))
        logits = task.network(images).logits
    assert torch.equal(whole.predictions, logits.argmax(1))
    assert torch.equal(whole.predictions, parts.predictions)
    assert whole.accuracy == parts.accuracy == (logits.argmax(1) == labels).float().mean().item()
    assert whole.loss == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-5)
    assert parts.loss == pytest.approx(whole.loss, rel=1e-5)


def test_evaluation_leaves_no_trace_in_training(synthetic: ImageData) -> None:
    often, never = toy(synthetic), toy(synthetic, replace(TOY, evaluate_every=4))
    train(often, range(3))
    train(never, range(3))
    assert_equal(weights(often), weights(never))


def test_the_seed_decides(synthetic: ImageData) -> None:
    first, again, other = toy(synthetic), toy(synthetic), toy(synthetic, seed=1)
    for task in (first, again, other):
        train(task, range(1))
    assert_equal(weights(first), weights(again))
    assert any(not torch.equal(tensor, weights(other)[name]) for name, tensor in weights(first).items())


@pytest.mark.parametrize("build", [toy, darts])
@pytest.mark.parametrize("cut", [1, 3])
def test_state_goes_on_to_the_bit(synthetic: ImageData, build: Callable[[ImageData], RetrainTask], cut: int) -> None:
    # the DARTS network trains with drop-path, cutout and auxiliary head
    straight, before, after = build(synthetic), build(synthetic), build(synthetic)
    lines = train(straight, range(4))
    train(before, range(cut))
    after.load_state(before.state())
    assert train(after, range(cut, 4)) == lines[cut:]
    assert_equal(weights(straight), weights(after))


def test_steps_of_the_plan_are_those_of_the_batches(digits: ImageData) -> None:
    task = darts(digits)
    assert len(task.plan()) == 4
    assert [epoch.steps for epoch in task.plan()] == [sum(1 for _ in task.batches(0))] * 4
    first, second = ([batch[0].labels.tolist() for batch in task.batches(index)] for index in (0, 1))
    assert first != second
    in_order = sorted(digits.train.labels.tolist())
    assert sorted(chain(*first)) == sorted(chain(*second)) == in_order
    assert all(len(a) == len(b) for a, b in pairwise(first[:-1]))


def test_images_are_augmented_only_in_training(digits: ImageData) -> None:
    data = replace(digits, train=Images(np.full((64, 8, 8, 1), 255, np.uint8), np.arange(64) % 10))
    task = darts(data, replace(DARTS, cutout=4))
    images = next(iter(task.batches(0)))[0].images
    assert (images == 0).any(), "cutout leaves squares of zeros"
    plain = next(evaluation_batches(data.train, data, 64, CPU)).images
    assert len(plain.unique()) == 1
