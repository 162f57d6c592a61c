"""A saved model: the network alone, with all that is needed to use it."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from cdarts import zoo
from cdarts.data import ImageData, evaluation_batches, load
from cdarts.engine import checkpoint
from cdarts.errors import CheckpointError
from cdarts.model import CARD, WEIGHTS, ModelCard, card_of, find_model, load_model, save_model
from cdarts.networks import Network
from cdarts.randomness import seeded
from cdarts.retraining import Retraining
from cdarts.spaces import DartsSpace

CPU = torch.device("cpu")
GENOTYPE = zoo.load("darts-v2")


@pytest.fixture(scope="module")
def digits() -> ImageData:
    return load("digits")


@pytest.fixture(scope="module")
def card(digits: ImageData) -> ModelCard:
    return card_of(digits, DartsSpace(), GENOTYPE.to_json(), 3, 4)


def network_of(card: ModelCard) -> Network:
    with seeded(0, "model"):
        network = card.build()
    # running statistics that are not those of a new network
    with torch.no_grad():
        network(torch.randn(8, card.image_channels, card.side, card.side, generator=torch.Generator().manual_seed(0)))
    return network


@pytest.fixture
def saved(tmp_path: Path, card: ModelCard) -> Path:
    save_model(tmp_path, card, network_of(card))
    return tmp_path


def test_round_trip_to_the_bit(saved: Path, card: ModelCard, digits: ImageData) -> None:
    loaded_card, loaded = load_model(saved)
    assert loaded_card == card
    assert not loaded.training
    expected = network_of(card).eval()
    for name, tensor in expected.state_dict().items():
        assert torch.equal(tensor, loaded.state_dict()[name]), name
    images = next(evaluation_batches(digits.test, digits, 16, CPU)).images
    with torch.no_grad():
        assert torch.equal(loaded(images).logits, expected(images).logits)
        _, plain = load_model(saved, "plain")
        torch.testing.assert_close(plain(images).logits, expected(images).logits)


def test_the_card_says_it_all(saved: Path, digits: ImageData) -> None:
    text = json.loads((saved / CARD).read_text())
    assert text["class_names"] == [str(digit) for digit in range(10)]
    assert (text["side"], text["image_channels"], text["cells"], text["channels"]) == (8, 1, 3, 4)
    assert (tuple(text["mean"]), tuple(text["std"])) == (digits.mean, digits.std)
    assert text["genotype"]["text"] == GENOTYPE.text()


def test_the_auxiliary_head_is_not_saved(tmp_path: Path, digits: ImageData) -> None:
    training = Retraining(cells=3, channels=4, epochs=1)
    task = training.build(GENOTYPE, digits, seed=0, device=CPU, execution="share")
    assert task.auxiliary is not None
    save_model(tmp_path, card_of(digits, training.space, GENOTYPE.to_json(), 3, 4), task.network)
    names = set(checkpoint.load(tmp_path / WEIGHTS)["network"])
    assert names == set(task.network.state_dict())
    assert not any("squeeze" in name or "auxiliary" in name for name in names)


def test_normalises_as_in_training(card: ModelCard, digits: ImageData) -> None:
    batch = next(evaluation_batches(digits.test, digits, 16, CPU))
    assert torch.equal(card.normalise(digits.test.pixels[:16], CPU), batch.images)
    other = card_of(digits, DartsSpace(), GENOTYPE.to_json(), 3, 4).normalising(load("digits"))
    assert (other.mean, other.std) == (digits.mean, digits.std)


def test_single_images_give_what_batches_give(saved: Path, digits: ImageData) -> None:
    card, network = load_model(saved)
    with torch.no_grad():
        together = network(card.normalise(digits.test.pixels[:8], CPU)).logits
        alone = [network(card.normalise(np.stack([pixels]), CPU)).logits for pixels in digits.test.pixels[:8]]
    torch.testing.assert_close(torch.cat(alone), together)


def test_where_the_model_of_a_run_lies(tmp_path: Path, card: ModelCard) -> None:
    assert find_model(tmp_path) == tmp_path
    (tmp_path / "retrain").mkdir()
    assert find_model(tmp_path) == tmp_path
    save_model(tmp_path / "retrain", card, network_of(card))
    assert find_model(tmp_path) == tmp_path / "retrain"


# -- damage ------------------------------------------------------------------------------------------------------------


def complaint(directory: Path) -> str:
    with pytest.raises(CheckpointError) as raised:
        load_model(directory)
    assert raised.value.exit_code == 4
    return str(raised.value)


def test_no_model_here(tmp_path: Path) -> None:
    assert "no such file or folder" in complaint(tmp_path / "absent")
    assert "model.json is missing" in complaint(tmp_path)


def test_damaged_weights(saved: Path) -> None:
    data = bytearray((saved / WEIGHTS).read_bytes())
    data[-5] ^= 4
    (saved / WEIGHTS).write_bytes(data)
    assert "damaged" in complaint(saved)
    (saved / WEIGHTS).unlink()
    assert "No such file" in complaint(saved)


def test_damaged_card(saved: Path) -> None:
    text = (saved / CARD).read_text()
    (saved / CARD).write_text(text[: len(text) // 2])
    assert CARD in complaint(saved)
    card = json.loads(text)
    for change in (
        {"cells": "3"},
        {"extra": 1},
        {"channels": 5},
        {"mean": [float("nan")]},
        {"genotype": {"format": "x"}},
    ):
        (saved / CARD).write_text(json.dumps(card | change))
        assert "cannot be built from this file" in complaint(saved)


def test_weights_of_another_network(saved: Path) -> None:
    card = json.loads((saved / CARD).read_text())
    (saved / CARD).write_text(json.dumps(card | {"channels": 6}))
    assert "does not belong to" in complaint(saved)
    checkpoint.save(saved / WEIGHTS, {"next_epoch": 1})
    assert "does not belong to" in complaint(saved)
