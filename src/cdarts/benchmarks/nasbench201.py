"""NAS-Bench-201 as a table (Dong & Yang, ICLR 2020): all 15,625 cells of the space, trained on three data sets.

`Table` answers what a cell scores, how it ranks and how far from the best it is; `HardwareCosts` what it costs on
devices (HW-NAS-Bench, Li et al., ICLR 2021). Accuracies and regrets are in percent and percentage points.
"""

import csv
import gzip
import io
import itertools
import os
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from cdarts.errors import ConfigurationError, DataError, GenotypeError
from cdarts.spaces import NasBench201Space
from cdarts.topology import Genotype, parse_arch_string

SPACE = NasBench201Space.name
OPERATIONS = NasBench201Space.operations
NUM_EDGES = 6
NUM_CELLS = len(OPERATIONS) ** NUM_EDGES

FILE_NAME = "nasbench201.csv.gz"
VARIABLE = "CDARTS_NASBENCH201"
"""Environment variable that names the table."""

EPOCHS = (12, 200)
"""The two schedules that the benchmark trained every cell with; each ends at a learning rate of 0."""

MAX_BYTES = 64 * 1024 * 1024
"""Bytes a table may have, decompressed; the real one has 3.4 million."""

Floats = npt.NDArray[np.float64]
Split = Literal["val", "test"]


@dataclass(frozen=True)
class Dataset:
    """One data set of the benchmark: where the table holds it, and what the networks for it cost."""

    title: str
    prefix: str
    """Of its accuracy columns."""
    seconds: str
    """Column of the seconds of training with the 200-epoch schedule."""
    seeds: str
    """Array of accuracies by seed, in the file beside the table."""
    seed_splits: tuple[Split, ...]
    """Images that those were measured on: validation images, or validation and test images together."""
    params_m: float
    """Parameters of a network without convolutions in its cells, in millions."""
    flops_m: float
    """Multiply-adds of such a network, in millions."""
    conv_flops_m: Mapping[str, float]
    """Multiply-adds that one operation on an edge adds, over all cells, in millions."""


CONV_PARAMS_M = {"nor_conv_1x1": 0.028, "nor_conv_3x3": 0.24304}
"""Parameters that one operation on an edge adds, over all cells, in millions."""

_CIFAR_FLOPS = {"nor_conv_1x1": 3.93216, "nor_conv_3x3": 35.38944}
_IMAGENET16_FLOPS = {"nor_conv_1x1": 0.98304, "nor_conv_3x3": 8.84736}

DATASETS: dict[str, Dataset] = {
    "cifar10": Dataset(
        title="CIFAR-10",
        prefix="c10",
        seconds="c10_val_traintime_200",
        seeds="c10_val_200",
        seed_splits=("val",),
        params_m=0.073306,
        flops_m=7.78304,
        conv_flops_m=_CIFAR_FLOPS,
    ),
    "cifar100": Dataset(
        title="CIFAR-100",
        prefix="c100",
        seconds="c100_traintime_200",
        seeds="c100_valtest_200",
        seed_splits=("val", "test"),
        params_m=0.079156,
        flops_m=7.78880,
        conv_flops_m=_CIFAR_FLOPS,
    ),
    "imagenet16-120": Dataset(
        title="ImageNet16-120",
        prefix="in16",
        seconds="in16_traintime_200",
        seeds="in16_valtest_200",
        seed_splits=("val", "test"),
        params_m=0.080456,
        flops_m=1.95328,
        conv_flops_m=_IMAGENET16_FLOPS,
    ),
}
"""By name, in the benchmark's order."""

ACCURACY_COLUMNS = tuple(
    f"{dataset.prefix}_{split}_{epochs}"
    for epochs in sorted(EPOCHS, reverse=True)
    for dataset in DATASETS.values()
    for split in ("val", "test")
)
SECONDS_COLUMNS = tuple(dataset.seconds for dataset in DATASETS.values())
COLUMNS = ("index", "arch", *ACCURACY_COLUMNS, *SECONDS_COLUMNS, "seeds_200", "params_m", "flops_m", "iso_group")
"""The columns of the table's file, in order."""

_RANGES: dict[str, tuple[float, float]] = {
    "index": (0, NUM_CELLS - 1),
    **dict.fromkeys(ACCURACY_COLUMNS, (0.0, 100.0)),
    **dict.fromkeys(SECONDS_COLUMNS, (1e-9, 1e9)),
    "seeds_200": (1, 100),
    "params_m": (0.0, 1e6),
    "flops_m": (0.0, 1e9),
    "iso_group": (0, NUM_CELLS - 1),
}
_WHOLE = ("index", "seeds_200", "iso_group")
"""Columns of whole numbers."""

SEED_TOLERANCE = 1e-3
"""Percentage points by which a mean over seeds may differ from the table, which holds four decimals."""


# -- the cells ---------------------------------------------------------------------------------------------------------


@cache
def all_cells() -> Mapping[str, tuple[int, ...]]:
    """Every cell of the space: its text form -> its operations as numbers, edge by edge in the space's order."""
    numbers = itertools.product(range(len(OPERATIONS)), repeat=NUM_EDGES)
    return {arch_string([OPERATIONS[number] for number in cell]): cell for cell in numbers}


def arch_string(operations: Sequence[str]) -> str:
    """The text form of a cell, from the names of its 6 operations in the order of the edges."""
    first, second, third, fourth, fifth, sixth = operations
    return f"|{first}~0|+|{second}~0|{third}~1|+|{fourth}~0|{fifth}~1|{sixth}~2|"


def function_class(genotype: Genotype) -> str:
    """The function of its input that a cell computes, in a canonical form: equal texts, equal functions.

    Dead operations (``none``, and those that read a first node that is ``none``) are zero, a skip-connection stands for
    what it passes on, and the terms of a sum are sorted as texts. This is the benchmark's own form to the letter
    (D-X-Y/NAS-Bench-201, MIT), and it has the 6,466 classes that the benchmark counts. To the letter, because that
    number hangs on how texts sort: a sum passed on by a skip-connection stays one term, so two cells that add up the
    same terms in another nesting may or may not meet. So unequal texts do not mean unequal functions: with zeros left
    out and nested sums taken apart, 4,930 classes remain.

    Raises `GenotypeError` for a genotype of another space.
    """
    _check_space(genotype)
    states = ["0"]
    for target in range(1, NasBench201Space.num_nodes + 1):
        terms = [
            _term(choice.operation, states[choice.edge.source])
            for choice in genotype.cells["cell"]
            if choice.edge.target == target
        ]
        states.append("+".join(sorted(terms)))
    return states[-1]


ZERO = "#"


def _term(operation: str, source: str) -> str:
    if operation == "none" or source == ZERO:
        return ZERO
    return source if operation == "skip_connect" else f"({source})@{operation}"


def _check_space(genotype: Genotype) -> None:
    if genotype.space != SPACE:
        raise GenotypeError(
            f"the genotype belongs to space {genotype.space!r}; NAS-Bench-201 measured the cells of {SPACE!r} only"
        )


# -- the table ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Result:
    """What the table says of one cell on one data set; accuracies in percent, regrets in percentage points.

    Rounded as the table is: accuracies to 4 decimals, millions of parameters to 6, of multiply-adds to 5.
    """

    dataset: str
    index: int
    """The cell's number in the benchmark."""
    val_12: float
    test_12: float
    val_200: float
    """CIFAR-10: trained on half of the training images, measured on the other half; else on half of the test images."""
    test_200: float
    """CIFAR-10: trained on all training images; CIFAR-100 and ImageNet16-120: the other half of the test images."""
    seeds_200: tuple[float, ...] | None
    """One accuracy a seed: on CIFAR-10 of `val_200`, else on all test images (both halves). None where not known."""
    rank: int
    """By `test_200`, 1 for the best; cells of equal accuracy share the better rank."""
    percentile: float
    """Percent of all cells, itself among them, whose `test_200` is not above its own: 100 for the best."""
    test_regret: float
    """From the best `test_200` of all cells."""
    val_regret: float
    """From the best `val_200` of all cells."""
    params_m: float
    """Parameters of the network for this data set, in millions."""
    flops_m: float
    """Multiply-adds of that network, in millions."""
    iso_group: int
    """Number of the cell's `function_class`, counted by first appearance."""
    iso_cells: int
    """Cells in that class, itself among them."""
    train_seconds: float
    """Training with the 200-epoch schedule; on CIFAR-10 with half of the training images."""


@dataclass(frozen=True, eq=False)
class Table:
    """The whole table; rows in the benchmark's order, 0 to 15624."""

    archs: tuple[str, ...]
    columns: Mapping[str, Floats]
    """Every column of `COLUMNS` except ``arch``, each (15625,)."""
    seeds: Mapping[str, npt.NDArray[np.float32]]
    """Accuracies by seed as `Dataset.seeds` names them, each (15625, seeds), NaN where there was no such run.

    Empty if the file beside the table is not there.
    """

    @classmethod
    def load(cls, path: Path) -> "Table":
        """Read ``nasbench201.csv.gz``, and the accuracies by seed from ``nasbench201_seeds.npz`` where it lies beside.

        Raises `DataError` naming file, line and column.
        """
        archs, columns = _read_table(path)
        beside = seeds_path(path)
        seeds = _read_seeds(beside, columns) if beside.exists() else {}
        return cls(archs, columns, seeds)

    def index(self, genotype: Genotype) -> int:
        """The benchmark's number of a cell. Raises `GenotypeError` if it has none."""
        _check_space(genotype)
        text = genotype.text()
        if text not in self._indices:
            raise GenotypeError(f"{text}: not one of the {NUM_CELLS:,} cells of NAS-Bench-201")
        return self._indices[text]

    def genotype(self, index: int) -> Genotype:
        """The cell of a number."""
        return parse_arch_string(self.archs[index])

    def row(self, index: int) -> dict[str, str | int | float]:
        """One row as the file has it."""
        numbers = {
            name: int(values[index]) if name in _WHOLE else float(values[index])
            for name, values in self.columns.items()
        }
        return {name: self.archs[index] if name == "arch" else numbers[name] for name in COLUMNS}

    def accuracies(self, dataset: str, split: Split, epochs: int) -> Floats:
        """Accuracies (15625,) of all cells, in percent. Raises `ConfigurationError` for an unknown data set."""
        return self.columns[f"{find_dataset(dataset).prefix}_{split}_{epochs}"]

    def result(self, genotype: Genotype, dataset: str) -> Result:
        """Everything about one cell on one data set.

        Raises `GenotypeError` if it is not a cell of the table, `ConfigurationError` for an unknown data set.
        """
        index, about = self.index(genotype), find_dataset(dataset)
        test, validation = (self.accuracies(dataset, split, 200) for split in ("test", "val"))
        better = int(np.count_nonzero(test > test[index]))
        group = self.columns["iso_group"]
        counts = {name: genotype.operations().count(name) for name in CONV_PARAMS_M}
        runs = self.seeds[about.seeds][index] if self.seeds else None
        return Result(
            dataset=dataset,
            index=index,
            val_12=float(self.accuracies(dataset, "val", 12)[index]),
            test_12=float(self.accuracies(dataset, "test", 12)[index]),
            val_200=float(validation[index]),
            test_200=float(test[index]),
            seeds_200=None if runs is None else tuple(round(float(run), 4) for run in runs[np.isfinite(runs)]),
            rank=better + 1,
            percentile=100 * (NUM_CELLS - better) / NUM_CELLS,
            test_regret=round(float(test.max() - test[index]), 4),
            val_regret=round(float(validation.max() - validation[index]), 4),
            params_m=round(about.params_m + sum(counts[name] * CONV_PARAMS_M[name] for name in counts), 6),
            flops_m=round(about.flops_m + sum(counts[name] * about.conv_flops_m[name] for name in counts), 5),
            iso_group=int(group[index]),
            iso_cells=int(np.count_nonzero(group == group[index])),
            train_seconds=float(self.columns[about.seconds][index]),
        )

    @cached_property
    def operations(self) -> tuple[tuple[int, ...], ...]:
        """The operations of each cell as numbers, edge by edge."""
        cells = all_cells()
        return tuple(cells[arch] for arch in self.archs)

    @cached_property
    def indices_by_operations(self) -> Mapping[tuple[int, ...], int]:
        """The inverse of `operations`."""
        return {operations: index for index, operations in enumerate(self.operations)}

    @cached_property
    def _indices(self) -> Mapping[str, int]:
        return {arch: index for index, arch in enumerate(self.archs)}


def find_dataset(name: str) -> Dataset:
    """A data set by name. Raises `ConfigurationError`."""
    if name not in DATASETS:
        raise ConfigurationError(f"{name}: NAS-Bench-201 has no such data set; it has {', '.join(DATASETS)}")
    return DATASETS[name]


def default_table() -> Path:
    """Where the table lies if nothing else is said: in the folder of downloaded data sets."""
    root = os.environ.get("CDARTS_DATA")
    return (Path(root).expanduser() if root else Path.home() / ".cache" / "cdarts") / FILE_NAME


def find_table(named: Path | None = None) -> Path:
    """The table's file: the one named, else that of $CDARTS_NASBENCH201, else `default_table`.

    Raises `DataError`, saying how to get one, if it is not there.
    """
    variable = os.environ.get(VARIABLE)
    if named is not None:
        path, source = named.expanduser(), "--table"
    elif variable:
        path, source = Path(variable).expanduser(), f"${VARIABLE}"
    else:
        path, source = default_table(), f"default, since neither --table nor ${VARIABLE} names one"
    if not path.is_file():
        raise DataError(
            f"{path}: no table of NAS-Bench-201 there ({source}); make one from the benchmark's published files: "
            f"cdarts table NATS-tss-v1_0-3ffb9-simple --out {path}"
        )
    return path


def seeds_path(table: Path) -> Path:
    """The file beside a table that holds the accuracies by seed: ``NAME_seeds.npz`` for ``NAME.csv.gz``."""
    return table.with_name(f"{table.name.removesuffix('.gz').removesuffix('.csv')}_seeds.npz")


# -- reading -----------------------------------------------------------------------------------------------------------


def _read_table(path: Path) -> tuple[tuple[str, ...], dict[str, Floats]]:
    rows = _read_rows(path)
    head, rows = (rows[0], rows[1:]) if rows else ([], [])
    missing = [name for name in COLUMNS if name not in head]
    if missing:
        raise DataError(f"{path}: column {', '.join(missing)} is missing; a table has {', '.join(COLUMNS)}")
    for line, row in enumerate(rows, start=2):
        if len(row) != len(head):
            raise DataError(f"{path}, line {line}: found {len(row)} values for {len(head)} columns")
    if len(rows) != NUM_CELLS:
        raise DataError(f"{path}: found {len(rows):,} cells; the table has {NUM_CELLS:,}, perhaps it was cut")
    texts = dict(zip(head, zip(*rows, strict=True), strict=True))
    archs: tuple[str, ...] = texts["arch"]
    if set(archs) != all_cells().keys():
        seen: set[str] = set()
        for line, arch in enumerate(archs, start=2):
            if arch not in all_cells() or arch in seen:
                what = "stands there twice" if arch in seen else f"is no cell of {len(OPERATIONS)} operations"
                raise DataError(f"{path}, line {line}: arch {arch!r} {what}")
            seen.add(arch)
    columns = {name: _numbers(path, name, texts[name]) for name in COLUMNS if name != "arch"}
    wrong = np.flatnonzero(columns["index"] != np.arange(NUM_CELLS))
    if wrong.size:
        raise DataError(
            f"{path}, line {wrong[0] + 2}: index {columns['index'][wrong[0]]:.0f} where {wrong[0]} is expected; rows "
            "stand in the benchmark's order"
        )
    return archs, columns


def _read_rows(path: Path) -> list[list[str]]:
    try:
        with gzip.open(path, "rb") as file:
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise DataError(f"{path}: more than {MAX_BYTES:,} bytes once decompressed: not a table of NAS-Bench-201")
        return list(csv.reader(io.StringIO(data.decode(), newline=""), strict=True))
    except (OSError, EOFError, zlib.error, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: not a readable table, perhaps damaged: {error}") from error


def _numbers(path: Path, name: str, texts: Sequence[str]) -> Floats:
    """A column as numbers, each within its range."""
    low, high = _RANGES[name]
    try:
        values = np.array(texts, dtype=np.float64)
        good = (values >= low) & (values <= high)  # False for NaN
        if name in _WHOLE:
            good &= values == np.round(values)
    except ValueError:  # one at least is no number at all
        good = np.array([_is_number(text) for text in texts])
    if not good.all():
        wrong = int(np.flatnonzero(~good)[0])
        kind = "whole number" if name in _WHOLE else "number"
        raise DataError(
            f"{path}, line {wrong + 2}: {name} is {texts[wrong][:40]!r}; expected a {kind} from {low:g} to {high:g}"
        )
    return values


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


_UNREADABLE = (OSError, ValueError, EOFError, KeyError, MemoryError, zipfile.BadZipFile, zlib.error)


def _read_arrays(path: Path) -> dict[str, npt.NDArray[np.generic]]:
    """All arrays of an archive that numpy.savez made; nothing pickled is loaded."""
    try:
        with path.open("rb") as file:
            archive = np.load(file, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise DataError(f"{path}: a single array; expected an archive made by numpy.savez")
            with archive:
                return {name: np.asarray(archive[name]) for name in archive.files}
    except _UNREADABLE as error:
        raise DataError(f"{path}: not a readable .npz archive: {error}") from error


def _read_seeds(path: Path, columns: Mapping[str, Floats]) -> dict[str, npt.NDArray[np.float32]]:
    """Accuracies by seed, checked against the table's means."""
    arrays = _read_arrays(path)
    seeds = {}
    for dataset in DATASETS.values():
        values = arrays.get(dataset.seeds)
        if values is None or values.dtype != np.float32 or values.ndim != 2 or len(values) != NUM_CELLS:
            found = "nothing" if values is None else f"{values.dtype} {values.shape}"
            raise DataError(f"{path}: {dataset.seeds}: found {found}; expected float32 ({NUM_CELLS}, seeds)")
        runs = np.isfinite(values)
        expected = np.mean([columns[f"{dataset.prefix}_{split}_200"] for split in dataset.seed_splits], axis=0)
        # a cell without any run divides by 1, and its mean of 0 differs
        means = np.where(runs, values, 0).sum(axis=1, dtype=np.float64) / np.maximum(runs.sum(axis=1), 1)
        wrong = np.flatnonzero((runs.sum(axis=1) != columns["seeds_200"]) | (abs(means - expected) > SEED_TOLERANCE))
        if wrong.size:
            raise DataError(
                f"{path}: {dataset.seeds}: cell {wrong[0]} has {runs[wrong[0]].sum()} runs of mean "
                f"{means[wrong[0]]:.4f}; the table beside it says {columns['seeds_200'][wrong[0]]:.0f} of mean "
                f"{expected[wrong[0]]:.4f}; remove the file, or make both anew"
            )
        seeds[dataset.seeds] = values.astype(np.float32, copy=False)
    return seeds


# -- hardware ----------------------------------------------------------------------------------------------------------

METRICS: dict[str, tuple[str, str]] = {
    "edgegpu_latency": ("Jetson TX2 (edge GPU), latency", "ms"),
    "edgegpu_energy": ("Jetson TX2 (edge GPU), energy", "mJ"),
    "raspi4_latency": ("Raspberry Pi 4, latency", "ms"),
    "edgetpu_latency": ("Edge TPU, latency", "ms"),
    "pixel3_latency": ("Pixel 3, latency", "ms"),
    "eyeriss_latency": ("Eyeriss (simulated), latency", "ms"),
    "eyeriss_energy": ("Eyeriss (simulated), energy", "mJ"),
    "eyeriss_arithmetic_intensity": ("Eyeriss (simulated), arithmetic intensity", ""),
    "fpga_latency": ("FPGA, latency", "ms"),
    "fpga_energy": ("FPGA, energy", "mJ"),
}
"""What HW-NAS-Bench measured or estimated: name -> (description, unit)."""

_HARDWARE_NAMES = {"cifar10": "cifar10", "cifar100": "cifar100", "imagenet16-120": "ImageNet16-120"}
"""How the archive spells the data sets."""


@dataclass(frozen=True, eq=False)
class HardwareCosts:
    """HW-NAS-Bench's costs of one image through each of the table's cells, in the table's order."""

    arrays: Mapping[tuple[str, str], npt.NDArray[np.float32]]
    """(data set, metric) -> (15625,)."""

    @classmethod
    def load(cls, path: Path) -> "HardwareCosts":
        """Read an archive of arrays called ``DATASET__METRIC``, float32 (15625,). Raises `DataError`."""
        found = _read_arrays(path)
        arrays = {}
        for dataset, spelt in _HARDWARE_NAMES.items():
            for metric in METRICS:
                name = f"{spelt}__{metric}"
                values = found.get(name)
                if values is None or values.dtype != np.float32 or values.shape != (NUM_CELLS,):
                    what = "nothing" if values is None else f"{values.dtype} {values.shape}"
                    raise DataError(f"{path}: {name}: found {what}; expected float32 ({NUM_CELLS},)")
                numbers = values.astype(np.float32, copy=False)
                if not np.isfinite(numbers).all():
                    raise DataError(f"{path}: {name}: holds values that are not finite")
                arrays[dataset, metric] = numbers
        return cls(arrays)

    def of(self, index: int, dataset: str) -> dict[str, float]:
        """Metric -> value, in the units of `METRICS`. Raises `ConfigurationError` for an unknown data set."""
        find_dataset(dataset)
        return {metric: float(self.arrays[dataset, metric][index]) for metric in METRICS}
