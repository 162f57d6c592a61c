"""Retraining's settings: the size rule, the learning rate, what is refused."""

import math
from dataclasses import fields
from typing import Any

import pytest
import torch
from torch import nn

from cdarts import zoo
from cdarts.errors import ConfigurationError
from cdarts.retraining import Retraining, size_rule
from cdarts.settings import from_json, to_json
from cdarts.spaces import DartsSpace, NasBench201Space
from cdarts.topology import Genotype


def test_defaults_are_the_authors_recipe_for_cifar() -> None:
    training = Retraining()
    assert (training.cells, training.channels, training.epochs, training.batch_size) == (None, None, 600, 128)
    assert training.size() == (20, 36)
    assert (training.lr, training.momentum, training.clip_norm) == (0.025, 0.9, 5.0)
    assert (training.auxiliary_weight, training.cutout, training.label_smoothing) == (0.4, 16, 0.0)
    assert (training.weight_decay, training.drop_path) == (None, None)


@pytest.mark.parametrize(
    ("parameters", "weight_decay", "drop_path"),
    [
        (0, 3e-4, 0.2),
        (2_999_999, 3e-4, 0.2),
        (3_000_000, 3e-4, 0.3),
        (3_499_999, 3e-4, 0.3),
        (3_500_000, 5e-4, 0.3),
        (3_859_000, 5e-4, 0.3),  # the authors' CIFAR cell
    ],
)
def test_size_rule(parameters: int, weight_decay: float, drop_path: float) -> None:
    assert size_rule(parameters) == (weight_decay, drop_path)


def test_learning_rate_without_warm_up_is_torchs_cosine() -> None:
    training = Retraining(lr=0.025, epochs=40)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], training.lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, training.epochs)
    for epoch in range(training.epochs):
        assert training.lr_at(epoch) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-6)
        optimizer.step()
        schedule.step()


def test_learning_rate_warms_up_linearly_then_follows_the_cosine_of_all_epochs() -> None:
    training = Retraining(lr=0.5, epochs=250, warmup_epochs=5)
    assert [training.lr_at(epoch) for epoch in range(5)] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5])
    for epoch in range(5, 250):
        assert training.lr_at(epoch) == pytest.approx(0.25 * (1 + math.cos(math.pi * epoch / 250)))


def test_the_space_follows_the_genotype() -> None:
    training = Retraining(cells=3)
    assert training.for_genotype(zoo.load("darts-v2")) == Retraining(cells=3, channels=36)
    moved = training.for_genotype(zoo.load("cdarts-nasbench201-1"))
    assert isinstance(moved.space, NasBench201Space)
    assert (moved.cells, moved.channels) == (3, 16)
    usual = Retraining().for_genotype(zoo.load("cdarts-nasbench201-1"))
    assert (usual.cells, usual.channels) == (15, 16)
    kept = Retraining(space=DartsSpace(stem_name="half")).for_genotype(zoo.load("darts-v2"))
    assert kept.space == DartsSpace(stem_name="half")
    with pytest.raises(ConfigurationError, match=r"--space.stem-name half: .* space nasbench201, which has no such"):
        kept.for_genotype(zoo.load("cdarts-nasbench201-1"))
    with pytest.raises(ConfigurationError, match="'moon' is unknown; there are darts"):
        training.for_genotype(Genotype("moon", {"cell": ()}))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("epochs", 0),
        ("evaluate_every", 0),
        ("warmup_epochs", -1),
        ("warmup_epochs", 601),
        ("lr", 0.0),
        ("lr", -0.1),
        ("lr", math.nan),
        ("lr", math.inf),
        ("clip_norm", 0.0),
        ("weight_decay", -1e-4),
        ("momentum", 1.0),
        ("drop_path", 1.0),
        ("drop_path", -0.1),
        ("auxiliary_weight", -1.0),
        ("label_smoothing", 1.0),
        ("label_smoothing", math.nan),
        ("cutout", -1),
        ("mixup", -0.1),
        ("mixup", math.inf),
        ("cutmix", math.nan),
        ("ema_decay", 1.0),
        ("ema_decay", -0.1),
        ("accumulation", 0),
    ],
)
def test_values_that_cannot_work_are_refused_by_their_flag(field: str, value: Any) -> None:
    settings: dict[str, Any] = {field: value}
    with pytest.raises(ConfigurationError, match=f"^--{field.replace('_', '-')} {value}: must ") as raised:
        Retraining(**settings).check()
    assert raised.value.exit_code == 2


def test_limits_that_work() -> None:
    Retraining(
        epochs=1, warmup_epochs=1, clip_norm=None, drop_path=0.0, weight_decay=0.0, momentum=0.0, cutout=0
    ).check()


def test_json_round_trip_of_every_field() -> None:
    training = Retraining(space=NasBench201Space(), epochs=3, weight_decay=1e-3, clip_norm=None, drop_path=0.1)
    stored = to_json(training)
    assert set(stored) == {field.name for field in fields(Retraining)}
    assert from_json(Retraining, stored, "here") == training
    with pytest.raises(ConfigurationError, match="here: epochs"):
        from_json(Retraining, stored | {"epochs": "3"}, "here")
