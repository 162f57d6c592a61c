"""mixup and CutMix: images and classes are shared as their papers say."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from cdarts.retraining.mixing import Targets, cutmix, mixup


def draw(seed: int = 0) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seed))


@pytest.fixture
def images() -> Tensor:
    """Image i is i everywhere, so that a mixture tells its shares."""
    return torch.arange(6.0)[:, None, None, None].expand(6, 3, 8, 10).clone()


LABELS = torch.tensor([0, 1, 2, 3, 4, 5])


@pytest.mark.parametrize("seed", range(5))
def test_mixup_is_a_weighted_sum_with_one_weight(images: Tensor, seed: int) -> None:
    before = images.clone()
    mixed, targets = mixup(images, LABELS, 0.4, draw(seed))
    assert targets.partners is not None
    expected = targets.share * LABELS + (1 - targets.share) * targets.partners
    torch.testing.assert_close(mixed, expected[:, None, None, None].expand_as(mixed).float())
    assert sorted(targets.partners.tolist()) == LABELS.tolist()
    assert torch.equal(images, before)
    assert targets.share == draw(seed).beta(0.4, 0.4)


@pytest.mark.parametrize("seed", range(8))
def test_cutmix_puts_a_rectangle_of_the_partner_and_shares_by_area(images: Tensor, seed: int) -> None:
    before = images.clone()
    mixed, targets = cutmix(images, LABELS, 1.0, draw(seed))
    assert targets.partners is not None
    area = None
    for image, own, partner in zip(mixed, LABELS, targets.partners, strict=True):
        assert set(image.unique().tolist()) <= {float(own), float(partner)}
        if own == partner:
            continue
        inside = image[0] == partner
        area = inside.float().mean().item()
        assert targets.share == pytest.approx(1 - area)
        rows, columns = inside.any(1), inside.any(0)
        assert inside.sum() == rows.sum() * columns.sum(), "a full rectangle"
    assert area is not None
    assert torch.equal(images, before)


def test_the_cut_area_is_that_of_beta() -> None:
    """Far from the border nothing is cut off: the share is lambda, up to whole pixels."""
    images, shares = torch.zeros(2, 1, 64, 64), []
    for seed in range(300):
        _, targets = cutmix(images, LABELS[:2], 1.0, draw(seed))
        shares.append(targets.share)
    # lambda is uniform for alpha 1; clipping at borders takes area away from the partner
    assert 0.55 < np.mean(shares) < 0.75
    assert min(shares) >= 0 and max(shares) <= 1
    for seed in range(300):
        rng = draw(seed)
        wanted = rng.beta(1.0, 1.0)
        assert shares[seed] >= wanted - 1e-9, "never more than was drawn"


def test_the_loss_is_shared_between_the_classes() -> None:
    logits = torch.randn(6, 7, generator=torch.Generator().manual_seed(0))
    partners = LABELS.roll(1)
    targets = Targets(LABELS, partners, 0.3)
    soft = 0.3 * F.one_hot(LABELS, 7) + 0.7 * F.one_hot(partners, 7)
    for smoothing in (0.0, 0.1):
        expected = F.cross_entropy(logits, soft.float(), label_smoothing=smoothing)
        torch.testing.assert_close(targets.cross_entropy(logits, smoothing), expected)
    plain = Targets(LABELS)
    assert torch.equal(plain.cross_entropy(logits, 0.1), F.cross_entropy(logits, LABELS, label_smoothing=0.1))
    guess = F.one_hot(LABELS, 7).float()
    assert targets.accuracy(guess).item() == pytest.approx(0.3)
    assert plain.accuracy(guess).item() == 1.0


def test_targets_split_as_tensors_do() -> None:
    parts = Targets(LABELS, LABELS.roll(1), 0.3).split(4)
    assert [len(part.labels) for part in parts] == [len(part) for part in LABELS.tensor_split(4)]
    assert torch.equal(torch.cat([part.labels for part in parts]), LABELS)
    assert torch.equal(torch.cat([part.partners for part in parts if part.partners is not None]), LABELS.roll(1))
    assert {part.share for part in parts} == {0.3}
    assert all(part.partners is None for part in Targets(LABELS).split(2))
