"""TensorBoard's event files, made from a run's journals: afterwards, or while another process writes them."""

import base64
import io
from pathlib import Path
from typing import Any

from PIL import Image

from cdarts.engine.files import refuse_links
from cdarts.errors import ConfigurationError, DiskError, GenotypeError
from cdarts.report.drawing import CELL_NAMES, CONCATENATING
from cdarts.report.page_records import Record
from cdarts.report.raster import cell_png
from cdarts.topology import Choice

SUFFIX = ".cdarts"
"""How the names of files end that were written here, and that are written anew."""


class EventFiles:
    """The event files of one run, in a folder of their own; a run of the whole way has two more in it, one a stage.

    Each number of an epoch is written once, under its key; the step is the epoch, from 0. What an earlier call has
    written there is replaced. The time of a point is that of the run's beginning and the seconds of its epochs.
    """

    def __init__(self, folder: Path) -> None:
        """Raises `ConfigurationError` where the package tensorboard is missing."""
        try:
            from tensorboard.summary.writer.event_file_writer import EventFileWriter
        except ImportError as error:
            raise ConfigurationError(
                "--tensorboard needs the package tensorboard: pip install 'cdarts[tensorboard]'"
            ) from error
        self._make = EventFileWriter
        self._folder = folder
        self._writers: dict[str, Any] = {}
        self._written: dict[str, int] = {}
        """By stage, epochs that are written."""
        self._drawn: dict[str, tuple[Choice, ...]] = {}

    def follow(self, record: Record) -> None:
        """Write what is new since the last call. Raises `DiskError`."""
        try:
            for part in record.stages or [record]:
                self._stage(part, "" if part is record else part.path.name)
            for writer in self._writers.values():
                writer.flush()
        except OSError as error:
            raise DiskError(f"cannot write to {self._folder}: {error.strerror or error}") from error

    def close(self) -> None:
        """Write what waits."""
        for writer in self._writers.values():
            writer.close()
        self._writers = {}

    def _stage(self, part: Record, name: str) -> None:
        if not part.columns and part.data_summary is None:
            return
        began = (part.path / "config.json").stat().st_mtime
        if name not in self._writers:
            folder = self._folder / name
            refuse_links(folder)
            folder.mkdir(parents=True, exist_ok=True)
            for old in folder.glob(f"events.out.tfevents.*{SUFFIX}"):
                old.unlink()
            self._writers[name] = self._make(str(folder), filename_suffix=SUFFIX)
            if part.data_summary is not None:
                self._picture(name, "training images", base64.b64decode(part.data_summary.sheet), 0, began)
        length = max((len(values) for values in part.columns.values()), default=0)
        seconds = part.columns.get("seconds", [])
        first = self._written.get(name, 0)
        frames = {frame.epoch: frame.genotype for frame in part.frames}
        # an epoch of a search has lines in two journals, and another process may be between them
        ends = [part.num_epochs, part.frames[-1].epoch + 1 if part.frames else 0][: 1 + (part.command == "search")]
        whole = length if part.state != "running" else min(ends)
        for epoch in range(first, whole):
            at = began + sum(value or 0.0 for value in seconds[: epoch + 1])
            for key, values in part.columns.items():
                value = values[epoch] if epoch < len(values) else None
                if value is not None:
                    self._scalar(name, key, value, epoch, at)
            if epoch in frames:
                self._cells(name, frames[epoch].cells, frames[epoch].space in CONCATENATING, epoch, at)
        self._written[name] = max(first, whole)

    def _cells(self, name: str, cells: Any, concatenates: bool, epoch: int, at: float) -> None:
        """A drawing of each cell that has changed."""
        for kind, choices in cells.items():
            if self._drawn.get(f"{name}/{kind}") == choices:
                continue
            self._drawn[f"{name}/{kind}"] = choices
            try:
                picture = cell_png(choices, concatenates)
            except GenotypeError:
                continue
            self._picture(name, CELL_NAMES.get(kind, kind), picture, epoch, at)

    def _scalar(self, name: str, tag: str, value: float, step: int, at: float) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary

        self._add(name, Summary.Value(tag=tag, simple_value=value), step, at)

    def _picture(self, name: str, tag: str, png: bytes, step: int, at: float) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary

        width, height = Image.open(io.BytesIO(png)).size
        image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=png)
        self._add(name, Summary.Value(tag=tag, image=image), step, at)

    def _add(self, name: str, value: Any, step: int, at: float) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        self._writers[name].add_event(Event(wall_time=at, step=step, summary=Summary(value=[value])))
