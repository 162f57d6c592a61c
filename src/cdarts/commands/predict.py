"""Classes of images by a trained run, or by the ONNX file that it was exported to."""

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

import tyro

from cdarts.errors import ConfigurationError, DataError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from cdarts.export import Classifier, ImageRule, OnnxModel

Item = TypeVar("Item")

CHUNK = 64
"""Images that go through the network at once."""


@dataclass(frozen=True, kw_only=True)
class Predict:
    """Print the most likely classes of each image; one that cannot be read is reported, and the exit code is then 3."""

    model: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="RUN")]]
    """A run of `cdarts run` or `cdarts retrain`, or an ONNX file of `cdarts export`."""
    images: tyro.conf.Positional[tuple[Path, ...]]
    """Image files; folders: the images in them, or in their class folders if they hold none themselves; NumPy files,
    .npy or .npz: uint8 (N, H, W, C), or float32 (N, C, H, W) in 0 to 1."""
    top: int = 3
    """Classes to print for each image."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int | None = None
    """Threads to compute with."""
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print one JSON object a line: image, class, and the probabilities of the likeliest classes."""

    def run(self) -> int:
        if self.top < 1:
            raise ConfigurationError(f"--top {self.top}: must be at least 1")
        import torch

        from cdarts.engine.runtime import choose_device, set_threads

        # by os.path, which says no where a name is too long or a folder may not be looked into
        paths = [path for given in self.images for path in (images_in(given) if os.path.isdir(given) else [given])]  # noqa: PTH112
        if not paths:
            raise DataError("no images given: name image files, or folders that hold images or class folders of them")
        device = choose_device(self.device)
        set_threads(self.threads)
        model = self._model(device)
        top = min(self.top, len(model.class_names))
        code = 0
        for chunk in batched(images_of(paths, model.rule), CHUNK):
            readable: list[tuple[str, Tensor]] = []
            for name, image in chunk:
                if isinstance(image, DataError):
                    print(f"error: {image}", file=sys.stderr)
                    code = image.exit_code
                else:
                    readable.append((name, image))
            if not readable:
                continue
            with torch.no_grad():
                logits = model(torch.stack([image for _, image in readable]).to(device))
            likeliest = torch.softmax(logits, dim=1).topk(top)
            for (name, _), values, classes in zip(
                readable, likeliest.values.tolist(), likeliest.indices.tolist(), strict=True
            ):
                names = [model.class_names[index] for index in classes]
                self._print(name, dict(zip(names, values, strict=True)))
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

    def _print(self, image: str, likeliest: dict[str, float]) -> None:
        """Classes and their probabilities, the likeliest first."""
        if self.json:
            print(json.dumps({"image": image, "class": next(iter(likeliest)), "probabilities": likeliest}))
        else:
            line = f"{image}  " + "  ".join(f"{name} {value:.3f}" for name, value in likeliest.items())
            # names come from files: a control character in one could forge output
            print("".join(character if character.isprintable() else "\ufffd" for character in line))


def images_of(paths: list[Path], rule: "ImageRule") -> "Iterator[tuple[str, Tensor | DataError]]":
    """What a model takes of each file, float32 (C, side, side) in 0 to 1, by a name; the error of one that is none."""
    import torch

    from cdarts.data.arrays import ARRAYS, array_images
    from cdarts.data.decoding import read_image
    from cdarts.export import as_images

    for path in paths:
        try:
            if not os.path.exists(path):  # noqa: PTH110
                raise DataError(f"{path}: no such file or folder")
            if path.suffix.lower() in ARRAYS:
                for name, values in array_images(path, side=rule.side, channels=rule.channels):
                    yield name, torch.from_numpy(values)
            else:
                pixels = read_image(path, side=rule.side, channels=rule.channels)
                yield str(path), as_images(pixels[None])[0]
        except DataError as error:
            yield str(path), error


def batched(items: "Iterator[Item]", size: int) -> "Iterator[list[Item]]":
    """Lists of so many items, the last one shorter."""
    while batch := list(islice(items, size)):
        yield batch


def images_in(folder: Path) -> list[Path]:
    """The images directly in a folder; where there are none, those in its folders. Raises `DataError`."""
    from cdarts.data.folder import find_images

    direct = find_images(folder)
    if direct:
        return direct
    inner = sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    return [image for entry in inner for image in find_images(entry)]


COMMAND = Predict
