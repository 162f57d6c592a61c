"""RSPS: uniform paths, then the best of random genotypes."""

from collections import Counter

import pytest
import torch

from cdarts.algorithms.config import Protocol
from cdarts.algorithms.rsps import RspsConfig
from cdarts.data import ImageData, load
from cdarts.engine.optimizers import Sgd
from cdarts.spaces import NasBench201Space, ToySpace


@pytest.fixture(scope="module")
def synthetic() -> ImageData:
    return load("synthetic")


def protocol(epochs: int) -> Protocol:
    return Protocol(
        data="synthetic",
        image_size=None,
        space=ToySpace(),
        channels=4,
        cells=3,
        batch_size=32,
        epochs=epochs,
        still_epochs=0,
        weights=Sgd(lr=0.1),
        alpha_rate=1.0,
    )


def test_candidates_are_distinct_uniform_and_the_seeds(synthetic: ImageData) -> None:
    config = RspsConfig(space=NasBench201Space(), channels=4, cells=3, batch_size=32, epochs=1, candidates=400)
    task, other = (config.build(synthetic, seed=s, device=torch.device("cpu"), execution="share") for s in (0, 1))
    candidates = task.propose()
    assert len(set(candidates)) == 400
    assert candidates == task.propose() != other.propose()
    counts = Counter(name for genotype in candidates for name in genotype.operations())
    # 2,400 edges: 480 of each operation, four standard deviations are 78
    assert all(abs(counts[name] - 480) < 78 for name in config.space.operations)


def test_a_space_with_fewer_genotypes_than_candidates_is_searched_whole(synthetic: ImageData) -> None:
    config = RspsConfig(space=ToySpace(), channels=4, cells=3, batch_size=32, epochs=1)
    task = config.build(synthetic, seed=0, device=torch.device("cpu"), execution="share")
    assert len(task.propose()) == 3**3


@pytest.mark.parametrize(("epochs", "candidates"), [(2, 8), (24, 96), (50, 100)])
def test_under_a_protocol_scoring_takes_about_as_long_as_training(epochs: int, candidates: int) -> None:
    config = RspsConfig().under(protocol(epochs))
    assert config.candidates == candidates


def test_a_small_search_finds_a_path_that_classifies(synthetic: ImageData) -> None:
    config = RspsConfig(
        space=ToySpace(),
        channels=8,
        cells=3,
        batch_size=16,
        epochs=8,
        candidates=27,
        weights=Sgd(lr=0.1, lr_end=0.0),
    )
    task = config.build(synthetic, seed=0, device=torch.device("cpu"), execution="share")
    for index, epoch in enumerate(task.plan()):
        task.start_epoch(index, epoch)
        for position, batch in enumerate(task.batches(index)):
            losses = task.step(position, *batch)
        record = task.end_epoch(index, {})
    assert record["metrics"]["best_score"] > 0.8, "chance is 0.25"
    assert task.scores[task.genotype()] == max(task.scores.values())
    assert losses.keys() == {"score"}
    # cut off from the input, a network is at chance
    cut_off = {genotype: score for genotype, score in task.scores.items() if set(genotype.operations()) == {"none"}}
    assert list(cut_off.values()) == [0.25]
