"""What a trained network answers and costs, and what its images look like, as a page shows it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cdarts.report.charts import confusion_map, figure
from cdarts.report.drawing import operation_label
from cdarts.report.page_cells import family_class
from cdarts.report.page_records import Record, number_of, object_of, text_of
from cdarts.report.predictions import ClassScore, Counts, Predictions, class_scores, confused_pairs

TABLED_CLASSES = 24
"""Up to so many classes the confusion matrix is a table."""

DRAWN_CLASSES = 120
"""Up to so many it is a picture."""

LISTED_CLASSES = 100
"""Classes in the table of classes."""

LISTED_PAIRS = 12

MAX_NAME = 60
"""Characters of a class's name."""


@dataclass(frozen=True)
class ConfusionCell:
    """How many images of a class were taken for another."""

    count: int
    share: str
    """Of the class's images, in percent, as the style sheet takes it."""
    words: str


@dataclass(frozen=True)
class ErrorView:
    """A thumbnail and what it says below."""

    png: str
    label: str
    predicted: str
    confidence: str
    label_probability: str
    place: int
    """Position among the test images, from 1."""


@dataclass(frozen=True)
class Results:
    """Of one training, on its test images."""

    accuracy: str
    images: int
    classes: list[str]
    matrix: list[list[ConfusionCell]]
    """Empty where there are too many classes."""
    picture: str
    """SVG instead of it."""
    pairs: list[tuple[str, str, int]]
    scores: list[list[str]]
    left_out: int
    """Classes that the table does not list."""
    errors: list[ErrorView]


@dataclass(frozen=True)
class PartRow:
    """What one part of a network costs."""

    name: str
    tone: str
    parameters: str
    parameters_share: str
    """Percent of the whole."""
    macs: str
    macs_share: str


@dataclass(frozen=True)
class SheetView:
    """A picture with a row of images for each class."""

    png: str
    rows: list[str]
    words: str
    facts: list[str]
    columns: int


def short(name: str) -> str:
    """A class's name, cut where it is very long."""
    return name if len(name) <= MAX_NAME else f"{name[:MAX_NAME]}…"


def results(predictions: Predictions, with_errors: bool) -> Results:
    """What a page shows of predictions. with_errors: the thumbnails too."""
    names = [short(name) for name in predictions.classes]
    confusion = predictions.confusion()
    small = len(names) <= TABLED_CLASSES
    scores = class_scores(names, confusion)
    return Results(
        accuracy=figure(predictions.accuracy, True),
        images=len(predictions.labels),
        classes=names,
        matrix=_matrix(names, confusion) if small else [],
        picture=""
        if small or len(names) > DRAWN_CLASSES
        else confusion_map(confusion.tolist(), f"Confusion matrix of {len(names)} classes"),
        pairs=[(names[label], names[taken], count) for label, taken, count in confused_pairs(confusion, LISTED_PAIRS)],
        scores=[_score(score) for score in scores[:LISTED_CLASSES]],
        left_out=max(len(names) - LISTED_CLASSES, 0),
        errors=[
            ErrorView(
                error.png,
                names[error.label],
                names[error.predicted],
                figure(error.confidence, True),
                figure(error.label_probability, True),
                error.image + 1,
            )
            for error in (predictions.errors if with_errors else ())
        ],
    )


def _matrix(names: Sequence[str], confusion: Counts) -> list[list[ConfusionCell]]:
    rows = []
    for label, counts in enumerate(confusion.tolist()):
        total = sum(counts)
        rows.append(
            [
                ConfusionCell(
                    count,
                    f"{100 * count / total:.1f}" if total else "0",
                    f"{names[label]} taken for {names[taken]}: {count} of {total}",
                )
                for taken, count in enumerate(counts)
            ]
        )
    return rows


def _score(score: ClassScore) -> list[str]:
    values = [figure(value, True) for value in (score.recall, score.precision, score.f1)]
    return [score.name, f"{score.images:,}", *values, score.mistaken_for]


def part_rows(record: Record) -> list[PartRow]:
    """Rows of ``cost_by_part`` in ``summary.json``, the dearest first, and the whole below; none where it is absent."""
    parts: dict[str, tuple[int, int]] = {}
    for name, part in object_of(record.summary.get("cost_by_part")).items():
        parameters, macs = (number_of(object_of(part).get(key)) for key in ("parameters", "macs"))
        if parameters is None or macs is None:
            return []
        parts[name] = (int(parameters), int(macs))
    if not parts:
        return []
    total = (sum(parameters for parameters, _ in parts.values()), sum(macs for _, macs in parts.values()))
    used = set() if (genotype := record.final()) is None else set(genotype.operations())
    ordered = sorted(parts.items(), key=lambda item: (-item[1][1], -item[1][0], item[0]))
    rows = [
        _part_row(
            operation_label(name) if name in used else name, family_class(name) if name in used else "", *costs, total
        )
        for name, costs in ordered
    ]
    return [*rows, _part_row("all", "", *total, total)]


def _part_row(name: str, tone: str, parameters: int, macs: int, total: tuple[int, int]) -> PartRow:
    return PartRow(
        short(name),
        tone,
        f"{parameters:,}",
        f"{100 * parameters / max(total[0], 1):.1f}",
        f"{macs:,}",
        f"{100 * macs / max(total[1], 1):.1f}",
    )


def sheet(parts: Sequence[Record], images: Mapping[str, object]) -> SheetView | None:
    """Of the first stage that has one. images: numbers by split and class, as ``environment.json`` has them."""
    summary = next((part.data_summary for part in parts if part.data_summary is not None), None)
    if summary is None:
        return None
    rows = [short(name) for name in summary.rows]
    colours = "grey" if summary.channels == 1 else "colour"
    facts = [f"{short(summary.name)}: {summary.side} x {summary.side} pixels, {colours}"]
    for split, name in (("train", "training"), ("test", "test")):
        counts = [(count, label) for label, count in object_of(images.get(split)).items() if type(count) is int]
        if counts:
            (least, fewest), (most, largest) = min(counts), max(counts)
            spans = (
                f"{least:,} a class"
                if least == most
                else (f"{least:,} ({short(fewest)}) to {most:,} ({short(largest)}) a class")
            )
            facts.append(f"{sum(count for count, _ in counts):,} {name} images, {spans}")
    words = f"Training images of {len(rows)} classes, a row each, from top to bottom: {', '.join(rows)}"
    return SheetView(summary.sheet, rows, words, facts + [text_of(text) for text in summary.warnings], summary.columns)
