"""What a run directory says about itself, read for a page: as much as there is, whatever state it is in."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from cdarts.engine.journals import whole_lines
from cdarts.errors import ConfigurationError, GenotypeError
from cdarts.report.data_summary import DATA, DataSummary, read_data_summary
from cdarts.report.predictions import PREDICTIONS, Predictions, read_predictions
from cdarts.spaces import SPACES
from cdarts.topology import Choice, Genotype, genotype_from_json, parse_genotype

STAGES = ("search", "retrain")
"""Folders of a `cdarts run` that are run directories themselves."""

MAX_EPOCH = 10_000
"""Lines of a journal beyond it are left out: a damaged number must not become a page of so many epochs."""

MAX_BYTES = 64 * 1024 * 1024
"""Of a file that is read."""

Content = TypeVar("Content")

Columns = dict[str, list[float | None]]
"""By key of a journal, the numbers of epochs 0, 1, ...; None where an epoch says nothing."""


@dataclass(frozen=True)
class Frame:
    """The architecture after one epoch."""

    epoch: int
    genotype: Genotype
    strengths: Mapping[str, Sequence[Sequence[float]]] | None
    """Of each operation on each edge, by kind of cell."""


@dataclass
class Record:
    """One run directory."""

    path: Path
    config: dict[str, Any]
    environment: dict[str, Any]
    status: dict[str, Any]
    summary: dict[str, Any]
    metrics: list[dict[str, Any]]
    """Lines of ``metrics.jsonl`` by epoch."""
    frames: list[Frame]
    """Of ``genotypes.jsonl``."""
    columns: Columns
    """Both journals' numbers."""
    genotype: Genotype | None
    """What ``genotype.json`` or, for a retraining, ``config.json`` holds."""
    predictions: Predictions | None = None
    """Of a retraining: its answers for the test images."""
    data_summary: DataSummary | None = None
    """What its data set looks like."""
    remarks: list[str] = field(default_factory=list)
    """What is worth a warning."""
    stages: "list[Record]" = field(default_factory=list)

    @property
    def command(self) -> str:
        return text_of(self.config.get("command")) or "run"

    @property
    def settings(self) -> dict[str, Any]:
        return object_of(self.config.get("settings"))

    @property
    def state(self) -> str:
        """running, done, interrupted, failed or unknown."""
        state = text_of(self.status.get("state"))
        return state if state in ("running", "done", "interrupted", "failed") else "unknown"

    @property
    def algorithm(self) -> dict[str, Any]:
        return object_of(self.settings.get("algorithm"))

    @property
    def preset(self) -> str:
        return text_of(self.settings.get("preset"))

    @property
    def num_epochs(self) -> int:
        """Epochs that are done."""
        return max((line["epoch"] + 1 for line in self.metrics), default=0)

    def word(self, key: str) -> list[str | None]:
        """A text of ``metrics.jsonl`` for each epoch, such as its phase."""
        return self._spread(key, str)

    def number(self, key: str) -> list[int | None]:
        """A whole number of ``metrics.jsonl`` for each epoch, such as its cycle."""
        return self._spread(key, int)

    def _spread(self, key: str, kind: type) -> list[Any]:
        values: list[Any] = [None] * self.num_epochs
        for line in self.metrics:
            value = line.get(key)
            values[line["epoch"]] = value if type(value) is kind else None
        return values

    def last(self, key: str) -> float | None:
        """The newest number of a journal."""
        return next((value for value in reversed(self.columns.get(key, [])) if value is not None), None)

    def final(self) -> Genotype | None:
        """What was found, or stands now."""
        return self.genotype or (self.frames[-1].genotype if self.frames else None)


def read_record(path: Path) -> Record:
    """What there is in a run directory. Raises `ConfigurationError` if it is none or its ``config.json`` is damaged.

    Anything else that is missing or damaged is left out, and said among the remarks.
    """
    if not (path / "config.json").is_file():
        reason = "it has no config.json" if path.is_dir() else "there is no such folder"
        raise ConfigurationError(f"{path} is not a run directory: {reason}")
    config = _object_in(path / "config.json", None)
    remarks: list[str] = []
    status, environment, summary = (
        _object_in(path / f"{name}.json", remarks) for name in ("status", "environment", "summary")
    )
    metrics, lines = _journal(path / "metrics.jsonl", remarks), _journal(path / "genotypes.jsonl", remarks)
    if metrics:  # a run that goes on, or that died, may have written one journal and not yet the other
        lines = [line for line in lines if line["epoch"] <= metrics[-1]["epoch"]]
    record = Record(
        path=path,
        config=config,
        environment=environment,
        status=status,
        summary=summary,
        metrics=metrics,
        frames=_frames(lines, _space_name(config), remarks),
        columns=_columns([*lines, *metrics]),
        genotype=_genotype(path, config, remarks),
        predictions=_read(path / PREDICTIONS, read_predictions, remarks),
        data_summary=_read(path / DATA, read_data_summary, remarks),
        remarks=remarks,
        stages=[read_record(stage) for stage in stages_of(path, config)],
    )
    _remark(record)
    return record


def stages_of(path: Path, config: Mapping[str, Any]) -> list[Path]:
    """The run directories within that of a `cdarts run`; none within any other, whatever its folders are called."""
    if config.get("command") != "run":
        return []
    return [path / name for name in STAGES if (path / name / "config.json").is_file()]


def whole_run(path: Path) -> Path:
    """The run directory of the `cdarts run` that a run directory is a stage of; itself if it is none."""
    parent = path.resolve().parent
    if path.name not in STAGES or not (parent / "config.json").is_file():
        return path
    return path.parent if _object_in(parent / "config.json", []).get("command") == "run" else path


def runs_of(path: Path) -> list[Path]:
    """The runs in a folder of one retraining with several seeds that have begun; of any other folder, itself."""
    config = _object_in(path / "config.json", [])
    if config.get("command") != "retrain" or object_of(config.get("settings")).get("seeds") is None:
        return [path]
    found = {int(run.name.removeprefix("seed-")): run for run in path.glob("seed-[0-9]*") if run.name[5:].isdecimal()}
    begun = [found[seed] for seed in sorted(found) if (found[seed] / "config.json").is_file()]
    return begun or [path]


def object_of(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def text_of(value: Any) -> str:
    return value if isinstance(value, str) else ""


def number_of(value: Any) -> float | None:
    """A finite number, bool apart."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:  # a whole number of more digits than a float has
        return None


def _object_in(path: Path, remarks: list[str] | None) -> dict[str, Any]:
    """The JSON object of a file; with `remarks`, one of them stands for a file that cannot be read."""
    if remarks is not None and not path.exists():
        return {}
    try:
        with path.open("rb") as file:
            value = json.loads(file.read(MAX_BYTES))
        if not isinstance(value, dict):
            raise ValueError("must hold a JSON object")
    except (OSError, ValueError, RecursionError) as error:
        if remarks is None:
            raise ConfigurationError(f"{path}: cannot be read: {error}") from error
        remarks.append(f"{path.name} cannot be read: {error}")
        return {}
    return value


def _read(path: Path, read: Callable[[Mapping[str, Any]], Content], remarks: list[str]) -> Content | None:
    """What a file holds; None where there is none, or where it cannot be read, which becomes a remark."""
    known = len(remarks)
    stored = _object_in(path, remarks)
    if not path.exists() or len(remarks) > known:
        return None
    try:
        return read(stored)
    except ValueError as error:
        remarks.append(f"{path.name} cannot be read: {error}")
        return None


def _journal(path: Path, remarks: list[str]) -> list[dict[str, Any]]:
    """The complete lines of a journal that have an epoch, one for each epoch, in their order."""
    lines: dict[int, dict[str, Any]] = {}
    damaged = 0
    try:
        found = list(whole_lines(path, MAX_BYTES))
    except OSError as error:
        remarks.append(f"{path.name} cannot be read: {error.strerror}")
        return []
    for line in (whole.value for whole in found):
        epoch = None if line is None else line.get("epoch")
        if line is not None and isinstance(epoch, int) and not isinstance(epoch, bool) and 0 <= epoch < MAX_EPOCH:
            lines[epoch] = line
        else:
            damaged += 1
    if damaged:
        remarks.append(f"{path.name}: {damaged} line(s) are damaged, or of an epoch beyond {MAX_EPOCH:,}; left out")
    return [lines[epoch] for epoch in sorted(lines)]


def _columns(lines: Sequence[Mapping[str, Any]]) -> Columns:
    length = max((line["epoch"] + 1 for line in lines), default=0)
    columns: Columns = {}
    for line in lines:
        for key, value in line.items():
            number = number_of(value)
            if number is not None and key not in ("epoch", "cycle"):
                columns.setdefault(key, [None] * length)[line["epoch"]] = number
    return columns


def _space_name(config: Mapping[str, Any]) -> str:
    """Of a search; a text form does not say it."""
    algorithm = object_of(object_of(config.get("settings")).get("algorithm"))
    return text_of(object_of(algorithm.get("space")).get("name"))


def _frames(lines: Sequence[Mapping[str, Any]], space_name: str, remarks: list[str]) -> list[Frame]:
    frames, damaged = [], 0
    for line in lines:
        try:
            genotype = parse_genotype(text_of(line.get("text")))
            if space_name in SPACES:
                genotype = replace(genotype, space=space_name)
            if genotype.space in SPACES:
                SPACES[genotype.space]().check(genotype)  # type: ignore[call-arg]
            strengths = line.get("strengths")
            if strengths is not None:
                if not _fits(genotype, strengths):
                    raise GenotypeError("strengths do not fit")
                strengths = {
                    kind: [[float(value) for value in row] for row in rows] for kind, rows in strengths.items()
                }
        except GenotypeError:
            damaged += 1
            continue
        frames.append(Frame(line["epoch"], genotype, strengths))
    if damaged:
        remarks.append(f"genotypes.jsonl: {damaged} line(s) hold no architecture that can be read; they are left out")
    return frames


def _fits(genotype: Genotype, strengths: Any) -> bool:
    """Whether there is a finite number for each operation on each edge of the genotype's space."""
    if genotype.space not in SPACES or not isinstance(strengths, dict):
        return False
    space = SPACES[genotype.space]()  # type: ignore[call-arg]
    num_edges, num_operations = len(space.all_edges()), len(space.operations)
    return set(strengths) == set(genotype.cells) and all(
        isinstance(rows, list)
        and len(rows) == num_edges
        and all(isinstance(row, list) and len(row) == num_operations for row in rows)
        and all(number_of(value) is not None for row in rows for value in row)
        for rows in strengths.values()
    )


def _genotype(path: Path, config: Mapping[str, Any], remarks: list[str]) -> Genotype | None:
    stored: Any = config.get("genotype")
    if (path / "genotype.json").is_file():
        stored = _object_in(path / "genotype.json", remarks)
    if not stored:
        return None
    try:
        return genotype_from_json(stored)
    except GenotypeError as error:
        remarks.append(f"genotype.json cannot be read: {error}")
        return None


def _remark(record: Record) -> None:
    """Add what a reader of the page should be warned of."""
    add = record.remarks.append
    if record.settings.get("shuffled_labels") is True:
        add("A control: the training labels were permuted among the images.")
    reports = sum(line["skipped_batches"] for line in record.metrics if type(line.get("skipped_batches")) is int)
    if reports:
        add(f"{reports} batch(es) were left out, since they made a gradient infinite or not a number.")
    elif (record.path / "nonfinite.json").is_file():
        add("A batch made a gradient infinite or not a number: nonfinite.json names it.")
    if (record.path / "data-skipped.json").is_file():
        add("Images that could not be read were left out: data-skipped.json lists them.")
    if (record.path / "stuck.log").is_file():
        add("A step took so long that the stack was written down: stuck.log.")
    damaged = sorted(file.name for file in (record.path / "checkpoints").glob("*.damaged"))
    if damaged:
        add(f"Damaged checkpoints were set aside: {', '.join(damaged)}.")
    final = record.final()
    if record.frames and final is not None:
        for kind, choices in final.cells.items():
            words = _collapsed(choices) if kind in ("normal", "cell") else None
            if words is not None:
                name = "normal cell" if kind == "normal" else "cell"
                add(f"The {name} looks collapsed: {words}. Such networks are usually poor.")


WEIGHTED = ("sep", "dil", "nor")
"""First words of the operations that have weights."""


def _collapsed(choices: Sequence[Choice]) -> str | None:
    """The rule by which a search warns, see `cdarts.algorithms.collapse`, in words without torch."""
    operations = [choice.operation for choice in choices if choice.operation != "none"]
    if not operations:
        return "every edge is none"
    free = sum(operation.split("_")[0] not in WEIGHTED for operation in operations)
    return f"{free} of {len(operations)} edges have no weights" if 3 * free >= 2 * len(operations) else None
