"""Optimizers as settings."""

import math
import re
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from cdarts.engine.optimizers import Adam, Sgd
from cdarts.errors import ConfigurationError
from cdarts.settings import from_json, to_json


def test_half_a_cosine() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], 0.08)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 50, eta_min=0.008)
    settings = Sgd(lr=0.08, lr_end=0.1)
    for epoch in range(51):
        assert settings.lr_at(epoch / 50) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-6)
        optimizer.step()
        schedule.step()
    assert settings.lr_at(0.0) == 0.08
    assert settings.lr_at(0.5) == pytest.approx(0.08 * (0.1 + 0.9 * 0.5))
    assert settings.lr_at(1.0) == pytest.approx(0.008)


def test_constant_by_default() -> None:
    assert [Sgd(lr=0.3).lr_at(step / 10) for step in range(11)] == pytest.approx([0.3] * 11)


def test_the_settings_reach_torch() -> None:
    weight = nn.Parameter(torch.zeros(2))
    sgd = Sgd(lr=0.1, momentum=0.5, weight_decay=1e-3, clip_norm=2.0).build([("weight", weight)])
    (group,) = sgd.optimizer.param_groups
    assert (group["lr"], group["momentum"], group["weight_decay"], group["nesterov"]) == (0.1, 0.5, 1e-3, False)
    assert sgd.clip_norm == 2.0
    adam = Adam(lr=0.2, betas=(0.1, 0.2), weight_decay=1e-4, clip_norm=None).build([("weight", weight)])
    (group,) = adam.optimizer.param_groups
    assert (group["lr"], group["betas"], group["weight_decay"]) == (0.2, (0.1, 0.2), 1e-4)
    assert adam.clip_norm is None
    assert adam.named == {"weight": weight}


@pytest.mark.parametrize("settings", [Sgd(lr=0.1, lr_end=0.0, clip_norm=None), Adam(betas=(0.9, 0.99), clip_norm=5.0)])
def test_json_round_trip(settings: Sgd | Adam) -> None:
    assert from_json(type(settings), to_json(settings), "here") == settings


def test_end_of_the_cosine_is_exact_zero_or_nearly() -> None:
    assert Sgd(lr=1.0, lr_end=0.0).lr_at(1.0) == pytest.approx(0.0, abs=1e-12)
    assert Sgd(lr=1.0, lr_end=0.0).lr_at(1 / 3) == pytest.approx(0.5 * (1 + math.cos(math.pi / 3)))


COMMON: list[tuple[str, Any, str]] = [
    ("lr", -1.0, "lr -1.0: must be positive"),
    ("lr", 0.0, "lr 0.0: must be positive"),
    ("lr", math.nan, "lr nan: must be positive"),
    ("lr", math.inf, "lr inf: must be positive and finite"),
    ("weight_decay", -1e-4, "weight-decay -0.0001: must be at least 0"),
    ("weight_decay", math.inf, "weight-decay inf: must be at least 0 and finite"),
    ("clip_norm", 0.0, "clip-norm 0.0: must be positive"),
    ("clip_norm", -5.0, "clip-norm -5.0: must be positive"),
    ("clip_norm", math.nan, "clip-norm nan: must be positive"),
]
OF_SGD: list[tuple[str, Any, str]] = [
    ("lr_end", -0.1, "lr-end -0.1: must lie between 0 and 1"),
    ("lr_end", 1.1, "lr-end 1.1: must lie between 0 and 1"),
    ("lr_end", math.nan, "lr-end nan: must lie between 0 and 1"),
    ("momentum", -0.1, "momentum -0.1: must be at least 0 and below 1"),
    ("momentum", 1.0, "momentum 1.0: must be at least 0 and below 1"),
    ("momentum", math.nan, "momentum nan: must be at least 0 and below 1"),
]
OF_ADAM: list[tuple[str, Any, str]] = [
    ("betas", (1.0, 0.999), "betas 1.0 0.999: each must be at least 0 and below 1"),
    ("betas", (0.5, -0.1), "betas 0.5 -0.1: each must be at least 0 and below 1"),
    ("betas", (0.5, math.nan), "betas 0.5 nan: each must be at least 0 and below 1"),
]
REFUSED: list[tuple[Sgd | Adam, str, Any, str]] = [
    *((Sgd(lr=0.1), *case) for case in COMMON + OF_SGD),
    *((Adam(), *case) for case in COMMON + OF_ADAM),
]


@pytest.mark.parametrize(("settings", "field", "value", "message"), REFUSED)
def test_values_that_cannot_work_are_refused_by_their_flag(
    settings: Sgd | Adam, field: str, value: Any, message: str
) -> None:
    wrong = replace(settings, **{field: value})
    for flag, prefix in (("search-weights", "--search-weights."), ("", "--")):
        with pytest.raises(ConfigurationError, match=f"^{re.escape(prefix + message)}"):
            wrong.check(flag)


@pytest.mark.parametrize(
    "settings",
    [
        Sgd(lr=1e-6, lr_end=0.0, momentum=0.0, weight_decay=0.0, clip_norm=None),
        Sgd(lr=10.0, lr_end=1.0, momentum=0.999, clip_norm=1e-6),
        Adam(),
        Adam(betas=(0.0, 0.0), weight_decay=1.0, clip_norm=5.0),
    ],
)
def test_limits_that_work(settings: Sgd | Adam) -> None:
    settings.check("alpha")
