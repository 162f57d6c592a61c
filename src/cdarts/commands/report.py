"""The page of a run, or of several: `cdarts report`, and what writes it beside a run that is going on."""

import contextlib
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from cdarts.commands.common import announce
from cdarts.errors import ConfigurationError, DiskError

if TYPE_CHECKING:
    from cdarts.report.page import Known, Reference
    from cdarts.report.page_records import Record

PAGE = "report.html"

SHARE_OF_TIME = 0.01
"""Of a run's time that its page may cost, its end apart."""

FIRST_COST_SECONDS = 1.0
"""What the first page is taken to cost."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """Write the page of a run as it stands, or one page that compares several: a single file that needs no network."""

    runs: tyro.conf.Positional[Annotated[tuple[Path, ...], tyro.conf.arg(metavar="RUN")]]
    """Run directories, in whatever state they are; a retraining with several seeds stands for its runs."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """The file; default: report.html in the run's directory, in the working directory for several runs."""
    tensorboard: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Write TensorBoard's event files there instead, a folder for each run; needs the package tensorboard."""

    def run(self) -> int:
        announce("report", *(str(path) for path in self.runs[:3]), *(["..."] if len(self.runs) > 3 else []))
        if not self.runs:
            raise ConfigurationError("name one run directory or more: cdarts report RUN...")
        from cdarts.report.page_records import runs_of

        runs = [run for path in self.runs for run in runs_of(path)]
        if self.tensorboard is not None:
            if self.out is not None:
                raise ConfigurationError("--out and --tensorboard: name one of them; each writes something else")
            write_event_files(runs, self.tensorboard)
            print(f"events  {self.tensorboard}: tensorboard --logdir {shlex.quote(str(self.tensorboard))}")
            return 0
        from cdarts.report.page import write_page

        default = self.runs[0] / PAGE if len(self.runs) == 1 else Path(PAGE)
        out = self.out or default
        write_page(runs, out, reference_of)
        print(f"report  {out}")
        return 0


def write_event_files(runs: Sequence[Path], folder: Path) -> None:
    """Convert the journals of runs, each in a folder that bears the shortest end of its path that tells it apart.

    Raises `ConfigurationError`, `DiskError`.
    """
    from cdarts.report.page import names_of
    from cdarts.report.page_records import read_record
    from cdarts.report.tensorboard import EventFiles

    for name, path in zip(names_of(runs), runs, strict=True):
        record = read_record(path)
        events = EventFiles(folder / name)
        try:
            events.follow(record)
        finally:
            events.close()


def reference_of(record: "Record") -> "Reference | None":
    """What the settings of a run's page are compared with: the preset that they come from, under their protocol."""
    from cdarts.commands.many_runs import VARIED
    from cdarts.presets import PRESETS, preset_under
    from cdarts.protocols import PROTOCOLS
    from cdarts.report.page import Reference
    from cdarts.retraining import RETRAINING_PRESETS
    from cdarts.settings import to_json

    if record.command == "retrain":
        recipe = RETRAINING_PRESETS.get(record.preset)
        return None if recipe is None else Reference(f"preset {record.preset}", {"training": to_json(recipe)})
    words = record.preset.split(VARIED)
    name, last = words[0], words[-1]
    if record.command != "search" or name not in PRESETS:
        return None
    if last in PROTOCOLS:
        return Reference(f"preset {name} under {last}", {"algorithm": to_json(preset_under(name, PROTOCOLS[last]))})
    return Reference(f"preset {name}", {"algorithm": to_json(PRESETS[name])})


class LivePage:
    """The page of a run that is going on, written now and then; whatever goes wrong in it, the run goes on."""

    def __init__(self, run: Path) -> None:
        from cdarts.report.page_records import whole_run

        self.run = whole_run(run)
        self.cost = FIRST_COST_SECONDS
        self.written = time.monotonic()
        self.failed = False

    def after_epoch(self) -> None:
        """Write the page, unless that would take more than `SHARE_OF_TIME` of the time since it was last written."""
        if not self.failed and self.cost <= SHARE_OF_TIME * (time.monotonic() - self.written):
            self.write()

    def write(self, *, quiet: bool = False) -> bool:
        """Whether the page was written; if not, one line says why.

        `quiet`: not for a full disk or a read-only one, where the error that ended the run says so.
        """
        began = time.monotonic()
        try:
            from cdarts.report.page import write_page

            write_page([self.run], self.run / PAGE, reference_of)
        except Exception as error:
            self.failed = True
            if not (quiet and isinstance(error, DiskError)):
                words = " ".join(str(error).split()) or type(error).__name__
                print(f"warning: the run's page was not written: {words}", file=sys.stderr, flush=True)
            return False
        self.written = time.monotonic()
        self.cost = self.written - began
        return True


def leave_page(run: Path, *, failed: bool) -> None:
    """Write the page of a run that has ended, and say where it lies if the run is no stage of another."""
    page = LivePage(run)
    if page.write(quiet=failed) and page.run == run:
        with contextlib.suppress(OSError):  # the reader of the output is gone; how the run ended matters more
            print(f"report  {run / PAGE}", flush=True)


def leave_page_of_several(runs: Sequence[Path], out: Path, known: "Known | None" = None) -> None:
    """Write one page of those runs that have a directory into `out`, and say where it lies; a failure is one line.

    known: as `cdarts.report.page.write_page` takes it.
    """
    from cdarts.report.page import write_page

    begun = [run for run in runs if run != out and (run / "config.json").is_file()]
    if not begun:
        return
    try:
        write_page(begun, out / PAGE, reference_of, known=known or {})
    except Exception as error:  # the runs themselves are done
        print(f"warning: the page was not written: {' '.join(str(error).split())}", file=sys.stderr, flush=True)
        return
    print(f"report  {out / PAGE}", flush=True)


COMMAND = Report
