"""Accuracy of a trained run on the test images of its data set."""

import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from cdarts.commands.common import accuracy_words, announce
from cdarts.errors import ConfigurationError, DataError, DiskError, RunInUseError
from cdarts.statistics import binomial_interval, class_accuracy

if TYPE_CHECKING:
    from cdarts.data import ImageData
    from cdarts.retraining.task import Scores


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Test a trained run."""

    run_dir: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="RUN")]]
    """A run of `cdarts run` or `cdarts retrain`."""
    data: str | None = None
    """Another data set with the same classes; default: the one the run was trained on."""
    data_root: Path | None = None
    """Where downloaded data sets lie; default: as the run has it, with --data $CDARTS_DATA, else ~/.cache/cdarts."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int | None = None
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print one JSON object."""

    def run(self) -> int:
        if not self.json:
            announce("evaluate", str(self.run_dir))
        from cdarts.commands.resume import settings_of
        from cdarts.data import evaluation_batches, load
        from cdarts.engine.runtime import choose_device, set_threads
        from cdarts.model import find_model, load_model
        from cdarts.retraining.task import EVALUATION_BATCH, evaluate

        device = choose_device(self.device)
        if self.data is None:
            # as the run computed, to the same bits
            settings = settings_of(self.run_dir)
            set_threads(settings.threads if self.threads is None else self.threads)
            card, network = load_model(find_model(self.run_dir), settings.execution)
            data = replace(settings, data_root=self.data_root or settings.data_root).load_data()
            check_same_data(find_model(self.run_dir), data)
        else:
            set_threads(self.threads)
            card, network = load_model(find_model(self.run_dir))
            data = load(self.data, root=self.data_root, image_size=card.side)
        if (data.class_names, data.channels) != (card.class_names, card.image_channels):
            raise ConfigurationError(
                f"{data.name} has {data.channels} channels and {_listed(data.class_names)}; "
                f"the model was trained on {card.image_channels} channels and {_listed(card.class_names)}"
            )
        batches = evaluation_batches(data.test, card.normalising(data), EVALUATION_BATCH, device)
        scores = evaluate(network.to(device), batches)
        if self.data is None:
            self._leave_predictions(data, scores)
        if self.json:
            result = {
                "data": data.name,
                "images": len(data.test),
                "accuracy": scores.accuracy,
                "interval": binomial_interval(scores.accuracy, len(data.test)),
                "class_accuracy": class_accuracy(scores.predictions.numpy(), data.test.labels),
                "loss": scores.loss,
            }
            print(json.dumps(result))
        else:
            words = accuracy_words(scores.accuracy, len(data.test))
            print(f"test    {words}  loss {scores.loss:.4f}  on {data.name}")
            if data.balanced:
                mean = class_accuracy(scores.predictions.numpy(), data.test.labels)
                print(f"test    mean of the classes' accuracies {mean:.4f}, each class counting the same")
        return 0

    def _leave_predictions(self, data: "ImageData", scores: "Scores") -> None:
        """Write ``predictions.json`` beside the model, for the run's page.

        Where that cannot be, since another process works there or the disk is full or read-only, a line says so.
        """
        from cdarts.engine.files import refuse_links
        from cdarts.engine.run_dir import RunDir
        from cdarts.model import find_model
        from cdarts.report.predictions import PREDICTIONS, predictions_json

        directory = find_model(self.run_dir)
        try:
            if directory != self.run_dir:  # a stage; the run itself may be named by a link
                refuse_links(directory)
            with RunDir(directory) as run_dir:
                run_dir.write_json(PREDICTIONS, predictions_json(data, scores))
        except (DiskError, RunInUseError) as error:
            print(f"note: {PREDICTIONS} was not written: {error}", file=sys.stderr)


def check_same_data(directory: Path, data: "ImageData") -> None:
    """Raise `DataError` unless it is the data set that the run in `directory` was trained on."""
    from cdarts.engine.run_dir import read_json

    path = directory / "environment.json"
    if path.is_file() and read_json(path).get("data") != data.fingerprint():
        raise DataError(
            f"{data.name} is not what {directory} was trained on: images, labels or classes have changed, so test "
            "images could be among those it was trained on; restore them, or name a set of its own with --data"
        )


def _listed(class_names: tuple[str, ...]) -> str:
    """``10 classes (0, 1, 2, 3, 4, ...)``."""
    more = ", ..." if len(class_names) > 5 else ""
    return f"{len(class_names)} classes ({', '.join(class_names[:5])}{more})"


COMMAND = Evaluate
