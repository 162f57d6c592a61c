"""A random genotype as a search: nothing is trained, and the run is whole all the same."""

from collections import Counter
from pathlib import Path

import pytest
import torch

from cdarts.algorithms.random_draw import RandomDraw
from cdarts.algorithms.random_search import RandomConfig
from cdarts.data import ImageData, load
from cdarts.engine import loop
from cdarts.engine.forecast import forecast
from cdarts.engine.progress import PlanProgress
from cdarts.engine.run_dir import RunDir
from cdarts.engine.runtime import StopFlag
from cdarts.spaces import NasBench201Space


@pytest.fixture(scope="module")
def synthetic() -> ImageData:
    return load("synthetic")


def build(data: ImageData, seed: int = 0) -> RandomDraw:
    config = RandomConfig(space=NasBench201Space())
    return config.build(data, seed=seed, device=torch.device("cpu"), execution="share")


def test_every_operation_is_equally_likely(synthetic: ImageData) -> None:
    genotypes = [build(synthetic, seed).genotype() for seed in range(400)]
    counts = Counter(name for genotype in genotypes for name in genotype.operations())
    # 2,400 edges: 480 of each operation, four standard deviations are 78
    assert all(abs(counts[name] - 480) < 78 for name in NasBench201Space.operations)
    assert len(set(genotypes)) > 380
    assert build(synthetic, 5).genotype() == genotypes[5]


def test_the_loop_walks_it_and_leaves_a_record(synthetic: ImageData, tmp_path: Path) -> None:
    task = build(synthetic)
    with RunDir.create(tmp_path / "run", {}) as run:
        loop.run(task, run, PlanProgress("search", task.plan()), StopFlag())
        assert run.seconds() < 1.0
        assert [line["phase"] for line in run.journal("metrics")] == ["draw"]
        assert [line["text"] for line in run.journal("genotypes")] == [task.genotype().text()]
        # resumed when it is done, it has nothing left to do
        again = build(synthetic)
        loop.run(again, run, PlanProgress("search", again.plan()), StopFlag())
        assert len(run.journal("metrics")) == 1
        assert again.genotype() == task.genotype()


def test_a_forecast_of_nothing_is_zero(synthetic: ImageData) -> None:
    assert forecast(build(synthetic)).seconds == 0.0
    assert build(synthetic).num_parameters() == {}
