"""Presets of retraining: the numbers are those of their sources, and the curves closed forms."""

import math

import pytest
import torch

from cdarts import zoo
from cdarts.data import load
from cdarts.retraining import DEFAULT_PRESET, RETRAINING_PRESETS, RETRAINING_SUMMARIES, Retraining
from cdarts.settings import from_json, to_json
from cdarts.spaces import DartsSpace

CPU = torch.device("cpu")


def test_the_authors_recipe_for_cifar() -> None:
    for name in ("cifar10", "cifar100"):
        recipe = RETRAINING_PRESETS[name]
        assert (recipe.space, recipe.size()) == (DartsSpace(), (20, 36))
        assert (recipe.epochs, recipe.batch_size, recipe.lr, recipe.warmup_epochs) == (600, 128, 0.025, 0)
        assert (recipe.momentum, recipe.weight_decay, recipe.clip_norm) == (0.9, None, 5.0)
        assert (recipe.auxiliary_weight, recipe.drop_path, recipe.cutout) == (0.4, None, 16)
        assert (recipe.label_smoothing, recipe.colour_jitter) == (0.0, (0.0, 0.0, 0.0, 0.0))


def test_the_authors_recipe_for_imagenet() -> None:
    recipe = RETRAINING_PRESETS["imagenet"]
    assert (recipe.space, recipe.size()) == (DartsSpace(stem_name="imagenet"), (14, 48))
    assert (recipe.epochs, recipe.batch_size, recipe.lr, recipe.warmup_epochs) == (250, 1024, 0.5, 5)
    assert (recipe.momentum, recipe.weight_decay, recipe.clip_norm) == (0.9, 3e-5, 5.0)
    assert (recipe.auxiliary_weight, recipe.drop_path, recipe.cutout) == (0.4, 0.0, 0)
    assert (recipe.label_smoothing, recipe.colour_jitter) == (0.1, (0.4, 0.4, 0.4, 0.2))


@pytest.mark.parametrize("name", RETRAINING_PRESETS)
def test_what_no_source_has_is_off(name: str) -> None:
    recipe = RETRAINING_PRESETS[name]
    assert (recipe.mixup, recipe.cutmix, recipe.rand_augment, recipe.trivial_augment) == (0.0, 0.0, None, False)
    assert (recipe.ema_decay, recipe.precision, recipe.accumulation, recipe.test_flip) == (0.0, "float32", 1, False)


@pytest.mark.parametrize("name", RETRAINING_PRESETS)
def test_learning_rate_at_every_epoch(name: str) -> None:
    """Half a cosine over all epochs; in warm-up epochs (e + 1) / warm-up of the full rate."""
    recipe = RETRAINING_PRESETS[name]
    for epoch in range(recipe.epochs):
        expected = 0.5 * recipe.lr * (1 + math.cos(math.pi * epoch / recipe.epochs))
        if epoch < recipe.warmup_epochs:
            expected = recipe.lr * (epoch + 1) / recipe.warmup_epochs
        assert recipe.lr_at(epoch) == pytest.approx(expected, rel=1e-12)


def test_imagenets_warm_up_reaches_the_full_rate() -> None:
    """In the authors' code, under today's torch, it ends at 0.0192."""
    recipe = RETRAINING_PRESETS["imagenet"]
    rates = [recipe.lr_at(epoch) for epoch in range(recipe.epochs)]
    assert rates[:5] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5])
    assert max(rates) == rates[4] == 0.5
    assert rates[5] == pytest.approx(0.4995, abs=1e-4)


@pytest.mark.parametrize("name", RETRAINING_PRESETS)
def test_drop_path_and_auxiliary_weight_at_every_epoch(name: str) -> None:
    """p * epoch / epochs, p by the size rule where the preset has none; the head's weight stays as it is."""
    recipe = RETRAINING_PRESETS[name]
    small = Retraining(**{**vars(recipe), "cells": 3, "channels": 4, "batch_size": 64, "precision": "float32"})
    image_size = 16 if recipe.space != DartsSpace() else None
    data = load("digits", image_size=image_size)
    task = small.build(zoo.load("darts-v2"), data, seed=0, device=CPU, execution="share")
    limit = 0.2 if recipe.drop_path is None else recipe.drop_path
    assert task.config.drop_path == limit
    plan = task.plan()
    assert len(plan) == recipe.epochs
    for epoch in range(recipe.epochs):
        task.start_epoch(epoch, plan[epoch])
        assert task.drop_path == pytest.approx(limit * epoch / recipe.epochs, rel=1e-12, abs=1e-15)
        assert task.optimizer.optimizer.param_groups[0]["lr"] == pytest.approx(recipe.lr_at(epoch), rel=1e-12)
    if not recipe.auxiliary_weight:
        assert task.auxiliary is None
        return
    for epoch in (0, recipe.epochs // 2, recipe.epochs - 1):
        task.start_epoch(epoch, plan[epoch])
        (batch,) = next(task.batches(epoch))
        with torch.no_grad():
            total, losses = task._losses(*task._mixed(*batch, 0), None)
        assert total.item() == pytest.approx((losses["loss"] + 0.4 * losses["auxiliary_loss"]).item(), rel=1e-6)


@pytest.mark.parametrize("name", RETRAINING_PRESETS)
def test_a_preset_passes_its_own_check_and_round_trips(name: str) -> None:
    recipe = RETRAINING_PRESETS[name]
    recipe.check()
    assert from_json(Retraining, to_json(recipe), "here") == recipe


def test_names_and_summaries() -> None:
    assert RETRAINING_PRESETS.keys() == RETRAINING_SUMMARIES.keys()
    assert all(summary and "\n" not in summary for summary in RETRAINING_SUMMARIES.values())
    assert RETRAINING_PRESETS[DEFAULT_PRESET] == Retraining(), "the default of the class is the default preset"


def test_sizes_of_the_published_networks() -> None:
    """The size rule, at the presets' sizes: weight decay and drop-path of the authors' CIFAR cell."""
    recipe = RETRAINING_PRESETS["cifar10"]
    colour = load("synthetic")
    with torch.device("meta"):
        task = recipe.build(zoo.load("cdarts-cifar10"), colour, seed=0, device=torch.device("meta"), execution="share")
    # 4 classes instead of 10: six rows of the classifier less
    assert task.num_parameters() == 3_859_318 - 6 * (576 + 1)
    assert (task.config.weight_decay, task.config.drop_path) == (5e-4, 0.3)
