"""A plan that fits its budget, larger with a larger one.

Step durations are made up here: how they are measured has a test of its own.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from cdarts import budget, zoo
from cdarts.algorithms import CyclicConfig
from cdarts.budget import (
    LEAST_CYCLES,
    LEAST_EPOCHS,
    LONG_TRAINING,
    MOST_CYCLES,
    MOST_EPOCHS,
    SAFETY,
    Machine,
    RunPlan,
    choose_side,
    plan_run,
    plan_training,
    why_no_search,
)
from cdarts.data import ImageData, Images, load
from cdarts.data.folder import Glance
from cdarts.durations import parse_duration
from cdarts.engine.forecast import Forecast, expected_seconds
from cdarts.engine.task import Epoch
from cdarts.errors import ConfigurationError
from cdarts.presets import PRESETS
from cdarts.retraining import Retraining
from cdarts.spaces import DartsSpace

MACHINE = Machine(seed=0, device=torch.device("cpu"), execution="share")
MINUTE, HOUR = 60.0, 3600.0


class Stub:
    """All that planning looks at of a task: its plan, and here how large it is. It has no network."""

    def __init__(self, size: float, plan: Sequence[Epoch]) -> None:
        self.size = size
        self._plan = list(plan)

    def plan(self) -> list[Epoch]:
        return self._plan


def build_search(config: CyclicConfig, data: ImageData, **_: object) -> Stub:
    config.check(data)
    steps = len(data.train) // 2 // config.batch_size
    stem = {"cifar": 1.0, "half": 0.25, "imagenet": 0.05}[config.space.stem_name]  # type: ignore[union-attr]
    size = stem * config.channels**1.5 * (config.search_cells + config.eval_cells)
    plan = [Epoch("pretrain", steps)] * config.pretrain_epochs
    plan += [Epoch(name, steps, cycle=cycle) for cycle in range(config.cycles) for name in ("warmup", "joint")]
    return Stub(size, plan)


def build_retraining(config: Retraining, _: object, data: ImageData, **__: object) -> Stub:
    config.check()
    stem = {"cifar": 1.0, "half": 0.25, "imagenet": 0.05}[config.space.stem_name]  # type: ignore[union-attr]
    steps = len(data.train) // config.batch_size
    return Stub(stem * config.channels**1.5 * config.cells, [Epoch("train", steps)] * config.epochs)


@pytest.fixture
def machine_of(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Make steps take seconds in proportion to the size of what they train."""
    monkeypatch.setattr(CyclicConfig, "build", build_search)
    monkeypatch.setattr(Retraining, "build", build_retraining)

    def set_speed(seconds: float) -> None:
        def known(task: Stub) -> Forecast:
            factors = {"pretrain": 1.0, "warmup": 0.5, "joint": 2.0, "train": 1.0}
            steps = {name: factor * seconds * task.size for name, factor in factors.items()}
            return Forecast(steps, expected_seconds(task.plan(), steps))

        monkeypatch.setattr(budget, "forecast", known)

    set_speed(1e-4)
    return set_speed


@pytest.fixture(scope="module")
def synthetic() -> ImageData:
    return load("synthetic")


@pytest.fixture(scope="module")
def digits() -> ImageData:
    return load("digits")


def of_side(side: int, count: int = 512) -> ImageData:
    """Blank images: planning looks at their number and side only."""
    images = Images(np.zeros((count, side, side, 3), np.uint8), np.arange(count) % 4)
    return replace(load("synthetic"), train=images, test=images.take(np.arange(count // 4)))


def seconds_of(plan: RunPlan) -> float:
    return plan.search_seconds + plan.retraining_seconds


@pytest.mark.parametrize("budget_seconds", [10.0, 40.0, 4 * MINUTE, HOUR, 10 * HOUR])
@pytest.mark.usefixtures("machine_of")
def test_the_plan_fits_the_budget(digits: ImageData, budget_seconds: float) -> None:
    plan = plan_run(digits, budget_seconds, MACHINE, began=time.monotonic(), report=print)
    assert seconds_of(plan) <= budget_seconds
    assert 1 <= plan.search.cycles <= MOST_CYCLES
    assert 1 <= plan.retraining.epochs <= MOST_EPOCHS
    plan.search.check(digits)
    plan.retraining.check()


@pytest.mark.usefixtures("machine_of")
def test_networks_and_epochs_grow_with_the_budget(synthetic: ImageData) -> None:
    plans = [
        plan_run(synthetic, seconds, MACHINE, began=time.monotonic(), report=print)
        for seconds in (5.0, 40.0, 4 * MINUTE, HOUR, 100 * HOUR)
    ]
    for smaller, larger in pairwise(plans):
        assert larger.search.channels >= smaller.search.channels
        assert (
            larger.retraining.channels * larger.retraining.cells
            >= smaller.retraining.channels * smaller.retraining.cells
        )
        assert seconds_of(larger) >= seconds_of(smaller)
    first, last = plans[0], plans[-1]
    assert (first.search.channels, first.retraining.channels) == (4, 8)
    assert (last.search.channels, last.search.search_cells, last.search.eval_cells) == (16, 8, 20)
    assert (last.retraining.channels, last.retraining.cells) == (36, 20)
    assert (last.search.cycles, last.retraining.epochs) == (MOST_CYCLES, MOST_EPOCHS)


@pytest.mark.usefixtures("machine_of")
def test_a_larger_size_is_taken_only_with_enough_epochs(synthetic: ImageData) -> None:
    for budget_seconds in np.geomspace(5, HOUR, 15).tolist():
        plan = plan_run(synthetic, budget_seconds, MACHINE, began=time.monotonic(), report=print)
        assert plan.search.channels == 4 or plan.search.cycles >= LEAST_CYCLES
        assert (plan.retraining.channels, plan.retraining.cells) == (
            8,
            5,
        ) or plan.retraining.epochs >= 0.9 * LEAST_EPOCHS


@pytest.mark.usefixtures("machine_of")
def test_a_size_that_does_not_fit_at_all_is_no_error_after_one_that_does(
    synthetic: ImageData, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget, "SEARCH_SIZES", ((4, 3, 5), (512, 8, 20)))
    monkeypatch.setattr(budget, "RETRAINING_SIZES", ((8, 5), (512, 20)))
    plan = plan_run(synthetic, 20.0, MACHINE, began=time.monotonic(), report=print)
    assert (plan.search.channels, plan.retraining.channels) == (4, 8)


def test_a_faster_machine_plans_more(synthetic: ImageData, machine_of: Callable[[float], None]) -> None:
    slow = plan_run(synthetic, 30.0, MACHINE, began=time.monotonic(), report=print)
    machine_of(1e-6)
    fast = plan_run(synthetic, 30.0, MACHINE, began=time.monotonic(), report=print)
    assert fast.search.channels > slow.search.channels
    assert fast.retraining.channels > slow.retraining.channels


@pytest.mark.parametrize("speed", [1e-3, 1e-2, 1.0])
def test_too_small_a_budget_names_one_that_works(
    synthetic: ImageData, machine_of: Callable[[float], None], speed: float
) -> None:
    machine_of(speed)
    with pytest.raises(ConfigurationError, match=r"^--budget is too small .*: give \w+ or more$") as raised:
        plan_run(synthetic, 2.0, MACHINE, began=time.monotonic(), report=print)
    assert raised.value.exit_code == 2
    plan_run(
        synthetic,
        parse_duration("--budget", str(raised.value).split()[-3]),
        MACHINE,
        began=time.monotonic(),
        report=print,
    )


@pytest.mark.parametrize("speed", [1e-4, 1e-3, 1e-2])
def test_a_training_takes_what_the_search_has_left(
    synthetic: ImageData, machine_of: Callable[[float], None], speed: float
) -> None:
    machine_of(speed)
    sizes = []
    for remaining in (20.0, MINUTE, HOUR):
        plan = plan_training(synthetic, zoo.load("darts-v2"), remaining, MACHINE, print)
        assert plan.seconds + plan.planning_seconds <= remaining
        plan.training.check()
        sizes.append(plan.training.channels * plan.training.cells)
        assert plan.reason.startswith(f"training with {plan.training.cells} cells, {plan.training.channels} channels: ")
    assert sizes == sorted(sizes)


def test_a_search_that_took_everything_leaves_one_epoch(
    synthetic: ImageData, machine_of: Callable[[float], None]
) -> None:
    machine_of(1e-2)
    plan = plan_training(synthetic, zoo.load("darts-v2"), -3.0, MACHINE, print)
    training = plan.training
    assert (training.cells, training.channels, training.epochs) == (5, 8, 1)
    assert (training.warmup_epochs, training.auxiliary_weight, training.drop_path) == (0, 0.0, 0.0)
    assert "one epoch is made" in plan.reason
    training.check()


def test_trying_sizes_counts_as_time(synthetic: ImageData, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1000.0]

    def slow(task: Stub) -> Forecast:
        clock[0] += 5.0
        steps = {"train": 1e-4 * task.size}
        return Forecast(steps, expected_seconds(task.plan(), steps))

    monkeypatch.setattr(Retraining, "build", build_retraining)
    monkeypatch.setattr(budget, "forecast", slow)
    monkeypatch.setattr(budget.time, "monotonic", lambda: clock[0])
    plan = plan_training(synthetic, zoo.load("darts-v2"), MINUTE, MACHINE, print)
    assert plan.planning_seconds == clock[0] - 1000.0 >= 10.0
    assert plan.seconds + plan.planning_seconds <= MINUTE
    assert clock[0] - 1000.0 + plan.seconds <= MINUTE


@pytest.mark.usefixtures("machine_of")
def test_a_size_that_memory_does_not_suffice_for_ends_the_list(
    synthetic: ImageData, monkeypatch: pytest.MonkeyPatch
) -> None:
    def build(config: Retraining, genotype: object, data: ImageData, **rest: object) -> Stub:
        if config.channels > 16:
            raise MemoryError
        return build_retraining(config, genotype, data, **rest)

    monkeypatch.setattr(Retraining, "build", build)
    plan = plan_training(synthetic, zoo.load("darts-v2"), HOUR, MACHINE, print)
    assert (plan.training.channels, plan.training.cells) == (16, 8)
    assert "does not fit into the memory" in plan.reason
    monkeypatch.setattr(budget, "RETRAINING_SIZES", ((24, 8),))
    with pytest.raises(MemoryError):
        plan_training(synthetic, zoo.load("darts-v2"), HOUR, MACHINE, print)


@pytest.mark.usefixtures("machine_of")
def test_long_trainings_have_a_second_head_and_short_ones_do_not(synthetic: ImageData) -> None:
    for remaining in (MINUTE, HOUR, 100 * HOUR):
        training = plan_training(synthetic, zoo.load("darts-v2"), remaining, MACHINE, print).training
        assert (training.auxiliary_weight > 0) == (training.epochs >= LONG_TRAINING)
        assert (training.drop_path is None) == (training.epochs >= LONG_TRAINING)


@pytest.mark.usefixtures("machine_of")
def test_too_small_for_the_training_alone(synthetic: ImageData, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "RETRAINING_SIZES", ((512, 20),))
    with pytest.raises(ConfigurationError, match=r"^--budget is too small"):
        plan_run(synthetic, 20.0, MACHINE, began=time.monotonic(), report=print)


@pytest.mark.parametrize(
    ("side", "small", "large"),
    [
        (8, "cifar", "cifar"),
        (16, "cifar", "cifar"),
        (32, "half", "cifar"),
        (64, "half", "cifar"),
        (224, "imagenet", "half"),
    ],
)
@pytest.mark.usefixtures("machine_of")
def test_the_stem_follows_the_side(side: int, small: str, large: str) -> None:
    data = of_side(side)
    first, last = (
        plan_run(data, 5.0, MACHINE, began=time.monotonic(), report=print),
        plan_run(data, 1000 * HOUR, MACHINE, began=time.monotonic(), report=print),
    )
    assert first.search.space == first.retraining.space == DartsSpace(stem_name=small)  # type: ignore[arg-type]
    assert last.search.space == last.retraining.space == DartsSpace(stem_name=large)  # type: ignore[arg-type]


@pytest.mark.usefixtures("machine_of")
def test_small_data_gets_small_batches() -> None:
    plans = {
        count: plan_run(of_side(8, count), HOUR, MACHINE, began=time.monotonic(), report=print)
        for count in (16, 128, 512, 4096, 12_000, 30_000)
    }
    for count, plan in plans.items():
        for batch_size in (plan.search.batch_size, plan.retraining.batch_size):
            assert batch_size == 2 or 2 < batch_size <= count // 8, "eight steps an epoch at least"
    for smaller, larger in pairwise(plans.values()):
        assert smaller.search.batch_size <= larger.search.batch_size <= 64
        assert smaller.retraining.batch_size <= larger.retraining.batch_size <= 128


@pytest.mark.usefixtures("machine_of")
def test_short_trainings_go_without_the_papers_regularisation(synthetic: ImageData) -> None:
    short, long = (
        plan_run(synthetic, 5.0, MACHINE, began=time.monotonic(), report=print).retraining,
        plan_run(synthetic, 1000 * HOUR, MACHINE, began=time.monotonic(), report=print).retraining,
    )
    assert short.epochs < 200 <= long.epochs
    assert (short.drop_path, short.auxiliary_weight) == (0.0, 0.0)
    assert (long.drop_path, long.auxiliary_weight) == (None, 0.4)
    assert short.warmup_epochs <= short.epochs // 4
    assert 1 <= short.evaluate_every <= short.epochs


@pytest.mark.usefixtures("machine_of")
def test_the_search_is_the_default_presets(synthetic: ImageData) -> None:
    search = plan_run(synthetic, 60.0, MACHINE, began=time.monotonic(), report=print).search
    sized = {"space", "channels", "search_cells", "eval_cells", "batch_size", "pretrain_epochs", "cycles", "alpha"}
    kept = {name: getattr(search, name) for name in vars(search) if name not in sized}
    assert kept == {name: getattr(PRESETS["cdarts"], name) for name in kept}


# -- what suits the data -----------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("machine_of")
def test_a_published_cell_gets_the_whole_budget(synthetic: ImageData) -> None:
    search, cell = (
        plan_run(synthetic, MINUTE, MACHINE, began=time.monotonic(), report=print, cell=name)
        for name in (None, "darts-v1")
    )
    assert (search.cell, cell.cell, cell.search, cell.search_seconds) == (None, "darts-v1", None, 0.0)
    assert cell.retraining_seconds <= SAFETY * MINUTE
    size = cell.retraining.channels * cell.retraining.cells, cell.retraining.epochs
    assert size > (search.retraining.channels * search.retraining.cells, search.retraining.epochs)


@pytest.mark.usefixtures("machine_of")
def test_every_choice_has_a_reason(synthetic: ImageData) -> None:
    plan = plan_run(replace(synthetic, balanced=True), MINUTE, MACHINE, began=time.monotonic(), report=print)
    beginnings = [reason.split(" ")[0] for reason in plan.reasons]
    assert beginnings == ["crops", "all", "search", "training", "stem"]
    size = f"{plan.retraining.cells} cells, {plan.retraining.channels} channels: "
    assert any(reason.startswith(f"training with {size}") for reason in plan.reasons)


@pytest.mark.parametrize(
    ("median", "images", "budget_seconds", "side"),
    [
        (20, 500, HOUR, 16),  # as large as they are
        (28, 500, HOUR, 24),
        (31, 500, HOUR, 32),  # or nearly
        (35, 500, HOUR, 32),
        (500, 500, HOUR, 224),  # the ImageNet stem makes large images cheap
        (500, 500_000, HOUR, 96),  # nothing fits: what is seen most often, by cells at 12 pixels
        (64, 500_000, HOUR, 32),
    ],
)
@pytest.mark.usefixtures("machine_of")
def test_the_input_follows_size_count_and_budget(median: int, images: int, budget_seconds: float, side: int) -> None:
    seen = Glance(images, median, 3)
    chosen, why = choose_side(seen, 10, budget_seconds, MACHINE)
    assert chosen == side
    assert why.startswith(f"input {side}x{side}: ")


def test_a_slower_machine_takes_smaller_inputs(machine_of: Callable[[float], None]) -> None:
    seen = Glance(5000, 64, 3)
    sides = []
    for seconds in (1e-6, 1e-4, 3e-4, 1e-2):
        machine_of(seconds)
        sides.append(choose_side(seen, 10, HOUR, MACHINE)[0])
    assert sides == sorted(sides, reverse=True) and sides[0] == 64 and sides[-1] == 32


def test_too_few_images_say_nothing_about_cells(digits: ImageData, synthetic: ImageData) -> None:
    assert why_no_search(digits) is None
    assert "a half of the 256 training images is 128" in str(why_no_search(synthetic))
    members = np.flatnonzero(digits.train.labels == 7)[19:]
    fewer = replace(digits, train=digits.train.take(np.setdiff1d(np.arange(len(digits.train)), members)))
    assert str(why_no_search(fewer)).startswith("class '7' has 19 training images")
