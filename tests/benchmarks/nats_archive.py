"""Writes archives in the documented form of NATS-Bench's simple topology archive, for tests of the converter."""

import bz2
import pickle
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cdarts.benchmarks import Table

LATENCY = 0.0157
SEEDS = (777, 888, 999)
SPREAD = {1: (0.0,), 2: (0.25, -0.25), 3: (0.25, -0.5, 0.25)}
"""What the seeds' accuracies differ by from their mean."""


def save(path: Path, value: object, *, protocol: int = 4) -> None:
    """As the benchmark's library saves: a pickle, compressed with bz2."""
    path.write_bytes(bz2.compress(pickle.dumps(value, protocol=protocol), compresslevel=1))


def _run(
    arch: str,
    run: str,
    seed: int,
    epochs: int,
    accuracies: Mapping[str, float],
    seconds: float,
    cost: tuple[float, float],
    whole_curve: bool,
) -> dict[str, Any]:
    """The state of a ResultsCount: one training. Accuracies by images; earlier epochs have other values."""
    reported = range(epochs) if whole_curve else [epochs - 1]
    evaluations = {
        f"{images}@{epoch}": accuracy if epoch == epochs - 1 else 1.0
        for images, accuracy in accuracies.items()
        for epoch in reported
    }
    return {
        "name": run,
        "net_state_dict": None,
        "train_acc1es": dict.fromkeys(reported, 99.0),
        "train_acc5es": dict.fromkeys(reported, 100.0),
        "train_losses": dict.fromkeys(reported, 0.1),
        "train_times": OrderedDict((epoch, seconds / epochs) for epoch in range(epochs))
        if whole_curve
        else OrderedDict({0: seconds}),
        "arch_config": {"channel": 16, "num_cells": 5, "arch_str": arch, "class_num": 10},
        "params": np.float64(cost[0]),
        "flop": cost[1],
        "seed": seed,
        "epochs": epochs,
        "latency": [np.float64(LATENCY)],
        "eval_names": list(accuracies),
        "eval_acc1es": evaluations,
        "eval_times": dict.fromkeys(evaluations, 1.0),
        "eval_losses": dict.fromkeys(evaluations, 0.5),
    }


def cell_state(table: Table, index: int, *, whole_curve: bool = True) -> OrderedDict[str, Any]:
    """The content of a cell's file, such that its means are the table's."""
    row, arch = table.row(index), table.archs[index]
    schedules: OrderedDict[str, Any] = OrderedDict()
    for epochs, seeds in ((12, SEEDS[:1]), (200, SEEDS[: int(row["seeds_200"])])):
        results = {}
        for number, seed in enumerate(seeds):
            for run, images, seconds in (
                ("cifar10-valid", {"x-valid": "c10_val", "ori-test": "c10_val"}, "c10_val_traintime_200"),
                ("cifar10", {"ori-test": "c10_test"}, "c10_val_traintime_200"),
                (
                    "cifar100",
                    {"ori-test": "c100_valtest", "x-valid": "c100_val", "x-test": "c100_test"},
                    "c100_traintime_200",
                ),
                (
                    "ImageNet16-120",
                    {"ori-test": "in16_valtest", "x-valid": "in16_val", "x-test": "in16_test"},
                    "in16_traintime_200",
                ),
            ):
                accuracies = {}
                for name, column in images.items():
                    by_seed = table.seeds.get(f"{column}_{epochs}")
                    if by_seed is not None:
                        accuracies[name] = float(by_seed[index, number])
                    elif column.endswith("valtest"):
                        accuracies[name] = 50.0
                    else:
                        accuracies[name] = float(row[f"{column}_{epochs}"]) + SPREAD[len(seeds)][number]
                results[run, seed] = _run(
                    arch,
                    run,
                    seed,
                    epochs,
                    accuracies,
                    float(row[seconds]) * epochs / 200,
                    (float(row["params_m"]), float(row["flops_m"])),
                    whole_curve,
                )
        schedules[str(epochs)] = {
            "arch_index": index,
            "arch_str": arch,
            "all_results": results,
            "dataset_seed": {run: list(seeds) for run in ("cifar10-valid", "cifar10", "cifar100", "ImageNet16-120")},
            "clear_net_done": True,
        }
    return schedules


def write_archive(folder: Path, table: Table, indices: Sequence[int], *, whole_curve: bool = True) -> Path:
    """An archive of some of the table's cells, in that order."""
    archive = folder / "NATS-tss-v1_0-3ffb9-simple"
    archive.mkdir()
    archs = [table.archs[index] for index in indices]
    save(
        archive / "meta.pickle.pbz2",
        {"meta_archs": archs, "total_archs": len(archs), "arch2infos": None, "evaluated_indexes": set()},
    )
    for number, index in enumerate(indices):
        save(archive / f"{number:06d}.pickle.pbz2", cell_state(table, index, whole_curve=whole_curve))
    return archive
