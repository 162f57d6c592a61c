"""Classes of images by a trained run, or by the ONNX file that it was exported to."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from cdarts.errors import ConfigurationError, DataError

if TYPE_CHECKING:
    import torch

    from cdarts.export import Classifier, OnnxModel

CHUNK = 64
"""Images that go through the network at once."""


@dataclass(frozen=True, kw_only=True)
class Predict:
    """Print the most likely classes of each image; one that cannot be read is reported, and the exit code is then 3."""

    model: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="RUN")]]
    """A run of `cdarts run` or `cdarts retrain`, or an ONNX file of `cdarts export`."""
    images: tyro.conf.Positional[tuple[Path, ...]]
    """Image files, and folders: the images in them, or in their class folders if they hold none themselves."""
    top: int = 3
    """Classes to print for each image."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int | None = None
    """Threads to compute with."""
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print one JSON object a line: image, class, and the probabilities of the likeliest classes."""

    def run(self) -> int:
        for given in self.images:
            if not given.exists():
                raise DataError(f"{given}: no such file or folder")
        if self.top < 1:
            raise ConfigurationError(f"--top {self.top}: must be at least 1")
        import numpy as np
        import torch

        from cdarts.data.folder import read_image
        from cdarts.engine.runtime import choose_device, set_threads
        from cdarts.export import as_images

        paths = [path for given in self.images for path in ([given] if given.is_file() else images_in(given))]
        if not paths:
            raise DataError("no images given: name image files, or folders that hold images or class folders of them")
        device = choose_device(self.device)
        set_threads(self.threads)
        model = self._model(device)
        top = min(self.top, len(model.class_names))
        code = 0
        for start in range(0, len(paths), CHUNK):
            readable = {}
            for path in paths[start : start + CHUNK]:
                try:
                    readable[path] = read_image(path, side=model.rule.side, channels=model.rule.channels)
                except DataError as error:
                    print(f"error: {error}", file=sys.stderr)
                    code = error.exit_code
            if not readable:
                continue
            with torch.no_grad():
                logits = model(as_images(np.stack(list(readable.values()))).to(device))
            likeliest = torch.softmax(logits, dim=1).topk(top)
            for path, values, classes in zip(
                readable, likeliest.values.tolist(), likeliest.indices.tolist(), strict=True
            ):
                names = [model.class_names[index] for index in classes]
                self._print(path, dict(zip(names, values, strict=True)))
        return code

    def _model(self, device: "torch.device") -> "Classifier | OnnxModel":
        """What answers. Raises `CheckpointError`, `ConfigurationError`."""
        from cdarts.export import Classifier, OnnxModel
        from cdarts.model import find_model, load_model

        if not self.model.is_file():
            return Classifier(*load_model(find_model(self.model))).to(device)
        if self.device == "cuda":
            raise ConfigurationError(f"--device cuda: {self.model} is computed on the CPU")
        return OnnxModel(self.model, self.threads)

    def _print(self, path: Path, likeliest: dict[str, float]) -> None:
        """Classes and their probabilities, the likeliest first."""
        if self.json:
            print(json.dumps({"image": str(path), "class": next(iter(likeliest)), "probabilities": likeliest}))
        else:
            line = f"{path}  " + "  ".join(f"{name} {value:.3f}" for name, value in likeliest.items())
            # names come from files: a control character in one could forge output
            print("".join(character if character.isprintable() else "\ufffd" for character in line))


def images_in(folder: Path) -> list[Path]:
    """The images directly in a folder; where there are none, those in its folders. Raises `DataError`."""
    from cdarts.data.folder import find_images

    direct = find_images(folder)
    if direct:
        return direct
    inner = sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    return [image for entry in inner for image in find_images(entry)]


COMMAND = Predict
