"""Weight sharing among paths: what a step trains, what a score is, and that scoring changes nothing."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from cdarts.algorithms.base import random_genotype
from cdarts.algorithms.rsps import RspsConfig
from cdarts.algorithms.sampling import BestOfSearch, batch_statistics, distinct, unaugmented
from cdarts.data import ImageData, load
from cdarts.errors import ConfigurationError
from cdarts.networks import Network
from cdarts.spaces import DartsSpace, NasBench201Space, Space, ToySpace
from cdarts.topology import Genotype

SPACES = [pytest.param(space, id=space.name) for space in (ToySpace(), NasBench201Space(), DartsSpace())]


@pytest.fixture(scope="module")
def synthetic() -> ImageData:
    return load("synthetic")


def build(data: ImageData, space: Space, execution: str = "share", candidates: int = 4) -> BestOfSearch:
    config = RspsConfig(space=space, channels=4, cells=3, batch_size=32, epochs=2, candidates=candidates)  # type: ignore[arg-type]
    task = config.build(data, seed=0, device=torch.device("cpu"), execution=execution)
    task.start_epoch(0, task.plan()[0])
    return task


def copied(network: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in network.state_dict().items()}


@pytest.mark.parametrize("space", SPACES)
def test_a_step_moves_the_paths_weights_and_no_others(space: Space, synthetic: ImageData) -> None:
    task = build(synthetic, space)
    batches = list(task.batches(0))
    moved = set()
    for position in range(3):  # later ones have momentum and weight decay to withstand
        before = copied(task.search_net)
        task.step(position, *batches[position])
        on_path = {
            f"cells.{slot.name.split('.')[1]}.edges.{edge}.{names[0]}."
            for slot in task.search_net.layout
            if slot.kind
            for edge, names in space.topology(task.path(position))[slot.kind].edges
        }
        for name, parameter in task.search_net.named_parameters():
            if ".edges." in name and not any(name.startswith(prefix) for prefix in on_path):
                assert torch.equal(parameter, before[name]), name
            elif name.startswith("classifier"):
                assert not torch.equal(parameter, before[name]), name
            if not torch.equal(parameter, before[name]):
                moved.add(name)
    assert any(".edges." in name for name in moved)


def test_paths_are_random_and_a_function_of_epoch_and_position(synthetic: ImageData) -> None:
    task = build(synthetic, NasBench201Space())
    paths = [task.path(position) for position in range(20)]
    assert len(set(paths)) > 15
    assert paths == [task.path(position) for position in range(20)]
    task.start_epoch(1, task.plan()[1])
    assert paths != [task.path(position) for position in range(20)]


@pytest.mark.parametrize("execution", ["plain", "share"])
@pytest.mark.parametrize("space", SPACES)
def test_a_score_is_the_accuracy_of_the_genotypes_own_network(
    space: Space, execution: str, synthetic: ImageData
) -> None:
    """A network of the genotype alone, weights taken over by name, in training mode, on the val half."""
    task = build(synthetic, space, execution)
    for position, batch in enumerate(task.batches(0)):
        task.step(position, *batch)
    for seed in range(3):
        genotype = random_genotype(space, seed, "any")
        alone = Network(
            space, space.topology(genotype), cells=3, channels=4, num_classes=4, affine=False, execution=execution
        )
        shared = task.search_net.state_dict()
        alone.load_state_dict({name: shared[name] for name in alone.state_dict()})
        alone.train()
        with torch.no_grad():
            hits = [alone(images).logits.argmax(dim=1) == labels for images, labels in unaugmented(task.val)(0)]
        assert task.score(genotype).item() == torch.cat(hits).double().mean().item()


@pytest.mark.parametrize("space", SPACES)
def test_scoring_changes_nothing(space: Space, synthetic: ImageData) -> None:
    task = build(synthetic, space)
    task.step(0, *next(task.batches(0)))
    genotypes = [random_genotype(space, seed, "any") for seed in range(3)]
    before = copied(task.search_net)
    alone = [task.score(genotype) for genotype in genotypes]
    assert [task.score(genotype) for genotype in reversed(genotypes)] == alone[::-1], "the order does not matter"
    after = task.search_net.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert task.search_net.training
    assert all(not score.requires_grad for score in alone)
    # and training goes on to count, as it did before
    task.step(1, *next(task.batches(0)))
    stem = task.search_net.state_dict()
    assert stem["stem.norm.num_batches_tracked"] == before["stem.norm.num_batches_tracked"] + 1


def test_batch_statistics_are_restored_even_after_an_error() -> None:
    norm = nn.BatchNorm2d(2)
    images = torch.rand(4, 2, 3, 3)
    expected = nn.functional.batch_norm(images, None, None, training=True)
    with pytest.raises(ValueError, match="broken"), batch_statistics(norm):
        assert torch.allclose(norm(images), expected)
        raise ValueError("broken")
    assert torch.equal(norm.running_mean, torch.zeros(2))
    assert norm.num_batches_tracked == 0
    norm(images)
    assert norm.num_batches_tracked == 1


def test_scored_images_are_the_val_half_without_augmentation(synthetic: ImageData) -> None:
    task = build(synthetic, ToySpace())
    scored = torch.cat([batch.images for batch in task.measured(0)])
    std, mean = (torch.tensor(values).view(3, 1, 1) for values in (synthetic.std, synthetic.mean))
    pixels = ((scored * std + mean) * 255).round().to(torch.uint8)
    assert {image.numpy().tobytes() for image in pixels} == {
        image.numpy().tobytes() for image in task.val.reader.pixels
    }
    assert task.measured.reader is task.val.reader, "held once"
    assert task.val.augmentation == synthetic.augmentation
    first = next(task.measured(0)).labels
    assert len(first.unique()) == 4, "mixed classes: batch statistics of a single class would be of no use"


def test_distinct_keeps_order_and_leaves_out_what_is_known() -> None:
    a, b, c = (random_genotype(NasBench201Space(), seed, "any") for seed in range(3))
    assert distinct([a, b, a, c], 3) == [a, b, c]
    assert distinct([a, b, a, c], 2) == [a, b]
    assert distinct([a, b, a, c], 3, {b}) == [a, c]
    assert distinct([a, b], 0) == []


def test_the_answer_is_the_first_of_the_best_scored(synthetic: ImageData, monkeypatch: pytest.MonkeyPatch) -> None:
    task = build(synthetic, NasBench201Space(), candidates=5)
    assert task.genotype() == task.guess()
    index = len(task.plan()) - 1
    task.start_epoch(index, task.plan()[index])
    planted = dict(zip(task.candidates, (0.2, 0.7, 0.1, 0.7, 0.3), strict=True))
    monkeypatch.setattr(task, "score", lambda genotype: torch.tensor(planted[genotype], dtype=torch.float64))
    for position, batch in enumerate(task.batches(index)):
        assert task.step(position, *batch)["score"] == planted[task.candidates[position]]
    record = task.end_epoch(index, {"score": 0.4})
    assert task.genotype() == task.candidates[1]
    assert record["metrics"] == {"phase": "select", "score": 0.4, "best_score": 0.7}
    assert record["genotypes"]["text"] == task.candidates[1].text()


def test_impossible_settings_are_refused_in_the_users_words(synthetic: ImageData) -> None:
    config = RspsConfig(batch_size=16)
    with pytest.raises(ConfigurationError, match=r"^--candidates 0: must be at least 1$"):
        replace(config, candidates=0).check(synthetic)
    with pytest.raises(ConfigurationError, match=r"^--epochs 0: must be at least 1$"):
        replace(config, epochs=0).check(synthetic)
    with pytest.raises(ConfigurationError, match=r"^--batch-size 129: "):
        replace(config, batch_size=129).check(synthetic)


def test_a_genotype_finds_itself_in_a_dictionary_of_scores() -> None:
    genotype = random_genotype(DartsSpace(), 0, "any")
    assert {genotype: 1.0}[Genotype(genotype.space, genotype.cells, {"from": "elsewhere"})] == 1.0
