"""A search and a retraining that fit data and a time budget: sizes are chosen by trying them on this machine.

The larger the networks the better, as long as they still get enough epochs; so sizes are tried from small to large for
as long as they do. Every choice comes with a line that says why.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import ClassVar, Generic, Literal, TypeVar

import numpy as np
import torch

from cdarts import zoo
from cdarts.algorithms import CyclicConfig
from cdarts.data import Augmentation, ImageData, Images
from cdarts.data.folder import Glance
from cdarts.data.images import MINIMUM_SIDE, PHOTO_SIDE
from cdarts.engine.forecast import expected_seconds, forecast
from cdarts.engine.runtime import is_out_of_memory
from cdarts.errors import ConfigurationError
from cdarts.presets import DEFAULT
from cdarts.retraining import Retraining
from cdarts.settings import STRICT
from cdarts.spaces import AnySpace, DartsSpace
from cdarts.topology import Genotype

Stem = Literal["cifar", "half", "imagenet"]
Settings = TypeVar("Settings")

SEARCH_SIZES = ((4, 3, 5), (8, 4, 8), (8, 6, 14), (16, 8, 20))
"""(channels, search_cells, eval_cells) from small to the paper's."""
RETRAINING_SIZES = ((8, 5), (16, 5), (16, 8), (24, 8), (24, 14), (36, 20))
"""(channels, cells) from small to the paper's."""
TYPICAL_CELL = "cdarts-imagenet"
"""The cell that retraining is timed with before the search has found its own: convolutions on all edges of the normal
cell."""

SEARCH_SHARE = 0.3
"""Part of the budget that the search gets."""
SAFETY = 0.88
"""Part of the budget that is planned for: steps grow dearer as a search finds convolutions, and machines are shared."""
SAFETY_OF_TRAINING = 0.92
"""Part of what a search has left that is planned for: its cell is known and timed. Export and page come after it."""
ALPHA_TRAVEL = 0.5
"""Least distance that Adam can move a logit of alpha over the whole search; short searches get a larger rate."""
INPUT_SIDES = (32, 40, 48, 56, 64, 96, 128, 160, 192, 224)
"""Sides that images of a folder are brought to, in pixels."""
ENLARGED = 1.1
"""Images may be enlarged by so much: of 31 pixels 32 can be made, and 24 would lose what they show."""
TRIED_SIDE = 32
REFERENCE_SIZE = RETRAINING_SIZES[2]
"""An input is small enough if a network of that size gets `LEAST_EPOCHS` on it."""

LEAST_HALF = 400
"""Fewest images of a half that a search is made with: the 95 % interval of an accuracy on 400 images reaches 5 points
to both sides, and cells of one space differ by about as much."""
LEAST_OF_CLASS = 20
"""Fewest training images of a class: of 10 in each half neither weights nor architecture learn what the class is."""

LEAST_CYCLES, MOST_CYCLES = 5, 30
LEAST_EPOCHS, MOST_EPOCHS = 30, 600
LONG_TRAINING = 200
"""Epochs from which on drop-path and the auxiliary head are used: the papers' regularisation is made for hundreds, and
shorter trainings are better off without."""


@dataclass(frozen=True, kw_only=True)
class RunPlan:
    """What a run will do and the seconds it is expected to take; fixed in ``config.json`` before the first step."""

    __pydantic_config__: ClassVar = STRICT

    search: CyclicConfig | None
    """None where a published cell is trained instead."""
    retraining: Retraining
    """What is expected; where a cell is searched, it is planned again once the cell is known: `plan_training`."""
    search_seconds: float
    retraining_seconds: float
    planning_seconds: float
    """What the planning itself took, and all that came before it."""
    cell: str | None = None
    """The published cell's name."""
    reasons: tuple[str, ...] = ()
    """Why each thing was chosen, a line each."""


@dataclass(frozen=True)
class Machine:
    """What tasks are built with."""

    seed: int
    device: torch.device
    execution: str


def plan_run(
    data: ImageData,
    budget_seconds: float,
    machine: Machine,
    *,
    began: float,
    report: Callable[[str], None],
    cell: str | None = None,
) -> RunPlan:
    """Choose sizes, cycles and epochs for a run that began at `began` (`time.monotonic`); `report` hears what is tried.

    `cell`: the published cell that gets the whole budget, None to search one first.

    Raises `ConfigurationError` if not even the smallest fits the budget.
    """
    available = SAFETY * budget_seconds
    search: Fit[CyclicConfig] | None = None
    reasons = list(_about_data(data))
    if cell is None:
        search, why = _largest(
            _search_sizes(data),
            lambda config: _fit_search(config, SEARCH_SHARE * available, data, machine),
            LEAST_CYCLES,
            "cycles",
            lambda config: (
                f"search with {config.search_cells} and {config.eval_cells} cells, {config.channels} channels"
            ),
            report,
        )
        if search.epochs < 1:
            raise _too_small(search.seconds / (SEARCH_SHARE * SAFETY))
        reasons.append(why)
        available -= search.seconds
    until = began + available
    retraining, why = _largest_retraining(data, zoo.load(cell or TYPICAL_CELL), until, machine, report)
    if retraining.epochs < 1:
        raise _too_small(budget_seconds + (retraining.seconds - (until - time.monotonic())) / SAFETY)
    reasons += [why, _about_stem(data.side, retraining.settings.space)]
    return RunPlan(
        search=None if search is None else search.settings,
        retraining=retraining.settings,
        search_seconds=0.0 if search is None else round(search.seconds, 1),
        retraining_seconds=round(retraining.seconds, 1),
        planning_seconds=round(time.monotonic() - began, 1),
        cell=cell,
        reasons=tuple(reasons),
    )


@dataclass(frozen=True, kw_only=True)
class TrainingPlan:
    """The training that is made; fixed in ``plan.json`` before its first step."""

    __pydantic_config__: ClassVar = STRICT

    training: Retraining
    seconds: float
    """What it is expected to take."""
    planning_seconds: float
    """What planning it took, once the cell was known."""
    reason: str
    """Why it has the size that it has."""


def plan_training(
    data: ImageData, genotype: Genotype, remaining_seconds: float, machine: Machine, report: Callable[[str], None]
) -> TrainingPlan:
    """The largest training of a found cell in what is left of a budget; `report` hears what is tried.

    Before the cell was known it could only be timed with another one. If nothing is left, one epoch of the smallest.
    """
    began = time.monotonic()
    until = began + SAFETY_OF_TRAINING * remaining_seconds
    fit, why = _largest_retraining(data, genotype, until, machine, report)
    return TrainingPlan(
        training=fit.settings,
        seconds=round(fit.seconds, 1),
        planning_seconds=round(time.monotonic() - began, 1),
        reason=why if fit.epochs else f"{why}; the search has left no time, and one epoch is made",
    )


def choose_side(seen: Glance, num_classes: int, budget_seconds: float, machine: Machine) -> tuple[int, str]:
    """The side that a folder's images are brought to, in pixels, and why.

    As large as most images are, if a network of `REFERENCE_SIZE` gets enough epochs in the budget; it is timed on a few
    blank images, and its time on others follows from the number of pixels that its cells begin with.
    """
    sides = [side for side in INPUT_SIDES if side <= ENLARGED * seen.median_side]
    own = max(MINIMUM_SIDE, seen.median_side // 8 * 8)
    found = f"the median of the images' shorter sides is {seen.median_side} pixels"
    if not sides:
        return own, f"input {own}x{own}: {found}"
    images = round(0.8 * seen.num_images)
    seconds = _seconds_per_image(seen.channels, num_classes, machine)
    available = SAFETY * (1 - SEARCH_SHARE) * budget_seconds / images

    def epochs(side: int) -> int:
        pixels = (_cell_side(side, _stems(side)[0]) / _cell_side(TRIED_SIDE, _stems(TRIED_SIDE)[0])) ** 2
        return min(int(available / (seconds * pixels)), MOST_EPOCHS)

    fitting = [side for side in sides if epochs(side) >= LEAST_EPOCHS]
    if not fitting:
        # all are too dear: the one that the most is learned on
        side = max(sides, key=epochs)
        return side, (
            f"input {side}x{side}: no size leaves {LEAST_EPOCHS} epochs over {images:,} images in this budget, "
            "this one leaves the most"
        )
    side = fitting[-1]
    if side == sides[-1]:
        return side, f"input {side}x{side}: {found}, and the budget suffices for it"
    following = sides[sides.index(side) + 1]
    return side, (
        f"input {side}x{side}: {following}x{following} would leave {epochs(following)} epochs over {images:,} images, "
        f"fewer than {LEAST_EPOCHS}"
    )


def why_no_search(data: ImageData) -> str | None:
    """Why the data cannot say which of two cells is better, None if they can."""
    counts = np.bincount(data.train.labels, minlength=data.num_classes)
    half, smallest = len(data.train) // 2, int(counts.argmin())
    if counts[smallest] < LEAST_OF_CLASS:
        return (
            f"class {data.class_names[smallest]!r} has {counts[smallest]} training images, and a search splits them in "
            f"two halves; it takes {LEAST_OF_CLASS} of each class"
        )
    if half < LEAST_HALF:
        return (
            f"a half of the {len(data.train):,} training images is {half}, and accuracies on fewer than {LEAST_HALF} "
            "images are uncertain by more than 5 points, about as much as cells differ by"
        )
    return None


def _seconds_per_image(channels: int, num_classes: int, machine: Machine) -> float:
    """Of a training step of the network of `REFERENCE_SIZE` on images of `TRIED_SIDE`."""
    batch = 32
    images = Images(
        np.zeros((2 * batch, TRIED_SIDE, TRIED_SIDE, channels), np.uint8), np.arange(2 * batch) % num_classes
    )
    names = tuple(map(str, range(num_classes)))
    blank = ImageData("blank", images, images, names, (0.5,) * channels, (0.5,) * channels, Augmentation())
    width, cells = REFERENCE_SIZE
    config = Retraining(
        space=DartsSpace(stem_name=_stems(TRIED_SIDE)[0]),
        channels=width,
        cells=cells,
        batch_size=batch,
        epochs=2,
        auxiliary_weight=0.0,
    )
    task = config.build(
        zoo.load(TYPICAL_CELL), blank, seed=machine.seed, device=machine.device, execution=machine.execution
    )
    return forecast(task).seconds_per_step["train"] / batch


def _about_data(data: ImageData) -> Iterator[str]:
    """Why the images are augmented and drawn as they are."""
    if data.augmentation.least_area is not None:
        yield (
            f"crops of {data.augmentation.least_area:.0%} to 100% of the area, mirrored: photos of {PHOTO_SIDE} pixels "
            "and more show their subjects at any size"
        )
    else:
        mirrored = ", mirrored" if data.augmentation.flip else ""
        yield (
            f"crops moved by up to {data.augmentation.crop_padding} pixels{mirrored}: photos of fewer than "
            f"{PHOTO_SIDE} pixels, and what is no photo, lose by being enlarged"
        )
    if data.balanced:
        counts = np.bincount(data.train.labels, minlength=data.num_classes)
        yield (
            f"all classes are drawn equally often: the largest has {counts.max():,} training images, the smallest "
            f"{counts.min():,}"
        )


def _about_stem(side: int, space: AnySpace) -> str:
    assert isinstance(space, DartsSpace)
    return f"stem {space.stem_name}: cells begin at {_cell_side(side, space.stem_name)} of {side} pixels"


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
    unit: str,
    words: Callable[[Settings], str],
    report: Callable[[str], None],
) -> tuple[Fit[Settings], str]:
    """The largest size that fits with `enough` epochs, else the smallest one, and why; `report` hears what is tried.

    A size that memory does not suffice for ends the list.

    `unit`: what epochs are called. `words`: what a size is called.
    """
    chosen: Fit[Settings] | None = None
    why = "the largest size there is"
    for size in sizes:
        try:
            fitted = fit(size)
        except (RuntimeError, MemoryError) as error:
            if chosen is None or not is_out_of_memory(error):
                raise
            why = "the next size does not fit into the memory"
            break
        report(f"{words(fitted.settings)}: {fitted.epochs} {unit}")
        if chosen is not None and fitted.epochs < enough:
            why = f"the next size leaves {fitted.epochs} {unit}, fewer than {enough}"
            break
        chosen = fitted
        # the next size takes a good deal longer: do not spend time on trying what cannot fit
        if fitted.epochs < 1.15 * enough:
            why = f"{fitted.epochs} {unit} fit, and the next size would leave fewer than {enough}"
            break
    assert chosen is not None
    return chosen, f"{words(chosen.settings)}: {why}"


def _stems(side: int) -> tuple[Stem, Stem]:
    """The stem for all sizes but the largest, and for the largest: cells should begin at 8 to 32 pixels."""
    if side <= 16:
        return "cifar", "cifar"
    return ("half", "cifar") if side <= 64 else ("imagenet", "half")


def _cell_side(side: int, stem: Stem) -> int:
    """What the first cell works at, in pixels."""
    return math.ceil(side / {"cifar": 1, "half": 2, "imagenet": 8}[stem])


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


def _largest_retraining(
    data: ImageData, genotype: Genotype, until: float, machine: Machine, report: Callable[[str], None]
) -> "tuple[Fit[Retraining], str]":
    """`until`: when the training is to be over (`time.monotonic`), so that trying sizes counts too."""
    return _largest(
        _retraining_sizes(data),
        lambda config: _fit_retraining(config, genotype, until, data, machine),
        LEAST_EPOCHS,
        "epochs",
        lambda config: f"training with {config.cells} cells, {config.channels} channels",
        report,
    )


def _fit_retraining(
    config: Retraining, genotype: Genotype, until: float, data: ImageData, machine: Machine
) -> Fit[Retraining]:
    """As many epochs as fit; one, which does not, where none fits."""
    fit = _fit_epochs(replace(config, drop_path=0.0, auxiliary_weight=0.0), genotype, until, data, machine)
    if fit.epochs < LONG_TRAINING:
        return fit
    regularised = _fit_epochs(config, genotype, until, data, machine)  # its second head takes its time too
    return fit if regularised.epochs < LONG_TRAINING else regularised


def _fit_epochs(
    config: Retraining, genotype: Genotype, until: float, data: ImageData, machine: Machine
) -> Fit[Retraining]:
    task = config.build(genotype, data, seed=machine.seed, device=machine.device, execution=machine.execution)
    step = forecast(task).seconds_per_step["train"]
    seconds = until - time.monotonic()
    # evaluating takes about a third of a training step's work for each image
    testing = step / 3 * len(data.test) / config.batch_size
    epoch = step * task.plan()[0].steps
    epochs = min(int((seconds - testing) / epoch), MOST_EPOCHS)
    if epochs < 1:
        return Fit(replace(config, epochs=1, warmup_epochs=0, evaluate_every=1), 0, epoch + testing)
    every = max(1, epochs // 5)
    evaluations = 1 + epochs // every
    epochs = max(1, min(int((seconds - evaluations * testing) / epoch), MOST_EPOCHS))
    settings = replace(
        config,
        epochs=epochs,
        warmup_epochs=min(config.warmup_epochs, epochs // 4),
        evaluate_every=every,
    )
    return Fit(settings, epochs, epochs * epoch + evaluations * testing)
