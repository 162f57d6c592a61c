"""What is wrong with a user's data, found before anything is trained on it: all of it at once, each with its reason."""

import errno
import hashlib
import os
import stat
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from cdarts.data.images import ImageData, Images, is_skewed
from cdarts.errors import DataError

EXTENSIONS = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"})
"""File names that count as images, in any case."""

LITTER = frozenset(
    {"__macosx", "@eadir", "$recycle.bin", "system volume information", "lost+found", "thumbs.db", "desktop.ini"}
)
"""What operating systems and archives leave behind, in lower case; ignored, as are names that begin with a dot."""

FEW_IMAGES = 10
"""A class with fewer training images than that is warned of."""

UNEVEN = 10
"""So is a class with this many times the training images of another."""

_MOST_NAMED = 10


# -- what a folder holds, by the names in it ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Survey:
    """A folder of images before any of them is opened."""

    train: dict[str, list[Path]]
    """Class -> its image files, both sorted by name."""
    test: dict[str, list[Path]] | None
    """The same for the test images; None if there is no folder of them, so that a fifth is to be held out."""
    problems: list[str]
    """Why it cannot be used: each says what, where, and how to mend it."""
    bad: dict[Path, str]
    """Named like an image, but not a file that can be opened: the reason."""
    notes: list[str]
    """What lies in it and is not read."""


@dataclass
class _Findings:
    problems: list[str] = field(default_factory=list)
    bad: dict[Path, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    nested: dict[Path, int] = field(default_factory=dict)
    """Folder inside a class folder -> images in it."""
    endings: Counter[str] = field(default_factory=Counter)
    """Of files in class folders that are not named like images."""


def survey(path: Path) -> Survey:
    """Find classes and image files in ``path/CLASS``, or in ``path/train/CLASS`` with ``path/test`` or ``path/val``.

    Raises DataError if a folder of classes cannot be listed or holds none.
    """
    train_path, test_path = _layout(path)
    findings = _Findings()
    train = _classes(train_path, findings)
    test = None if test_path is None else _classes(test_path, findings)
    if len(train) == 1 and not findings.problems:
        findings.problems.append(f"{train_path}: only one class folder, {next(iter(train))!r}; expected at least 2")
    empty = [name for name, files in train.items() if not files]
    if empty:
        folders = [folder for folder in findings.nested if folder.parent.parent == train_path]
        inner = [folder for folder in folders if folder.parent.name in empty]
        hint = f"; move up what lies in {listed(str(folder.relative_to(path)) for folder in inner)}" if inner else ""
        findings.problems.append(
            f"{train_path}: no images directly in class folder {listed(empty)}; "
            f"add some ({extensions()}) or remove the folder{hint}"
        )
    if test is not None and test_path is not None:
        test = {name: files for name, files in test.items() if files}
        unknown = [name for name in test if name not in train]
        if unknown:
            findings.problems.append(
                f"{test_path}: class folder {listed(unknown)} has no counterpart among the training classes, "
                f"{listed(train)}"
            )
        if not test:
            findings.problems.append(f"{test_path}: no images in its class folders; add some or remove the folder")
    _note_unread(path, train_path, test_path, findings)
    return Survey(train, test, findings.problems, findings.bad, findings.notes)


def entries(path: Path) -> list[Path]:
    """What a folder holds, by name, without what is hidden or `LITTER`. Raises DataError if it cannot be listed."""
    try:
        found = [entry for entry in path.iterdir() if not entry.name.startswith(".")]
    except OSError as error:
        raise DataError(f"{path}: the folder cannot be listed ({error.strerror})") from error
    return sorted((entry for entry in found if entry.name.lower() not in LITTER), key=lambda entry: entry.name)


def is_named_like_an_image(path: Path) -> bool:
    """By the end of its name."""
    return path.suffix.lower() in EXTENSIONS


def why_not_opened(error: OSError) -> str:
    """In words, why the operating system refuses a path."""
    match error.errno:
        case errno.ELOOP:
            return "a symbolic link that leads back to itself"
        case errno.ENOENT:
            return "a link that leads nowhere, or a file that has gone"
        case _:
            return error.strerror or str(error)


def listed(names: Iterable[str]) -> str:
    """``'a', 'b'``, the first ten."""
    quoted = [repr(name) for name in names]
    more = f" and {len(quoted) - _MOST_NAMED} more" if len(quoted) > _MOST_NAMED else ""
    return ", ".join(quoted[:_MOST_NAMED]) + more


def with_counts(counts: Mapping[str, int]) -> str:
    """``'cat' (8), 'dog' (3)``, the first ten."""
    named = [f"{name!r} ({count:,})" for name, count in counts.items()]
    more = f" and {len(named) - _MOST_NAMED} more" if len(named) > _MOST_NAMED else ""
    return ", ".join(named[:_MOST_NAMED]) + more


def extensions() -> str:
    """`EXTENSIONS` in a line."""
    return " ".join(sorted(extension.removeprefix(".") for extension in EXTENSIONS))


def _layout(path: Path) -> tuple[Path, Path | None]:
    """The folder that holds the training classes, and that of the test classes if there is one."""
    train = path / "train"
    # A class may be called "train": then its folder holds images, not folders.
    if not (train.is_dir() and any(entry.is_dir() for entry in entries(train))):
        return path, None
    for name in ("test", "val"):
        if (path / name).is_dir():
            return train, path / name
    return train, None


def _classes(split: Path, findings: _Findings) -> dict[str, list[Path]]:
    """The class folders of a split and the image files in each. Raises DataError if it holds none."""
    folders: list[Path] = []
    loose = 0
    for entry in entries(split):
        mode = _mode(entry)
        if isinstance(mode, int) and stat.S_ISDIR(mode):
            folders.append(entry)
        elif is_named_like_an_image(entry):
            loose += 1
        elif isinstance(mode, str):
            findings.problems.append(f"{entry}: {mode}; mend or remove it, as it may be meant for a class folder")
    if not folders and not findings.problems:
        found = f"{loose} images but no class folders" if loose else "no class folders"
        raise DataError(
            f"{split}: {found}; put the images of each class into a folder of its own, e.g. {split}/cat/1.jpg"
        )
    if loose:
        findings.notes.append(f"{loose} images in {split} itself are not read, as they lie in no class folder")
    home = split.resolve()
    classes: dict[str, list[Path]] = {}
    seen: dict[Path, str] = {}
    # links last, so that of a folder that is there twice the link is the one too many
    for folder in sorted(folders, key=Path.is_symlink):
        target = folder.resolve()
        if target == home or target in home.parents:
            findings.problems.append(f"{folder}: a symbolic link to a folder that it lies in; remove it")
        elif target in seen:
            findings.problems.append(f"{folder}: the same folder as class {seen[target]!r}; remove one of the two")
        elif not _is_text(folder.name):
            findings.problems.append(f"{str(folder)!r}: the name of a class must be UTF-8; rename the folder")
        else:
            seen[target] = folder.name
            try:
                classes[folder.name] = _images(folder, findings)
            except DataError as error:
                findings.problems.append(f"{error}; change its permissions or remove it")
    return dict(sorted(classes.items()))


def _images(folder: Path, findings: _Findings) -> list[Path]:
    """The image files directly in a class folder. Raises DataError if it cannot be listed."""
    images: list[Path] = []
    for entry in entries(folder):
        mode = _mode(entry)
        if is_named_like_an_image(entry):
            if isinstance(mode, str):
                findings.bad[entry] = mode
            elif stat.S_ISREG(mode):
                images.append(entry)
            else:
                kind = "a folder" if stat.S_ISDIR(mode) else "neither a file nor a folder"
                findings.bad[entry] = f"{kind}, though named like an image"
        elif isinstance(mode, int) and stat.S_ISDIR(mode):
            findings.nested[entry] = _images_below(entry)
        else:
            findings.endings[entry.suffix.lower()] += 1
    return images


def _images_below(folder: Path) -> int:
    """Image files at any depth, hidden ones and links to other folders apart."""
    if folder.is_symlink():
        return 0
    count = 0
    for _, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        count += sum(not name.startswith(".") and is_named_like_an_image(Path(name)) for name in files)
    return count


def _note_unread(path: Path, train: Path, test: Path | None, findings: _Findings) -> None:
    """Add what is not read, beside the class folders and inside them, to the notes."""
    if train != path:
        read = [split for split in (train, test) if split is not None]
        beside = [entry.name for entry in entries(path) if entry not in read and entry.is_dir()]
        if beside:
            taken = listed(split.name for split in read)
            findings.notes.append(f"folder {listed(beside)} in {path} is not read: the classes are those in {taken}")
    inner = {
        str(folder.relative_to(path)): count
        for folder, count in findings.nested.items()
        if count or folder.is_symlink()
    }
    if inner:
        findings.notes.append(f"folders inside class folders are not read, images in them: {with_counts(inner)}")
    if findings.endings:
        endings = with_counts(dict(sorted(findings.endings.items())))
        findings.notes.append(f"files in class folders are not read, as their names end otherwise: {endings}")


def _mode(path: Path) -> int | str:
    """What a path leads to, as `stat` has it; or why it leads nowhere."""
    try:
        return path.stat().st_mode
    except OSError as error:
        return why_not_opened(error)


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


# -- what loaded images look like --------------------------------------------------------------------------------------


def reviewed(data: ImageData) -> ImageData:
    """The same data, warnings added about class sizes and about images that are there twice.

    Skewed classes are drawn equally often from then on. Images in files are not compared, as that would read them all.
    """
    warnings = (*data.warnings, *_about_sizes(data), *_about_duplicates(data))
    return replace(data, warnings=warnings, balanced=is_skewed(data.train))


def _about_sizes(data: ImageData) -> Iterator[str]:
    train, test = (np.bincount(split.labels, minlength=data.num_classes) for split in (data.train, data.test))
    few = {data.class_names[label]: int(train[label]) for label in np.flatnonzero(train < FEW_IMAGES)}
    if few:
        yield f"fewer than {FEW_IMAGES} training images of a class, too few to learn it from: {with_counts(few)}"
    if train.max() >= UNEVEN * train.min():
        ends = {data.class_names[label]: int(train[label]) for label in (train.argmax(), train.argmin())}
        yield (
            f"the classes are uneven, training images of the largest and the smallest: {with_counts(ends)}; "
            f"to answer {data.class_names[test.argmax()]!r} always is right on {test.max() / test.sum():.1%} of the "
            "test images"
        )
    untested = [data.class_names[label] for label in np.flatnonzero(test == 0)]
    if untested:
        yield f"no test image of class {listed(untested)}: test accuracy says nothing about it"


def _about_duplicates(data: ImageData) -> Iterator[str]:
    if not (isinstance(data.train, Images) and isinstance(data.test, Images)):
        return
    train, test = (_digests(split) for split in (data.train, data.test))
    classes: dict[bytes, set[int]] = {}
    for digest, label in zip(train, data.train.labels.tolist(), strict=True):
        classes.setdefault(digest, set()).add(label)
    same = f"pixel for pixel at {data.side}x{data.side}"
    known = [
        label in classes[digest]
        for digest, label in zip(test, data.test.labels.tolist(), strict=True)
        if digest in classes
    ]
    if known:
        otherwise = f", {known.count(False)} of them under another class only" if not all(known) else ""
        yield (
            f"{len(known)} of {len(test)} test images are among the training images too, {same}{otherwise}: "
            "test accuracy is not that on new images"
        )
    contested = sum(len(classes[digest]) > 1 for digest in train)
    if contested:
        yield f"{contested} of {len(train)} training images stand under more than one class, {same}"


def _digests(images: Images) -> list[bytes]:
    """One for each image; equal pixels, equal digests."""
    pixels = np.ascontiguousarray(images.pixels)
    return [hashlib.blake2b(image.data, digest_size=16).digest() for image in pixels]
