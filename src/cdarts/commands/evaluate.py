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

        set_threads(self.threads)
        device = choose_device(self.device)
        card, network = load_model(find_model(self.run_dir))
        if self.data is None:
            data = settings_of(self.run_dir).load_data()
        else:
            data = load(self.data, image_size=card.side)
        if data.class_names != card.class_names or data.channels != card.image_channels:
            raise ConfigurationError(
                f"{data.name} has classes {', '.join(data.class_names[:5])}... in {data.channels} channels; the model was trained on "
                f"{', '.join(card.class_names[:5])}... in {card.image_channels}"
            )
        batches = evaluation_batches(data.test, card.normalising(data), EVALUATION_BATCH, device)
        scores = evaluate(network.to(device), batches)
        if self.json:
            print(json.dumps({"data": data.name, "images": len(data.test), "accuracy": scores.accuracy, "loss": scores.loss}))
        else:
            print(f"test    accuracy {scores.accuracy:.4f}  loss {scores.loss:.4f}  on {len(data.test)} images of {data.name}")
        return 0


COMMAND = Evaluate
