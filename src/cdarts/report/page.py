"""One HTML page for a run, or for several: a single file that asks for nothing, and says everything as text too.

Whatever comes from a run directory is text to the template, which escapes it; numbers for the page's script go into one
block of JSON. The page forbids itself every other script and every request.
"""

import base64
import hashlib
import json
import math
import re
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from cdarts import __version__
from cdarts.benchmarks.nasbench201 import DATASETS, NUM_CELLS, Table
from cdarts.durations import clock
from cdarts.engine.files import write_bytes
from cdarts.errors import CdartsError, GenotypeError
from cdarts.report import charts
from cdarts.report.charts import Dot, Line, Number, Time, figure
from cdarts.report.drawing import FAMILIES, OTHER, RADIUS, description, operation_label
from cdarts.report.page_cells import (
    DIGITS,
    EVEN,
    LABEL,
    SCALE,
    THICKEST,
    THINNEST,
    Evolution,
    evolution,
    family_class,
)
from cdarts.report.page_records import MAX_EPOCH, Columns, Frame, Record, number_of, object_of, read_record, text_of
from cdarts.report.page_results import PartRow, Results, part_rows, results, sheet
from cdarts.settings import changes
from cdarts.statistics import spread
from cdarts.topology import Choice, Edge, Genotype


@dataclass(frozen=True)
class Reference:
    """Settings that a run's are compared with."""

    name: str
    """Such as ``preset cdarts``."""
    settings: Mapping[str, Any]
    """In JSON, by the keys of the run's own."""


References = Callable[[Record], Reference | None]
"""The reference of each run, None where there is none."""

MAX_BYTES = 1_000_000
"""Of a page."""

MAX_CLASSES = 100
"""Classes whose numbers of images are listed."""

MAX_TEXT = 2_000
"""Characters of anything that a run directory says in words."""


def no_reference(record: Record) -> Reference | None:  # noqa: ARG001
    """Nothing to compare settings with."""
    return None


@dataclass(frozen=True)
class Detail:
    """How much a page holds; less of it where it would grow too large."""

    frames: int
    """Of alpha."""
    table_rows: int
    pictures: bool
    """Whether worst errors are shown."""
    points: int = MAX_EPOCH
    """Of each curve of one run; where there are more epochs, phases and cycles are not shown."""


DETAILS = (
    Detail(240, 1200, True),
    Detail(120, 150, True),
    Detail(60, 0, True),
    Detail(24, 0, False),
    Detail(24, 0, False, points=400),
)


MEASURES = {
    "width": charts.WIDTH,
    "left": charts.LEFT,
    "inner": charts.INNER_WIDTH,
    "scale": SCALE,
    "digits": DIGITS,
    "radius": RADIUS,
    "label": LABEL.height,
    "thinnest": THINNEST,
    "thickest": THICKEST,
    "even": EVEN,
}
"""What the page's script has to draw like this package."""


# -- what the template shows -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tile:
    """One headline number."""

    value: str
    label: str
    note: str = ""


@dataclass(frozen=True)
class Legend:
    """A line of a panel: how it is drawn, and the number that it stands at."""

    label: str
    tone: str
    value: str
    key: str
    percent: bool


@dataclass(frozen=True)
class Panel:
    """Curves over epochs."""

    title: str
    drawing: str
    legend: list[Legend]


@dataclass(frozen=True)
class Position:
    """Where a cell stands among all cells of NAS-Bench-201."""

    drawing: str
    rows: list[list[str]]


@dataclass(frozen=True)
class SettingsView:
    """What a stage was configured with."""

    title: str
    reference: str
    """What it is compared with; nothing where it is compared with nothing."""
    differing: list[tuple[str, str, str]]
    """Key, value, the reference's value."""
    others: list[tuple[str, str]]


@dataclass
class StageView:
    """A search, a retraining, or several runs of one kind over each other."""

    name: str
    title: str
    num_epochs: int
    evolution: Evolution | None = None
    ticks: list[tuple[Number, int]] = field(default_factory=list)
    """Where, in percent of the slider, cells changed, and in how many edges."""
    left_out: int = 0
    """Epochs whose numbers are not shown."""
    epoch_words: str = ""
    panels: list[Panel] = field(default_factory=list)
    """Accuracy and losses."""
    alpha_panels: list[Panel] = field(default_factory=list)
    phases: list[tuple[str, int]] = field(default_factory=list)
    has_cycles: bool = False
    position: Position | None = None
    results: Results | None = None
    """Of a training, on its test images."""
    cost: list[PartRow] = field(default_factory=list)
    """Of the trained network, by operation."""
    key: list[tuple[str, str]] = field(default_factory=list)
    """Tone and name of what lines stand for, where panels do not list it."""
    head: list[str] = field(default_factory=list)
    body: list[list[str]] = field(default_factory=list)
    """Every number of every epoch."""
    data: dict[str, Any] = field(default_factory=dict)


# -- writing -----------------------------------------------------------------------------------------------------------


Known = Mapping[Path, Mapping[str, float]]
"""By run, numbers that are known beside it, under the names that its journals would give them."""

NOTHING: Known = {}


def write_page(
    paths: Sequence[Path],
    out: Path,
    reference: References = no_reference,
    now: str | None = None,
    known: Known = NOTHING,
) -> None:
    """Write the page of one run or of several to `out`.

    known: of several runs, what joins their table.

    Raises `ConfigurationError` if one of them is no run directory, `DiskError` if the page cannot be written.
    """
    write_bytes(out, page([read_record(path) for path in paths], reference, now, known).encode("utf-8", "replace"))


def page(
    records: Sequence[Record], reference: References = no_reference, now: str | None = None, known: Known = NOTHING
) -> str:
    """The page as text, under `MAX_BYTES`: where it would be larger, it holds fewer epochs of alpha and of the table.

    `now`: the time of writing, if not this moment.
    """
    written = now or time.strftime("%Y-%m-%d %H:%M:%S %z")
    text = ""
    for detail in DETAILS:
        text = _page(records, reference, written, detail, known)
        if len(text.encode("utf-8", "replace")) < MAX_BYTES:
            break
    return text


def _page(records: Sequence[Record], reference: References, written: str, detail: Detail, known: Known) -> str:
    script, style = _asset("page.js"), _asset("page.css") + _families()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    view = one_run(records[0], reference, detail) if len(records) == 1 else many_runs(records, detail, known)
    stages: list[StageView] = [] if view["many"] else view["stages"]
    data = {"measures": MEASURES, "stages": [stage.data for stage in stages]}
    return (
        _environment()
        .get_template("page.html")
        .render(
            **view,
            written=written,
            version=__version__,
            style=Markup(style),
            script=Markup(script),
            policy=f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; img-src data:; "
            "base-uri 'none'; form-action 'none'",
            data=Markup(_embedded(data)),
        )
    )


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("cdarts.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["drawing"] = Markup  # of SVG that this package has made, and escaped where it holds text
    environment.filters["dot"] = charts.dot_sample
    return environment


@cache
def _asset(name: str) -> str:
    return (files("cdarts.report") / "templates" / name).read_text(encoding="utf-8")


def _families() -> str:
    """The colours of operations, on either ground."""
    named = {family.label.replace(" ", "-"): family for family in (*FAMILIES.values(), OTHER)}
    light = "".join(f".{name}{{--family:{family.light}}}" for name, family in named.items())
    dark = [f".{name}{{--family:{family.dark}}}" for name, family in named.items()]
    chosen = "".join(f":root[data-theme=dark] {rule}" for rule in dark)
    system = "".join(f":root:not([data-theme=light]) {rule}" for rule in dark)
    return f"{light}@media screen{{{chosen}}}@media screen and (prefers-color-scheme:dark){{{system}}}"


def _embedded(value: Any) -> str:
    """JSON that cannot end the element that it stands in."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


# -- one run -----------------------------------------------------------------------------------------------------------


def one_run(record: Record, reference: References, detail: Detail) -> dict[str, Any]:
    """What the template shows of one run."""
    parts = record.stages or [record]
    genotype = record.final() or next((part.final() for part in parts if part.final()), None)
    stages = [_stage(part, index, detail) for index, part in enumerate(parts)]
    settings = [_settings(part, reference(part)) for part in parts]
    return {
        "many": None,
        "title": _cut(record.path.resolve().name or str(record.path)),
        "subtitle": _subtitle(record, parts),
        "state": record.state,
        "state_words": STATES[record.state],
        "message": _cut(text_of(record.status.get("message"))),
        "resume": _cut(text_of(record.status.get("resume"))) if record.state != "done" else "",
        "facts": _facts(record, parts),
        "warnings": [_cut(remark) for remark in dict.fromkeys([*record.remarks, *_remarks(record.stages)])],
        "tiles": _tiles(record, parts, stages),
        "stages": stages,
        "forms": _forms(genotype),
        "settings": [view for view in settings if view.differing or view.others],
        "classes": _classes(parts),
        "num_classes": _num_classes(_images(parts)),
        "sheet": sheet(parts, _images(parts)),
    }


STATES = {
    "running": "running, or ended without a word",
    "done": "done",
    "interrupted": "interrupted",
    "failed": "failed",
    "unknown": "state not known",
}


def _remarks(stages: Sequence[Record]) -> list[str]:
    return [remark for stage in stages for remark in stage.remarks]


def _cut(text: str) -> str:
    return text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]}…"


def _subtitle(record: Record, parts: Sequence[Record]) -> str:
    data = text_of(record.settings.get("data"))
    seed = record.settings.get("seed")
    cell = text_of(record.summary.get("cell"))
    whole = f"retraining of the published cell {cell}" if cell else "search and retraining"
    what = {"run": whole, "search": f"search {record.preset}".strip(), "retrain": "retraining"}
    words = [what.get(record.command, record.command), data and f"on {Path(data).name}"]
    if seed is not None:
        words.append(f"seed {seed}")
    return _cut(" · ".join(word for word in words if word)) if parts else ""


def _facts(record: Record, parts: Sequence[Record]) -> list[tuple[str, str, bool]]:
    """Name, text, and whether it is code."""
    environment = record.environment or next((part.environment for part in parts if part.environment), {})
    command = environment.get("command")
    facts: list[tuple[str, str, bool]] = []
    if isinstance(command, list) and command:
        words = ["cdarts", *(str(word) for word in command[1:])]
        facts.append(("Command", shlex.join(words), True))
    facts.append(("Folder", str(record.path), True))
    facts.append(("Seed", text_or_number(record.settings.get("seed")), False))
    images = object_of(environment.get("images"))
    counts = {split: _total(images.get(split)) for split in ("train", "test")}
    data = text_of(record.settings.get("data"))
    if any(counts.values()):
        data += f": {counts['train']:,} training and {counts['test']:,} test images, {_num_classes(images)} classes"
    facts.append(("Data", data, False))
    machine = [text_or_number(environment.get("device")), _counted(environment.get("threads"), "thread")]
    machine += [text_of(environment.get("platform"))]
    facts.append(("Machine", ", ".join(word for word in machine if word), False))
    versions = [
        f"{name} {text_of(environment.get(name))}" for name in ("cdarts", "torch", "python") if environment.get(name)
    ]
    facts.append(("Versions", ", ".join(versions), False))
    facts.append(("Time", _times(record, parts), False))
    return [(name, _cut(text), code) for name, text, code in facts if text]


def text_or_number(value: Any) -> str:
    return str(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else ""


def _counted(value: Any, word: str) -> str:
    number = number_of(value)
    return "" if number is None else f"{number:g} {word}{'' if number == 1 else 's'}"


def _times(record: Record, parts: Sequence[Record]) -> str:
    words = [f"{clock(_seconds(part))} in {part.num_epochs} epochs ({part.command})" for part in parts]
    ended = text_of(record.status.get("time"))
    return "; ".join(words) + (f"; status of {ended}" if ended else "")


def _seconds(record: Record) -> Number:
    return math.fsum(value for value in record.columns.get("seconds", []) if value is not None)


def _total(counts: Any) -> int:
    return sum(value for value in object_of(counts).values() if type(value) is int)


def _num_classes(images: Mapping[str, Any]) -> int:
    return len({name for split in images.values() for name in object_of(split)})


def _images(parts: Sequence[Record]) -> dict[str, Any]:
    """Numbers of images by split and class."""
    return next((object_of(part.environment.get("images")) for part in parts if part.environment), {})


def _classes(parts: Sequence[Record]) -> list[tuple[str, str, str]]:
    """Images of each class, of the first `MAX_CLASSES` classes."""
    train, test = (object_of(_images(parts).get(split)) for split in ("train", "test"))
    names = list(dict.fromkeys([*train, *test]))
    return [
        (_cut(name), text_or_number(train.get(name, 0)), text_or_number(test.get(name, 0)))
        for name in names[:MAX_CLASSES]
    ]


def _tiles(record: Record, parts: Sequence[Record], stages: Sequence[StageView]) -> list[Tile]:
    tiles = []
    summary = record.summary
    tested = next((part for part in reversed(parts) if part.command == "retrain"), None)
    test = None if tested is None else tested.last("test_accuracy")
    if tested is not None and test is not None:
        when = _when(tested, "test_accuracy")
        best = max(
            (value for part in parts for value in part.columns.get("test_accuracy", []) if value is not None),
            default=test,
        )
        tiles.append(Tile(figure(test, True), "test accuracy", f"{when}; best {figure(best, True)}, chosen on test"))
        tiles += _interval_tiles(summary)
    parameters, macs = number_of(summary.get("parameters")), number_of(summary.get("macs"))
    if parameters is not None:
        tiles.append(Tile(f"{parameters:,.0f}", "parameters"))
    if macs is not None:
        tiles.append(Tile(f"{macs / 1e6:,.1f} M", "multiply-adds", "one image"))
    tiles += _latency_tiles(summary)
    for part, stage in zip(parts, stages, strict=True):
        if part.command == "retrain":
            tiles.append(Tile(clock(_seconds(part)), "retraining", f"{part.num_epochs} epochs"))
            continue
        tiles += _search_tiles(part, stage)
    return tiles


def _when(part: Record, key: str) -> str:
    """The epoch of the newest number of a journal."""
    newest = max(epoch for epoch, value in enumerate(part.columns[key]) if value is not None) + 1
    return "last epoch" if newest == part.num_epochs else f"epoch {newest} of {part.num_epochs}"


def _interval_tiles(summary: Mapping[str, Any]) -> list[Tile]:
    """How uncertain the accuracy is, where a training has said so."""
    interval, images = summary.get("test_interval"), number_of(summary.get("test_images"))
    if not isinstance(interval, list) or len(interval) != 2 or images is None:
        return []
    low, high = (number_of(end) for end in interval)
    if low is None or high is None:
        return []
    return [Tile(f"{low * 100:.1f} to {high * 100:.1f} %", "95 % interval", f"of that accuracy, {images:,.0f} images")]


def _latency_tiles(summary: Mapping[str, Any]) -> list[Tile]:
    """Of ``latency`` in ``summary.json``, where a training has measured it."""
    latency = object_of(summary.get("latency"))
    milliseconds, device = number_of(latency.get("milliseconds")), text_of(latency.get("device"))
    if milliseconds is None:
        return []
    batch = number_of(latency.get("batch_size")) or 1
    words = [device, _counted(latency.get("threads"), "thread"), f"{batch:g} image{'' if batch == 1 else 's'}"]
    return [Tile(f"{milliseconds:.2f} ms", "latency", ", ".join(_cut(word) for word in words if word))]


def _search_tiles(part: Record, stage: StageView) -> list[Tile]:
    tiles = []
    truth = part.last("true_test_accuracy")
    if truth is not None:
        tiles.append(Tile(figure(truth, True), "true test accuracy", "of the cell, NAS-Bench-201, CIFAR-10"))
    for key, label in (
        ("eval_accuracy", "E-Net accuracy"),
        ("search_accuracy", "S-Net accuracy"),
        ("val_accuracy", "search accuracy"),
        ("best_score", "best score"),
    ):
        value = part.last(key)
        if value is not None:
            note = {"val_accuracy": "half that alpha learns from"}.get(key, f"while searching, {_when(part, key)}")
            tiles.append(Tile(figure(value, True), label, note))
    final = part.final()
    skips, free = part.last("skips"), part.last("parameter_free")
    if final is not None and skips is not None and free is not None:
        tiles.append(Tile(f"{skips:g} of {len(final.operations())}", "edges skip", f"{free:g} without parameters"))
    if stage.evolution is not None and len(part.frames) > 1:
        last = stage.evolution.changes[-1][0] if stage.evolution.changes else None
        note = "the cells never changed" if last is None else f"last change in epoch {last + 1}"
        since = part.num_epochs if last is None else part.frames[-1].epoch - last
        tiles.append(Tile(str(since), "epochs unchanged", note))
    tiles.append(Tile(clock(_seconds(part)), "search", f"{part.num_epochs} epochs"))
    return tiles


# -- one stage ---------------------------------------------------------------------------------------------------------

ACCURACIES = {
    "search_accuracy": ("S-Net, training", "a"),
    "search_val_accuracy": ("S-Net, other half", "a dash"),
    "eval_accuracy": ("E-Net", "b"),
    "train_accuracy": ("half of the weights", "a"),
    "val_accuracy": ("half of alpha", "b"),
    "accuracy": ("training", "a"),
    "test_accuracy": ("test", "b"),
    "score": ("score of candidates", "a dash"),
    "best_score": ("best score", "b dash"),
}
"""Keys of ``metrics.jsonl`` in the panel of accuracies: name and tone of the line."""

LOSSES = {
    "search_loss": ("S-Net, training", "a"),
    "search_val_loss": ("S-Net, other half", "a dash"),
    "eval_loss": ("E-Net", "b"),
    "train_loss": ("half of the weights", "a"),
    "val_loss": ("half of alpha", "b"),
    "loss": ("training", "a"),
    "test_loss": ("test", "b"),
}
TRUTH = {"true_val_accuracy": ("validation", "a"), "true_test_accuracy": ("test", "b")}
ALPHA = {
    "Entropy of alpha": {"entropy": ("mean over edges", "a")},
    "Margin of alpha": {"margin": ("mean over edges", "a")},
    "Operations without parameters": {"skips": ("skip connections", "a"), "parameter_free": ("all", "b")},
}
TERMS = {
    "feedback": "Feedback of E-Net to alpha",
    "teaching": "E-Net teaching S-Net's weights",
    "alpha_decay": "Decay of alpha",
    "l1": "L1 of skip connections",
    "head_loss": "Heads' own loss",
    "auxiliary_loss": "Auxiliary head's loss",
    "lr": "Learning rate",
    "seconds": "Seconds per epoch",
}
"""Titles of the panels of one line; other keys are titles themselves."""

Lines = Mapping[str, tuple[str, str]]


def _stage(record: Record, number: int, detail: Detail) -> StageView:
    columns, phases = record.columns, record.word("phase")
    cycles = record.number("cycle")
    if record.num_epochs > detail.points:
        columns = {key: list(thinned(values, detail.points)) for key, values in columns.items()}
        phases, cycles = [None] * record.num_epochs, [None] * record.num_epochs
    names = list(dict.fromkeys(phase for phase in phases if phase))
    shades = {phase: min(index, 3) for index, phase in enumerate(names)}
    first_of = {cycle: epoch for epoch, cycle in reversed(list(enumerate(cycles))) if cycle is not None}
    opened = sorted(first_of.values())
    words = _epoch_words(phases, cycles)
    axis = Time(record.num_epochs, phases, shades, opened)
    is_search = record.command != "retrain"
    view = StageView(
        name=f"stage-{number}",
        title="Search" if is_search else "Retraining",
        num_epochs=record.num_epochs,
        phases=[(_cut(phase), shades[phase]) for phase in names] if len(names) > 1 else [],
        has_cycles=bool(opened),
        epoch_words=words[-1] if words else "",
        left_out=max(record.num_epochs - detail.points, 0),
    )
    if record.frames:
        view.evolution = evolution(record.frames, detail.frames)
    if view.evolution is not None:
        last = max(record.num_epochs - 1, 1)
        view.ticks = [(100 * epoch / last, change) for epoch, change in view.evolution.changes]
    groups: list[tuple[str, Lines]] = [("Accuracy", ACCURACIES), ("Loss", LOSSES)]
    groups.append(("True accuracy of the cell", TRUTH))
    used = {"skipped_batches", "stage"}.union(*(lines for _, lines in groups), *ALPHA.values())
    groups += [(title, {key: (key.replace("_", " "), "a")}) for key, title in TERMS.items()]
    groups += [
        (key.replace("_", " ").capitalize(), {key: (key.replace("_", " "), "a")})
        for key in columns
        if key not in used and key not in TERMS
    ]
    view.panels = [panel for title, lines in groups if (panel := _panel(title, lines, columns, axis))]
    view.alpha_panels = [panel for title, lines in ALPHA.items() if (panel := _panel(title, lines, columns, axis))]
    view.position = _position(record)
    view.results = None if record.predictions is None else results(record.predictions, detail.pictures)
    view.cost = part_rows(record)
    view.head, view.body = _numbers(record, detail)
    view.data = {
        "epochs": record.num_epochs,
        "columns": columns,
        "words": words if record.num_epochs <= detail.points else [],
        "evolution": None if view.evolution is None else view.evolution.data,
    }
    return view


def _epoch_words(phases: Sequence[str | None], cycles: Sequence[int | None]) -> list[str]:
    """For each epoch ``joint, cycle 3``."""
    return [
        ", ".join(word for word in (_cut(phase or ""), "" if cycle is None else f"cycle {cycle + 1}") if word)
        for phase, cycle in zip(phases, cycles, strict=True)
    ]


def _panel(title: str, lines: Lines, columns: Columns, clock: Time) -> Panel | None:
    known = {key: line for key, line in lines.items() if any(value is not None for value in columns.get(key, []))}
    if not known:
        return None
    percent = any(key.endswith(("accuracy", "score")) for key in known)
    drawn = [Line(label, tone, columns[key]) for key, (label, tone) in known.items()]
    legend = [
        Legend(label, tone, figure(columns[key][-1], percent), key, percent) for key, (label, tone) in known.items()
    ]
    return Panel(title, charts.line_chart(title, drawn, clock, percent), legend)


def _numbers(record: Record, detail: Detail) -> tuple[list[str], list[list[str]]]:
    """Every number of both journals as a table, exactly as it stands there."""
    if record.num_epochs > detail.table_rows:
        return [], []
    keys = list(record.columns)
    phases, cycles = record.word("phase"), record.number("cycle")
    body = []
    for epoch in range(record.num_epochs):
        cells = [record.columns[key][epoch] if epoch < len(record.columns[key]) else None for key in keys]
        cycle = cycles[epoch]
        words = [str(epoch + 1), _cut(phases[epoch] or ""), "" if cycle is None else str(cycle + 1)]
        body.append(words + ["" if value is None else _exact(value) for value in cells])
    return ["epoch", "phase", "cycle", *(key.replace("_", " ") for key in keys)], body


def _exact(value: Number) -> str:
    """The shortest text that reads back as the same number."""
    return repr(value).removesuffix(".0")


def _forms(genotype: Genotype | None) -> list[tuple[str, str]]:
    """The genotype's text forms: name and text."""
    if genotype is None:
        return []
    forms = []
    try:
        text = genotype.text()
        forms.append(("Genotype of DARTS" if text.startswith("Genotype") else "String of NAS-Bench-201", text))
        forms.append(("genotype.json", _compact(genotype)))
    except GenotypeError:
        pass
    forms.append(("In words", description(genotype)))
    return [(name, _cut(text) if name == "In words" else text) for name, text in forms]


def _compact(genotype: Genotype) -> str:
    """The file's JSON with an edge on each line."""
    text = json.dumps(genotype.to_json(), indent=2)
    return re.sub(r'\[\s+(\d+),\s+(\d+),\s+("\w+")\s+\]', r"[\1, \2, \3]", text)


def _settings(record: Record, reference: Reference | None) -> SettingsView:
    flat: dict[str, str] = {}
    _flatten(record.config, "", flat, "genotype")
    flat = {key.removeprefix("settings."): value for key, value in flat.items()}
    differing: dict[str, tuple[Any, Any]] = {}
    if reference is not None:
        own = {key: record.settings.get(key) for key in reference.settings}
        differing = changes(dict(reference.settings), own)
    return SettingsView(
        title=_cut(NAMES_OF_COMMANDS.get(record.command, record.command)),
        reference="" if reference is None else _cut(reference.name),
        differing=[(key, _cut(_json(now)), _cut(_json(before))) for key, (before, now) in differing.items()],
        others=[(key, _cut(value)) for key, value in flat.items() if key not in differing],
    )


NAMES_OF_COMMANDS = {"run": "search and retraining", "retrain": "retraining"}


def _flatten(value: Any, key: str, flat: dict[str, str], left_out: str) -> None:
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            if key or name != left_out:
                _flatten(inner, f"{key}.{name}" if key else str(name), flat, left_out)
    else:
        flat[key] = _json(value)


def _json(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


# -- NAS-Bench-201 -----------------------------------------------------------------------------------------------------

LOWEST = 80.0
"""Percent below which cells are counted together: the table has a long tail."""
HIGHEST = 95.0
BINS = 60


@lru_cache(maxsize=2)
def _table(path: Path) -> Table | None:
    """The table, None where it cannot be read."""
    try:
        return Table.load(path)
    except CdartsError:
        return None


def _position(record: Record) -> Position | None:
    """Of the newest cell among all; None unless the records hold true accuracies and the table is at hand."""
    path, final = text_of(record.settings.get("table")), record.final()
    if not path or final is None or record.last("true_test_accuracy") is None or not Path(path).is_file():
        return None
    table = _table(Path(path))
    if table is None:
        return None
    test = np.clip(table.accuracies("cifar10", "test", 200), LOWEST, HIGHEST)
    counts = np.histogram(test, bins=BINS, range=(LOWEST, HIGHEST))[0].tolist()
    results = [table.result(final, name) for name in DATASETS]
    earlier = {100 * value for value in record.columns["true_test_accuracy"] if value is not None}
    words = f"Test accuracy on CIFAR-10 of all {NUM_CELLS:,} cells; this one's is {results[0].test_200:.2f} percent"
    rows = [
        [
            DATASETS[result.dataset].title,
            f"{result.test_200:.2f}",
            f"{result.val_200:.2f}",
            f"{result.rank:,} of {NUM_CELLS:,}",
            f"{result.percentile:.2f}",
            f"{result.test_regret:.2f}",
        ]
        for result in results
    ]
    drawing = charts.histogram(counts, LOWEST, HIGHEST, results[0].test_200, sorted(earlier), words)
    return Position(drawing, rows)


# -- several runs ------------------------------------------------------------------------------------------------------

TABLED = {
    "test_accuracy": "test",
    "true_test_accuracy": "true test",
    "eval_accuracy": "E-Net",
    "search_accuracy": "S-Net",
    "val_accuracy": "search, alpha's half",
    "best_score": "best score",
    "entropy": "entropy",
    "skips": "skips",
    "parameter_free": "no parameters",
}
"""Columns of the table of runs: the newest number of each."""

OVERLAID = (
    "test_accuracy",
    "true_test_accuracy",
    "eval_accuracy",
    "search_accuracy",
    "val_accuracy",
    "search_loss",
    "eval_loss",
    "loss",
    "val_loss",
    "entropy",
    "margin",
    "skips",
    "parameter_free",
)

COSTED = {
    "test_accuracy": "Test accuracy",
    "true_test_accuracy": "True test accuracy",
    "eval_accuracy": "E-Net's accuracy",
    "val_accuracy": "Accuracy on alpha's half",
    "search_accuracy": "S-Net's accuracy",
}
"""What may stand against cost, first choice first."""

MOST_TILES = 12

MOST_POINTS = 2_400
"""Of all curves of a panel; more runs have fewer each."""

LISTED = 6
"""Runs that a panel of curves lists by itself."""


@dataclass(frozen=True)
class RunRow:
    """A run of several."""

    name: str
    tone: str
    group: str
    seed: str
    state: str
    epochs: str
    values: list[str]
    time: str


@dataclass(frozen=True)
class Difference:
    """One edge of a cell in every run."""

    cell: str
    edge: str
    operations: list[tuple[str, str, bool]]
    """For each run: label, class, and whether it differs from that of the first run that has a cell."""


def many_runs(records: Sequence[Record], detail: Detail, known: Known = NOTHING) -> dict[str, Any]:
    """What the template shows of several runs."""
    names = names_of([record.path for record in records])
    groups = _groups(records)
    kinds = list(dict.fromkeys(groups))
    by_group = 1 < len(kinds) < len(records)
    tones = [charts.tone(kinds.index(group) if by_group else index) for index, group in enumerate(groups)]
    merged = [_merged(record, known.get(record.path, {})) for record in records]
    keys = [key for key in TABLED if any(_last(columns, key) is not None for columns in merged)]
    rows = [
        RunRow(
            name=name,
            tone=tone,
            group=group,
            seed=text_or_number(record.settings.get("seed")),
            state=record.state,
            epochs=str(sum(part.num_epochs for part in record.stages or [record])),
            values=[figure(_last(columns, key), _is_percent(key)) for key in keys],
            time=clock(_all_seconds(record)),
        )
        for name, tone, group, record, columns in zip(names, tones, groups, records, merged, strict=True)
    ]
    spreads = _spreads(records, groups, merged, keys)
    stages = _overlays(records, names, tones, groups if by_group else names, detail)
    return {
        "many": {
            "head": [TABLED[key] for key in keys],
            "rows": rows,
            "spreads": spreads,
            "differences": _differences(records),
            "names": names,
            "scatter": _scatter(records, names, tones, merged),
            "key": list(dict.fromkeys(zip(tones, groups if by_group else names, strict=True))),
        },
        "title": f"{len(records)} runs",
        "subtitle": _cut(" · ".join(kinds)),
        "state": "",
        "state_words": "",
        "message": "",
        "resume": "",
        "facts": [],
        "warnings": [
            _cut(f"{name}: {remark}")
            for name, record in zip(names, records, strict=True)
            for remark in dict.fromkeys([*record.remarks, *_remarks(record.stages)])
        ],
        "tiles": _spread_tiles(spreads, keys),
        "stages": stages,
        "forms": [],
        "settings": [],
        "classes": [],
        "num_classes": 0,
        "sheet": None,
    }


def names_of(paths: Sequence[Path]) -> list[str]:
    """The shortest ends of the paths that tell them apart."""
    absolute = [path.resolve() for path in paths]
    for length in range(1, max(len(path.parts) for path in absolute) + 1):
        names = ["/".join(path.parts[-length:]) for path in absolute]
        if len(set(names)) == len(names):
            return [_cut(name) for name in names]
    return [_cut(f"{path} ({index + 1})") for index, path in enumerate(absolute)]


OF_ONE_RUN = frozenset(
    {"seed", "out", "device", "threads", "workers", "images", "data_root", "checkpoint_seconds", "snapshots", "table"}
    | {"on_nonfinite", "on_bad_image", "dry_run", "preset"}
)
"""Settings that do not tell runs of one method apart: where they ran, what they kept, their seed, and names."""

MOST_TOLD_APART = 2
"""Settings by which the name of a group tells it from others of the same preset and data."""

MAX_TOLD = 40
"""Characters of a setting in the name of a group."""


def _groups(records: Sequence[Record]) -> list[str]:
    """For each run the name of its group: runs of a group differ by their seed alone.

    That is, they agree in their other settings, those of their stages among them, and a training in its genotype. A
    setting that one of them lacks, being older than the setting, tells nothing apart.
    """
    names = [_kind(record) for record in records]
    methods = [_method(record) for record in records]
    told = []
    for name, own in zip(names, methods, strict=True):
        alike = [other for other_name, other in zip(names, methods, strict=True) if other_name == name]
        keys = [key for key in own if key != CELLS and any(other.get(key, own[key]) != own[key] for other in alike)]
        words = [f"{key.removeprefix('algorithm.').removeprefix('training.')} {own[key]}" for key in keys]
        told.append(_cut(", ".join([name, *(word[:MAX_TOLD] for word in words[:MOST_TOLD_APART])])))
    # what their names do not tell apart, a number does
    kinds: dict[str, list[dict[str, str]]] = {}
    for name, own in zip(told, methods, strict=True):
        if not any(_agree(own, other) for other in kinds.setdefault(name, [])):
            kinds[name].append(own)
    return [
        name if len(kinds[name]) == 1 else f"{name} ({[_agree(own, other) for other in kinds[name]].index(True) + 1})"
        for name, own in zip(told, methods, strict=True)
    ]


CELLS = "cells"
"""Under which a training's genotype stands among its settings."""


def _kind(record: Record) -> str:
    """Preset, or command, and data."""
    data = Path(text_of(record.settings.get("data")) or "?").name
    return f"{record.preset if record.command == 'search' and record.preset else record.command} on {data}"


def _method(record: Record) -> dict[str, str]:
    """Every setting but those of `OF_ONE_RUN`, by dotted key."""
    flat: dict[str, str] = {}
    for stage in [record, *record.stages]:
        _flatten({key: value for key, value in stage.settings.items() if key not in OF_ONE_RUN}, "", flat, "genotype")
    if record.command == "retrain" and record.genotype is not None:
        flat[CELLS] = repr((record.genotype.space, record.genotype.cells))
    return flat


def _agree(first: Mapping[str, str], second: Mapping[str, str]) -> bool:
    return all(first[key] == second[key] for key in first.keys() & second.keys())


def _merged(record: Record, known: Mapping[str, float]) -> Columns:
    columns: Columns = dict(record.columns) | {key: [value] for key, value in known.items()}
    for stage in record.stages:
        columns |= stage.columns
    return columns


def _last(columns: Columns, key: str) -> Number | None:
    return next((value for value in reversed(columns.get(key, [])) if value is not None), None)


def _is_percent(key: str) -> bool:
    return key.endswith(("accuracy", "score"))


def _all_seconds(record: Record) -> Number:
    return math.fsum(_seconds(part) for part in record.stages or [record])


def _spreads(
    records: Sequence[Record], groups: Sequence[str], merged: Sequence[Columns], keys: Sequence[str]
) -> list[tuple[str, str, list[str], str]]:
    """For each group its name, number of seeds, mean and sample standard deviation of every column, mean time.

    Over the runs that are done, of each seed the first one; a column that some of them lack says how many have it.
    Nothing where every group is a single run.
    """
    rows = []
    for group in dict.fromkeys(groups):
        seeds: dict[Any, int] = {}
        for index, record in enumerate(records):
            if groups[index] == group and record.state == "done":
                seeds.setdefault(_json(record.settings.get("seed")), index)
        members = list(seeds.values())
        if not members:
            continue
        cells = []
        for key in keys:
            values = [value for index in members if (value := _last(merged[index], key)) is not None]
            if not values:
                cells.append("–")
                continue
            found = spread(values)
            mean = figure(found.mean, _is_percent(key))
            std = "" if found.std is None else figure(found.std, _is_percent(key)).removesuffix(" %")
            words = f"{mean} ± {std}" if std else mean
            cells.append(words if len(values) == len(members) else f"{words} (n = {len(values)})")
        seconds = [_all_seconds(records[index]) for index in members]
        rows.append((group, str(len(members)), cells, clock(spread(seconds).mean)))
    return rows if any(int(count) > 1 for _, count, _, _ in rows) else []


def _overlays(
    records: Sequence[Record], names: Sequence[str], tones: Sequence[str], keys: Sequence[str], detail: Detail
) -> list[StageView]:
    """`keys`: what each run's tone stands for."""
    stages: list[StageView] = []
    for command, title in (("search", "Searches"), ("retrain", "Retrainings")):
        parts = [
            (index, part)
            for index, record in enumerate(records)
            for part in record.stages or [record]
            if (part.command == "retrain") == (command == "retrain") and part.num_epochs
        ]
        if not parts:
            continue
        longest = max(part.num_epochs for _, part in parts)
        view = StageView(name=f"stage-{len(stages)}", title=title, num_epochs=longest)
        if len(parts) > LISTED:
            view.key = list(dict.fromkeys((tones[index], keys[index]) for index, _ in parts))
        for key in OVERLAID:
            drawn = [(index, part) for index, part in parts if key in part.columns]
            if not drawn:
                continue
            percent = _is_percent(key)
            most = max(MOST_POINTS // len(drawn), 2) if detail.pictures else 12
            lines = [Line(names[index], tones[index], thinned(part.columns[key], most)) for index, part in drawn]
            legend = [
                Legend(names[index], tones[index], figure(part.last(key), percent), key, percent)
                for index, part in drawn
                if len(drawn) <= LISTED
            ]
            name = {**ACCURACIES, **LOSSES}.get(key, (key.replace("_", " "), ""))[0]
            kind = "Accuracy: " if key.endswith("accuracy") else "Loss: " if key.endswith("loss") else ""
            words = f"{kind}{name}" if kind and not key.startswith("true") else key.replace("_", " ").capitalize()
            view.panels.append(Panel(words, charts.line_chart(words, lines, Time(longest), percent), legend))
        stages.append(view)
    return stages


def thinned(values: Sequence[Number | None], most: int) -> Sequence[Number | None]:
    """At most about so many of the numbers, evenly spaced, the last among them; the others become None."""
    places = [place for place, value in enumerate(values) if value is not None]
    if len(places) <= most:
        return values
    kept = {places[round(index * (len(places) - 1) / (most - 1))] for index in range(most)}
    return [value if place in kept else None for place, value in enumerate(values)]


def _spread_tiles(spreads: Sequence[tuple[str, str, list[str], str]], keys: Sequence[str]) -> list[Tile]:
    """Of each group of several seeds, its first accuracy with spread."""
    tiles = []
    for group, count, cells, _ in spreads:
        found = next(
            ((key, cell) for key, cell in zip(keys, cells, strict=True) if "±" in cell and key in COSTED), None
        )
        if found is not None:
            value, _, fewer = found[1].partition(" (")
            tiles.append(
                Tile(
                    value.replace(" %", "") + " %",
                    COSTED[found[0]].lower(),
                    f"{group}, {fewer.removesuffix(')') or f'n = {count}'}",
                )
            )
    return tiles[:MOST_TILES]


def _differences(records: Sequence[Record]) -> list[Difference]:
    """Edges of all runs' final cells, side by side; nothing where the runs' cells are not of one space."""
    found = [record.final() or next((p.final() for p in record.stages if p.final()), None) for record in records]
    genotypes = [genotype for genotype in found if genotype is not None]
    if len({(genotype.space, tuple(genotype.cells)) for genotype in genotypes}) != 1:
        return []
    rows = []
    for kind in genotypes[0].cells:
        edges: list[Edge] = sorted({choice.edge for genotype in genotypes for choice in genotype.cells[kind]})
        for edge in edges:
            operations = [None if genotype is None else _on(genotype.cells[kind], edge) for genotype in found]
            first = _on(genotypes[0].cells[kind], edge)
            cells = [
                ("–", "", genotype is not None and operation != first)
                if operation is None
                else (operation_label(operation), family_class(operation), operation != first)
                for operation, genotype in zip(operations, found, strict=True)
            ]
            rows.append(Difference(kind, f"{edge.source} → {edge.target}", cells))
    return rows


def _on(choices: Sequence[Choice], edge: Edge) -> str | None:
    return next((choice.operation for choice in choices if choice.edge == edge), None)


def _scatter(
    records: Sequence[Record], names: Sequence[str], tones: Sequence[str], merged: Sequence[Columns]
) -> tuple[str, str] | None:
    """Title and drawing of accuracy against time, by the first accuracy that most runs have."""
    known = {key: [index for index, columns in enumerate(merged) if _last(columns, key) is not None] for key in COSTED}
    key = max(COSTED, key=lambda key: len(known[key]))
    if len(known[key]) < 2:
        return None
    dots = [
        Dot(_all_seconds(records[index]), _last(merged[index], key) or 0.0, names[index], tones[index])
        for index in known[key]
    ]
    of = "" if len(dots) == len(records) else f" ({len(dots)} of {len(records)} runs have it)"
    return f"{COSTED[key]}{of}", charts.scatter(dots, "seconds", COSTED[key])


__all__ = ["Frame", "Record", "page", "read_record", "write_page"]
