"""What a published cell is worth on few images: beside its own edges with sep_conv_3x3 everywhere, and random cells.

    python benchmarks/cells.py FOLDER [--cell cdarts-cifar10] [--minutes 8] [--seeds 0 1 2] [--jobs 2]

Every network is trained by `cdarts retrain --preset quick` on `cifar10-5k` for the same time of one thread: epochs are
what fits into it by the seconds of a training step, measured of all cells in turn before anything is trained. Each seed
has a random cell of its own. What is done is not done again: start it anew after a stop. Prints a Markdown table.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import torch

from cdarts import zoo
from cdarts.algorithms.base import random_genotype
from cdarts.data import load
from cdarts.execution import choose_execution
from cdarts.retraining import RETRAINING_PRESETS
from cdarts.spaces import DartsSpace
from cdarts.statistics import spread
from cdarts.topology import Genotype

DATA = "cifar10-5k"
EVERYWHERE = "sep_conv_3x3"
ROUNDS = 5
STEPS = 3
"""Of each round and cell."""


def contenders(cell: str, seeds: list[int]) -> dict[str, dict[int, Genotype]]:
    """For each row of the table, the genotype of each seed."""
    published = zoo.load(cell)
    uniform = replace(
        published,
        cells={
            kind: tuple(replace(choice, operation=EVERYWHERE) for choice in choices)
            for kind, choices in published.cells.items()
        },
    )
    return {
        cell: dict.fromkeys(seeds, published),
        f"its edges, {EVERYWHERE} everywhere": dict.fromkeys(seeds, uniform),
        "random cells": {seed: random_genotype(DartsSpace(), seed, "cells") for seed in seeds},
    }


def seconds_per_epoch(genotypes: Collection[Genotype]) -> dict[Genotype, float]:
    """From the median of steps of all networks in turn, so that a busy moment of the machine meets them alike."""
    torch.set_num_threads(1)
    device = torch.device("cpu")
    execution, _ = choose_execution("auto", device, lambda line: print(line, file=sys.stderr))
    data, recipe = load(DATA), RETRAINING_PRESETS["quick"]
    tasks = {
        genotype: recipe.for_genotype(genotype).build(genotype, data, seed=0, device=device, execution=execution)
        for genotype in genotypes
    }
    batches = {}
    for genotype, task in tasks.items():
        task.start_epoch(0, task.plan()[0])
        batches[genotype] = task.batches(0)
    seconds: dict[Genotype, list[float]] = {genotype: [] for genotype in tasks}
    for number in range(ROUNDS):
        for genotype, task in tasks.items():
            for step in range(STEPS):
                began = time.process_time()
                task.step(number * STEPS + step, *next(batches[genotype]))
                if number:  # the first round pays for page faults and for compiling
                    seconds[genotype].append(time.process_time() - began)
    return {genotype: tasks[genotype].plan()[0].steps * median(each) for genotype, each in seconds.items()}


def planned(folder: Path, genotypes: Collection[Genotype], minutes: float) -> dict[str, int]:
    """Epochs of each genotype, by its text; what was planned once stays."""
    path = folder / f"epochs-of-{minutes:g}-minutes.json"
    epochs: dict[str, int] = json.loads(path.read_text()) if path.exists() else {}
    missing = [genotype for genotype in genotypes if genotype.text() not in epochs]
    if missing:
        for genotype, seconds in seconds_per_epoch(missing).items():
            epochs[genotype.text()] = max(1, round(60 * minutes / seconds))
        path.write_text(json.dumps(epochs, indent=2))
    return epochs


def train(run: Path, genotype: Genotype, epochs: int, seed: int) -> dict[str, Any]:
    """The summary of a training: begun, gone on with, or as it is."""
    summary = run / "summary.json"
    if not summary.exists():
        written = run.with_suffix(".json")
        written.write_text(json.dumps(genotype.to_json()))
        command = ["retrain", str(written), "--preset", "quick", "--data", DATA, "--epochs", str(epochs)]
        command += ["--evaluate-every", str(epochs), "--threads", "1", "--device", "cpu"]
        command += ["--seed", str(seed), "--out", str(run)]
        command = ["resume", str(run)] if (run / "config.json").exists() else command
        subprocess.run([sys.executable, "-m", "cdarts.cli", *command], check=True, stdout=subprocess.DEVNULL)
    result: dict[str, Any] = json.loads(summary.read_text())
    return result


def between(values: list[float], form: Callable[[float], str]) -> str:
    """The values' range in words."""
    low, high = form(min(values)), form(max(values))
    return low if low == high else f"{low} to {high}"


def row(name: str, summaries: list[dict[str, Any]], epochs: list[int]) -> str:
    """A line of the table."""
    accuracies = [100 * summary["test_accuracy"] for summary in summaries]
    over = spread(accuracies)
    deviation = "" if over.std is None else f" ± {over.std:.2f}"
    each = ", ".join(f"{accuracy:.1f}" for accuracy in accuracies)
    columns = (
        name,
        str(len(summaries)),
        f"{over.mean:.2f} %{deviation} ({each})",
        between([float(number) for number in epochs], lambda number: f"{number:.0f}"),
        between([summary["parameters"] for summary in summaries], lambda number: f"{number / 1e6:.3f} M"),
        between([summary["macs"] for summary in summaries], lambda number: f"{number / 1e6:.1f} M"),
        between([summary["seconds"] for summary in summaries], lambda number: f"{number:.0f}"),
    )
    return f"| {' | '.join(columns)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cell", default="cdarts-cifar10")
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=2)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    rows = contenders(arguments.cell, arguments.seeds)
    runs = {
        (name, seed): f"{kind}-of-{arguments.cell}-{arguments.minutes:g}-minutes-seed{seed}"
        for name, kind in zip(rows, ("itself", "edges", "random"), strict=True)
        for seed in arguments.seeds
    }
    genotypes = {genotype for seeds in rows.values() for genotype in seeds.values()}
    epochs = planned(arguments.folder, genotypes, arguments.minutes)
    with ThreadPoolExecutor(arguments.jobs) as pool:
        # seed by seed, so that what the machine does meanwhile meets all rows alike
        waiting = {
            (name, seed): pool.submit(
                train, arguments.folder / runs[name, seed], rows[name][seed], epochs[rows[name][seed].text()], seed
            )
            for seed in arguments.seeds
            for name in rows
        }
    print("| cell | n | test accuracy | epochs | parameters | multiply-adds | seconds |")
    print("|---|---|---|---|---|---|---|")
    for name in rows:
        summaries = [waiting[name, seed].result() for seed in arguments.seeds]
        print(row(name, summaries, [epochs[rows[name][seed].text()] for seed in arguments.seeds]))


if __name__ == "__main__":
    main()
