"""Accuracy of a trained run on the test images of its data set."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from cdarts.commands.common import announce
from cdarts.errors import ConfigurationError


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Test a trained run."""

    run_dir: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="RUN")]]
    """A run of `cdarts run` or `cdarts retrain`."""
    data: str | None = None
    """Another data set with the same classes; default: the one the run was trained on."""
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
            data = settings.load_data()
        else:
            set_threads(self.threads)
            card, network = load_model(find_model(self.run_dir))
            data = load(self.data, image_size=card.side)
        if (data.class_names, data.channels) != (card.class_names, card.image_channels):
            raise ConfigurationError(
                f"{data.name} has {data.channels} channels and {_listed(data.class_names)}; "
                f"the model was trained on {card.image_channels} channels and {_listed(card.class_names)}"
            )
        batches = evaluation_batches(data.test, card.normalising(data), EVALUATION_BATCH, device)
        scores = evaluate(network.to(device), batches)
        if self.json:
            result = {
                "data": data.name,
                "images": len(data.test),
                "accuracy": scores.accuracy,
                "loss": scores.loss,
            }
            print(json.dumps(result))
        else:
            print(f"test    accuracy {scores.accuracy:.4f}  loss {scores.loss:.4f}", end="")
            print(f"  on {len(data.test)} images of {data.name}")
        return 0


def _listed(class_names: tuple[str, ...]) -> str:
    """``10 classes (0, 1, 2, 3, 4, ...)``."""
    more = ", ..." if len(class_names) > 5 else ""
    return f"{len(class_names)} classes ({', '.join(class_names[:5])}{more})"


COMMAND = Evaluate
