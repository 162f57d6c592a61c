"""A yardstick for `cdarts run`: a hand-made residual network of the same size, trained for the same time.

    python benchmarks/residual_network.py RUN [--data DATA] [--threads N] [--blocks N] [--whole]

RUN is a directory of `cdarts run`: its ``summary.json`` gives parameters, time, seed, its ``plan.json`` the recipe.
The network is the classical one for CIFAR (He et al., 2016): three stages of basic blocks, its width chosen to come
closest to the number of parameters. `--whole` gives it the time of search and retraining together instead of the
retraining's alone. Prints one JSON line.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cdarts.data import Batches, ImageData, evaluation_batches, load
from cdarts.engine.descent import descend
from cdarts.engine.optimizers import Sgd
from cdarts.networks import Output
from cdarts.operations import Conv1x1
from cdarts.randomness import seeded
from cdarts.retraining.task import evaluate


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut, which is projected where the shape changes."""

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False),
            nn.BatchNorm2d(c_out),
            nn.ReLU(),
            nn.Conv2d(c_out, c_out, 3, 1, 1, bias=False),
            nn.BatchNorm2d(c_out),
        )
        same = stride == 1 and c_in == c_out
        self.shortcut = nn.Identity() if same else nn.Sequential(Conv1x1(c_in, c_out, stride), nn.BatchNorm2d(c_out))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.body(x) + self.shortcut(x))


class ResidualNetwork(nn.Module):
    """Stem, three stages of basic blocks with widths w, 2w, 4w, global average pooling, linear classifier."""

    def __init__(self, width: int, blocks: int, image_channels: int, num_classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [
            nn.Conv2d(image_channels, width, 3, 1, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
        ]
        channels = width
        for stage in range(3):
            for block in range(blocks):
                layers.append(BasicBlock(channels, width * 2**stage, 2 if stage and not block else 1))
                channels = width * 2**stage
        self.body = nn.Sequential(*layers)
        self.classifier = nn.Linear(channels, num_classes)

    def forward(self, images: Tensor) -> Output:
        return Output(
            self.classifier(self.body(images.contiguous(memory_format=torch.channels_last)).mean(dim=(2, 3))), []
        )


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def train_for(
    seconds: float, make: Callable[[], nn.Module], data: ImageData, recipe: Mapping[str, Any], seed: int
) -> dict[str, Any]:
    """Train a network that gives an `Output` for as many epochs as fit, half a cosine over them, and test it once.

    ``recipe``: the retraining of a run's plan; batch size, rate, warm-up, label smoothing, cutout and clipping are its.
    An epoch is timed first and thrown away. On the CPU.
    """
    augmentation = replace(data.augmentation, cutout=min(recipe["cutout"], data.side // 2))
    device = torch.device("cpu")

    def trained(epochs: int) -> Iterator[float]:
        """Train for `epochs`; yields after every epoch the test accuracy in the last one, else nan."""
        with seeded(seed, "residual_network"):
            network = make().to(memory_format=torch.channels_last)
        batches = Batches(
            data.train,
            data,
            batch_size=recipe["batch_size"],
            seed=seed,
            stream="retrain",
            augmentation=augmentation,
            device=device,
        )
        sgd = Sgd(lr=recipe["lr"], lr_end=0.0, weight_decay=5e-4, clip_norm=recipe["clip_norm"])
        optimizer = sgd.build(network.named_parameters())
        warmup = min(recipe["warmup_epochs"], epochs // 4)
        for epoch in range(epochs):
            optimizer.set_lr(recipe["lr"] * (epoch + 1) / warmup if epoch < warmup else sgd.lr_at(epoch / epochs))
            for images, labels in batches(epoch):
                loss = F.cross_entropy(network(images).logits, labels, label_smoothing=recipe["label_smoothing"])
                descend(loss, optimizer)
            if epoch < epochs - 1:
                yield float("nan")
        # it answers as a `Network` does
        yield evaluate(network, evaluation_batches(data.test, data, 250, device)).accuracy  # type: ignore[arg-type]

    began = time.monotonic()
    next(trained(1000))
    epochs = max(1, int(seconds / (time.monotonic() - began)))
    began = time.monotonic()
    *_, accuracy = trained(epochs)
    return {
        "test_accuracy": accuracy,
        "parameters": parameters(make()),
        "epochs": epochs,
        "seed": seed,
        "seconds": round(time.monotonic() - began, 1),
        "threads": torch.get_num_threads(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--data")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--blocks", type=int, default=2)
    parser.add_argument("--whole", action="store_true")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    summary = json.loads((arguments.run / "summary.json").read_text())
    config = json.loads((arguments.run / "config.json").read_text())
    seconds = summary["retraining_seconds"] + (summary["search_seconds"] if arguments.whole else 0.0)
    data = load(arguments.data or config["settings"]["data"], image_size=config["settings"]["image_size"])

    def make(width: int) -> ResidualNetwork:
        return ResidualNetwork(width, arguments.blocks, data.channels, data.num_classes)

    width = min(range(4, 129), key=lambda candidate: abs(parameters(make(candidate)) - summary["parameters"]))
    recipe = json.loads((arguments.run / "plan.json").read_text())["training"]
    result = train_for(seconds, lambda: make(width), data, recipe, summary["seed"])
    print(json.dumps({**result, "width": width}))


if __name__ == "__main__":
    main()
