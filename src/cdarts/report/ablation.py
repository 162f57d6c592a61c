"""The tables of an ablation: each setting's figures over its seeds, beside the setting that it differs from."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from cdarts.statistics import PairedTest, Spread, paired_permutation_test, spread


@dataclass(frozen=True)
class Metric:
    """Something measured on every run; more is better."""

    key: str
    """In CSV and JSON."""
    title: str
    unit: str = ""
    """What is counted, for axes of plots."""
    digits: int = 2
    """After the point, in tables for people."""

    def axis(self) -> str:
        """Title and unit."""
        return f"{self.title} {self.unit}".rstrip()


@dataclass(frozen=True)
class Measured:
    """One setting with one seed."""

    row: str
    seed: int
    values: Mapping[str, float | None]
    """By metric; None where there is nothing to say."""
    genotype: str | None = None
    """What was found, where it is this that was measured."""
    seconds: float | None = None
    """Of the search."""


@dataclass(frozen=True)
class RowSpec:
    """A setting as the table shows it."""

    name: str
    group: str
    says: str
    versus: str | None = None
    """The row that it is compared with."""
    changes: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)
    """Field -> (its value, the other row's)."""
    position: float | None = None


@dataclass(frozen=True)
class AblationRow:
    """A setting and its figures over seeds."""

    spec: RowSpec
    seeds: Sequence[int]
    figures: Mapping[str, Spread | None]
    """By metric, over the seeds that have a value; None where none has."""
    counts: Mapping[str, int]
    """By metric, how many have."""
    worst: float | None
    """The lowest value of the first metric, and its seed."""
    worst_seed: int | None
    gain: Spread | None
    """Of the first metric over the row that it is compared with, seed by seed."""
    test: PairedTest | None
    """Of the same differences."""
    seconds: float | None
    """Mean over seeds."""


@dataclass(frozen=True)
class Ablation:
    """All rows, and what they are about."""

    title: str
    about: Sequence[str]
    """How the rows were made, line by line."""
    metrics: Sequence[Metric]
    """The first one decides: worst seeds, gains and tests are about it."""
    rows: Sequence[AblationRow]
    runs: Sequence[Measured]
    notes: Sequence[str] = ()
    failures: Sequence[Mapping[str, Any]] = ()
    """Runs that are not among them: row, seed, message."""


def rows_of(
    specs: Sequence[RowSpec], metrics: Sequence[Metric], runs: Sequence[Measured], draw: np.random.Generator
) -> list[AblationRow]:
    """The rows that have runs, in order. `draw`: for tests over many seeds."""
    rows = []
    for spec in specs:
        mine = [run for run in runs if run.row == spec.name]
        if mine:
            rows.append(_row(spec, mine, [run for run in runs if run.row == spec.versus], metrics, draw))
    return rows


def _row(
    spec: RowSpec,
    mine: Sequence[Measured],
    others: Sequence[Measured],
    metrics: Sequence[Metric],
    draw: np.random.Generator,
) -> AblationRow:
    decisive = metrics[0].key
    values, reference = (
        {run.seed: value for run in runs if (value := run.values[decisive]) is not None} for runs in (mine, others)
    )
    common = sorted(values.keys() & reference.keys())
    gain = spread([values[seed] - reference[seed] for seed in common]) if common else None
    test = None
    if common:
        test = paired_permutation_test([values[seed] for seed in common], [reference[seed] for seed in common], draw)
    worst_seed = min(values, key=lambda seed: values[seed]) if values else None
    seconds = [run.seconds for run in mine if run.seconds is not None]
    return AblationRow(
        spec=spec,
        seeds=[run.seed for run in mine],
        figures={metric.key: _figure([run.values[metric.key] for run in mine]) for metric in metrics},
        counts={metric.key: sum(run.values[metric.key] is not None for run in mine) for metric in metrics},
        worst=None if worst_seed is None else values[worst_seed],
        worst_seed=worst_seed,
        gain=gain,
        test=test,
        seconds=spread(seconds).mean if seconds else None,
    )


def _figure(values: Sequence[float | None]) -> Spread | None:
    known = [value for value in values if value is not None]
    return spread(known) if known else None


# -- the three forms ---------------------------------------------------------------------------------------------------

NOTES = (
    "mean \u00b1 sample standard deviation over n seeds; worst seed, gain and p are those of the first figure.",
    "gain: over the row named beside it, seed by seed; p: two-sided paired permutation test of the same differences, "
    "exact over all sign flips up to 16 pairs; no p below the floor is possible.",
    "seconds: a search's own epochs, mean over seeds, while others ran beside it.",
)


def to_markdown(ablation: Ablation) -> str:
    """A table for each group of rows."""
    groups = dict.fromkeys(row.spec.group for row in ablation.rows)
    failures = [f"- failed: {each['row']}, seed {each['seed']}: {each['message']}" for each in ablation.failures]
    parts = [f"# {ablation.title}", "", *(f"- {text}" for text in ablation.about), *failures]
    for group in groups:
        rows = [row for row in ablation.rows if row.spec.group == group]
        parts += ["", f"## {group}", "", *_table(rows, ablation.metrics)]
        parts += ["", *(f"- `{row.spec.name}`: {row.spec.says}" for row in rows)]
    tests = sum(row.test is not None for row in ablation.rows)
    many = [f"{tests} rows are compared with another; no p is corrected for their number."] if tests > 1 else []
    parts += ["", "## Notes", "", *(f"- {text}" for text in (*NOTES, *many, *ablation.notes)), ""]
    return "\n".join(parts)


def _table(rows: Sequence[AblationRow], metrics: Sequence[Metric]) -> list[str]:
    digits = metrics[0].digits
    columns: dict[str, list[str]] = {"row": [row.spec.name for row in rows]}
    if any(row.spec.versus for row in rows):
        columns["against"] = [row.spec.versus or "" for row in rows]
        columns["difference"] = [difference_text(row.spec) for row in rows]
    columns["n"] = [str(len(row.seeds)) for row in rows]
    columns |= {metric.title: [_over_seeds(row, metric) for row in rows] for metric in metrics}
    columns["worst seed"] = [
        "" if row.worst is None else f"{row.worst:.{digits}f} (seed {row.worst_seed})" for row in rows
    ]
    if any(row.gain for row in rows):
        columns["gain"] = [_shown(row.gain, digits, signed=True) for row in rows]
        columns["p (floor)"] = [
            "" if row.test is None else f"{row.test.p_value:.3g} ({row.test.floor:.3g}{_pairs(row)})" for row in rows
        ]
    if any(row.seconds is not None for row in rows):
        columns["seconds"] = ["" if row.seconds is None else f"{row.seconds:,.0f}" for row in rows]
    widths = [max(map(len, (name, *cells))) for name, cells in columns.items()]

    def line(texts: Sequence[str]) -> str:
        return "| " + " | ".join(text.ljust(width) for text, width in zip(texts, widths, strict=True)) + " |"

    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return [line(list(columns)), rule, *map(line, list(zip(*columns.values(), strict=True)))]


def _over_seeds(row: AblationRow, metric: Metric) -> str:
    """A figure, and over how many seeds where some have none."""
    count = row.counts[metric.key]
    fewer = f" (n {count})" if 0 < count < len(row.seeds) else ""
    return _shown(row.figures[metric.key], metric.digits) + fewer


def _pairs(row: AblationRow) -> str:
    """How many seeds a test is over, where some are not in it."""
    assert row.test is not None
    return f", n {row.test.num_pairs}" if row.test.num_pairs < len(row.seeds) else ""


def _shown(value: Spread | None, digits: int, *, signed: bool = False) -> str:
    if value is None:
        return ""
    mean = f"{value.mean:+.{digits}f}" if signed else f"{value.mean:.{digits}f}"
    return mean if value.std is None else f"{mean} \u00b1 {value.std:.{digits}f}"


def difference_text(spec: RowSpec) -> str:
    """``l1_weight 5, not 0``: what sets a row apart from the one that it is compared with."""
    return ", ".join(f"{name} {_word(mine)}, not {_word(other)}" for name, (mine, other) in spec.changes.items())


def _word(value: object) -> str:
    match value:
        case bool():
            return "on" if value else "off"
        case tuple():
            return " ".join(map(str, value))
        case float():
            return f"{value:g}"
    return str(value)


def to_csv(ablation: Ablation) -> str:
    """One line for each setting and seed."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    keys = [metric.key for metric in ablation.metrics]
    writer.writerow(["row", "group", "against", "difference", "position", "seed", *keys, "genotype", "seconds"])
    specs = {row.spec.name: row.spec for row in ablation.rows}
    for run in ablation.runs:
        spec = specs[run.row]
        values = [run.values[key] for key in keys]
        what = [spec.name, spec.group, spec.versus, difference_text(spec), spec.position, run.seed]
        writer.writerow([*what, *values, run.genotype, run.seconds])
    return text.getvalue()


def to_json(ablation: Ablation) -> dict[str, Any]:
    """Everything: rows with their figures, and every run."""
    return asdict(ablation)
