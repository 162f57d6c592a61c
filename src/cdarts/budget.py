"""A search and a retraining that fit a time budget: sizes are chosen by trying them on this machine.

The larger the networks the better, as long as they still get enough epochs; so sizes are tried from small to large for
as long as they do.
"""

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import ClassVar, Generic, Literal, TypeVar

import torch

from cdarts import zoo
from cdarts.algorithms import CyclicConfig
from cdarts.data import ImageData
from cdarts.engine.forecast import expected_seconds, forecast
from cdarts.errors import ConfigurationError
from cdarts.presets import DEFAULT
from cdarts.retraining import Retraining
from cdarts.settings import STRICT
from cdarts.spaces import DartsSpace

Stem = Literal["cifar", "half", "imagenet"]
Settings = TypeVar("Settings")

SEARCH_SIZES = ((4, 3, 5), (8, 4, 8), (8, 6, 14), (16, 8, 20))
"""(channels, search_cells, eval_cells) from small to the paper's."""
RETRAINING_SIZES = ((8, 5), (16, 5), (16, 8), (24, 8), (24, 14), (36, 20))
"""(channels, cells) from small to the paper's."""
TYPICAL_CELL = "cdarts-imagenet"
"""The cell that retraining is timed with, since the search has not found its own yet: convolutions on all edges of the
normal cell."""

SEARCH_SHARE = 0.3
"""Part of the budget that the search gets."""
SAFETY = 0.88
"""Part of the budget that is planned for: steps grow dearer as a search finds convolutions, and machines are shared."""
ALPHA_TRAVEL = 0.5
"""Least distance that Adam can move a logit of alpha over the whole search; short searches get a larger rate."""
LEAST_CYCLES, MOST_CYCLES = 5, 30
LEAST_EPOCHS, MOST_EPOCHS = 30, 600


@dataclass(frozen=True, kw_only=True)
class RunPlan:
    """What a run will do and the seconds it is expected to take; fixed in ``config.json`` before the first step."""

    __pydantic_config__: ClassVar = STRICT

    search: CyclicConfig
    retraining: Retraining
    search_seconds: float
    retraining_seconds: float
    planning_seconds: float
    """What the planning itself took, and all that came before it."""

    @property
    def seconds(self) -> float:
        """All of it."""
        return self.search_seconds + self.retraining_seconds + self.planning_seconds


@dataclass(frozen=True)
class Machine:
    """What tasks are built with."""

    seed: int
    device: torch.device
    execution: str


def plan_run(
    data: ImageData, budget_seconds: float, machine: Machine, *, began: float, report: Callable[[str], None]
) -> RunPlan:
    """Choose sizes, cycles and epochs for a run that began at `began` (`time.monotonic`); `report` hears what is tried.

    Raises `ConfigurationError` if not even the smallest fits the budget.
    """
    available = SAFETY * budget_seconds
    search = _largest(
        _search_sizes(data),
        lambda config: _fit_search(config, SEARCH_SHARE * available, data, machine),
        LEAST_CYCLES,
        lambda fit: report(
            f"search with {fit.settings.search_cells} and {fit.settings.eval_cells} cells, "
            f"{fit.settings.channels} channels: {fit.epochs} cycles"
        ),
    )
    if search.epochs < 1:
        raise _too_small(search.seconds / (SEARCH_SHARE * SAFETY))
    available -= search.seconds + time.monotonic() - began
    retraining = _largest(
        _retraining_sizes(data),
        lambda config: _fit_retraining(config, available, data, machine),
        LEAST_EPOCHS,
        lambda fit: report(
            f"training with {fit.settings.cells} cells, {fit.settings.channels} channels: {fit.epochs} epochs"
        ),
    )
    if retraining.epochs < 1:
        raise _too_small(budget_seconds + (retraining.seconds - available) / SAFETY)
    return RunPlan(
        search=search.settings,
        retraining=retraining.settings,
        search_seconds=round(search.seconds, 1),
        retraining_seconds=round(retraining.seconds, 1),
        planning_seconds=round(time.monotonic() - began, 1),
    )


def _too_small(least_seconds: float) -> ConfigurationError:
    # what was just measured varies, and starting takes a while too
    enough = 1.2 * least_seconds
    words = f"{math.ceil(enough)}s" if enough < 100 else f"{math.ceil(enough / 60)}m"
    return ConfigurationError(f"--budget is too small for this data on this machine: give {words} or more")


@dataclass(frozen=True)
class Fit(Generic[Settings]):
    """How one size fits its part of the budget."""

    settings: Settings
    """With the epochs filled in."""
    epochs: int
    """As many as fit, or the search's cycles; 0 if the size does not fit at all."""
    seconds: float
    """What these take, or a single one where none fits."""


def _largest(
    sizes: Iterable[Settings],
    fit: Callable[[Settings], Fit[Settings]],
    enough: int,
    report: Callable[[Fit[Settings]], None],
) -> Fit[Settings]:
    """The largest size that fits with `enough` epochs, else the smallest one."""
    chosen = None
    for size in sizes:
        fitted = fit(size)
        report(fitted)
        if chosen is not None and fitted.epochs < enough:
            break
        chosen = fitted
        # the next size takes about half as long again or more: do not spend time on trying what cannot fit
        if fitted.epochs < 1.4 * enough:
            break
    assert chosen is not None
    return chosen


def _stems(side: int) -> tuple[Stem, Stem]:
    """The stem for all sizes but the largest, and for the largest: cells should begin at 8 to 32 pixels."""
    if side <= 16:
        return "cifar", "cifar"
    return ("half", "cifar") if side <= 64 else ("imagenet", "half")


def _search_sizes(data: ImageData) -> list[CyclicConfig]:
    small, large = _stems(data.side)
    sizes = [(small, size) for size in SEARCH_SIZES] + [(large, SEARCH_SIZES[-1])]
    return [
        replace(
            DEFAULT,
            space=DartsSpace(stem_name=stem),
            channels=channels,
            search_cells=search_cells,
            eval_cells=eval_cells,
            batch_size=max(2, min(64, len(data.train) // 8)),
            pretrain_epochs=1,
            cycles=MOST_CYCLES,
        )
        for stem, (channels, search_cells, eval_cells) in dict.fromkeys(sizes)
    ]


def _fit_search(config: CyclicConfig, seconds: float, data: ImageData, machine: Machine) -> Fit[CyclicConfig]:
    task = config.build(data, seed=machine.seed, device=machine.device, execution=machine.execution)
    step = forecast(task).seconds_per_step
    pretraining = expected_seconds([epoch for epoch in task.plan() if epoch.cycle is None], step)
    cycle = expected_seconds([epoch for epoch in task.plan() if epoch.cycle == 0], step)
    cycles = min(int((seconds - pretraining) / cycle), MOST_CYCLES)
    if cycles < 1:
        return Fit(config, 0, pretraining + cycle)
    steps = cycles * sum(epoch.steps for epoch in task.plan() if epoch.phase == "joint" and epoch.cycle == 0)
    alpha = replace(config.alpha, lr=max(config.alpha.lr, ALPHA_TRAVEL / steps))
    return Fit(replace(config, cycles=cycles, alpha=alpha), cycles, pretraining + cycles * cycle)


def _retraining_sizes(data: ImageData) -> list[Retraining]:
    small, large = _stems(data.side)
    sizes = [(small, size) for size in RETRAINING_SIZES] + [(large, RETRAINING_SIZES[-1])]
    return [
        Retraining(
            space=DartsSpace(stem_name=stem),
            channels=channels,
            cells=cells,
            epochs=MOST_EPOCHS,
            batch_size=_retraining_batch(len(data.train)),
            lr=0.05,
            warmup_epochs=3,
            label_smoothing=0.1,
            cutout=data.side // 4,
        )
        for stem, (channels, cells) in dict.fromkeys(sizes)
    ]


def _retraining_batch(images: int) -> int:
    """Few images make few steps an epoch, and short trainings want for steps: smaller batches for smaller sets."""
    return max(2, min(32 if images < 10_000 else 64 if images < 25_000 else 128, images // 8))


def _fit_retraining(config: Retraining, seconds: float, data: ImageData, machine: Machine) -> Fit[Retraining]:
    task = config.build(
        zoo.load(TYPICAL_CELL), data, seed=machine.seed, device=machine.device, execution=machine.execution
    )
    step = forecast(task).seconds_per_step["train"]
    # evaluating takes about a third of a training step's work for each image
    testing = step / 3 * len(data.test) / config.batch_size
    epoch = step * task.plan()[0].steps
    epochs = min(int((seconds - testing) / epoch), MOST_EPOCHS)
    if epochs < 1:
        return Fit(config, 0, epoch + testing)
    every = max(1, epochs // 5)
    evaluations = 1 + epochs // every
    epochs = max(1, min(int((seconds - evaluations * testing) / epoch), MOST_EPOCHS))
    settings = replace(
        config,
        epochs=epochs,
        warmup_epochs=min(config.warmup_epochs, epochs // 4),
        evaluate_every=every,
        # the papers' regularisation is made for hundreds of epochs; short trainings are better off without
        drop_path=None if epochs >= 200 else 0.0,
        auxiliary_weight=0.4 if epochs >= 200 else 0.0,
    )
    return Fit(settings, epochs, epochs * epoch + evaluations * testing)
