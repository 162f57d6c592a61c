"""What every search algorithm must hold in every space: it covers whatever stands in the registry."""

import contextlib
import json
import signal
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from cdarts.algorithms import ALGORITHMS, Protocol, SearchConfig
from cdarts.algorithms.base import SearchAlgorithm
from cdarts.commands.search import Search
from cdarts.cost import Amount, network_cost
from cdarts.data import Augmentation, Batch, Batches, ImageData, Images
from cdarts.engine import checkpoint, loop
from cdarts.engine.loop import Means
from cdarts.engine.optimizers import Sgd
from cdarts.engine.progress import PlanProgress
from cdarts.engine.run_dir import RunDir
from cdarts.engine.runtime import Interrupted, StopFlag
from cdarts.errors import ConfigurationError
from cdarts.limits import Limits
from cdarts.settings import from_json, to_json
from cdarts.spaces import SPACES
from cdarts.topology import parse_genotype

ADJUSTED: dict[tuple[str, str], dict[str, Any]] = {
    ("cdarts", "toy"): {"feedback_levels": (0, 1)},  # the space has one reduction
    **{("enas", space): {"samples": 2} for space in SPACES},
    **{
        ("single-path", space): {"generations": 3, "population": 3, "parents": 2, "mutations": 1, "crossovers": 1}
        for space in SPACES
    },
}
"""Settings that a short protocol leaves too long or too short for these tests, or that do not fit a space."""

PLAIN: dict[str, SearchConfig] = {name: kind() for name, kind in ALGORITHMS.items()}  # type: ignore[call-arg]
"""Each algorithm with its default settings."""

CASES = [pytest.param(name, space, id=f"{name}-{space}") for name in ALGORITHMS for space in SPACES]
LONG = [
    pytest.param(*case.values, id=case.id, marks=pytest.mark.slow)
    if case.values[1] == "darts" and case.values[0] not in ("cdarts", "enas", "p-darts", "pc-darts", "single-path")
    else case
    for case in CASES
]
"""The same; steps of the DARTS space are long, and methods whose state differs most from DARTS's stand for all."""
algorithms = pytest.mark.parametrize("name", ALGORITHMS)


def protocol(name: str, space: str) -> Protocol:
    """As small as an algorithm can be: two epochs of one step in the space whose steps are long, else three of two."""
    long = space == "darts"
    return Protocol(
        data="noise",
        image_size=None,
        space=SPACES[space](),  # type: ignore[call-arg]
        channels=8,
        cells=3,
        batch_size=16 if long else 8,
        epochs=2 if long and name != "p-darts" else 3,  # P-DARTS has three stages
        still_epochs=1,
        weights=Sgd(lr=0.05, lr_end=0.1),
        alpha_rate=10.0,
    )


@pytest.fixture(scope="module")
def noise() -> ImageData:
    """Two halves of 16 images, 8x8 pixels, in 4 classes."""
    draw = np.random.default_rng(0)
    train, test = (
        Images(
            draw.integers(0, 256, (count, 8, 8, 3), dtype=np.uint8),
            np.arange(count, dtype=np.int64) % 4,
        )
        for count in (32, 8)
    )
    return ImageData("noise", train, test, tuple("abcd"), (0.5,) * 3, (0.25,) * 3, Augmentation(1, flip=True))


def config_of(name: str, space: str) -> SearchConfig:
    config = replace(PLAIN[name], space=protocol(name, space).space).under(protocol(name, space))
    return replace(config, **ADJUSTED.get((name, space), {}))


def build(config: SearchConfig, data: ImageData, seed: int = 0) -> SearchAlgorithm:
    return config.build(data, seed=seed, device=torch.device("cpu"), execution="share")


def one_epoch(task: SearchAlgorithm, index: int) -> Mapping[str, Any]:
    """An epoch as the engine's loop makes it; raises if a mean loss is not finite."""
    epoch = task.plan()[index]
    task.start_epoch(index, epoch)
    means, steps = Means(), 0
    for position, batch in enumerate(task.batches(index)):
        losses = task.step(position, *batch)
        assert losses, "the progress line shows a step's first loss"
        assert not any(loss.requires_grad for loss in losses.values()), "losses leave no graph behind"
        means.add(losses)
        steps += 1
    assert steps <= epoch.steps
    return task.end_epoch(index, means.read())


def cut_everywhere(config: SearchConfig, data: ImageData, out: Path) -> SearchAlgorithm:
    """The search by the engine's loop, each step and each end of an epoch by a task that knows only the run's files."""
    RunDir.create(out, {}).close()
    while True:
        task, stop = build(config, data), StopFlag()
        for name in ("step", "end_epoch"):
            setattr(task, name, stopping(getattr(task, name), stop))
        with contextlib.suppress(Interrupted), RunDir(out) as run:
            loop.run(task, run, PlanProgress("search", task.plan()), stop)
            return task


def stopping(method: Callable[..., Any], stop: StopFlag) -> Callable[..., Any]:
    """The method; a signal comes while it is at work."""

    def stopped(*arguments: Any) -> Any:
        stop.number = signal.SIGTERM
        return method(*arguments)

    return stopped


def flat(value: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """Every leaf of a nested state, by its place."""
    match value:
        case Mapping():
            for name, item in value.items():
                yield from flat(item, f"{place}/{name}")
        case list() | tuple():
            for index, item in enumerate(value):
                yield from flat(item, f"{place}/{index}")
        case _:
            yield place, value


def differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Places at which two states or records are not the same to the bit."""
    first, second = dict(flat(one)), dict(flat(other))
    places = [place for place in first.keys() | second.keys() if (place in first) != (place in second)]
    for place in first.keys() & second.keys():
        value, counterpart = first[place], second[place]
        both = isinstance(value, Tensor) and isinstance(counterpart, Tensor)
        same = torch.equal(value, counterpart) if both else value == counterpart
        if not same:
            places.append(place)
    return sorted(places)


def global_generators() -> tuple[Any, ...]:
    """Torch's and NumPy's; Python's own is used by the type checks that tests run under."""
    return torch.get_rng_state().tolist(), str(np.random.get_state())


@pytest.mark.parametrize(("name", "space"), LONG)
def test_a_search_cut_after_every_step_is_the_uninterrupted_search(
    name: str, space: str, noise: ImageData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also: losses are finite, records can be written, the genotype is one of the space, nothing else is touched."""
    passes: list[int] = []
    whole_pass = Batches.__call__

    def counted(batches: Batches, epoch: int) -> Iterator[Batch]:
        if batches.stream == "train":
            passes.append(epoch)
        return whole_pass(batches, epoch)

    config = config_of(name, space)
    before = global_generators()
    whole = build(config, noise)
    with monkeypatch.context() as patch:
        patch.setattr(Batches, "__call__", counted)
        records = [one_epoch(whole, index) for index in range(len(whole.plan()))]
    assert global_generators() == before
    assert len(passes) <= protocol(name, space).epochs, "more passes of the network weights than the protocol grants"

    part = cut_everywhere(config, noise, tmp_path / "run")
    assert differing(whole.state(), part.state()) == []
    with RunDir(tmp_path / "run") as run:
        for journal in ("metrics", "genotypes"):
            written = [{key: value for key, value in line.items() if key != "seconds"} for line in run.journal(journal)]
            expected = [{"epoch": index, **record[journal]} for index, record in enumerate(records)]
            assert written == json.loads(json.dumps(expected))
    assert part.genotype() == whole.genotype()

    config.space.check(whole.genotype())
    assert parse_genotype(json.dumps(whole.genotype().to_json())) == whole.genotype()
    for record in records:
        json.dumps(record, allow_nan=False)
        strengths = record["genotypes"].get("strengths")
        if strengths is not None:
            supernet = config.space.supernet()
            assert strengths.keys() == supernet.keys()
            for kind, cell in supernet.items():
                assert np.shape(strengths[kind]) == (len(cell.edges), len(config.space.operations))
    assert records[-1]["genotypes"]["text"] == whole.genotype().text()


def reachable(value: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """Every leaf that can be reached from an object, by its place; optimizers' entries in the order of parameters.

    Generators are none: each step makes its own from seed, epoch and position.
    """
    match value:
        case Tensor():
            yield place, value.detach()
        case torch.optim.Optimizer():
            parameters = [parameter for group in value.param_groups for parameter in group["params"]]
            for number, parameter in enumerate(parameters):
                yield from reachable(value.state.get(parameter, {}), f"{place}/{number}")
            yield from reachable([{**group, "params": None} for group in value.param_groups], f"{place}/groups")
        case Mapping():
            for name, item in value.items():
                yield from reachable(item, f"{place}/{name}")
        case list() | tuple():
            for index, item in enumerate(value):
                yield from reachable(item, f"{place}/{index}")
        case torch.Generator():
            yield place, None
        case None | bool() | int() | float() | str():
            yield place, value
        case Batches():  # they remember the last batch for reports alone
            yield from reachable({**vars(value), "_current": None}, place)
        case _ if type(value).__module__.startswith(("cdarts", "torch.nn")):
            yield from reachable(vars(value), place)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_checkpoint_holds_all_that_a_step_changes(name: str, noise: ImageData, tmp_path: Path) -> None:
    """After every step: all that is reachable from a task that takes its state over is the same as before."""

    def leaves(task: SearchAlgorithm, phase: str) -> dict[str, Any]:
        # while candidates are scored no weight moves, and the rate at which the last one did may stay where it is
        return {place: leaf for place, leaf in reachable(task) if not (phase == "select" and place.endswith("/lr"))}

    config = config_of(name, "toy")
    task = build(config, noise)
    steps = 0
    for index, epoch in enumerate(task.plan()):
        task.start_epoch(index, epoch)
        means = Means()
        for position, batch in enumerate(task.batches(index)):
            means.add(task.step(position, *batch))
            checkpoint.save(tmp_path / "state", task.state())
            stored = checkpoint.load(tmp_path / "state")
            fresh = build(config, noise)
            fresh.load_state(stored)
            fresh.start_epoch(index, epoch)
            assert differing(leaves(task, epoch.phase), leaves(fresh, epoch.phase)) == []
            steps += 1
        task.end_epoch(index, means.read())
        # a task that has gone further is thrown back to where it was
        for position, batch in enumerate(task.batches(index)):
            task.step(position, *batch)
        if steps:
            task.load_state(stored)
            task.start_epoch(index, epoch)
            assert differing(leaves(task, epoch.phase), leaves(fresh, epoch.phase)) == []
            task.end_epoch(index, means.read())
    assert steps == sum(epoch.steps for epoch in task.plan()) or name == "cdarts"


@algorithms
def test_the_seed_alone_decides_the_beginning(name: str, noise: ImageData) -> None:
    config = config_of(name, "toy")
    one, again, other = (build(config, noise, seed) for seed in (0, 0, 1))
    assert differing(one.state(), again.state()) == []
    weights = [place for place, value in flat(one.state()) if isinstance(value, Tensor) and value.is_floating_point()]
    if weights:
        assert set(weights) & set(differing(one.state(), other.state()))
    else:
        assert len({build(config, noise, seed).genotype() for seed in range(8)}) > 1


@algorithms
def test_settings_round_trip_through_json(name: str) -> None:
    for config in (PLAIN[name], config_of(name, "nasbench201")):
        written = json.loads(json.dumps(to_json(Search(algorithm=config)), allow_nan=False))
        assert written["algorithm"]["name"] == name
        assert from_json(Search, written, "config.json").algorithm == config


@algorithms
def test_the_default_settings_pass_their_own_check(name: str, noise: ImageData) -> None:
    replace(PLAIN[name], batch_size=16).check(noise)


@pytest.mark.parametrize(("name", "space"), CASES)
def test_under_a_protocol_sizes_are_the_protocols(name: str, space: str, noise: ImageData) -> None:
    config, wanted = config_of(name, space), protocol(name, space)
    config.check(noise)
    assert type(config) is ALGORITHMS[name]
    assert (config.space, config.channels, config.batch_size) == (wanted.space, wanted.channels, wanted.batch_size)
    for field in ("cells", "weights"):
        if hasattr(config, field):
            assert getattr(config, field) == getattr(wanted, field), field
    if hasattr(config, "alpha"):
        assert config.alpha.lr == wanted.alpha_rate * PLAIN[name].alpha.lr


LIMITS = {"nasbench201": Limits(max_params="300K", max_macs="4M"), "darts": Limits(max_params="1.7M", max_macs="20M")}
"""For networks of the usual sizes and images of 8 pixels; most genotypes are beyond."""


def cost_of(task: SearchAlgorithm, space: str) -> Amount:
    """What the network of the search's answer costs, counted by building it."""
    size = LIMITS[space].size(task.config.space, num_classes=4, side=8, image_channels=3)
    cost = network_cost(size.network(task.config.space, task.genotype()), 8, 3)
    return Amount(cost.parameters, cost.macs, 0)


@algorithms
def test_limits_hold_at_every_epoch_of_every_search(name: str, noise: ImageData) -> None:
    config = replace(config_of(name, "nasbench201"), limits=LIMITS["nasbench201"])
    task = build(config, noise)
    for index in range(len(task.plan())):
        one_epoch(task, index)
        assert LIMITS["nasbench201"].bounds().holds(cost_of(task, "nasbench201"))
        for genotype in getattr(task, "scores", {}):
            assert task.limited is not None
            assert LIMITS["nasbench201"].bounds().holds(task.limited.table.cost(genotype))


@pytest.mark.slow
@algorithms
def test_limits_hold_in_the_darts_space(name: str, noise: ImageData) -> None:
    config = replace(config_of(name, "darts"), limits=LIMITS["darts"])
    assert LIMITS["darts"].bounds().holds(cost_of(build(config, noise), "darts"))


@pytest.mark.parametrize("name", ["cdarts", "single-path", "p-darts"])
def test_a_limited_search_resumes_exactly(name: str, noise: ImageData, tmp_path: Path) -> None:
    config = replace(config_of(name, "nasbench201"), limits=LIMITS["nasbench201"])
    whole = build(config, noise)
    for index in range(len(whole.plan())):
        one_epoch(whole, index)
    part = cut_everywhere(config, noise, tmp_path / "run")
    assert differing(whole.state(), part.state()) == []
    assert part.genotype() == whole.genotype()


@algorithms
def test_an_impossible_limit_is_refused_before_anything_is_built(name: str, noise: ImageData) -> None:
    config = replace(config_of(name, "nasbench201"), limits=Limits(max_params="10K"))
    with pytest.raises(ConfigurationError, match=r"--max-params 10K: .* at least 72,916 parameters"):
        build(config, noise)
