"""A search and a retraining that fit a time budget: sizes are chosen by trying them on this machine.

The larger the networks the better, as long as they still get enough epochs; so sizes are tried from small to large for as long as they do.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

import torch

from cdarts import zoo
from cdarts.algorithms import CyclicConfig
from cdarts.data import ImageData
from cdarts.engine.forecast import expected_seconds, forecast
from cdarts.errors import ConfigurationError
from cdarts.presets import PRESETS
from cdarts.retraining import Retraining
from cdarts.spaces import DartsSpace

Stem = Literal["cifar", "half", "imagenet"]
Settings = TypeVar("Settings")

SEARCH_SIZES = ((4, 3, 5), (8, 4, 8), (8, 6, 14), (16, 8, 20))
"""(channels, search_cells, eval_cells) from small to the paper's."""
RETRAINING_SIZES = ((8, 5), (16, 5), (16, 8), (24, 8), (24, 14), (36, 20))
"""(channels, cells) from small to the paper's."""
TYPICAL_CELL = "cdarts-cifar10"
"""The cell that retraining is timed with, since the search has not found its own yet."""

SEARCH_SHARE = 0.3
"""Part of the budget that the search gets."""
SAFETY = 0.88
"""Part of the budget that is planned for: steps grow dearer as a search finds convolutions, and machines are shared."""
LEAST_CYCLES, MOST_CYCLES = 5, 30
LEAST_EPOCHS, MOST_EPOCHS = 30, 600


@dataclass(frozen=True)
class RunPlan:
    """What a run will do, and the seconds it expects to take."""

    search: CyclicConfig
    retraining: Retraining
    search_seconds: float
    retraining_seconds: float


@dataclass(frozen=True)
class Machine:
    """What tasks are built with."""

    seed: int
    device: torch.device
    execution: str


def plan_run(data: ImageData, budget_seconds: float, machine: Machine) -> RunPlan:
    """Choose sizes, cycles and epochs. Raises `ConfigurationError` if not even the smallest fits the budget."""
    began = time.monotonic()
    available = SAFETY * budget_seconds
    search, search_seconds = _largest(
        _search_sizes(data), lambda config: _fit_search(config, SEARCH_SHARE * available, data, machine), LEAST_CYCLES
    )
    available -= search_seconds + time.monotonic() - began
    retraining, retraining_seconds = _largest(
        _retraining_sizes(data), lambda config: _fit_retraining(config, available, data, machine), LEAST_EPOCHS
    )
    return RunPlan(search, retraining, search_seconds, retraining_seconds)


def _largest(
    sizes: Iterable[Settings], fit: Callable[[Settings], tuple[Settings, int, float]], enough: int
) -> tuple[Settings, float]:
    """The largest settings that fit with `enough` epochs, else the smallest ones; and the seconds they take.

    `fit` gives settings with their epochs filled in, how many these are, and the seconds they take.
    """
    chosen = None
    for size in sizes:
        settings, epochs, seconds = fit(size)
        if chosen is not None and epochs < enough:
            break
        chosen = settings, seconds
        # the next size takes twice as long or more: do not spend time on trying what cannot fit
        if epochs < 2 * enough:
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
            PRESETS["cdarts"],
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


def _fit_search(config: CyclicConfig, seconds: float, data: ImageData, machine: Machine) -> tuple[CyclicConfig, int, float]:
    task = config.build(data, seed=machine.seed, device=machine.device, execution=machine.execution)
    step = forecast(task).seconds_per_step
    pretraining = expected_seconds([epoch for epoch in task.plan() if epoch.cycle is None], step)
    cycle = expected_seconds([epoch for epoch in task.plan() if epoch.cycle == 0], step)
    cycles = min(int((seconds - pretraining) / cycle), MOST_CYCLES)
    if cycles < 1:
        raise ConfigurationError(
            f"--budget is too small: one cycle of the search takes {pretraining + cycle:.0f} s, and {seconds:.0f} s are left for it"
        )
    return replace(config, cycles=cycles), cycles, pretraining + cycles * cycle


def _retraining_sizes(data: ImageData) -> list[Retraining]:
    small, large = _stems(data.side)
    sizes = [(small, size) for size in RETRAINING_SIZES] + [(large, RETRAINING_SIZES[-1])]
    return [
        Retraining(
            space=DartsSpace(stem_name=stem),
            channels=channels,
            cells=cells,
            epochs=MOST_EPOCHS,
            batch_size=max(2, min(64 if len(data.train) < 20_000 else 128, len(data.train) // 8)),
            lr=0.05,
            warmup_epochs=3,
            label_smoothing=0.1,
            cutout=data.side // 4,
        )
        for stem, (channels, cells) in dict.fromkeys(sizes)
    ]


def _fit_retraining(config: Retraining, seconds: float, data: ImageData, machine: Machine) -> tuple[Retraining, int, float]:
    task = config.build(
        zoo.load(TYPICAL_CELL), data, seed=machine.seed, device=machine.device, execution=machine.execution
    )
    step = forecast(task).seconds_per_step["train"]
    # evaluating takes about a third of a training step's work for each image
    testing = step / 3 * len(data.test) / config.batch_size
    epoch = step * task.plan()[0].steps
    epochs = min(int((seconds - testing) / epoch), MOST_EPOCHS)
    if epochs < 1:
        raise ConfigurationError(f"--budget is too small: one epoch of training takes {epoch:.0f} s, and {seconds:.0f} s are left")
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
    return settings, epochs, epochs * epoch + evaluations * testing
