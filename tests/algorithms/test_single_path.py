"""SPOS: what mutation and crossing keep, and that evolution finds what chance does not."""

from dataclasses import replace

import pytest
import torch

from cdarts.algorithms.base import random_genotype
from cdarts.algorithms.config import Protocol
from cdarts.algorithms.single_path import SinglePathConfig
from cdarts.algorithms.single_path_search import SinglePathSearch, noisy_strengths, one_of
from cdarts.data import ImageData, load
from cdarts.engine.optimizers import Sgd
from cdarts.errors import ConfigurationError
from cdarts.randomness import generator
from cdarts.spaces import DartsSpace, NasBench201Space, Space, ToySpace
from cdarts.topology import Genotype

SPACES = [pytest.param(space, id=space.name) for space in (ToySpace(), NasBench201Space(), DartsSpace())]
CONFIG = SinglePathConfig(space=NasBench201Space(), channels=4, cells=3, batch_size=32, epochs=1)


@pytest.fixture(scope="module")
def synthetic() -> ImageData:
    return load("synthetic")


def build(config: SinglePathConfig, data: ImageData, seed: int = 0) -> SinglePathSearch:
    return config.build(data, seed=seed, device=torch.device("cpu"), execution="share")


def evolve(task: SinglePathSearch) -> list[list[Genotype]]:
    """The selection epochs; what each generation scored."""
    generations = []
    for index, epoch in enumerate(task.plan()):
        if epoch.phase == "select":
            task.start_epoch(index, epoch)
            for position, batch in enumerate(task.batches(index)):
                task.step(position, *batch)
            task.end_epoch(index, {})
            generations.append(task.candidates)
    return generations


def convolutions(genotype: Genotype) -> torch.Tensor:
    """A planted score: the fraction of edges that carry a 3x3 convolution."""
    names = genotype.operations()
    return torch.tensor(names.count("nor_conv_3x3") / len(names), dtype=torch.float64)


@pytest.mark.parametrize("space", SPACES)
def test_noisy_strengths_are_a_genotypes_own(space: Space) -> None:
    draw = generator(0, "noise")
    for seed in range(20):
        genotype = random_genotype(space, seed, "any")
        strengths = noisy_strengths(space, genotype, draw)
        assert space.derive({kind: rows.tolist() for kind, rows in strengths.items()}) == genotype


@pytest.mark.parametrize("space", SPACES)
def test_a_child_takes_every_choice_from_a_parent(space: Space, synthetic: ImageData) -> None:
    task, draw = build(replace(CONFIG, space=space), synthetic), generator(0, "children")
    shares = []
    for seed in range(30):
        father, mother = (random_genotype(space, seed, name) for name in ("father", "mother"))
        child = task.child(father, mother, draw)
        space.check(child)
        inherited = [
            (choice in father.cells[kind], choice in mother.cells[kind])
            for kind, choices in child.cells.items()
            for choice in choices
        ]
        shares.append(sum(map(any, inherited)) / len(inherited))
        if space.name != "darts":
            assert all(map(any, inherited))
        assert task.child(father, father, draw) == father
    # where edges compete, a node whose edges were left behind gets others: rare, but possible
    assert sum(shares) / len(shares) > 0.75


@pytest.mark.parametrize("space", SPACES)
def test_a_mutant_differs_by_the_mutation_probability(space: Space, synthetic: ImageData) -> None:
    draw = generator(0, "mutants")

    def changed(probability: float) -> float:
        task = build(replace(CONFIG, space=space, mutation_probability=probability), synthetic)
        changes = []
        for seed in range(60):
            parent = random_genotype(space, seed, "any")
            mutant = task.mutant(parent, draw)
            space.check(mutant)
            for kind, choices in mutant.cells.items():
                changes += [choice not in parent.cells[kind] for choice in choices]
        return sum(changes) / len(changes)

    assert changed(0.0) == 0.0
    count = len(space.operations)
    if space.name != "darts":
        # redrawn edges may draw what they had
        assert changed(0.1) == pytest.approx(0.1 * (count - 1) / count, abs=0.06)
        assert changed(1.0) == pytest.approx((count - 1) / count, abs=0.12)
    else:
        assert 0.03 < changed(0.1) < 0.3
        assert changed(1.0) > 0.8


def test_parents_are_drawn_evenly() -> None:
    parents = [random_genotype(NasBench201Space(), seed, "any") for seed in range(4)]
    draw = generator(0, "parents")
    drawn = [one_of(parents, draw) for _ in range(400)]
    assert all(70 < drawn.count(parent) < 130 for parent in parents)


def test_evolution_finds_a_planted_optimum_that_chance_does_not(
    synthetic: ImageData, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for mutations, crossovers in ((10, 10), (0, 0)):  # without either, each generation is random
        config = replace(CONFIG, population=20, generations=8, parents=5, mutations=mutations, crossovers=crossovers)
        task = build(config, synthetic)
        monkeypatch.setattr(task, "score", convolutions)
        evolve(task)
        found.append(convolutions(task.genotype()).item())
    evolved, random = found
    assert evolved == 1.0, "one cell in 15,625, 160 looked at"
    assert random < 1.0


def test_generations_are_made_as_the_settings_say(synthetic: ImageData, monkeypatch: pytest.MonkeyPatch) -> None:
    config = replace(CONFIG, population=12, generations=4, parents=3, mutations=5, crossovers=4)
    task = build(config, synthetic)
    monkeypatch.setattr(task, "score", convolutions)
    made = {"mutant": 0, "child": 0}

    def counting(name: str, original):  # type: ignore[no-untyped-def]
        def call(*arguments):  # type: ignore[no-untyped-def]
            made[name] += 1
            best = sorted(task.scores.values(), reverse=True)[:3]
            *parents, _ = arguments
            assert all(task.scores[parent] >= best[-1] for parent in parents), "parents are the best so far"
            return original(*arguments)

        return call

    monkeypatch.setattr(task, "mutant", counting("mutant", task.mutant))
    monkeypatch.setattr(task, "child", counting("child", task.child))
    plan = task.plan()
    assert [epoch.phase for epoch in plan] == ["train", *["select"] * 4]
    assert [epoch.steps for epoch in plan[1:]] == [12] * 4
    generations = evolve(task)
    assert [len(generation) for generation in generations] == [12] * 4
    everyone = [genotype for generation in generations for genotype in generation]
    assert len(set(everyone)) == 48, "no candidate is scored twice"
    assert made["mutant"] >= 15 and made["child"] >= 12
    assert task.scores.keys() == set(everyone)


def test_a_space_that_is_searched_whole_has_smaller_generations(
    synthetic: ImageData, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = build(replace(CONFIG, space=ToySpace(), population=20, generations=3, mutations=5, crossovers=5), synthetic)
    monkeypatch.setattr(task, "score", convolutions)
    generations = evolve(task)
    assert len(generations[0]) == 20
    assert sum(map(len, generations)) <= 27
    assert len(task.scores) == len(set(task.scores))


@pytest.mark.parametrize("epochs", [1, 3, 12, 24, 50, 150, 500])
def test_under_a_protocol_scoring_takes_about_as_long_as_training(epochs: int, synthetic: ImageData) -> None:
    usual = replace(CONFIG, epochs=999)
    config = usual.under(
        Protocol(
            data="synthetic",
            image_size=None,
            space=ToySpace(),
            channels=8,
            cells=6,
            batch_size=16,
            epochs=epochs,
            still_epochs=0,
            weights=Sgd(lr=0.1),
            alpha_rate=1.0,
        )
    )
    config.check(synthetic)
    scored = config.population * config.generations
    assert 0.6 * min(4 * epochs, 1000) < scored <= min(4 * epochs, 1000)
    if epochs >= 250:
        assert (config.population, config.generations, config.parents) == (50, 20, 10)
        assert (config.crossovers, config.mutations) == (25, 25)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"population": 0}, "--population 0: must be at least 1"),
        ({"generations": 0}, "--generations 0: must be at least 1"),
        ({"parents": 0}, "--parents 0: must be at least 1"),
        ({"mutations": -1}, "--mutations -1: must be at least 0"),
        (
            {"mutations": 30},
            "--crossovers 25 --mutations 30: together they must not exceed --population 50",
        ),
        ({"mutation_probability": 1.5}, "--mutation-probability 1.5: must lie between 0 and 1"),
        ({"mutation_probability": float("nan")}, "--mutation-probability nan: must lie between 0 and 1"),
    ],
)
def test_impossible_settings_are_refused_in_the_users_words(
    changes: dict[str, float], message: str, synthetic: ImageData
) -> None:
    with pytest.raises(ConfigurationError) as error:
        replace(CONFIG, **changes).check(synthetic)
    assert str(error.value) == message


def test_a_small_search_runs(synthetic: ImageData) -> None:
    config = replace(
        CONFIG,
        channels=8,
        batch_size=16,
        epochs=6,
        weights=Sgd(lr=0.1, lr_end=0.0),
        population=6,
        generations=3,
        parents=2,
        mutations=2,
        crossovers=2,
    )
    task = build(config, synthetic)
    best = []
    for index, epoch in enumerate(task.plan()):
        task.start_epoch(index, epoch)
        for position, batch in enumerate(task.batches(index)):
            task.step(position, *batch)
        best.append(task.end_epoch(index, {})["metrics"].get("best_score"))
    assert best[:6] == [None] * 6
    assert best[6] <= best[7] <= best[8], "the best of all generations"
    assert best[8] > 0.6, "chance is 0.25"
    config.space.check(task.genotype())
