"""Augmentation policies: each transform is torchvision's, each draw an image's own."""

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as reference

from cdarts.data import ImageData, load
from cdarts.data.images import Batches
from cdarts.data.policies import (
    LEVELS,
    SIGNED,
    TRANSFORMS,
    Policy,
    RandAugment,
    TrivialAugment,
    _strength,
)
from cdarts.errors import ConfigurationError
from cdarts.randomness import generator

CPU = torch.device("cpu")

TORCHVISION = {
    "shear_x": "ShearX",
    "shear_y": "ShearY",
    "translate_x": "TranslateX",
    "translate_y": "TranslateY",
    "rotate": "Rotate",
    "brightness": "Brightness",
    "color": "Color",
    "contrast": "Contrast",
    "sharpness": "Sharpness",
    "posterize": "Posterize",
    "solarize": "Solarize",
    "auto_contrast": "AutoContrast",
    "equalize": "Equalize",
    "identity": "Identity",
}

POLICIES: list[Policy] = [RandAugment(), RandAugment(3, 15), TrivialAugment()]


@pytest.fixture(scope="module")
def pixels() -> Tensor:
    """Real images in colour, (48, 3, 20, 20): smooth noise over digits, so that no channel is like another."""
    digits = torch.tensor(load("digits", image_size=20).train.pixels[:48]).permute(0, 3, 1, 2).float()
    tint = torch.rand(48, 3, 20, 20, generator=generator(0, "tint"))
    return (0.6 * digits + 100 * tint).to(torch.uint8)


@pytest.fixture(scope="module")
def synthetic() -> ImageData:
    return load("synthetic")


def ranges_of(policy: RandAugment | TrivialAugment, side: int) -> Mapping[str, tuple[float, float]]:
    return policy.ranges(side) if isinstance(policy, RandAugment) else policy.ranges


# -- transforms --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TRANSFORMS)
@pytest.mark.parametrize(
    ("ours", "theirs"), [(RandAugment(), v2.RandAugment()), (TrivialAugment(), v2.TrivialAugmentWide())], ids=["r", "t"]
)
def test_every_transform_and_strength_is_torchvisions(
    name: str, ours: RandAugment | TrivialAugment, theirs: v2.RandAugment, pixels: Tensor
) -> None:
    side = pixels.shape[3]
    magnitudes, signed = theirs._AUGMENTATION_SPACE[TORCHVISION[name]]
    assert signed == (name in SIGNED)
    graded = magnitudes(LEVELS, side, side)
    for level in (0, 7, 9, 22, 30):
        for mirrored in (False, True):
            strength = _strength(name, ranges_of(ours, side), level, mirrored)
            wanted = 0.0 if graded is None else float(graded[level]) * (-1 if signed and mirrored else 1)
            assert (round(strength) if name == "posterize" else strength) == pytest.approx(wanted, abs=1e-5)
            expected = torch.stack(
                [
                    theirs._apply_image_or_video_transform(
                        image, TORCHVISION[name], wanted, interpolation=theirs.interpolation, fill=theirs._fill
                    )
                    for image in pixels
                ]
            )
            found = TRANSFORMS[name](pixels, strength)
            assert found.dtype == torch.uint8
            # one level of brightness, where strengths differ in the last bit
            assert (found.int() - expected.int()).abs().max() <= 1, level


def test_the_transforms_are_torchvisions_fourteen() -> None:
    assert set(TORCHVISION.values()) == set(v2.RandAugment._AUGMENTATION_SPACE)
    assert set(TORCHVISION.values()) == set(v2.TrivialAugmentWide._AUGMENTATION_SPACE)
    assert set(TORCHVISION) == set(TRANSFORMS) == set(RandAugment().ranges(32)) == set(TrivialAugment.ranges)


# -- policies ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", POLICIES, ids=repr)
@pytest.mark.parametrize("channels", [1, 3])
def test_an_image_is_changed_the_same_in_any_company(policy: Policy, channels: int, pixels: Tensor) -> None:
    images = pixels[:, :channels].contiguous()
    before = images.clone()
    uniforms = torch.rand(len(images), policy.columns, generator=generator(1, "u"))
    together = policy(images, uniforms)
    assert torch.equal(images, before), "what was given stays"
    assert together.shape == images.shape and together.dtype == torch.uint8
    assert (together != images).flatten(1).any(1).float().mean() > 0.6
    for size in (1, 7):
        parts = [policy(part, rows) for part, rows in zip(images.split(size), uniforms.split(size), strict=True)]
        assert torch.equal(torch.cat(parts), together)


def test_rand_augment_applies_the_drawn_transforms_in_turn(pixels: Tensor) -> None:
    policy = RandAugment(2, 12)
    names = list(policy.ranges(20))
    first, second = names.index("rotate"), names.index("solarize")
    uniforms = torch.tensor([[(first + 0.5) / 14, 0.2, (second + 0.5) / 14, 0.9]])
    found = policy(pixels[:1], uniforms)
    expected = reference.solarize(reference.rotate(pixels[:1], -12.0), 255 * (1 - 12 / 30))
    assert torch.equal(found, expected)


def test_trivial_augment_applies_one_transform_of_the_drawn_strength(pixels: Tensor) -> None:
    names = list(TrivialAugment.ranges)
    row = [(names.index("posterize") + 0.5) / 14, 30.5 / 31, 0.0]
    assert torch.equal(TrivialAugment()(pixels[:1], torch.tensor([row])), reference.posterize(pixels[:1], 2))


@pytest.mark.parametrize("policy", [RandAugment(1, 9), TrivialAugment()], ids=["rand", "trivial"])
def test_all_transforms_are_as_likely_and_signs_are_even(
    policy: RandAugment | TrivialAugment, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, float]] = []

    def note(pixels: Tensor, chosen: list[tuple[str, float]]) -> Tensor:
        seen.extend(chosen)
        return pixels

    monkeypatch.setattr("cdarts.data.policies._transformed", note)
    count = 14_000
    policy(torch.zeros(count, 1, 4, 4, dtype=torch.uint8), policy.uniforms(count, 0, "retrain", 0))
    for name in TRANSFORMS:
        share = sum(chosen == name for chosen, _ in seen)
        assert 850 < share < 1150, name  # mean 1,000, standard deviation 30
    for name in SIGNED:
        strengths = [strength for chosen, strength in seen if chosen == name and strength != 0]
        assert 0.4 < sum(strength < 0 for strength in strengths) / len(strengths) < 0.6


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: RandAugment(0, 9), "--rand-augment 0 9: give a number of transforms"),
        (lambda: RandAugment(2, 31), "--rand-augment 2 31: .* 0 to 30"),
    ],
)
def test_numbers_that_cannot_be(build: type, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        build()


# -- within batches ----------------------------------------------------------------------------------------------------


def make(data: ImageData, policies: list[Policy], batch_size: int, seed: int = 0) -> Batches:
    return Batches(
        data.train,
        data,
        batch_size=batch_size,
        seed=seed,
        stream="retrain",
        augmentation=data.augmentation,
        device=CPU,
        policies=policies,
    )


def by_sample(batches: Batches, epoch: int) -> Tensor:
    """The images of an epoch in the order of the split."""
    images, order = [], []
    for batch in batches(epoch):
        images.append(batch.images)
        order += batches.current()
    return torch.cat(images)[torch.tensor(order).argsort()]


def test_a_samples_policy_depends_on_seed_epoch_and_sample_alone(synthetic: ImageData) -> None:
    state = torch.get_rng_state()
    whole = by_sample(make(synthetic, POLICIES, 64), 2)
    assert torch.equal(by_sample(make(synthetic, POLICIES, 8), 2), whole)
    assert not torch.equal(by_sample(make(synthetic, POLICIES, 64), 3), whole)
    assert not torch.equal(by_sample(make(synthetic, POLICIES, 64, seed=1), 2), whole)
    assert torch.equal(torch.get_rng_state(), state), "the global generator is left alone"


def test_policies_leave_crop_and_flip_as_they_were(synthetic: ImageData) -> None:
    class Nothing(Policy):
        name = "nothing"
        columns = 1  # type: ignore[assignment]

        def __call__(self, pixels: Tensor, uniforms: Tensor) -> Tensor:
            assert pixels.dtype == torch.uint8 and uniforms.shape == (len(pixels), 1)
            return pixels

    assert torch.equal(by_sample(make(synthetic, [Nothing()], 32), 0), by_sample(make(synthetic, [], 32), 0))
