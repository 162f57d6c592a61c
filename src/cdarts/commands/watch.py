"""A run in the terminal while it goes on: where it is, how long it will take, what it would answer now."""

import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from cdarts.durations import clock
from cdarts.errors import ConfigurationError

if TYPE_CHECKING:
    from rich.console import Group
    from rich.text import Text

    from cdarts.report.page_records import Record
    from cdarts.report.tensorboard import EventFiles

ENDED = ("done", "interrupted", "failed")

BLOCKS = "▁▂▃▄▅▆▇█"
"""Of a sparkline, from its lowest value to its highest."""
SPARK_WIDTH = 40
"""Characters of a sparkline: the newest epochs."""

BAR_WIDTH = 32

CURVES = {
    "search_accuracy": "S-Net accuracy",
    "eval_accuracy": "E-Net accuracy",
    "val_accuracy": "accuracy, alpha's half",
    "accuracy": "training accuracy",
    "test_accuracy": "test accuracy",
    "true_test_accuracy": "true test accuracy",
    "best_score": "best score",
    "search_loss": "S-Net loss",
    "eval_loss": "E-Net loss",
    "val_loss": "loss, alpha's half",
    "loss": "training loss",
    "test_loss": "test loss",
    "entropy": "entropy of alpha",
    "skips": "skip connections",
    "parameter_free": "without parameters",
}
"""Keys of the journals that have a line, and what it is called."""


@dataclass(frozen=True, kw_only=True)
class Watch:
    """Follow a run that is going on, here or in another terminal: progress, accuracy, losses, the current cell."""

    run_dir: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="RUN")]]
    """A run of search, retrain or run, in whatever state; it is only read."""
    once: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print how it stands now, and end."""
    interval: float = 1.0
    """Seconds between two looks."""
    tensorboard: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Write TensorBoard's event files there as the run goes on."""

    def run(self) -> int:
        if not self.interval > 0:
            raise ConfigurationError(f"--interval {self.interval}: must be more than 0 seconds")
        from rich.console import Console
        from rich.live import Live

        console = Console(markup=False, emoji=False, highlight=False)
        watched = Watched(self.run_dir)
        events = None if self.tensorboard is None else _event_files(self.run_dir, self.tensorboard)
        try:
            watched.look()
            if events is not None:
                events.follow(watched.record)
            if self.once:
                console.print(watched.view())
                return 0
            with Live(watched.view(), console=console, auto_refresh=False) as live:
                while not watched.has_ended():
                    time.sleep(self.interval)
                    if watched.look() and events is not None:
                        events.follow(watched.record)
                    live.update(watched.view(), refresh=True)
        except KeyboardInterrupt:  # who looks on may leave; the run is another process
            return 0
        finally:
            if events is not None:
                events.close()
        return 0


def _event_files(run: Path, folder: Path) -> "EventFiles":
    """Raises `ConfigurationError` where the package that they need is missing."""
    from cdarts.report.tensorboard import EventFiles

    return EventFiles(folder / (run.resolve().name or "run"))


class Watched:
    """What is known of a run directory that another process writes."""

    def __init__(self, path: Path, now: Callable[[], float] = time.time) -> None:
        """Raises `ConfigurationError` when first looked at, if `path` is no run directory."""
        self.path = path
        self._now = now
        self._seen: object = None
        self.record: Record

    def look(self) -> bool:
        """Read the run's files again if one of them has changed; whether one has."""
        from cdarts.report.page_records import read_record

        signature = [_signature(folder) for folder in (self.path, self.path / "search", self.path / "retrain")]
        if signature == self._seen:
            return False
        self.record, self._seen = read_record(self.path), signature
        return True

    def state(self) -> str:
        """As ``status.json`` says, or ``killed`` where it says running and the process is gone."""
        state = self.record.state
        return "killed" if state == "running" and _is_gone(self.path) else state

    def has_ended(self) -> bool:
        """Whether nothing more is to come."""
        return self.state() in (*ENDED, "killed")

    def view(self) -> "Group":
        """Everything, as lines for a terminal."""
        from rich.console import Group
        from rich.text import Text

        record, state = self.record, self.state()
        lines = [Text.assemble((_plain(str(record.path)), "bold"), "  ", (state, STYLES.get(state, "")))]
        message, resume = record.status.get("message"), record.status.get("resume")
        if isinstance(message, str) and message:
            lines.append(Text(_plain(message)))
        if state in ("interrupted", "failed", "killed") and isinstance(resume, str):
            lines.append(Text(f"go on with: {_plain(resume)}"))
        parts = [stage for stage in record.stages if stage.config] or [record]
        for part in parts:
            lines += self._stage(part, is_current=part is parts[-1])
        return Group(*lines)

    def _stage(self, part: "Record", *, is_current: bool) -> "list[Text]":
        """One search or training; of one that is over, a line."""
        from rich.text import Text

        lines = [Text(self._progress(part))]
        if not is_current:
            return lines
        for key, name in CURVES.items():
            values = [value for value in part.columns.get(key, []) if value is not None]
            if values:
                lines.append(
                    Text.assemble((f"  {name:24}", "dim"), (sparkline(values), "cyan"), f"  {_number(key, values)}")
                )
        return [*lines, *_cells(part)]

    def _progress(self, part: "Record") -> str:
        """``search  ██████░░░░  5 of 10 epochs, joint, step 3 of 20, left 1m15s``."""
        from cdarts.report.page_records import number_of

        status = part.status
        epochs, epoch, steps, step = (number_of(status.get(key)) for key in ("epochs", "epoch", "steps", "step"))
        if part.state == "done" or not epochs or epoch is None:
            over = "" if part.state == "done" else " so far"
            return f"{part.command:8} {part.num_epochs} epochs{over}, {clock(_seconds(part))}"
        done = max(float(part.num_epochs), min(epoch + (step or 0.0) / (steps or 1.0), epochs))
        full = round(BAR_WIDTH * min(done / epochs, 1.0))
        words = [f"epoch {min(int(epoch) + 1, int(epochs))} of {epochs:g}", _plain(str(status.get("phase", "")))]
        if steps:
            words.append(f"step {step or 0:g} of {steps:g}")
        left = number_of(status.get("left_seconds"))
        if left is not None and self.state() == "running":
            words.append(f"left {clock(max(left - self._age(part), 0.0))}{self._later(part)}")
        return f"{part.command:8} {'█' * full}{'░' * (BAR_WIDTH - full)}  {', '.join(word for word in words if word)}"

    def _age(self, part: "Record") -> float:
        """Seconds since its status was written."""
        try:
            return max(self._now() - (part.path / "status.json").stat().st_mtime, 0.0)
        except OSError:
            return 0.0

    def _later(self, part: "Record") -> str:
        """What comes after the search of a run of the whole way."""
        from cdarts.report.page_records import number_of, object_of

        forecast = number_of(object_of(self.record.config.get("plan")).get("retraining_seconds"))
        if part.command != "search" or part is self.record or forecast is None:
            return ""
        return f", then a training of about {clock(forecast)}"


STYLES = {"done": "green", "running": "blue", "interrupted": "yellow", "failed": "red", "killed": "red"}


def sparkline(values: Sequence[float], width: int = SPARK_WIDTH) -> str:
    """The newest `width` values as blocks, from the lowest of them to the highest; all alike if they are equal."""
    newest = values[-width:]
    low, high = min(newest), max(newest)
    if high == low:
        return BLOCKS[len(BLOCKS) // 2] * len(newest)
    return "".join(BLOCKS[min(int((value - low) / (high - low) * len(BLOCKS)), len(BLOCKS) - 1)] for value in newest)


def _number(key: str, values: Sequence[float]) -> str:
    """The newest, and before it the first."""
    first, last = (
        f"{100 * value:.2f} %" if key.endswith(("accuracy", "score")) else f"{value:.4g}"
        for value in (values[0], values[-1])
    )
    return f"{last}  (first {first})"


def _cells(part: "Record") -> "list[Text]":
    """The current genotype, a line for each node, with what has changed since the epoch before."""
    from rich.text import Text

    from cdarts.report.drawing import operation_label

    if not part.frames:
        return []
    now = part.frames[-1].genotype
    before = part.frames[-2].genotype if len(part.frames) > 1 else now
    changed = {kind: set(choices) - set(before.cells.get(kind, ())) for kind, choices in now.cells.items()}
    steady = 0
    for frame in reversed(part.frames[:-1]):
        if frame.genotype.cells != now.cells:
            break
        steady += 1
    count = sum(len(choices) for choices in changed.values())
    words = f"{count} of {len(now.operations())} choices changed" if count else f"unchanged for {steady} epochs"
    lines = [Text(f"  cell after epoch {part.frames[-1].epoch + 1}: {words}")]
    for kind, choices in now.cells.items():
        for target in sorted({choice.edge.target for choice in choices}):
            line = Text(f"    {kind:7} {target} ← ", style="dim")
            for choice in choices:
                if choice.edge.target == target:
                    style = "bold yellow" if choice in changed[kind] else "not dim"
                    mark = "*" if choice in changed[kind] else ""
                    line.append(f"{mark}{operation_label(choice.operation)}({choice.edge.source})  ", style=style)
            lines.append(line)
    return lines


def _signature(folder: Path) -> list[object]:
    """What changes when one of the files that are shown does."""
    found: list[object] = []
    for name in ("config.json", "status.json", "metrics.jsonl", "genotypes.jsonl", "genotype.json"):
        try:
            stat = (folder / name).stat()
        except OSError:
            found.append(None)
        else:
            found.append((stat.st_mtime_ns, stat.st_size, stat.st_ino))
    return found


def _is_gone(path: Path) -> bool:
    """Whether the process that holds the run was one of this machine, and is there no more."""
    try:
        words = (path / "run.lock").read_text(encoding="utf-8").split("\n")[0].split()
    except (OSError, UnicodeDecodeError):
        return False
    if len(words) != 4 or words[3] != platform.node() or not words[1].isdigit():
        return False
    try:
        os.kill(int(words[1]), 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        return False
    return False


def _seconds(part: "Record") -> float:
    return sum(value for value in part.columns.get("seconds", []) if value is not None)


def _plain(text: str) -> str:
    """Without control characters: a name from a file must not move the cursor."""
    return "".join(character if character.isprintable() else "\ufffd" for character in text)


COMMAND = Watch
