"""Own photos: `cdarts run` beside a ResNet-18 that is trained from scratch on the same pixels for the same time.

    python benchmarks/own_photos.py FOLDER [--budget 20m] [--seeds 0 1 2] [--threads N]

The photos are the 6,000 images of `cifar10-5k`, written to FOLDER/photos as JPEG and PNG files of 24 to 48 pixels in
four modes; a fifth is held out, the same for all. Each seed is a run of `cdarts run`, then torchvision's ResNet-18 in
its usual form, with the images, the augmentation, the batches and the seconds of that run, by SGD with half a cosine
over the epochs that fit. What is done is not done again: start it anew after a stop. Prints a Markdown table.
"""

import argparse
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from photos import write_photos
from residual_network import train_for
from torch import Tensor, nn
from torchvision.models import resnet18

from cdarts.data import Images, load
from cdarts.networks import Output
from cdarts.statistics import spread


class ResNet18(nn.Module):
    """torchvision's, with the output that the evaluation asks for; grey images as three equal channels."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.body = resnet18(weights=None, num_classes=num_classes)

    def forward(self, images: Tensor) -> Output:
        colour = images.expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last)
        return Output(self.body(colour), [])


def photos(folder: Path) -> Path:
    """The folder of photos, written if it is not there yet."""
    path, done = folder / "photos", folder / "photos.done"
    if not done.exists():
        data = load("cifar10-5k")
        assert isinstance(data.train, Images) and isinstance(data.test, Images)
        pixels = np.concatenate([data.train.pixels, data.test.pixels])
        labels = np.concatenate([data.train.labels, data.test.labels])
        write_photos(path, pixels, labels, data.class_names, sides=(24, 48))
        done.touch()
    return path


def searched(folder: Path, path: Path, seed: int, arguments: argparse.Namespace) -> Path:
    """The run of a seed, begun, gone on with, or as it is."""
    run = folder / f"cdarts-seed{seed}"
    command = ["resume", str(run)]
    if not (run / "config.json").exists():
        command = ["run", "--data", str(path), "--budget", arguments.budget, "--seed", str(seed), "--out", str(run)]
        command += ["--threads", str(arguments.threads)] if arguments.threads else []
    if not (run / "summary.json").exists():
        subprocess.run([sys.executable, "-m", "cdarts.cli", *command], check=True)
    return run


def compared(run: Path, path: Path, seed: int) -> dict[str, Any]:
    """ResNet-18 for the time of a run, trained or as it is."""
    result_path = run.with_name(f"resnet18-seed{seed}.json")
    if not result_path.exists():
        summary, config = (json.loads((run / name).read_text()) for name in ("summary.json", "config.json"))
        data = load(str(path), image_size=config["settings"]["image_size"])
        recipe = json.loads((run / "plan.json").read_text())["training"]
        result = train_for(summary["seconds"], lambda: ResNet18(data.num_classes), data, recipe, seed)
        result_path.write_text(json.dumps(result))
    found: dict[str, Any] = json.loads(result_path.read_text())
    return found


def row(name: str, results: list[dict[str, Any]]) -> str:
    """A line of the table."""
    accuracies = [100 * result["test_accuracy"] for result in results]
    over = spread(accuracies)
    deviation = "" if over.std is None else f" ± {over.std:.2f}"
    each = ", ".join(f"{accuracy:.2f}" for accuracy in accuracies)
    counts = sorted({result["parameters"] for result in results})
    parameters = f"{counts[0]:,}" if len(counts) == 1 else f"{counts[0]:,} to {counts[-1]:,}"
    seconds = math.fsum(result["seconds"] for result in results) / len(results)
    return f"| {name} | {len(results)} | {over.mean:.2f} %{deviation} ({each}) | {parameters} | {seconds:.0f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--budget", default="20m")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--threads", type=int)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    path = photos(arguments.folder)
    ours, theirs = [], []
    for seed in arguments.seeds:
        run = searched(arguments.folder, path, seed, arguments)
        theirs.append(compared(run, path, seed))
        ours.append(json.loads((run / "summary.json").read_text()))
    print("| network | n | test accuracy | parameters | seconds |")
    print("|---|---|---|---|---|")
    print(row(f"cdarts run --budget {arguments.budget}", ours))
    print(row("ResNet-18 from scratch", theirs))


if __name__ == "__main__":
    main()
