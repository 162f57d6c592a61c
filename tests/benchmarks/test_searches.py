"""Searches on the table: what they pay for, what they may see, and how well they do over seeds."""

import dataclasses
import itertools
import sys

import numpy as np
import pytest

from cdarts.benchmarks import Table
from cdarts.benchmarks.nasbench201 import NUM_CELLS
from cdarts.benchmarks.searches import (
    TABLE_SEARCHES,
    Bohb,
    RandomSearch,
    RegularizedEvolution,
    Reinforce,
    SearchTrace,
    TableSearch,
)
from cdarts.errors import ConfigurationError
from cdarts.settings import from_json, to_json

SEEDS = range(60)


def found(table: Table, config: TableSearch, seeds: range = SEEDS) -> np.ndarray:
    """CIFAR-10 test accuracies after 200 epochs of what a search finds, one a seed."""
    rows = [config.search(table, seed).best.index for seed in seeds]
    return table.accuracies("cifar10", "test", 200)[rows]


@pytest.mark.parametrize("name", TABLE_SEARCHES)
def test_the_registry_knows_names_and_settings(name: str) -> None:
    config = TABLE_SEARCHES[name]()
    assert getattr(config, "name") == name  # noqa: B009 (the base has no such field)
    assert config.budget_seconds == 12_000
    assert from_json(TABLE_SEARCHES[name], to_json(config), "here") == config


def test_published_settings() -> None:
    assert to_json(RegularizedEvolution())["population"] == 10
    assert to_json(RegularizedEvolution())["sample"] == 3
    assert to_json(Reinforce())["learning_rate"] == 0.01
    assert to_json(Reinforce())["baseline_momentum"] == 0.9
    assert to_json(Bohb())["candidates"] == 4


@pytest.mark.parametrize("name", TABLE_SEARCHES)
def test_the_same_seed_finds_the_same(table: Table, name: str) -> None:
    config = TABLE_SEARCHES[name]()
    traces = [config.search(table, seed) for seed in (1, 1, 2)]
    assert traces[0] == traces[1]
    assert traces[0].evaluations != traces[2].evaluations


@pytest.mark.parametrize("name", TABLE_SEARCHES)
def test_every_training_is_paid_for_until_the_budget_is_spent(table: Table, name: str) -> None:
    trace = TABLE_SEARCHES[name](budget_seconds=5_000.0).search(table, 3)
    seconds = 0.0
    for evaluation in trace.evaluations:
        assert seconds < 5_000, "none begins after the budget"
        row = table.row(evaluation.index)
        seconds += float(row["c10_val_traintime_200"]) * evaluation.epochs / 200
        assert evaluation.seconds == pytest.approx(seconds)
        assert evaluation.accuracy == row[f"c10_val_{evaluation.epochs}"]
    assert trace.seconds == pytest.approx(seconds)
    assert trace.seconds >= 5_000


@pytest.mark.parametrize("name", TABLE_SEARCHES)
def test_the_best_is_chosen_by_validation_among_those_trained_longest(table: Table, name: str) -> None:
    trace = TABLE_SEARCHES[name]().search(table, 4)
    longest = [evaluation for evaluation in trace.evaluations if evaluation.epochs == trace.best.epochs]
    assert trace.best.epochs == max(evaluation.epochs for evaluation in trace.evaluations)
    assert trace.best.accuracy == max(evaluation.accuracy for evaluation in longest)
    assert trace.best in longest


@pytest.mark.parametrize("name", TABLE_SEARCHES)
def test_searches_see_nothing_but_cifar10s_validation_images(table: Table, name: str) -> None:
    seen = ["c10_val_12", "c10_val_traintime_200", *(["c10_val_200"] if name == "bohb" else [])]
    blank = np.full(NUM_CELLS, np.nan)
    blind = dataclasses.replace(
        table, columns={column: values if column in seen else blank for column, values in table.columns.items()}
    )
    config = TABLE_SEARCHES[name]()
    assert config.search(blind, 6) == config.search(table, 6)


def test_random_search_draws_every_cell_alike(table: Table) -> None:
    drawn = [
        evaluation.index
        for seed in range(40)
        for evaluation in RandomSearch(budget_seconds=60_000.0).search(table, seed).evaluations
    ]
    assert len(drawn) > 15_000
    assert np.mean(drawn) == pytest.approx((NUM_CELLS - 1) / 2, rel=0.02)
    operations = np.array([table.operations[index] for index in drawn])
    for edge in range(6):
        assert np.bincount(operations[:, edge], minlength=5) / len(drawn) == pytest.approx(np.full(5, 0.2), abs=0.02)


def test_the_schedule_that_is_compared_can_be_the_long_one(table: Table) -> None:
    for config in (RandomSearch(epochs=200), RegularizedEvolution(epochs=200, population=2), Reinforce(epochs=200)):
        evaluations = config.search(table, 0).evaluations
        assert {evaluation.epochs for evaluation in evaluations} == {200}
        assert 3 < len(evaluations) < 20


def test_children_differ_from_a_living_parent_in_one_operation(table: Table) -> None:
    config = RegularizedEvolution(budget_seconds=60_000.0)
    evaluations = config.search(table, 5).evaluations
    changed_edges = []
    for position in range(config.population, len(evaluations)):
        child = np.array(table.operations[evaluations[position].index])
        alive = [table.operations[cell.index] for cell in evaluations[position - config.population : position]]
        distances = [int((child != np.array(parent)).sum()) for parent in alive]
        assert 1 in distances
        if distances.count(1) == 1:
            changed_edges.append(int(np.flatnonzero(child != np.array(alive[distances.index(1)]))[0]))
    # a node is drawn first, so the only edge into node 1 changes three times as often as one into node 3
    counts = np.bincount(changed_edges, minlength=6)
    assert counts.min() > 0
    assert counts[0] > counts[3:].max()


def test_evolution_without_choice_is_a_random_walk(table: Table) -> None:
    evaluations = RegularizedEvolution(population=1, sample=1, budget_seconds=20_000.0).search(table, 0).evaluations
    for before, after in itertools.pairwise(evaluations):
        one, other = (np.array(table.operations[cell.index]) for cell in (before, after))
        assert (one != other).sum() == 1


def test_reinforce_learns_the_operations_that_pay(table: Table) -> None:
    trace = Reinforce(budget_seconds=400_000.0, learning_rate=0.05).search(table, 0)
    accuracies = [evaluation.accuracy for evaluation in trace.evaluations]
    assert np.mean(accuracies[-200:]) > np.mean(accuracies[:200]) + 8


def test_bohb_runs_brackets_of_both_schedules(table: Table) -> None:
    trace = Bohb(budget_seconds=60_000.0).search(table, 0)
    pattern = [12] * 16 + [200] * 3
    epochs = [evaluation.epochs for evaluation in trace.evaluations]
    assert epochs == (pattern * (len(epochs) // len(pattern) + 1))[: len(epochs)]
    for start in range(0, len(epochs) - len(pattern), len(pattern)):
        tried = trace.evaluations[start : start + 16]
        promoted = trace.evaluations[start + 16]
        assert promoted.index == max(tried, key=lambda evaluation: evaluation.accuracy).index


def test_bohbs_estimator_proposes_better_cells_than_chance(table: Table) -> None:
    def short_runs(trace: SearchTrace) -> list[float]:
        return [evaluation.accuracy for evaluation in trace.evaluations if evaluation.epochs == 12][32:]

    mean = np.mean([np.mean(short_runs(Bohb(budget_seconds=60_000.0).search(table, seed))) for seed in range(5)])
    assert mean > table.accuracies("cifar10", "val", 12).mean() + 3


def test_bohb_names_the_extra_that_is_missing(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ConfigurationError, match=r"BOHB needs optuna.*pip install 'cdarts\[baselines\]'"):
        Bohb().search(table, 0)


@pytest.mark.parametrize(
    ("config", "complaint"),
    [
        (RandomSearch(budget_seconds=0.0), r"budget_seconds 0\.0: must be above 0"),
        (RegularizedEvolution(population=0), "population 0, sample 3: each must be at least 1"),
        (Reinforce(baseline_momentum=1.0), r"baseline_momentum 1\.0: must be from 0 to below 1"),
        (Bohb(eta=1), "eta 1, candidates 4, min_points 7: must be at least 2, 1, 1"),
    ],
)
def test_settings_that_cannot_work(table: Table, config: TableSearch, complaint: str) -> None:
    with pytest.raises(ConfigurationError, match=complaint):
        config.search(table, 0)


# -- how well they do --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "published", "spread"),
    [
        # NAS-Bench-201, 12,000 s, mean and standard deviation over 500 runs
        (RandomSearch(), 93.70, 0.36),
        (RegularizedEvolution(), 93.92, 0.30),
        (Reinforce(), 93.85, 0.37),
        # NATS-Bench, 20,000 s
        (RandomSearch(budget_seconds=20_000.0), 93.86, 0.23),
        (RegularizedEvolution(budget_seconds=20_000.0), 94.02, 0.31),
        (Reinforce(budget_seconds=20_000.0), 93.90, 0.26),
    ],
)
def test_near_the_published_figures(table: Table, config: TableSearch, published: float, spread: float) -> None:
    # they paid for validation too, and drew one of several runs of 12 epochs
    accuracies = found(table, config)
    assert accuracies.mean() == pytest.approx(published, abs=0.15)
    assert accuracies.std(ddof=1) == pytest.approx(spread, abs=0.15)


def test_evolution_is_better_than_random_search(table: Table) -> None:
    evolution, random = (found(table, config, range(150)) for config in (RegularizedEvolution(), RandomSearch()))
    error = np.sqrt(evolution.var(ddof=1) / len(evolution) + random.var(ddof=1) / len(random))
    assert evolution.mean() - random.mean() > 2 * error


def test_more_time_finds_better_cells(table: Table) -> None:
    short, long = (found(table, RandomSearch(budget_seconds=budget)) for budget in (1_000.0, 30_000.0))
    assert long.mean() > short.mean() + 0.3


def test_best_of_a_hundred_random_cells(table: Table) -> None:
    # the mean of the largest of 100 draws, exactly: from the distribution of all cells, with replacement
    ordered = np.sort(table.accuracies("cifar10", "val", 12))
    levels = (np.arange(1, NUM_CELLS + 1) / NUM_CELLS) ** 100
    expected = float(ordered @ np.diff(levels, prepend=0.0))
    best = [
        max(
            evaluation.accuracy
            for evaluation in RandomSearch(budget_seconds=20_000.0).search(table, seed).evaluations[:100]
        )
        for seed in range(200)
    ]
    assert np.mean(best) == pytest.approx(expected, abs=4 * np.std(best) / np.sqrt(len(best)))
