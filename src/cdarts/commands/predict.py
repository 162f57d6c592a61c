"""Classes of images by a trained run."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from cdarts.errors import DataError


@dataclass(frozen=True, kw_only=True)
class Predict:
    """Print the most likely classes of each image."""

    run_dir: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="RUN")]]
    """A run of `cdarts run` or `cdarts retrain`."""
    images: tyro.conf.Positional[tuple[Path, ...]]
    """Image files, and folders whose images are taken."""
    top: int = 3
    """Classes to print for each image."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print one JSON object a line: image, class, and the probabilities of the likeliest classes."""

    def run(self) -> int:
        for given in self.images:
            if not given.exists():
                raise DataError(f"{given}: no such file or folder")
        import numpy as np
        import torch

        from cdarts.data.folder import find_images, read_image
        from cdarts.engine.runtime import choose_device
        from cdarts.model import find_model, load_model

        paths = [path for given in self.images for path in ([given] if given.is_file() else find_images(given))]
        if not paths:
            raise DataError("no images given: name image files, or folders with image files directly in them")
        device = choose_device(self.device)
        card, network = load_model(find_model(self.run_dir))
        network.to(device)
        top = min(max(self.top, 1), len(card.class_names))
        for path in paths:
            pixels = read_image(path, side=card.side, channels=card.image_channels)
            with torch.no_grad():
                probabilities = torch.softmax(network(card.normalise(np.stack([pixels]), device)).logits[0], dim=0)
            values, classes = (tensor.tolist() for tensor in probabilities.topk(top))
            names = [card.class_names[index] for index in classes]
            if self.json:
                likeliest = dict(zip(names, values, strict=True))
                print(json.dumps({"image": str(path), "class": names[0], "probabilities": likeliest}))
            else:
                print(f"{path}  " + "  ".join(f"{name} {value:.3f}" for name, value in zip(names, values, strict=True)))
        return 0


COMMAND = Predict
