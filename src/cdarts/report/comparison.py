"""One table of many searches: what was run here, what the benchmark's table says, what others have published."""

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from cdarts import zoo
from cdarts.benchmarks.nasbench201 import DATASETS, NUM_CELLS, Table
from cdarts.benchmarks.published import PUBLISHED
from cdarts.statistics import PairedTest, Spread, best_of, paired_permutation_test, spread
from cdarts.topology import Genotype

RUN, ON_TABLE, FIXED, NOT_RUN = "searched here", "on the table", "fixed", "published, not run here"
"""Kinds of rows."""

REFERENCE = "cdarts"
"""The method that the others are tested against."""

DECISIVE = "cifar10"
"""The data set that was searched on, and that worst seeds and tests are about."""


@dataclass(frozen=True)
class Found:
    """What one search has found, and at what cost."""

    method: str
    seed: int
    genotype: Genotype
    seconds: float | None = None
    """Of the search; None for a search on the table."""
    peak_memory_bytes: int | None = None
    """Of its process, libraries and data included."""
    simulated_seconds: float | None = None
    """Of training that a search on the table has paid for."""


@dataclass(frozen=True)
class Figures:
    """On one data set, percent; what a published row does not say is None."""

    test: Spread
    validation: Spread | None
    percentile: float | None
    """Mean share of all cells, in percent, whose test accuracy is not above the found cell's."""
    regret: float | None
    """Mean distance to the best test accuracy of all cells, in percentage points."""


@dataclass(frozen=True)
class Row:
    """One line of the comparison."""

    name: str
    kind: str
    figures: Mapping[str, Figures]
    """By data set."""
    num_seeds: int | None = None
    worst: float | None = None
    """The lowest test accuracy on CIFAR-10, and its seed."""
    worst_seed: int | None = None
    test: PairedTest | None = None
    """Of the test accuracies on CIFAR-10 against `REFERENCE`, over the seeds that both have."""
    seconds: float | None = None
    """Mean over the seeds."""
    simulated_seconds: float | None = None
    peak_memory_bytes: int | None = None
    """The largest of all seeds."""
    source: str = ""


@dataclass(frozen=True)
class Comparison:
    """All rows, and what they are about."""

    title: str
    about: Sequence[str]
    """How the rows were made, line by line."""
    rows: Sequence[Row]
    searches: Sequence[dict[str, Any]] = field(default_factory=list)
    """One for each method and seed."""
    failures: Sequence[dict[str, Any]] = field(default_factory=list)
    """Searches that are not among them: method, seed, message."""


# -- rows --------------------------------------------------------------------------------------------------------------


def rows_of(found: Sequence[Found], table: Table, num_seeds: int, draw: np.random.Generator) -> list[Row]:
    """A row for each method in the order of their first searches, then the fixed and the published ones.

    `num_seeds`: as many random cells has the fixed row of the best random one. `draw`: for tests over many seeds.
    """
    methods = dict.fromkeys(search.method for search in found)
    by_method = {method: [search for search in found if search.method == method] for method in methods}
    searched = [_row(searches, by_method.get(REFERENCE, []), table, draw) for searches in by_method.values()]
    return [*searched, *fixed_rows(table, num_seeds), *published_rows()]


def _row(searches: Sequence[Found], reference: Sequence[Found], table: Table, draw: np.random.Generator) -> Row:
    first = searches[0]
    results = {name: [table.result(search.genotype, name) for search in searches] for name in DATASETS}
    accuracies = {search.seed: result.test_200 for search, result in zip(searches, results[DECISIVE], strict=True)}
    worst_seed = min(accuracies, key=lambda seed: accuracies[seed])
    test = None
    others = {search.seed: table.result(search.genotype, DECISIVE).test_200 for search in reference}
    common = sorted(others.keys() & accuracies.keys())
    if common and first.method != REFERENCE:
        test = paired_permutation_test([accuracies[seed] for seed in common], [others[seed] for seed in common], draw)
    memory = [search.peak_memory_bytes for search in searches if search.peak_memory_bytes is not None]
    return Row(
        name=first.method,
        kind=RUN if first.simulated_seconds is None else ON_TABLE,
        figures={
            name: Figures(
                test=spread([result.test_200 for result in of_dataset]),
                validation=spread([result.val_200 for result in of_dataset]),
                percentile=spread([result.percentile for result in of_dataset]).mean,
                regret=spread([result.test_regret for result in of_dataset]).mean,
            )
            for name, of_dataset in results.items()
        },
        num_seeds=len(searches),
        worst=accuracies[worst_seed],
        worst_seed=worst_seed,
        test=test,
        seconds=_mean([search.seconds for search in searches]),
        simulated_seconds=_mean([search.simulated_seconds for search in searches]),
        peak_memory_bytes=max(memory, default=None),
    )


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return spread(known).mean if known else None


def fixed_rows(table: Table, num_seeds: int) -> list[Row]:
    """What needs no search: the best cells, two that anybody would try, and luck."""
    optimum, luck = {}, {}
    chosen_by = table.accuracies(DECISIVE, "val", 200)
    for name in DATASETS:
        test, validation = (table.accuracies(name, split, 200) for split in ("test", "val"))
        percentiles = 100 * np.searchsorted(np.sort(test), test, side="right") / NUM_CELLS
        best, best_validation = float(test.max()), float(validation.max())
        optimum[name] = Figures(Spread(best, None), Spread(best_validation, None), 100.0, 0.0)
        lucky = best_of(chosen_by, test, num_seeds)
        luck[name] = Figures(
            lucky,
            best_of(chosen_by, validation, num_seeds),
            best_of(chosen_by, percentiles, num_seeds).mean,
            best - lucky.mean,
        )
    word = "a random cell" if num_seeds == 1 else f"best of {num_seeds} random cells"
    return [
        Row("optimum", FIXED, optimum, source="the best of all cells, on each data set and split another one"),
        _fixed("ResNet (published)", "nasbench201-resnet", table),
        _fixed("all-conv3x3", "nasbench201-all-conv3x3", table),
        Row(
            word,
            FIXED,
            luck,
            source="an oracle's expectation, exact, by CIFAR-10's validation accuracy after 200 epochs; "
            "standard deviations are those of one such draw",
        ),
    ]


def _fixed(label: str, name: str, table: Table) -> Row:
    genotype = zoo.load(name)
    figures = {}
    for dataset in DATASETS:
        result = table.result(genotype, dataset)
        figures[dataset] = Figures(
            Spread(result.test_200, None), Spread(result.val_200, None), result.percentile, result.test_regret
        )
    return Row(label, FIXED, figures, source=f"row {table.index(genotype)} of the table")


def published_rows() -> list[Row]:
    """What others have published."""
    return [
        Row(
            row.name,
            NOT_RUN,
            {name: Figures(row.test[name], row.validation.get(name), None, None) for name in DATASETS},
            source=row.source,
        )
        for row in PUBLISHED
    ]


# -- the three forms ---------------------------------------------------------------------------------------------------


def _spread(value: Spread | None) -> str:
    if value is None:
        return ""
    return f"{value.mean:.2f}" if value.std is None else f"{value.mean:.2f} ± {value.std:.2f}"


def _three(row: Row, of: Callable[[Figures], float | None]) -> str:
    """A figure on the three data sets, in the benchmark's order."""
    values = [of(row.figures[name]) for name in DATASETS]
    return " / ".join(f"{value:.2f}" for value in values if value is not None)


def _test(row: Row) -> str:
    return "" if row.test is None else f"{row.test.p_value:.4g} (floor {row.test.floor:.4g}, n {row.test.num_pairs})"


def _seconds(row: Row) -> str:
    if row.simulated_seconds is not None:
        return f"{row.simulated_seconds:,.0f} simulated"
    return "" if row.seconds is None else f"{row.seconds:,.0f}"


CELLS: dict[str, Callable[[Row], str]] = {
    "method": lambda row: row.name,
    "kind": lambda row: row.kind,
    "n": lambda row: "" if row.num_seeds is None else str(row.num_seeds),
    **{
        f"{dataset.title} test": (lambda row, name=name: _spread(row.figures[name].test))  # type: ignore[misc]
        for name, dataset in DATASETS.items()
    },
    "CIFAR-10 validation": lambda row: _spread(row.figures[DECISIVE].validation),
    "worst seed": lambda row: "" if row.worst is None else f"{row.worst:.2f} (seed {row.worst_seed})",
    "percentile": lambda row: _three(row, lambda figures: figures.percentile),
    "regret": lambda row: _three(row, lambda figures: figures.regret),
    f"p against {REFERENCE}": _test,
    "seconds": _seconds,
    "memory, MiB": lambda row: "" if row.peak_memory_bytes is None else f"{row.peak_memory_bytes / 2**20:,.0f}",
}
"""The columns of the table for people."""

NOTES = (
    "Test and validation accuracy in percent, from NAS-Bench-201's table (200 epochs): mean ± sample standard "
    "deviation over seeds.",
    "Percentile (share of the 15,625 cells that are not better on test images) and regret (points below the best test "
    "accuracy): means over seeds, on CIFAR-10 / CIFAR-100 / ImageNet16-120.",
    f"p: two-sided paired permutation test of CIFAR-10 test accuracy against {REFERENCE} on the same seeds, exact over "
    "all sign flips up to 16 pairs; no p below the floor is possible.",
    "Seconds: a search's own epochs, mean over seeds, while others ran beside it; simulated: the benchmark's training "
    "times of the cells that a search on the table asked for. Memory: the largest process, with libraries and data.",
    "Fixed rows come from the table alone. Published figures were not run here; their spreads are their authors'.",
)


def to_markdown(comparison: Comparison) -> str:
    """A table that reads well as text too, what was run first."""
    cells = [[shown(row) for shown in CELLS.values()] for row in comparison.rows]
    widths = [max(map(len, column)) for column in zip(CELLS, *cells, strict=True)]

    def line(texts: Sequence[str]) -> str:
        return "| " + " | ".join(text.ljust(width) for text, width in zip(texts, widths, strict=True)) + " |"

    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    failures = [
        f"- failed: {failure['method']}, seed {failure['seed']}: {failure['message']}"
        for failure in comparison.failures
    ]
    sources: dict[str, list[str]] = {}
    for row in comparison.rows:
        if row.source:
            sources.setdefault(row.source, []).append(row.name)
    return "\n".join(
        [
            f"# {comparison.title}",
            "",
            *(f"- {text}" for text in comparison.about),
            *failures,
            "",
            line(list(CELLS)),
            rule,
            *map(line, cells),
            "",
            *(f"- {text}" for text in NOTES),
            "",
            "Sources:",
            "",
            *(f"- {', '.join(names)}: {source}" for source, names in sources.items()),
            "",
        ]
    )


def to_csv(comparison: Comparison) -> str:
    """The same rows with a number in every column."""
    records = [_record(row) for row in comparison.rows]
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(records[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return text.getvalue()


def _record(row: Row) -> dict[str, object]:
    record: dict[str, object] = {"method": row.name, "kind": row.kind, "n": row.num_seeds}
    for name, dataset in DATASETS.items():
        figures = row.figures[name]
        validation = figures.validation
        numbers = {
            "test_mean": figures.test.mean,
            "test_std": figures.test.std,
            "val_mean": None if validation is None else validation.mean,
            "val_std": None if validation is None else validation.std,
            "percentile": figures.percentile,
            "regret": figures.regret,
        }
        record |= {
            f"{dataset.prefix}_{key}": None if value is None else round(value, 4) for key, value in numbers.items()
        }
    test = row.test
    return record | {
        "worst": row.worst,
        "worst_seed": row.worst_seed,
        "p_value": None if test is None else test.p_value,
        "p_floor": None if test is None else test.floor,
        "p_pairs": None if test is None else test.num_pairs,
        "seconds": None if row.seconds is None else round(row.seconds, 1),
        "simulated_seconds": None if row.simulated_seconds is None else round(row.simulated_seconds, 1),
        "peak_memory_bytes": row.peak_memory_bytes,
        "source": row.source,
    }


def to_json(comparison: Comparison) -> dict[str, Any]:
    """Everything, every search included."""
    return asdict(comparison)


def search_record(search: Found, table: Table) -> dict[str, Any]:
    """One search as the JSON form holds it."""
    results = {name: table.result(search.genotype, name) for name in DATASETS}
    return {
        "method": search.method,
        "seed": search.seed,
        "genotype": search.genotype.text(),
        "index": table.index(search.genotype),
        "results": {
            name: {
                "val": result.val_200,
                "test": result.test_200,
                "rank": result.rank,
                "percentile": result.percentile,
                "regret": result.test_regret,
            }
            for name, result in results.items()
        },
        "seconds": search.seconds,
        "simulated_seconds": search.simulated_seconds,
        "peak_memory_bytes": search.peak_memory_bytes,
    }
