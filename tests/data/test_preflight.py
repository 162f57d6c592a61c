"""One pass over a user's folder: image files and data sets of every kind, each with what must become of it."""

import errno
import os
import pickle
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cdarts.data import load, read_image
from cdarts.errors import DataError

GREY = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4
COLOUR = np.stack([GREY, GREY[::-1], GREY.T], axis=-1)
LEFT = np.arange(8) < 4
"""Columns that are opaque where a fixture has transparent parts."""


def pattern(number: int) -> Image.Image:
    """A grey 8x8 image like no other of another number."""
    return Image.fromarray(np.random.default_rng(number).integers(0, 256, (8, 8), dtype=np.uint8))


def fill(folder: Path, classes: dict[str, int], first: int = 0) -> None:
    """So many images of each class, all different."""
    for name, count in classes.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for position in range(count):
            pattern(first).save(folder / name / f"{position:04}.png")
            first += 1


def complaint(path: Path, *, skip: bool = False) -> str:
    with pytest.raises(DataError) as raised:
        load(str(path), skip_bad_images=skip)
    return str(raised.value)


# -- image files -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Readable:
    """A file, and the 8x8 pixels that must come out of it, to within so many levels."""

    name: str
    write: Callable[[Path], None]
    pixels: np.ndarray
    tolerance: int = 0


def on_white(pixels: np.ndarray) -> np.ndarray:
    """The left half of an image, the right half white."""
    return np.where(LEFT[:, None] if pixels.ndim == 3 else LEFT, pixels, np.uint8(255))


def opaque_left() -> Image.Image:
    return Image.fromarray(np.broadcast_to(LEFT * np.uint8(255), (8, 8)).copy())


def with_alpha(path: Path) -> None:
    image = Image.fromarray(COLOUR)
    image.putalpha(opaque_left())
    image.save(path)


def with_half_alpha(path: Path) -> None:
    image = Image.fromarray(COLOUR)
    image.putalpha(128)
    image.save(path)


def palette(path: Path, **options: int) -> None:
    image = Image.new("P", (8, 8), 0)
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.paste(1, (0, 0, 4, 8))
    image.save(path, **options)


PALETTE = np.where(LEFT[:, None], np.array([200, 100, 50], np.uint8), np.array([10, 20, 30], np.uint8))
PALETTE = np.broadcast_to(PALETTE, (8, 8, 3))


def frames(path: Path, **options: bool) -> None:
    other = Image.fromarray(255 - COLOUR)
    Image.fromarray(COLOUR).save(path, save_all=True, append_images=[other], **options)


def turned(path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(GREY).save(path, exif=exif, quality=100)


def print_colours(path: Path) -> None:
    Image.new("RGB", (8, 8), (255, 0, 0)).convert("CMYK").save(path, quality=100)


def bits(path: Path) -> None:
    Image.fromarray(GREY > 127).save(path)


def deep_transparent(path: Path) -> None:
    levels = GREY.astype(np.uint16) * 257
    levels[:, 4:] = 99
    Image.fromarray(levels).save(path, transparency=99)


def odd_orientation(path: Path) -> None:
    """Metadata that is no Exif at all."""
    Image.fromarray(GREY).save(path, exif=b"Exif\0\0" + bytes(range(40)), quality=100)


def save(pixels: np.ndarray, **options: object) -> Callable[[Path], None]:
    return lambda path: Image.fromarray(pixels).save(path, **options)


def uniform(mode: str, colour: object, size: tuple[int, int], **options: object) -> Callable[[Path], None]:
    return lambda path: Image.new(mode, size, colour).save(path, **options)  # type: ignore[arg-type]


READABLE = {
    "grey": Readable("a.png", save(GREY), GREY),
    "colour": Readable("a.bmp", save(COLOUR), COLOUR),
    "16 bits, PNG": Readable("a.png", save(GREY.astype(np.uint16) * 257), GREY),
    "16 bits, TIFF": Readable("a.tif", save(GREY.astype(np.uint16) * 257), GREY),
    "16 bits, big-endian TIFF": Readable("a.tiff", save((GREY.astype(np.uint16) * 257).astype(">u2")), GREY),
    "16 bits, PGM": Readable("a.pgm", save(GREY.astype(np.uint16) * 257), GREY),
    "16 bits with a transparent level": Readable("a.png", deep_transparent, on_white(GREY)),
    "1 bit, PNG": Readable("a.png", bits, np.where(GREY > 127, 255, 0)),
    "1 bit, TIFF": Readable("a.tif", bits, np.where(GREY > 127, 255, 0)),
    "palette": Readable("a.png", palette, PALETTE),
    "palette with a transparent colour": Readable(
        "a.gif", lambda path: palette(path, transparency=0), on_white(PALETTE)
    ),
    "grey with alpha": Readable(
        "a.png",
        lambda path: Image.merge("LA", (Image.fromarray(GREY), opaque_left())).save(path),
        on_white(GREY),
    ),
    "grey with a transparent level": Readable(
        "a.png", save(np.where(LEFT, GREY | 1, 0).astype(np.uint8), transparency=0), on_white(GREY | 1)
    ),
    "colour with alpha": Readable("a.png", with_alpha, on_white(COLOUR)),
    "colour with half alpha": Readable("a.webp", with_half_alpha, (COLOUR.astype(int) + 255) // 2, 12),
    "print colours": Readable("a.jpg", print_colours, np.broadcast_to([255, 0, 0], (8, 8, 3)), 4),
    "turned by its orientation": Readable("a.jpg", turned, np.rot90(GREY, k=-1), 4),
    "orientation that is nonsense": Readable("a.jpg", odd_orientation, GREY, 4),
    "animated GIF": Readable("a.gif", frames, COLOUR),
    "animated PNG": Readable("a.png", frames, COLOUR),
    "animated WebP": Readable("a.webp", lambda path: frames(path, lossless=True), COLOUR),
    "pages of a TIFF": Readable("a.tif", frames, COLOUR),
    "two pictures in a JPEG": Readable("a.jpg", lambda path: two_pictures(path), np.full((8, 8, 3), 90), 2),
    "ending in capitals": Readable("a.PnG", lambda path: Image.fromarray(GREY).save(path, "png"), GREY),
    "ending of another format": Readable("a.jpg", lambda path: Image.fromarray(GREY).save(path, "png"), GREY),
    "a single pixel": Readable("a.png", uniform("L", 70, (1, 1)), np.full((8, 8), 70)),
    "a line": Readable("a.png", uniform("L", 70, (1, 5000)), np.full((8, 8), 70)),
    "CIELAB colours": Readable(
        "a.tif",
        lambda path: Image.new("RGB", (8, 8), (200, 100, 50)).convert("LAB").save(path),
        np.broadcast_to([200, 100, 50], (8, 8, 3)),
        3,
    ),
    "video colours": Readable(
        "a.tif", lambda path: Image.new("RGB", (8, 8), (90, 90, 90)).convert("YCbCr").save(path), np.full((8, 8), 90), 2
    ),
}


def two_pictures(path: Path) -> None:
    """As telephones write them: a JPEG with a second picture behind it."""
    first, second = (Image.new("RGB", (8, 8), (level,) * 3) for level in (90, 200))
    first.save(path, "MPO", save_all=True, append_images=[second])


@pytest.mark.parametrize("kind", READABLE)
def test_an_image_that_can_be_read(tmp_path: Path, kind: str) -> None:
    case = READABLE[kind]
    fill(tmp_path, {"cat": 6, "dog": 6})
    file = tmp_path / "cat" / case.name
    case.write(file)
    expected = case.pixels if case.pixels.ndim == 3 else np.repeat(case.pixels[..., None], 3, axis=-1)
    read = read_image(file, side=8, channels=3)
    assert np.abs(read.astype(int) - expected.astype(int)).max() <= case.tolerance
    data = load(str(tmp_path), image_size=8)
    assert not data.skipped and len(data.train) + len(data.test) == 13
    same = read if data.channels == 3 else read_image(file, side=8, channels=1)
    assert any(np.array_equal(same, image) for split in (data.train, data.test) for image in split.pixels)


def cut(fraction: float, **options: object) -> Callable[[Path], None]:
    """A picture that compresses badly, without its end."""

    def write(path: Path) -> None:
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(path, **options)
        whole = path.read_bytes()
        path.write_bytes(whole[: int(len(whole) * fraction)])

    return write


def flipped(path: Path) -> None:
    cut(1.0)(path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 16
    path.write_bytes(content)


def bomb(path: Path) -> None:
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + b"".join(
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
            for kind, content in ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(1000))))
        )
    )


def written(content: bytes) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(content) and None


def loop(path: Path) -> None:
    path.symlink_to(path.with_name("b.png"))
    path.with_name("b.png").symlink_to(path)


BAD: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "PNG without its end": ("a.png", cut(0.6), "truncated: the end of the file is missing"),
    "JPEG without its end": ("a.jpg", cut(0.9), "truncated: the end of the file is missing"),
    "progressive JPEG without its end": ("a.jpg", cut(0.9, progressive=True), "truncated: the end of the file is"),
    "BMP without its end": ("a.bmp", cut(0.6), "truncated: the end of the file is missing"),
    "PPM without its end": ("a.ppm", cut(0.6), "truncated: the end of the file is missing"),
    "TIFF without its end": ("a.tif", cut(0.6, compression="tiff_lzw"), "begins like a TIFF file, but is truncated"),
    "WebP without its end": ("a.webp", cut(0.6), "damaged (could not create decoder object)"),
    "the first bytes of a GIF": ("a.gif", written(b"GIF89a\x08"), "begins like a GIF file, but is truncated"),
    "PNG with a flipped bit": ("a.png", flipped, "damaged (broken data stream"),
    "empty": ("a.jpg", written(b""), "empty file"),
    "text": ("a.png", written(b"to do: scan the photograph"), "no image format that is supported"),
    "a page": ("a.jpg", written(b"<!DOCTYPE html><html>404"), "no image format that is supported"),
    "a drawing": ("a.png", written(b"<svg xmlns='http://www.w3.org/2000/svg'/>"), "no image format that is supported"),
    "a program": ("a.png", written(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"), "no image format that is"),
    "a pickle": ("a.png", written(pickle.dumps([1, 2])), "no image format that is supported"),
    "a bomb": ("a.png", bomb, "far too many pixels for a photograph"),
    "real numbers": ("a.tif", save(np.ones((8, 8), np.float32)), "32-bit or signed pixels have no known range"),
    "32 bits": ("a.tif", save(np.ones((8, 8), np.int32)), "32-bit or signed pixels have no known range"),
    "a folder": ("a.png", Path.mkdir, "a folder, though named like an image"),
    "a pipe": ("a.png", os.mkfifo, "neither a file nor a folder, though named like an image"),
    "a broken link": ("a.png", lambda path: path.symlink_to("gone.png"), "a link that leads nowhere"),
    "links in a loop": ("a.png", loop, "a symbolic link that leads back to itself"),
}


@pytest.mark.parametrize("kind", BAD)
def test_an_image_that_cannot_be_read(tmp_path: Path, kind: str) -> None:
    name, write, reason = BAD[kind]
    fill(tmp_path, {"cat": 6, "dog": 6})
    without = load(str(tmp_path))
    write(tmp_path / "cat" / name)
    message = complaint(tmp_path)
    assert f"\n  cat/{name}: {reason}" in message
    assert "images cannot be read" in message and "--on-bad-image skip" in message
    data = load(str(tmp_path), skip_bad_images=True)
    assert data.skipped[f"cat/{name}"].startswith(reason)
    assert data.fingerprint() == without.fingerprint(), "as if it were not there"


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (PermissionError(errno.EACCES, "Permission denied"), "Permission denied"),
        (OSError(errno.EIO, "Input/output error"), "Input/output error"),
        (FileNotFoundError(errno.ENOENT, "No such file"), "a link that leads nowhere, or a file that has gone"),
    ],
)
def test_what_the_system_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError, reason: str) -> None:
    fill(tmp_path, {"cat": 6, "dog": 6})
    opened = Image.open

    def refusing(path: Path, **options: tuple[str, ...]) -> Image.Image:
        if path.name == "0003.png":
            raise error
        return opened(path, **options)

    monkeypatch.setattr(Image, "open", refusing)
    assert complaint(tmp_path) == (
        f"{tmp_path}: 2 of 12 images cannot be read; replace or remove them, or leave them out with "
        f"--on-bad-image skip:\n  cat/0003.png: {reason}\n  dog/0003.png: {reason}"
    )
    assert load(str(tmp_path), skip_bad_images=True).skipped == {"cat/0003.png": reason, "dog/0003.png": reason}


def test_a_lack_of_memory_is_no_fault_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path, {"cat": 6, "dog": 6})

    def full(*_: object, **__: object) -> Image.Image:
        raise MemoryError

    monkeypatch.setattr(Image, "open", full)
    assert "not enough memory to read this image" in complaint(tmp_path, skip=True)


def test_what_is_skipped_has_no_say_in_size_and_channels(tmp_path: Path) -> None:
    fill(tmp_path, {"cat": 6, "dog": 6})
    without = load(str(tmp_path))
    for position in range(14):
        cut(0.9)(tmp_path / "cat" / f"large and in colour {position}.png")
    data = load(str(tmp_path), skip_bad_images=True)
    assert (data.side, data.channels, len(data.skipped)) == (8, 1, 14)
    assert data.fingerprint() == without.fingerprint()
    assert data.warnings[0].startswith(
        "14 of 26 images cannot be read and are left out, first cat/large and in colour 0.png"
    )


def test_file_names_may_be_anything(tmp_path: Path) -> None:
    fill(tmp_path, {"cat": 6, "dog": 6})
    try:
        (tmp_path / "cat" / os.fsdecode(b"\xff\xfe.png")).touch()
    except OSError:
        pytest.skip("this file system takes UTF-8 alone")
    (tmp_path / "dog" / "a\nb.png").touch()
    pattern(99).save(tmp_path / "dog" / os.fsdecode(b"whole\xff.png"))
    message = complaint(tmp_path)
    message.encode()
    assert "2 of 15 images cannot be read" in message
    assert message.splitlines()[1:] == [r"  'cat/\udcff\udcfe.png': empty file", r"  'dog/a\nb.png': empty file"]
    data = load(str(tmp_path), skip_bad_images=True)
    assert len(data.skipped) == 2 and len(data.train) + len(data.test) == 13
    "".join(data.warnings).encode()


# -- data sets ---------------------------------------------------------------------------------------------------------


def two_splits(folder: Path, train: dict[str, int], test: dict[str, int]) -> None:
    fill(folder / "train", train)
    fill(folder / "test", test, first=5000)


def everything_wrong(folder: Path) -> None:
    two_splits(folder, {"cat": 3, "void": 0}, {"cat": 1, "emu": 1})
    (folder / "train" / "cat" / "empty.png").touch()
    (folder / "test" / "cat" / "text.png").write_text("text")
    (folder / "train" / "again").symlink_to("cat")


REFUSED: dict[str, tuple[Callable[[Path], object], tuple[str, ...]]] = {
    "nothing": (Path.resolve, ("no class folders; put the images of each class into a folder",)),
    "no class folders": (lambda folder: pattern(0).save(folder / "0.png"), ("1 images but no class folders",)),
    "one class": (lambda folder: fill(folder, {"cat": 5}), ("only one class folder, 'cat'; expected at least 2",)),
    "a class without images": (
        lambda folder: fill(folder, {"cat": 5, "dog": 5, "emu": 0}),
        ("no images directly in class folder 'emu'; add some",),
    ),
    "one image in each class": (
        lambda folder: fill(folder, {"cat": 1, "dog": 1}),
        ("fewer than 2 images in class 'cat', 'dog'",),
    ),
    "a class of test images alone": (
        lambda folder: two_splits(folder, {"cat": 5, "dog": 5}, {"cat": 2, "emu": 2}),
        ("class folder 'emu' has no counterpart among the training classes, 'cat', 'dog'",),
    ),
    "a test folder without images": (
        lambda folder: two_splits(folder, {"cat": 5, "dog": 5}, {"cat": 0}),
        ("no images in its class folders",),
    ),
    "images one folder too deep": (
        lambda folder: fill(folder, {"cat/2019": 5, "cat/2020": 5, "dog": 5}),
        ("no images directly in class folder 'cat'", "move up what lies in 'cat/2019', 'cat/2020'"),
    ),
    "a class that is a link to the folder it lies in": (
        lambda folder: (fill(folder, {"cat": 5, "dog": 5}), (folder / "self").symlink_to(folder)),
        ("self: a symbolic link to a folder that it lies in; remove it",),
    ),
    "a class twice": (
        lambda folder: (fill(folder, {"cat": 5, "dog": 5}), (folder / "feline").symlink_to("cat")),
        ("feline: the same folder as class 'cat'; remove one of the two",),
    ),
    "a class that is a broken link": (
        lambda folder: (fill(folder, {"cat": 5, "dog": 5}), (folder / "emu").symlink_to("/nowhere/emu")),
        ("emu: a link that leads nowhere", "it may be meant for a class folder"),
    ),
    "all at once": (
        everything_wrong,
        (
            "train: no images directly in class folder 'void'",
            "test: class folder 'emu' has no counterpart",
            "again: the same folder as class 'cat'; remove one",
            "2 of 6 images cannot be read",
            "\n  test/cat/text.png: no image format that is supported",
            "\n  train/cat/empty.png: empty file",
        ),
    ),
}


@pytest.mark.parametrize("shape", REFUSED)
def test_a_data_set_that_is_refused(tmp_path: Path, shape: str) -> None:
    build, complaints = REFUSED[shape]
    build(tmp_path)
    for message in (complaint(tmp_path), complaint(tmp_path, skip=True)):
        for words in complaints:
            assert words in message


def copies(folder: Path) -> None:
    """Three test images that are training images, one of them of the other class."""
    two_splits(folder, {"cat": 12, "dog": 12}, {"cat": 4, "dog": 4})
    for source, target in (("cat/0000", "cat/0000"), ("cat/0001", "dog/0001"), ("dog/0002", "dog/0002")):
        (folder / "test" / f"{target}.png").write_bytes((folder / "train" / f"{source}.png").read_bytes())


def contested(folder: Path) -> None:
    two_splits(folder, {"cat": 12, "dog": 12}, {"cat": 4, "dog": 4})
    (folder / "train" / "cat" / "0000.png").write_bytes((folder / "train" / "dog" / "0000.png").read_bytes())


def littered(folder: Path) -> None:
    fill(folder, {"cat": 15, "dog": 15, ".ipynb_checkpoints": 2, "__MACOSX": 2, "cat/.git": 1, "cat/@eaDir": 1})
    for name in (".DS_Store", "cat/Thumbs.db", "cat/desktop.ini", "cat/._0000.png", "dog/.hidden.png"):
        (folder / name).write_text("litter")


def unread(folder: Path) -> None:
    fill(folder, {"cat": 15, "dog": 15, "cat/old": 2, "cat/old/older": 1, "cat/notes": 0})
    pattern(0).save(folder / "0.png")
    for name in ("cat/a.heic", "dog/b.heic", "dog/a.txt", "dog/README"):
        (folder / name).write_text("not read")
    (folder / "dog" / "more").symlink_to("../cat")


def three_splits(folder: Path) -> None:
    two_splits(folder, {"cat": 12, "dog": 12}, {"cat": 2, "dog": 2})
    fill(folder / "val", {"cat": 2, "dog": 2})


ACCEPTED: dict[str, tuple[Callable[[Path], object], tuple[int, int], tuple[str, ...]]] = {
    "two even classes": (lambda folder: fill(folder, {"cat": 15, "dog": 15}), (24, 6), ()),
    "litter": (littered, (24, 6), ()),
    "uneven classes": (
        lambda folder: fill(folder, {"cat": 200, "dog": 15}),
        (172, 43),
        (
            "the classes are uneven, training images of the largest and the smallest: 'cat' (160), 'dog' (12); "
            "to answer 'cat' always is right on 93.0% of the test images",
        ),
    ),
    "tiny classes": (
        lambda folder: fill(folder, {"cat": 15, "dog": 3, "emu": 11}),
        (23, 6),
        ("fewer than 10 training images of a class, too few to learn it from: 'dog' (2), 'emu' (9)",),
    ),
    "one training image in each class": (
        lambda folder: two_splits(folder, {"cat": 1, "dog": 1}, {"cat": 3, "dog": 3}),
        (2, 6),
        ("fewer than 10 training images of a class, too few to learn it from: 'cat' (1), 'dog' (1)",),
    ),
    "a class without test images": (
        lambda folder: two_splits(folder, {"cat": 12, "dog": 12}, {"cat": 3}),
        (24, 3),
        ("no test image of class 'dog': test accuracy says nothing about it",),
    ),
    "test images that are training images": (
        copies,
        (24, 8),
        (
            "3 of 8 test images are among the training images too, pixel for pixel at 8x8, 1 of them under another "
            "class only: test accuracy is not that on new images",
        ),
    ),
    "images under two classes": (
        contested,
        (24, 8),
        ("2 of 24 training images stand under more than one class, pixel for pixel at 8x8",),
    ),
    "things that are not read": (
        unread,
        (24, 6),
        (
            "1 images in {root} itself are not read, as they lie in no class folder",
            "folders inside class folders are not read, images in them: 'cat/old' (3), 'dog/more' (0)",
            "files in class folders are not read, as their names end otherwise: '' (1), '.heic' (2), '.txt' (1)",
        ),
    ),
    "train, val and test": (
        three_splits,
        (24, 4),
        ("folder 'val' in {root} is not read: the classes are those in 'train', 'test'",),
    ),
    "a thousand classes": (
        lambda folder: fill(folder, {f"{number:03}": 2 for number in range(1000)}),
        (1000, 1000),
        ("fewer than 10 training images of a class, too few to learn it from: '000' (1), '001' (1), ",),
    ),
}


@pytest.mark.parametrize("shape", ACCEPTED)
def test_a_data_set_that_is_read_and_what_is_said_of_it(tmp_path: Path, shape: str) -> None:
    build, sizes, warnings = ACCEPTED[shape]
    build(tmp_path)
    data = load(str(tmp_path))
    assert (len(data.train), len(data.test)) == sizes
    assert len(data.warnings) == len(warnings), data.warnings
    for said, expected in zip(data.warnings, warnings, strict=True):
        assert said.startswith(expected.format(root=tmp_path))


def test_a_class_folder_that_cannot_be_listed_is_told_with_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path, {"cat": 5, "dog": 5, "emu": 5})
    (tmp_path / "cat" / "empty.png").touch()
    listing = Path.iterdir

    def refusing(path: Path) -> object:
        if path.name == "emu":
            raise PermissionError(errno.EACCES, "Permission denied")
        return listing(path)

    monkeypatch.setattr(Path, "iterdir", refusing)
    first, second, third = complaint(tmp_path, skip=True).splitlines()
    assert first.startswith(f"{tmp_path / 'emu'}: the folder cannot be listed (Permission denied); change its perm")
    assert second.startswith(f"{tmp_path}: 1 of 11 images cannot be read")
    assert third == "  cat/empty.png: empty file"


def test_a_class_folder_that_cannot_be_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path, {"cat": 5, "dog": 5, "emu": 5})
    looking = Path.stat

    def refusing(path: Path, **options: bool) -> os.stat_result:
        if path.name == "emu":
            raise PermissionError(errno.EACCES, "Permission denied")
        return looking(path, **options)

    monkeypatch.setattr(Path, "stat", refusing)
    assert f"{tmp_path / 'emu'}: Permission denied; mend or remove it" in complaint(tmp_path)


def test_class_names_are_text(tmp_path: Path) -> None:
    fill(tmp_path, {"cat": 5, "dog": 5})
    try:
        fill(tmp_path, {os.fsdecode(b"\xff"): 5})
    except OSError:
        pytest.skip("this file system takes UTF-8 alone")
    assert "the name of a class must be UTF-8; rename the folder" in complaint(tmp_path)


def test_a_class_or_a_test_set_that_is_bad_throughout_is_not_skipped(tmp_path: Path) -> None:
    two_splits(tmp_path, {"cat": 3, "dog": 3}, {"cat": 2, "dog": 2})
    for file in (tmp_path / "train" / "dog").iterdir():
        file.write_bytes(b"")
    message = complaint(tmp_path, skip=True)
    assert message.startswith(f"{tmp_path}: not one training image of class 'dog' can be read\n")
    assert message.count(": empty file") == 3
    fill(tmp_path / "train", {"dog": 3})
    for file in (tmp_path / "test").glob("*/*"):
        file.write_bytes(b"")
    assert complaint(tmp_path, skip=True).startswith(f"{tmp_path}: not one test image can be read\n")


def test_archives_are_reviewed_too(tmp_path: Path) -> None:
    pixels = np.stack([np.asarray(pattern(number)) for number in range(40)])
    labels = np.arange(40) % 2
    np.savez(tmp_path / "a.npz", x_train=pixels, y_train=labels, x_test=pixels[:5], y_test=labels[:5])
    data = load(str(tmp_path / "a.npz"), image_size=16)
    assert [warning[:52] for warning in data.warnings] == ["5 of 5 test images are among the training images too"]
    assert load("synthetic").warnings == ()


def test_counts_are_those_of_the_labels(tmp_path: Path) -> None:
    fill(tmp_path, {"cat": 15, "dog": 5})
    assert load(str(tmp_path)).counts() == {"train": {"cat": 12, "dog": 4}, "test": {"cat": 3, "dog": 1}}
