"""Folders of images: layouts, modes, orientation, sizes and damaged files."""

import re
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torchvision.transforms.v2 as transforms
from PIL import Image

from cdarts.data import Augmentation, load, read_image
from cdarts.errors import DataError


def write(path: Path, *, size: tuple[int, int] = (16, 16), level: int = 128, mode: str = "RGB") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("RGB", size, (level, 255 - level, 40)).convert(mode)
    image.save(path)
    return path


def write_digits(folder: Path, per_class: int = 10) -> None:
    """Real digits 0, 1 and 2 as grey PNG files, a folder per class."""
    digits = load("digits").train
    for label, name in enumerate(("nought", "one", "two")):
        (folder / name).mkdir(parents=True)
        for position, pixels in enumerate(digits.pixels[digits.labels == label][:per_class, ..., 0]):
            Image.fromarray(pixels).save(folder / name / f"{position:03}.png")


def complaint(path: Path) -> str:
    with pytest.raises(DataError) as raised:
        load(str(path))
    return str(raised.value)


def test_class_folders_with_a_fifth_held_out(tmp_path: Path) -> None:
    write_digits(tmp_path / "photos")
    data = load(str(tmp_path / "photos"))
    assert data.name == "photos"
    assert data.class_names == ("nought", "one", "two")
    assert (data.channels, data.side) == (1, 8)
    assert np.bincount(data.train.labels).tolist() == [8, 8, 8]
    assert np.bincount(data.test.labels).tolist() == [2, 2, 2]
    digits = load("digits").train
    expected = {(image.tobytes(), label) for image, label in zip(digits.pixels, digits.labels.tolist(), strict=True)}
    for split in (data.train, data.test):
        assert {
            (image.tobytes(), label) for image, label in zip(split.pixels, split.labels.tolist(), strict=True)
        } <= expected
    assert load(str(tmp_path / "photos")).fingerprint() == data.fingerprint()


@pytest.mark.parametrize("test_name", ["test", "val"])
def test_train_and_test_folders(tmp_path: Path, test_name: str) -> None:
    write_digits(tmp_path / "train")
    for position in range(3):
        write(tmp_path / test_name / "one" / f"{position}.png", size=(8, 8), mode="L")
    data = load(str(tmp_path))
    assert (len(data.train), data.test.labels.tolist()) == (30, [1, 1, 1])
    assert data.class_names == ("nought", "one", "two")


def test_test_comes_before_val_and_train_alone_is_split(tmp_path: Path) -> None:
    write_digits(tmp_path / "train")
    assert len(load(str(tmp_path)).test) == 6
    write(tmp_path / "val" / "one" / "0.png", mode="L")
    assert len(load(str(tmp_path)).test) == 1
    for position in range(2):
        write(tmp_path / "test" / "one" / f"{position}.png", mode="L")
    assert len(load(str(tmp_path)).test) == 2


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    for name in ("bus", "train"):
        for position in range(5):
            write(tmp_path / name / f"{position}.png")
    assert load(str(tmp_path)).class_names == ("bus", "train")


def test_order_is_by_name_whatever_the_file_system_says(tmp_path: Path) -> None:
    levels = {"b.png": 20, "a.JPG": 10, "c.BMP": 30, "d.tiff": 40, "e.webp": 50}
    for name, level in levels.items():
        write(tmp_path / "train" / "x" / name, level=level)
        write(tmp_path / "train" / "w" / name, level=level + 100)
    write(tmp_path / "test" / "x" / "a.png")
    data = load(str(tmp_path))
    assert data.train.labels.tolist() == [0] * 5 + [1] * 5
    assert data.train.pixels[5:, 8, 8, 0] == pytest.approx([10, 20, 30, 40, 50], abs=4)


def test_hidden_files_and_folders_and_other_files_are_ignored(tmp_path: Path) -> None:
    write_digits(tmp_path)
    before = load(str(tmp_path)).fingerprint()
    write(tmp_path / ".thumbnails" / "a.png")
    write(tmp_path / "one" / "._000.png").write_bytes(b"not an image")
    (tmp_path / "one" / "notes.txt").write_text("seen")
    (tmp_path / "README.md").write_text("digits")
    assert load(str(tmp_path)).fingerprint() == before


def test_one_colour_file_makes_the_set_colour(tmp_path: Path) -> None:
    write_digits(tmp_path)
    write(tmp_path / "one" / "zzz.png", size=(8, 8))
    data = load(str(tmp_path))
    assert data.channels == 3
    grey = [image for image in data.train.pixels if np.ptp(image, axis=-1).max() == 0]
    assert len(grey) >= len(data.train) - 1


@pytest.mark.parametrize(
    ("sizes", "side"),
    [
        ([(40, 90), (50, 40), (60, 41)], 40),
        ([(47, 100)] * 3, 40),
        ([(500, 300)] * 3, 64),
        ([(5, 9)] * 3, 8),
        ([(16, 16), (16, 16), (300, 300)], 16),
    ],
)
def test_default_side_is_the_median_shorter_side_in_steps_of_eight(
    tmp_path: Path, sizes: list[tuple[int, int]], side: int
) -> None:
    for name in ("a", "b"):
        for position, size in enumerate(sizes):
            write(tmp_path / name / f"{position}.png", size=size)
    data = load(str(tmp_path))
    assert data.side == side
    # a photo of 64 pixels and more shows its subject at several sizes, a smaller image is moved
    assert data.augmentation == Augmentation(
        crop_padding=0 if side == 64 else side // 8, flip=True, least_area=0.25 if side == 64 else None
    )
    assert load(str(tmp_path), image_size=24).side == 24


# Layouts that cannot be used


def test_an_empty_folder(tmp_path: Path) -> None:
    assert "no class folders; put the images of each class into a folder of its own" in complaint(tmp_path)


def test_images_without_class_folders(tmp_path: Path) -> None:
    for position in range(3):
        write(tmp_path / f"{position}.png")
    assert "3 images but no class folders" in complaint(tmp_path)


def test_one_class(tmp_path: Path) -> None:
    write(tmp_path / "cat" / "0.png")
    assert "only one class folder, 'cat'; expected at least 2" in complaint(tmp_path)


def test_empty_classes_are_named(tmp_path: Path) -> None:
    write_digits(tmp_path)
    write(tmp_path / "nested" / "inner" / "0.png")
    (tmp_path / "void").mkdir()
    assert "no images directly in class folder 'nested', 'void'" in complaint(tmp_path)


def test_a_class_of_one_image_is_named(tmp_path: Path) -> None:
    write_digits(tmp_path)
    write(tmp_path / "lonely" / "0.png")
    assert "fewer than 2 images in class 'lonely'" in complaint(tmp_path)


def test_a_class_only_in_test_is_named(tmp_path: Path) -> None:
    write_digits(tmp_path / "train")
    write(tmp_path / "test" / "three" / "0.png")
    (tmp_path / "test" / "void").mkdir()
    message = complaint(tmp_path)
    assert "'three' has no counterpart among the training classes, 'nought', 'one', 'two'" in message
    assert "void" not in message


def test_a_test_folder_without_images(tmp_path: Path) -> None:
    write_digits(tmp_path / "train")
    (tmp_path / "test" / "one").mkdir(parents=True)
    assert f"{tmp_path / 'test'}: no images in its class folders" in complaint(tmp_path)


def test_a_folder_that_cannot_be_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_digits(tmp_path)

    def denied(_: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", denied)
    assert complaint(tmp_path) == f"{tmp_path}: the folder cannot be listed (Permission denied)"


# Damaged files


def test_all_unreadable_images_are_named_at_once(tmp_path: Path) -> None:
    write_digits(tmp_path)
    (tmp_path / "one" / "bad-header.png").write_bytes(b"GIF99 not really")
    (tmp_path / "two" / "empty.jpg").touch()
    photo = write(tmp_path / "nought" / "truncated.jpg", size=(100, 100))
    photo.write_bytes(photo.read_bytes()[:-200])
    message = complaint(tmp_path)
    assert "3 of 33 images cannot be read" in message
    for name in (
        "one/bad-header.png: no image format",
        "two/empty.jpg: empty file",
        "nought/truncated.jpg: truncated",
    ):
        assert str(Path(name)) in message


def test_a_long_list_of_unreadable_images_is_whole(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for position in range(7):
            (tmp_path / name / f"{position}.png").write_bytes(b"nothing")
    message = complaint(tmp_path)
    assert "14 of 14 images cannot be read" in message
    assert message.count(".png:") == 14


def test_a_decompression_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_digits(tmp_path)
    bomb = write(tmp_path / "one" / "bomb.png", size=(100, 100))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    assert "one/bomb.png: far too many pixels" in complaint(tmp_path).replace("\\", "/")
    with pytest.raises(DataError, match="far too many pixels"):
        read_image(bomb, side=8, channels=3)


def test_a_header_that_promises_a_bomb_is_refused_without_decoding(tmp_path: Path) -> None:
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    chunks = b"".join(
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(1000))))
    )
    path = tmp_path / "bomb.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)
    with pytest.raises(DataError, match=r"bomb\.png: cannot be read as an image \(far too many pixels"):
        read_image(path, side=8, channels=3)


def test_large_photographs_are_no_bombs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # PIL warns from its limit on and refuses from twice that: today's 108-megapixel telephones lie between.
    path = write(tmp_path / "large.png", size=(40, 40))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    assert read_image(path, side=8, channels=3).shape == (8, 8, 3)


def test_a_missing_image_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=re.escape(f"{tmp_path / 'gone.png'}: cannot be read as an image")):
        read_image(tmp_path / "gone.png", side=8, channels=3)


# One image


def gradient(width: int, height: int) -> np.ndarray:
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows * 255 // height, columns * 255 // width, (rows * columns) % 256], axis=-1).astype(np.uint8)


@pytest.mark.parametrize(("width", "height"), [(64, 40), (40, 64), (33, 57), (20, 20), (200, 9), (8, 8)])
@pytest.mark.parametrize("side", [16, 24])
def test_shorter_side_then_centre_crop_as_in_torchvision(tmp_path: Path, width: int, height: int, side: int) -> None:
    image = Image.fromarray(gradient(width, height))
    image.save(tmp_path / "image.png")
    ours = read_image(tmp_path / "image.png", side=side, channels=3).astype(int)
    scale = side / min(width, height)
    # Sizes that scale to an exact even margin need no rounding in torchvision's two steps: there both must agree.
    longer = max(width, height) * scale
    theirs = np.asarray(transforms.Compose([transforms.Resize(side), transforms.CenterCrop(side)])(image)).astype(int)
    tolerance = 1 if longer == int(longer) and (int(longer) - side) % 2 == 0 else 40
    assert ours.shape == (side, side, 3)
    assert np.abs(ours - theirs)[..., :2].max() <= tolerance


def test_a_large_jpeg_decoded_small_is_near_the_full_decode(tmp_path: Path) -> None:
    rows, columns = np.mgrid[:600, :800]
    pixels = np.stack([rows * 255 // 600, columns * 255 // 800, 128 + 0 * rows], axis=-1).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.jpg", quality=95)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    ours, exact = (read_image(tmp_path / f"photo.{end}", side=32, channels=3).astype(int) for end in ("jpg", "png"))
    assert np.abs(ours - exact).max() <= 3


def test_a_small_jpeg_keeps_its_detail(tmp_path: Path) -> None:
    rows, columns = np.mgrid[:96, :128]
    Image.fromarray((255 * ((rows // 8 + columns // 8) % 2)).astype(np.uint8)).save(tmp_path / "board.jpg", quality=95)
    board = read_image(tmp_path / "board.jpg", side=48, channels=1)[..., 0].astype(int)
    # Squares of 4 pixels: black and white but for the blurred borders.
    assert (np.minimum(board, 255 - board) < 40).mean() > 0.2
    assert board[:, 1:3].std() > 90


def test_a_very_long_image_costs_no_memory(tmp_path: Path) -> None:
    Image.new("L", (60_000, 1), 77).save(tmp_path / "line.png")
    assert (read_image(tmp_path / "line.png", side=64, channels=1) == 77).all()


@pytest.mark.parametrize("name", ["deep.png", "deep.tif", "deep.pgm"])
def test_sixteen_bits_are_scaled_not_saturated(tmp_path: Path, name: str) -> None:
    values = (np.arange(64, dtype=np.uint16).reshape(8, 8) * 1040).astype(np.uint16)
    Image.fromarray(values).save(tmp_path / name)
    expected = np.round(values / 257).astype(np.uint8)
    assert np.array_equal(read_image(tmp_path / name, side=8, channels=1)[..., 0], expected)
    assert np.array_equal(read_image(tmp_path / name, side=8, channels=3), np.repeat(expected[..., None], 3, axis=-1))


def test_sixteen_bits_are_grey(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for position in range(3):
            Image.fromarray(np.full((8, 8), 30_000, dtype=np.uint16)).save(tmp_path / name / f"{position}.png")
            write(tmp_path / name / f"bit{position}.png", mode="1")
            write(tmp_path / name / f"alpha{position}.png", mode="LA")
    assert load(str(tmp_path)).channels == 1


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_pixels_of_unknown_range_are_refused(tmp_path: Path, dtype: type) -> None:
    Image.fromarray(np.ones((8, 8), dtype=dtype)).save(tmp_path / "map.tif")
    with pytest.raises(DataError, match="32-bit or signed pixels have no known range"):
        read_image(tmp_path / "map.tif", side=8, channels=1)


def test_transparent_parts_are_white(tmp_path: Path) -> None:
    pixels = np.zeros((8, 8, 4), dtype=np.uint8)
    pixels[:, :4] = (200, 10, 10, 255)
    pixels[:, 4:6] = (0, 0, 0, 128)
    Image.fromarray(pixels).save(tmp_path / "rgba.png")
    image = read_image(tmp_path / "rgba.png", side=8, channels=3)
    assert (image[:, :4] == (200, 10, 10)).all()
    assert np.abs(image[:, 4:6].astype(int) - 127).max() <= 1
    assert (image[:, 6:] == 255).all()


@pytest.mark.parametrize("name", ["palette.png", "palette.gif"])
def test_palettes_with_a_transparent_colour(tmp_path: Path, name: str) -> None:
    image = Image.new("P", (8, 8), 0)
    image.putpalette([0, 0, 0, 200, 10, 10])
    image.paste(1, (0, 0, 4, 8))
    image.save(tmp_path / name, transparency=0)
    decoded = read_image(tmp_path / name, side=8, channels=3)
    assert (decoded[:, :4] == (200, 10, 10)).all() and (decoded[:, 4:] == 255).all()


def test_grey_with_alpha_and_grey_with_a_transparent_level(tmp_path: Path) -> None:
    values = np.full((8, 8), 60, dtype=np.uint8)
    values[:, 4:] = 0
    Image.fromarray(values).save(tmp_path / "level.png", transparency=0)
    Image.merge("LA", (Image.fromarray(values), Image.fromarray((values > 0).astype(np.uint8) * 255))).save(
        tmp_path / "la.png"
    )
    for name in ("level.png", "la.png"):
        decoded = read_image(tmp_path / name, side=8, channels=1)
        assert (decoded[:, :4] == 60).all() and (decoded[:, 4:] == 255).all()


def test_cmyk_and_bilevel(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8), (255, 0, 0)).convert("CMYK").save(tmp_path / "print.jpg", quality=100)
    assert np.abs(read_image(tmp_path / "print.jpg", side=8, channels=3).astype(int) - (255, 0, 0)).max() <= 4
    Image.new("1", (8, 8), 1).save(tmp_path / "bit.png")
    assert (read_image(tmp_path / "bit.png", side=8, channels=1) == 255).all()


@pytest.mark.parametrize("mode", ["RGB", "L", "I;16"])
def test_exif_orientation_is_applied(tmp_path: Path, mode: str) -> None:
    values = np.zeros((8, 8), dtype=np.uint8)
    values[0, :] = 255
    image = Image.fromarray(values.astype(np.uint16) * 257) if mode == "I;16" else Image.fromarray(values).convert(mode)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: the top row of the file is the right column of the picture
    image.save(tmp_path / "turned.png", exif=exif)
    decoded = read_image(tmp_path / "turned.png", side=8, channels=1)[..., 0]
    assert np.array_equal(decoded, np.rot90(values, k=-1))


def test_the_first_frame_of_an_animation(tmp_path: Path) -> None:
    first, second = (Image.new("RGB", (8, 8), colour) for colour in ("red", "blue"))
    first.save(tmp_path / "moving.gif", save_all=True, append_images=[second])
    assert (read_image(tmp_path / "moving.gif", side=8, channels=3) == (255, 0, 0)).all()


def test_only_the_decoders_of_images_run_whatever_the_name(tmp_path: Path) -> None:
    (tmp_path / "drawing.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    with pytest.raises(DataError, match="no image format that is supported"):
        read_image(tmp_path / "drawing.png", side=8, channels=3)
