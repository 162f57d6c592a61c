"""The table of NAS-Bench-201 from its authors' files: NATS-Bench's topology archive in its simple form.

That is a folder, ``NATS-tss-v1_0-3ffb9-simple``, of bz2-compressed pickles: ``meta.pickle.pbz2`` with the list of
architectures and one file a cell, ``000000.pickle.pbz2`` and so on. A cell's file maps the schedule, ``12`` or ``200``
epochs, to what the benchmark's library calls an ArchResults: ``dataset_seed`` lists the seeds of each data set, and
``all_results`` has, for each (data set, seed), the accuracies after each epoch and the seconds it took. The format was
taken from that library and from the script that wrote the archive (D-X-Y/NATS-Bench, D-X-Y/AutoDL-Projects, MIT).
This module was tested on archives made after that description; the authors' archive itself was not at hand.

Pickles can run programs. `read_pickle` admits containers, numbers and strings, and stands in for NumPy's constructors
itself, so that nothing a file names is ever called.
"""

import bz2
import csv
import gzip
import io
import math
import pickle
import statistics
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from cdarts.benchmarks.nasbench201 import (
    ACCURACY_COLUMNS,
    COLUMNS,
    NUM_CELLS,
    all_cells,
    function_class,
)
from cdarts.errors import DataError
from cdarts.topology import parse_arch_string

SUFFIX = ".pickle.pbz2"
META = f"meta{SUFFIX}"

MAX_BYTES = 64 * 1024 * 1024
"""Bytes a file may have, decompressed; a cell's file has about one million."""

MAX_NUMBER = 1e15
"""Largest number that a result may be: an integer without end fits no float."""

VALIDATION_RUN = "cifar10-valid"
"""What the archive calls training on half of CIFAR-10's training images."""

_ACCURACIES = {
    "c10_val": (VALIDATION_RUN, "x-valid"),
    "c10_test": ("cifar10", "ori-test"),
    "c100_val": ("cifar100", "x-valid"),
    "c100_test": ("cifar100", "x-test"),
    "in16_val": ("ImageNet16-120", "x-valid"),
    "in16_test": ("ImageNet16-120", "x-test"),
}
"""Column without its epochs -> the run that it comes from, and the images that accuracy was measured on."""

_SECONDS = {
    "c10_val_traintime_200": VALIDATION_RUN,
    "c100_traintime_200": "cifar100",
    "in16_traintime_200": "ImageNet16-120",
}
"""Column -> the run."""

_SEEDS = {
    "c10_val_200": (VALIDATION_RUN, "x-valid"),
    "c100_valtest_200": ("cifar100", "ori-test"),
    "in16_valtest_200": ("ImageNet16-120", "ori-test"),
}
"""Array of accuracies by seed -> the run and the images; of the other two sets these are all test images."""


# -- pickles -----------------------------------------------------------------------------------------------------------


class _Constructor:
    """What the unpickler gives for a name that a file may call. It is no class, and cannot be changed by the file."""

    __slots__ = ("_build",)

    def __init__(self, build: Callable[..., object]) -> None:
        self._build = build

    def __call__(self, *arguments: object) -> object:
        return self._build(*arguments)

    def __setstate__(self, state: object) -> NoReturn:
        raise DataError("it changes a constructor")


class _NumberType:
    """In place of numpy.dtype: a type of plain numbers, without fields or objects."""

    __slots__ = ("_code", "_order")

    def __init__(self, code: object, *_: object) -> None:
        if not isinstance(code, str) or len(code) != 2 or code[0] not in "biuf" or code[1] not in "1248":
            raise DataError(f"it holds NumPy values of type {_shown(code)!r}; plain numbers are expected")
        self._code, self._order = code, "="

    def __setstate__(self, state: object) -> None:
        match state:
            case (int(), "<" | ">" | "=" | "|" as order, None, None, None, *_):
                self._order = str(order)
            case _:
                raise DataError("it holds NumPy values with fields")

    def read(self, data: object) -> npt.NDArray[Any]:
        """The numbers (N,) that bytes hold."""
        if not isinstance(data, bytes):
            raise DataError("it holds NumPy objects; plain numbers are expected")
        return np.frombuffer(data, dtype=self._order + self._code)


class _Numbers:
    """In place of numpy.ndarray: the state that a pickle sets."""

    __slots__ = ("values",)
    values: npt.NDArray[Any]

    def __setstate__(self, state: object) -> None:
        match state:
            case (int(), tuple() as shape, _NumberType() as kind, bool(is_fortran), data):
                self.values = kind.read(data).reshape(shape, order="F" if is_fortran else "C")
            case _:
                raise DataError("it holds a NumPy array of another form than numbers")


def _scalar(kind: object, data: object) -> int | float | bool:
    if not isinstance(kind, _NumberType):
        raise DataError("it holds a NumPy value without a type")
    value: int | float | bool = kind.read(data).item()
    return value


def _empty_array(*_: object) -> _Numbers:
    return _Numbers()


def _refuse_array(*_: object) -> NoReturn:
    raise DataError("it builds a NumPy array in an unusual way")


ADMITTED: dict[tuple[str, str], object] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("builtins", "set"): set,
    ("builtins", "frozenset"): frozenset,
    ("numpy", "dtype"): _Constructor(_NumberType),
    ("numpy", "ndarray"): _Constructor(_refuse_array),
    ("numpy.core.multiarray", "scalar"): _Constructor(_scalar),
    ("numpy._core.multiarray", "scalar"): _Constructor(_scalar),
    ("numpy.core.multiarray", "_reconstruct"): _Constructor(_empty_array),
    ("numpy._core.multiarray", "_reconstruct"): _Constructor(_empty_array),
}
"""Every name that a pickle may refer to, and what stands for it. Containers, numbers and strings need no name."""


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> object:
        if (module, name) not in ADMITTED:
            raise DataError(f"it refers to {module}.{name}, which a table of results does not need")
        return ADMITTED[module, name]


def read_pickle(path: Path) -> object:
    """The content of one bz2-compressed pickle of containers, numbers and strings. Nothing in it is run.

    NumPy's numbers come back as Python's. Raises `DataError` for anything else.
    """
    try:
        with bz2.open(path, "rb") as file:
            data = file.read(MAX_BYTES + 1)
    except (OSError, EOFError, ValueError) as error:
        raise DataError(f"{path}: not a readable bz2 file, perhaps damaged: {error}") from error
    if len(data) > MAX_BYTES:
        raise DataError(f"{path}: more than {MAX_BYTES:,} bytes once decompressed: not a file of the simple archive")
    try:
        return _Unpickler(io.BytesIO(data)).load()
    except DataError as error:
        raise DataError(f"{path}: refused: {error}") from error
    except Exception as error:  # a damaged pickle fails in any way there is
        raise DataError(f"{path}: not a readable pickle, perhaps damaged: {type(error).__name__}: {error}") from error


# -- the archive -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cell:
    """What the archive says of one cell."""

    arch: str
    numbers: dict[str, float]
    """By column of the table, from the first accuracy to ``flops_m``."""
    seeds: dict[str, tuple[float, ...]]
    """Accuracies by seed, by the name of their array."""


def read_archs(archive: Path) -> list[str]:
    """The architectures, in the archive's order. Raises `DataError`."""
    path = archive / META
    if not path.is_file():
        raise DataError(
            f"{archive}: no folder with {META}; expected NATS-Bench's topology archive in its simple form, unpacked: "
            "NATS-tss-v1_0-3ffb9-simple"
        )
    archs = _entry(read_pickle(path), "meta_archs", str(path))
    if not isinstance(archs, list | tuple):
        raise DataError(f"{path}: meta_archs: expected a list of architectures")
    for number, arch in enumerate(archs):
        if not isinstance(arch, str) or arch not in all_cells():
            raise DataError(f"{path}: meta_archs[{number}]: {_shown(arch)!r} is no cell of NAS-Bench-201")
    if len(set(archs)) != len(archs):
        raise DataError(f"{path}: meta_archs: an architecture stands there twice")
    return list(archs)


def read_cell(archive: Path, index: int, arch: str) -> Cell:
    """The results of one cell. Raises `DataError` naming the file and the place in it."""
    path = archive / f"{index:06d}{SUFFIX}"
    if not path.is_file():
        path = archive / f"{index}{SUFFIX}"
        if not path.is_file():
            raise DataError(f"{archive}: {index:06d}{SUFFIX} is missing; the archive is not whole")
    schedules = read_pickle(path)
    runs = {epochs: _Runs(_entry(schedules, epochs, str(path)), f"{path}: {epochs}", arch) for epochs in ("12", "200")}
    long = runs["200"]
    numbers: dict[str, float] = {}
    for column in ACCURACY_COLUMNS:
        start, _, epochs = column.rpartition("_")
        numbers[column] = round(statistics.fmean(runs[epochs].accuracies(*_ACCURACIES[start])), 4)
    for column, run in _SECONDS.items():
        numbers[column] = round(statistics.fmean(long.seconds(run)), 2)
    numbers["seeds_200"] = len(long.seeds(VALIDATION_RUN))
    numbers["params_m"] = round(statistics.fmean(long.values("cifar10", "params")), 6)
    numbers["flops_m"] = round(statistics.fmean(long.values("cifar10", "flop")), 5)
    seeds = {name: tuple(long.accuracies(*source)) for name, source in _SEEDS.items()}
    if len({len(accuracies) for accuracies in seeds.values()}) > 1:
        raise DataError(f"{path}: 200: the data sets have different numbers of seeds")
    return Cell(arch, numbers, seeds)


class _Runs:
    """The runs of one cell with one schedule."""

    def __init__(self, state: object, place: str, arch: str) -> None:
        self.place = place
        self.results = _entry(state, "all_results", place)
        self.dataset_seeds = _entry(state, "dataset_seed", place)
        found = _entry(state, "arch_str", place)
        if found != arch:
            raise DataError(f"{place}: arch_str is {_shown(found)!r}; {META} says {arch!r}")

    def seeds(self, run: str) -> Sequence[object]:
        seeds = _entry(self.dataset_seeds, run, f"{self.place}: dataset_seed")
        if not isinstance(seeds, list | tuple) or not seeds:
            raise DataError(f"{self.place}: dataset_seed: {run}: expected a list of seeds")
        return seeds

    def values(self, run: str, key: str) -> list[float]:
        """One number of every seed's run."""
        return [_number(_entry(result, key, place), f"{place}: {key}") for result, place in self._each(run)]

    def accuracies(self, run: str, images: str) -> list[float]:
        """After the last epoch, in percent, for every seed."""
        accuracies = []
        for result, place in self._each(run):
            last = int(_number(_entry(result, "epochs", place), f"{place}: epochs")) - 1
            place = f"{place}: eval_acc1es"
            key = f"{images}@{last}"
            accuracy = _number(_entry(_entry(result, "eval_acc1es", place), key, place), f"{place}: {key}")
            if not 0 <= accuracy <= 100:
                raise DataError(f"{place}: {key}: {accuracy} is no percentage")
            accuracies.append(accuracy)
        return accuracies

    def seconds(self, run: str) -> list[float]:
        """Of the whole training, for every seed."""
        seconds = []
        for result, place in self._each(run):
            times = _entry(result, "train_times", place)
            if not isinstance(times, dict) or not times:
                raise DataError(f"{place}: train_times: expected seconds by epoch")
            seconds.append(math.fsum(_number(value, f"{place}: train_times") for value in times.values()))
        return seconds

    def _each(self, run: str) -> Iterable[tuple[object, str]]:
        for seed in self.seeds(run):
            place = f"{self.place}: all_results: ({run!r}, {_shown(seed)})"
            yield _entry(self.results, (run, seed), place), place


def _entry(mapping: object, key: object, place: str) -> object:
    if not isinstance(mapping, dict):
        raise DataError(f"{place}: expected a dictionary, found {type(mapping).__name__}")
    try:
        return mapping[key]
    except (KeyError, TypeError) as error:
        raise DataError(f"{place}: {_shown(key)} is missing") from error


def _number(value: object, place: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= MAX_NUMBER:
        raise DataError(f"{place}: expected a number, found {_shown(value)!r}")
    return float(value)


def _shown(value: object, depth: int = 2) -> str:
    """For an error: short, and quick even where a pickle's few bytes stand for lists of lists without end."""
    match value:
        case str():
            return value[:100]
        case int() if value.bit_length() > 64:
            return f"a number of {value.bit_length()} bits"
        case None | bool() | int() | float():
            return str(value)
        case list() | tuple() if depth and len(value) <= 2:
            items = ", ".join(repr(item[:20]) if isinstance(item, str) else _shown(item, depth - 1) for item in value)
            return f"({items})" if isinstance(value, tuple) else f"[{items}]"
        case _:
            return type(value).__name__


# -- writing -----------------------------------------------------------------------------------------------------------


def convert(archive: Path, progress: Callable[[int], None]) -> list[Cell]:
    """All 15,625 cells. `progress` is told how many have been read.

    Raises `DataError` if the archive is not whole or not as documented.
    """
    archs = read_archs(archive)
    if len(archs) != NUM_CELLS:
        raise DataError(f"{archive / META}: lists {len(archs):,} architectures; the benchmark has {NUM_CELLS:,}")
    cells = []
    for index, arch in enumerate(archs):
        cells.append(read_cell(archive, index, arch))
        progress(index + 1)
    return cells


def table_file(cells: Sequence[Cell]) -> bytes:
    """The table as ``nasbench201.csv.gz`` holds it; the same cells give the same bytes."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    groups: dict[str, int] = {}
    for index, cell in enumerate(cells):
        group = groups.setdefault(function_class(parse_arch_string(cell.arch)), len(groups))
        row = {"index": index, "arch": cell.arch, "iso_group": group, **cell.numbers}
        writer.writerow(row[name] for name in COLUMNS)
    return gzip.compress(text.getvalue().encode(), mtime=0)


def seeds_file(cells: Sequence[Cell]) -> bytes:
    """Accuracies by seed as ``nasbench201_seeds.npz`` holds them: float32 (cells, seeds), NaN for a missing one."""
    file = io.BytesIO()
    np.savez_compressed(
        file,
        c10_val_200=_padded([cell.seeds["c10_val_200"] for cell in cells]),
        c100_valtest_200=_padded([cell.seeds["c100_valtest_200"] for cell in cells]),
        in16_valtest_200=_padded([cell.seeds["in16_valtest_200"] for cell in cells]),
    )
    return file.getvalue()


def _padded(rows: Sequence[tuple[float, ...]]) -> npt.NDArray[np.float32]:
    values = np.full((len(rows), max(map(len, rows))), np.nan, dtype=np.float32)
    for index, row in enumerate(rows):
        values[index, : len(row)] = row
    return values
