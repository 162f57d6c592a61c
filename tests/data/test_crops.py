"""Random windows and changed colours: against torchvision, against closed forms, and with given draws."""

import itertools

import numpy as np
import pytest
import torch
import torchvision.transforms.functional as reference
from PIL import Image

from cdarts.data import Augmentation, load
from cdarts.data.crops import jittered, resampled, resized_crop
from cdarts.errors import ConfigurationError

JITTER = (0.4, 0.4, 0.4, 0.2)


def uniforms(count: int, columns: int) -> np.ndarray:
    return np.random.default_rng(0).random((count, columns))


@pytest.mark.parametrize(("width", "height"), [(64, 64), (500, 300), (30, 200)])
@pytest.mark.parametrize("least_area", [0.08, 0.25, 1.0])
def test_windows_lie_inside_and_have_the_area_and_the_ratio_asked_for(
    width: int, height: int, least_area: float
) -> None:
    left, top, crop_width, crop_height = resized_crop(width, height, uniforms(2000, 4), least_area)
    assert (left >= 0).all() and (top >= 0).all()
    assert (left + crop_width <= width + 1e-9).all() and (top + crop_height <= height + 1e-9).all()
    unclipped = (crop_width < width) & (crop_height < height)
    areas = crop_width * crop_height / (width * height)
    ratios = crop_width / crop_height
    assert (areas[unclipped] >= least_area - 1e-9).all() and (areas <= 1 + 1e-9).all()
    assert (ratios[unclipped] >= 3 / 4 - 1e-9).all() and (ratios[unclipped] <= 4 / 3 + 1e-9).all()


def test_area_is_uniform_and_ratio_log_uniform() -> None:
    draws = uniforms(20_000, 4)
    _, _, width, height = resized_crop(1000, 1000, draws, 0.1)
    inside = (width < 1000) & (height < 1000)
    np.testing.assert_allclose((width * height)[inside], ((0.1 + 0.9 * draws[:, 0]) * 1e6)[inside])
    expected = np.log(3 / 4) + (np.log(4 / 3) - np.log(3 / 4)) * draws[:, 1]
    np.testing.assert_allclose(np.log(width / height)[inside], expected[inside], atol=1e-9)


def test_a_window_of_the_whole_image_is_the_image() -> None:
    pixels = torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    whole = torch.tensor([[0.0, 0.0, 16.0, 16.0]]).expand(4, 4)
    flips = torch.tensor([False, True, False, True])
    result = resampled(pixels, whole, flips)
    assert torch.equal(result[~flips], pixels[~flips])
    assert torch.equal(result[flips], pixels[flips].flip(3))


def test_windows_equal_those_of_pillow_to_a_level_inside() -> None:
    pixels = load("digits").train.pixels[:64].repeat(4, axis=1).repeat(4, axis=2)  # 32 x 32
    images = torch.tensor(pixels).permute(0, 3, 1, 2).contiguous()
    crops = np.stack(resized_crop(32, 32, uniforms(64, 4), 0.25), axis=1)
    ours = resampled(images, torch.tensor(crops, dtype=torch.float32), torch.zeros(64, dtype=torch.bool))
    for image, window, (left, top, width, height) in zip(pixels[..., 0], ours[:, 0].numpy(), crops, strict=True):
        box = (left, top, left + width, top + height)
        theirs = np.asarray(Image.fromarray(image).resize((32, 32), Image.Resampling.BILINEAR, box=box))
        # at the rim Pillow does not look beyond the window, sampling does
        difference = np.abs(theirs.astype(int) - window.astype(int))[2:-2, 2:-2]
        assert difference.max() <= 2


def test_colours_change_as_torchvision_changes_them() -> None:
    image = np.asarray(Image.effect_mandelbrot((32, 32), (-2, -1.5, 1, 1.5), 50).convert("RGB")).copy()
    image[..., 1] = image[..., 1].T
    for draws in uniforms(40, 5):
        factors = [1 + strength * (2 * draw - 1) for strength, draw in zip(JITTER[:3], draws[:3], strict=True)]
        turn = JITTER[3] * (2 * draws[3] - 1)
        changes = [
            lambda x, f=factors[0]: reference.adjust_brightness(x, f),
            lambda x, f=factors[1]: reference.adjust_contrast(x, f),
            lambda x, f=factors[2]: reference.adjust_saturation(x, f),
            lambda x, f=turn: reference.adjust_hue(x, f),
        ]
        expected = Image.fromarray(image)
        for change in list(itertools.permutations(range(4)))[int(draws[4] * 24)]:
            expected = changes[change](expected)
        assert np.array_equal(jittered(image, JITTER, draws), np.asarray(expected))


def test_grey_images_keep_their_channel() -> None:
    digit = load("digits").train.pixels[0]
    changed = jittered(digit, JITTER, np.array([1.0, 0.5, 0.1, 0.9, 0.0]))
    assert changed.shape == digit.shape
    assert changed.mean() == pytest.approx(1.4 * digit.mean(), rel=0.15)


@pytest.mark.parametrize(("flag", "values"), [
    ("--least-area 0.0", {"least_area": 0.0}),
    ("--least-area 1.5", {"least_area": 1.5}),
    ("--colour-jitter 0.4 0.4 0.4 0.6", {"jitter": (0.4, 0.4, 0.4, 0.6)}),
    ("--colour-jitter -0.1 0.0 0.0 0.0", {"jitter": (-0.1, 0.0, 0.0, 0.0)}),
])  # fmt: skip
def test_values_out_of_range_are_refused(flag: str, values: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError, match=f"^{flag}: expected"):
        Augmentation(**values)  # type: ignore[arg-type]
