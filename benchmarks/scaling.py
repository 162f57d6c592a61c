"""How time and memory of S-Net's step grow with channels, cells, the images' side and the batch.

    python benchmarks/scaling.py [--executions share fused] [--rounds 3] [--json FILE] [--plot FILE.svg]

One thing is varied at a time about a middle of 16 channels, 5 cells, 24 pixels and 32 images in the DARTS space. The
exponent is the slope of a straight line through the logarithms: 1 where cost is in proportion. Executions take turns;
times are medians of process CPU time on one thread, memory is the rise of the peak in a process of its own (Linux).
The plot needs matplotlib.
"""

import argparse
import json
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from search_step import peak

from cdarts.execution import EXECUTIONS
from cdarts.networks import Network
from cdarts.randomness import generator, seeded
from cdarts.relaxations import Softmax
from cdarts.spaces import DartsSpace


@dataclass(frozen=True)
class Size:
    channels: int = 16
    cells: int = 5
    side: int = 24
    batch: int = 32


VARIED: dict[str, tuple[int, ...]] = {
    "channels": (8, 16, 32, 48),
    "cells": (3, 5, 8, 14),
    "side": (12, 16, 24, 40),
    "batch": (8, 16, 32, 64),
}


def step_of(size: Size, execution: str) -> Callable[[], object]:
    """Forward and backward for the weights of an S-Net."""
    space = DartsSpace(pool_batchnorm=True)
    topology = space.supernet()
    with seeded(0, "network"):
        network = Network(
            space,
            topology,
            cells=size.cells,
            channels=size.channels,
            num_classes=10,
            affine=False,
            execution=execution,
        )
    weights = {kind: weight.detach() for kind, weight in Softmax(topology, generator(0, "alpha"))().items()}
    images = torch.randn(size.batch, 3, size.side, size.side, generator=generator(0, "images"))
    labels = torch.arange(size.batch) % 10
    return lambda: torch.autograd.backward(F.cross_entropy(network(images, weights).logits, labels))


def times(size: Size, executions: Sequence[str], rounds: int) -> dict[str, float]:
    """Median seconds of CPU by execution; the first round is not counted."""
    steps = {execution: step_of(size, execution) for execution in executions}
    taken: dict[str, list[float]] = {execution: [] for execution in executions}
    for number in range(rounds + 1):
        for execution, step in steps.items():
            began = time.process_time()
            step()
            if number:
                taken[execution].append(time.process_time() - began)
    return {execution: statistics.median(values) for execution, values in taken.items()}


def memory(size: Size, execution: str) -> float:
    """MiB."""
    command = [sys.executable, __file__, "--memory-of", json.dumps(asdict(size)), execution]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def print_memory(size: Size, execution: str) -> None:
    step = step_of(size, execution)
    Path("/proc/self/clear_refs").write_text("5")
    before = peak()
    step()
    step()
    print((peak() - before) / 1024)


def exponent(x: Sequence[float], y: Sequence[float]) -> float:
    """Slope of the straight line through the logarithms, least squares."""
    return statistics.linear_regression([math.log(v) for v in x], [math.log(v) for v in y]).slope


def plot(results: dict[str, Any], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, len(results), figsize=(3.2 * len(results), 6), sharey="row", layout="constrained")
    for column, (varied, by_execution) in enumerate(results.items()):
        for row, (quantity, unit) in enumerate((("seconds", "s of CPU"), ("memory_mib", "MiB"))):
            axis = axes[row, column]
            for execution, series in by_execution.items():
                label = f"{execution}: exponent {series[f'{quantity}_exponent']:.2f}"
                axis.plot(series["sizes"], series[quantity], marker="o", markersize=4, linewidth=1.4, label=label)
            axis.set(xscale="log", yscale="log", xlabel=varied, xticks=series["sizes"])
            axis.set_xticks(series["sizes"], [str(size) for size in series["sizes"]])
            axis.minorticks_off()
            axis.grid(alpha=0.3)
            axis.legend(fontsize=7, frameon=False)
            if column == 0:
                axis.set_ylabel(unit)
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--executions", nargs="+", choices=EXECUTIONS, default=["share", "fused"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--memory-of", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.memory_of is not None:
        size, execution = arguments.memory_of
        print_memory(Size(**json.loads(size)), execution)
        return
    results: dict[str, Any] = {}
    for varied, sizes in VARIED.items():
        rows = [times(replace(Size(), **{varied: size}), arguments.executions, arguments.rounds) for size in sizes]
        results[varied] = {}
        for execution in arguments.executions:
            seconds = [row[execution] for row in rows]
            mib = [memory(replace(Size(), **{varied: size}), execution) for size in sizes]
            results[varied][execution] = {
                "sizes": sizes,
                "seconds": seconds,
                "memory_mib": mib,
                "seconds_exponent": exponent(sizes, seconds),
                "memory_mib_exponent": exponent(sizes, mib),
            }
            print(
                f"{varied:9}{execution:10} sizes {' '.join(map(str, sizes))}  "
                f"time ^ {exponent(sizes, seconds):.2f}  memory ^ {exponent(sizes, mib):.2f}",
                flush=True,
            )
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(results, indent=1) + "\n")
    if arguments.plot is not None:
        plot(results, arguments.plot)


if __name__ == "__main__":
    main()
