"""Mini-batches: order, augmentation against torchvision and brute force, and independence of batch size."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision.transforms as transforms
import torchvision.transforms.functional as reference
from torch import Tensor, nn

from cdarts.data import Augmentation, Batch, Batches, ImageData, Images, evaluation_batches, load
from cdarts.errors import ConfigurationError

CPU = torch.device("cpu")


def make(
    data: ImageData, augmentation: Augmentation | None, *, batch_size: int = 32, seed: int = 0, stream: str = "train"
) -> Batches:
    """Batches of the training split whose labels are the images' positions, so that each image can be told."""
    images = Images(data.train.pixels, np.arange(len(data.train), dtype=np.int64))
    return Batches(images, data, batch_size=batch_size, seed=seed, stream=stream, augmentation=augmentation, device=CPU)


def by_position(batches: Batches, epoch: int) -> dict[int, Tensor]:
    return {int(label): image for batch in batches(epoch) for image, label in zip(*batch, strict=True)}


def small(data: ImageData, count: int) -> ImageData:
    return replace(data, train=data.train.take(np.arange(count)))


def normalised(data: ImageData, image: Tensor) -> Tensor:
    """By torchvision: (C, H, W) uint8 -> float32."""
    return reference.normalize(reference.convert_image_dtype(image), list(data.mean), list(data.std))


@pytest.fixture(scope="module")
def synthetic() -> ImageData:
    return load("synthetic")


def test_without_augmentation_every_image_comes_once_and_equals_torchvision(synthetic: ImageData) -> None:
    images = by_position(make(synthetic, None), 0)
    assert sorted(images) == list(range(256))
    for position, image in images.items():
        raw = torch.tensor(synthetic.train.pixels[position]).permute(2, 0, 1)
        assert torch.equal(image, normalised(synthetic, raw))


def test_batches_are_contiguous_float32_channels_first(synthetic: ImageData) -> None:
    for augmentation in (None, synthetic.augmentation, Augmentation(2, True, 4)):
        for images, labels in make(synthetic, augmentation, batch_size=100)(0):
            assert images.shape[1:] == (3, 8, 8)
            assert images.dtype == torch.float32 and images.is_contiguous()
            assert labels.dtype == torch.int64 and labels.shape == images.shape[:1]


def test_labels_belong_to_their_images(synthetic: ImageData) -> None:
    batches = Batches(synthetic.train, synthetic, batch_size=50, seed=1, stream="train", augmentation=None, device=CPU)
    expected = {
        normalised(synthetic, torch.tensor(pixels).permute(2, 0, 1)).numpy().tobytes(): int(label)
        for pixels, label in zip(synthetic.train.pixels, synthetic.train.labels, strict=True)
    }
    assert len(expected) == 256
    for images, labels in batches(0):
        assert [expected[image.numpy().tobytes()] for image in images] == labels.tolist()


def test_crops_and_flips_are_those_of_torchvision(synthetic: ImageData) -> None:
    data, padding = small(synthetic, 40), 2
    batches = make(data, Augmentation(crop_padding=padding, flip=True))
    drawn = set()
    for epoch in range(20):
        for position, image in by_position(batches, epoch).items():
            padded = reference.pad(torch.tensor(data.train.pixels[position]).permute(2, 0, 1), [padding])
            variants = {}
            for top in range(2 * padding + 1):
                for left in range(2 * padding + 1):
                    crop = reference.crop(padded, top, left, 8, 8)
                    for flipped in (False, True):
                        variant = reference.hflip(crop) if flipped else crop
                        variants[normalised(data, variant).numpy().tobytes()] = (top, left, flipped)
            drawn.add(variants[image.numpy().tobytes()])
    # 800 draws of 50 equally likely ones: each is met but for one chance in 200,000.
    assert len(drawn) == 50


def test_draws_are_uniform(synthetic: ImageData) -> None:
    # A white dot in the middle of a black 8x8 image shows shift and flip: offset -1, 0, 1 in each direction.
    pixels = np.zeros((3000, 8, 8, 1), dtype=np.uint8)
    pixels[:, 4, 2] = 255
    data = replace(synthetic, train=Images(pixels, np.zeros(3000, dtype=np.int64)), mean=(0.0,), std=(1.0,))
    images = torch.cat([batch.images for batch in make(data, Augmentation(crop_padding=1, flip=True))(0)])
    rows, columns = (images.flatten(1).argmax(1) // 8).bincount(), (images.flatten(1).argmax(1) % 8).bincount()
    assert rows[3:6].sum() == 3000
    assert rows[3:6].tolist() == pytest.approx([1000] * 3, abs=130)
    assert columns[[1, 2, 3, 4, 5, 6]].tolist() == pytest.approx([500] * 6, abs=100)


def test_padding_is_black_before_normalising(synthetic: ImageData) -> None:
    data = replace(synthetic, train=Images(np.full((64, 8, 8, 3), 255, dtype=np.uint8), np.zeros(64, dtype=np.int64)))
    images = torch.cat([batch.images for batch in make(data, Augmentation(crop_padding=3))(0)])
    black, white = (normalised(data, torch.full((3, 1, 1), level, dtype=torch.uint8)) for level in (0, 255))
    assert ((images == black) | (images == white)).all()
    assert (images == black).any() and (images == white).any()


def test_no_flip_unless_asked(synthetic: ImageData) -> None:
    batches = make(synthetic, Augmentation(crop_padding=0, flip=False))
    plain = by_position(make(synthetic, None), 0)
    assert all(torch.equal(image, plain[position]) for position, image in by_position(batches, 0).items())


@pytest.mark.parametrize("length", [1, 3, 4, 8, 16])
def test_cutout_is_the_published_square_around_a_uniform_centre(synthetic: ImageData, length: int) -> None:
    uncut = by_position(make(synthetic, Augmentation(crop_padding=1, flip=True)), 0)
    masks: dict[bytes, list[tuple[int, int]]] = {}
    for row in range(8):
        for column in range(8):
            mask = np.ones((8, 8), dtype=bool)
            # The authors' clip(centre - length // 2) to clip(centre + length // 2), and one more for an odd length.
            top, left = row - length // 2, column - length // 2
            mask[max(top, 0) : max(top + length, 0), max(left, 0) : max(left + length, 0)] = False
            masks.setdefault(mask.tobytes(), []).append((row, column))
    met = set()
    batches = make(synthetic, Augmentation(crop_padding=1, flip=True, cutout=length))
    for epoch in range(3):
        uncut = by_position(make(synthetic, Augmentation(crop_padding=1, flip=True)), epoch)
        for position, image in by_position(batches, epoch).items():
            kept = (image != 0).any(0).numpy()
            assert kept.tobytes() in masks
            met.add(kept.tobytes())
            # Cut pixels are zero, all the others as they would be without cutout.
            assert torch.equal(image, uncut[position] * torch.tensor(kept))
    assert met == set(masks)


def test_augmentation_of_a_sample_depends_on_neither_batch_size_nor_order_of_epochs(synthetic: ImageData) -> None:
    augmentation = Augmentation(crop_padding=2, flip=True, cutout=4)
    small_batches, large_batches = (make(synthetic, augmentation, batch_size=size) for size in (16, 64))
    by_position(large_batches, 0)
    for epoch in (5, 2):
        one, other = by_position(small_batches, epoch), by_position(large_batches, epoch)
        assert one.keys() == other.keys() == set(range(256))
        assert all(torch.equal(one[position], other[position]) for position in one)
    orders = [torch.cat([batch.labels for batch in batches(7)]) for batches in (small_batches, large_batches)]
    assert torch.equal(*orders)


def test_epochs_seeds_and_streams_differ_and_repeat_bit_for_bit(synthetic: ImageData) -> None:
    def drawn(seed: int, stream: str, epoch: int) -> tuple[Tensor, Tensor]:
        """The order (N,), and the augmented images sorted by position (N, C, H, W)."""
        batches = list(make(synthetic, synthetic.augmentation, seed=seed, stream=stream)(epoch))
        order = torch.cat([batch.labels for batch in batches])
        return order, torch.cat([batch.images for batch in batches])[order.argsort()]

    order, images = drawn(0, "train", 0)
    same_order, same_images = drawn(0, "train", 0)
    assert torch.equal(order, same_order) and torch.equal(images, same_images)
    for other_order, other_images in (drawn(1, "train", 0), drawn(0, "validation", 0), drawn(0, "train", 1)):
        assert not torch.equal(order, other_order)
        assert not torch.equal(images, other_images)


def test_global_generator_is_left_alone(synthetic: ImageData) -> None:
    torch.manual_seed(5)
    state = torch.random.get_rng_state()
    list(make(synthetic, Augmentation(2, True, 4))(0))
    assert torch.equal(state, torch.random.get_rng_state())


def test_images_are_neither_shared_nor_changed() -> None:
    digits = load("digits")
    before = digits.fingerprint()
    digits.train.pixels.setflags(write=False)
    for images, _ in make(digits, Augmentation(1, False, 4))(0):
        images.zero_()
    for images, _ in evaluation_batches(digits.train, digits, 500, CPU):
        images.zero_()
    assert digits.fingerprint() == before


@pytest.mark.parametrize(
    ("count", "batch_size", "sizes"),
    [(64, 32, [32, 32]), (66, 32, [32, 32, 2]), (65, 32, [32, 32]), (33, 33, [33]), (63, 32, [32, 31]), (5, 2, [2, 2])],
)
def test_last_batch_is_kept_from_two_images_on(
    synthetic: ImageData, count: int, batch_size: int, sizes: list[int]
) -> None:
    batches = make(small(synthetic, count), synthetic.augmentation, batch_size=batch_size)
    assert [len(batch.labels) for batch in batches(0)] == sizes
    assert len(batches) == len(sizes)


def test_batch_size_is_checked_at_the_door(synthetic: ImageData) -> None:
    with pytest.raises(ConfigurationError, match="--batch-size 512: only 256 images"):
        make(synthetic, None, batch_size=512)
    with pytest.raises(ConfigurationError, match=r"--batch-size 1: .* at least 2"):
        make(synthetic, None, batch_size=1)
    with pytest.raises(ConfigurationError, match="--batch-size 0"):
        evaluation_batches(synthetic.test, synthetic, 0, CPU)


def test_evaluation_batches_hold_every_image_in_order_to_the_last_one() -> None:
    digits = load("digits")
    batches = list(evaluation_batches(digits.test, digits, 359, CPU))
    assert [len(batch.labels) for batch in batches] == [359, 1]
    assert all(isinstance(batch, Batch) for batch in batches)
    images, labels = (torch.cat(parts) for parts in zip(*batches, strict=True))
    assert torch.equal(labels, torch.tensor(digits.test.labels))
    expected = normalised(digits, torch.tensor(digits.test.pixels).permute(0, 3, 1, 2))
    assert images.is_contiguous() and torch.equal(images, expected)


def test_a_training_pass_over_real_cifar_has_the_statistics_of_torchvision_transforms() -> None:
    root = os.environ.get("CDARTS_DATA")
    if not root or not (Path(root) / "cifar10_5k1k.npz").is_file():
        pytest.skip("needs real CIFAR-10: set CDARTS_DATA to a folder with cifar10_5k1k.npz")
    data = small(load(str(Path(root) / "cifar10_5k1k.npz")), 1000)
    pixels = torch.tensor(data.train.pixels).permute(0, 3, 1, 2)
    transform = transforms.Compose([transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip()])
    torch.manual_seed(0)
    theirs = torch.stack([normalised(data, transform(image)) for image in pixels])
    ours = torch.cat([batch.images for batch in make(data, data.augmentation, batch_size=100)(0)])
    assert ours.mean((0, 2, 3)).tolist() == pytest.approx(theirs.mean((0, 2, 3)).tolist(), abs=0.02)
    # Column by column: black borders make the edges darker, and as much darker as theirs.
    assert ours.mean((0, 1, 2)).tolist() == pytest.approx(theirs.mean((0, 1, 2)).tolist(), abs=0.1)
    assert ours.std().item() == pytest.approx(theirs.std().item(), abs=0.02)


@pytest.mark.parametrize("device", ["cpu", *(["cuda"] if torch.cuda.is_available() else [])])
def test_every_device_gives_the_same_batches(synthetic: ImageData, device: str) -> None:
    augmentation = Augmentation(2, True, 4)
    images = Images(synthetic.train.pixels, synthetic.train.labels)
    there = Batches(
        images,
        synthetic,
        batch_size=64,
        seed=0,
        stream="train",
        augmentation=augmentation,
        device=torch.device(device),
    )
    here = Batches(images, synthetic, batch_size=64, seed=0, stream="train", augmentation=augmentation, device=CPU)
    for one, other in zip(there(3), here(3), strict=True):
        torch.testing.assert_close(one.images.cpu(), other.images)
        assert torch.equal(one.labels.cpu(), other.labels)


# -- parts of an epoch, and classes of unlike sizes --------------------------------------------------------------------


def test_an_epoch_of_a_fraction_takes_other_images_every_time(synthetic: ImageData) -> None:
    def batches_of(fraction: float) -> Batches:
        images = Images(synthetic.train.pixels, np.arange(256, dtype=np.int64))
        return Batches(
            images,
            synthetic,
            batch_size=20,
            seed=0,
            stream="train",
            augmentation=synthetic.augmentation,
            device=CPU,
            fraction=fraction,
        )

    fifth, whole = batches_of(0.2), batches_of(1.0)
    assert (len(fifth), fifth.num_images) == (3, 52)
    met = [by_position(fifth, epoch) for epoch in range(20)]
    assert all(len(epoch) == 52 for epoch in met)
    assert met[0].keys() != met[1].keys()
    assert len({position for epoch in met for position in epoch}) > 240, "20 draws of a fifth miss 3 of 256"
    # an image looks as it would in the whole epoch
    assert all(torch.equal(image, by_position(whole, 3)[position]) for position, image in met[3].items())
    for wrong in (0.0, -0.5, 1.01):
        with pytest.raises(ConfigurationError, match=f"^--epoch-fraction {wrong}"):
            batches_of(wrong)
    with pytest.raises(ConfigurationError, match=r"^--batch-size 20: only 13 images"):
        batches_of(0.05)


def skewed(data: ImageData, *counts: int) -> ImageData:
    """So many training images of each class, to be drawn equally often."""
    members = [np.flatnonzero(data.train.labels == label)[:count] for label, count in enumerate(counts)]
    return replace(data, train=data.train.take(np.concatenate(members)), balanced=True)


def test_skewed_classes_are_drawn_equally_often(synthetic: ImageData) -> None:
    data = skewed(synthetic, 60, 20, 7, 3)
    batches = Batches(
        data.train, data, batch_size=10, seed=0, stream="train", augmentation=data.augmentation, device=CPU
    )
    total = np.zeros(4, dtype=int)
    for epoch in range(8):
        labels = torch.cat([batch.labels for batch in batches(epoch)])
        counts = labels.bincount(minlength=4).numpy()
        assert counts.sum() == 90 and counts.max() - counts.min() <= 1
        total += counts
    assert total.max() == total.min(), "the odd images go round"


def test_every_image_of_a_class_comes_before_any_comes_again(synthetic: ImageData) -> None:
    data = skewed(synthetic, 60, 20, 7, 3)
    batches = Batches(data.train, data, batch_size=90, seed=0, stream="train", augmentation=None, device=CPU)
    for epoch in range(3):
        times = batches._draws(epoch, batches._order(epoch)).positions.bincount(minlength=90)
        for label in range(4):
            of_class = times[torch.tensor(data.train.labels == label)]
            assert of_class.max() - of_class.min() <= 1


def test_an_image_that_comes_again_is_augmented_anew(synthetic: ImageData) -> None:
    data = skewed(synthetic, 60, 3, 3, 3)
    (batch,) = Batches(
        data.train, data, batch_size=69, seed=0, stream="train", augmentation=Augmentation(2, True), device=CPU
    )(0)
    small_class = batch.images[batch.labels == 1]
    assert len(small_class) >= 17
    assert len(small_class.flatten(1).unique(dim=0)) > 12, "three images, each in several positions"


def test_balance_moves_what_a_classifier_says_of_the_small_class(synthetic: ImageData) -> None:
    """A linear classifier that has met 3 images among 183 finds their class only if they are drawn as often."""

    def recall(balanced: bool) -> float:
        data = replace(skewed(synthetic, 60, 3, 60, 60), balanced=balanced)
        torch.manual_seed(0)
        network = nn.Sequential(nn.Flatten(), nn.Linear(192, 4))
        optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
        batches = Batches(data.train, data, batch_size=32, seed=0, stream="train", augmentation=None, device=CPU)
        for epoch in range(4):
            for images, labels in batches(epoch):
                optimizer.zero_grad()
                nn.functional.cross_entropy(network(images), labels).backward()
                optimizer.step()
        (test,) = evaluation_batches(data.test, data, 64, CPU)
        of_class = test.labels == 1
        return float((network(test.images).argmax(1) == 1)[of_class].double().mean())

    assert recall(True) > recall(False) + 0.2


def test_folders_and_archives_balance_skewed_classes_by_themselves(tmp_path: Path, synthetic: ImageData) -> None:
    def archive(*counts: int) -> ImageData:
        train = skewed(synthetic, *counts).train
        assert isinstance(train, Images)
        path = tmp_path / "images.npz"
        np.savez(path, x_train=train.pixels, y_train=train.labels)
        return load(str(path))

    assert not archive(40, 30, 20, 16).balanced
    assert archive(60, 30, 20, 12).balanced
    assert not load(str(tmp_path / "images.npz"), balance=False).balanced
    assert load("synthetic", balance=True).balanced and not synthetic.balanced
