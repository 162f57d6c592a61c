"""What NAS-Bench-201 measured for a cell: accuracy, rank and regret on three data sets, and costs on devices."""

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console
from rich.table import Table as Grid

from cdarts import zoo
from cdarts.benchmarks.nasbench201 import (
    DATASETS,
    METRICS,
    NUM_CELLS,
    SPACE,
    HardwareCosts,
    Result,
    Table,
    find_table,
)
from cdarts.errors import GenotypeError
from cdarts.topology import Genotype


@dataclass(frozen=True, kw_only=True)
class Query:
    """Look a cell up in the NAS-Bench-201 table.

    Accuracies are percent, means over two or three seeds with the 200-epoch schedule. Ranks and percentiles are by test
    accuracy after 200 epochs.
    """

    target: tyro.conf.Positional[Annotated[str, tyro.conf.arg(metavar="TARGET")]]
    """A published cell (cdarts show genotypes), a genotype file, a run directory, or |op~0|+... in quotes."""
    table: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """The table; default: $CDARTS_NASBENCH201, else nasbench201.csv.gz in $CDARTS_DATA, else in ~/.cache/cdarts."""
    dataset: Literal["cifar10", "cifar100", "imagenet16-120"] | None = None
    """One data set; default: all three."""
    costs: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """An archive of HW-NAS-Bench's costs: latency and energy on devices are printed too."""
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print one JSON object instead."""

    def run(self) -> int:
        genotype = zoo.find(self.target)
        if genotype.space != SPACE:
            raise GenotypeError(
                f"{self.target}: a genotype of space {genotype.space!r}; NAS-Bench-201 measured the cells of space "
                f"{SPACE!r} only"
            )
        table = Table.load(find_table(self.table))
        names = list(DATASETS) if self.dataset is None else [self.dataset]
        results = {name: table.result(genotype, name) for name in names}
        index = table.index(genotype)
        hardware = None if self.costs is None else HardwareCosts.load(self.costs.expanduser())
        costs = None if hardware is None else {name: hardware.of(index, name) for name in names}
        if self.json:
            print(json.dumps(_as_json(table, index, results, costs), indent=2, allow_nan=False))
        else:
            _print(genotype, index, results, costs)
        return 0


Costs = dict[str, dict[str, float]]


def _as_json(table: Table, index: int, results: dict[str, Result], costs: Costs | None) -> dict[str, object]:
    answer: dict[str, object] = {
        "index": index,
        "genotype": table.archs[index],
        "cells": NUM_CELLS,
        "results": {name: dataclasses.asdict(result) for name, result in results.items()},
    }
    if costs is not None:
        answer["costs"] = {
            name: {metric: {"value": value, "unit": METRICS[metric][1]} for metric, value in row.items()}
            for name, row in costs.items()
        }
    return answer


LINES: dict[str, Callable[[Result], str]] = {
    "test accuracy, 200 epochs": lambda result: f"{result.test_200:.2f} %",
    "  points below the best": lambda result: f"{result.test_regret:.2f}",
    f"  rank among {NUM_CELLS:,}": lambda result: f"{result.rank:,}",
    "  percentile": lambda result: f"{result.percentile:.2f}",
    "validation accuracy, 200 epochs": lambda result: f"{result.val_200:.2f} %",
    "  points below the best ": lambda result: f"{result.val_regret:.2f}",
    "test accuracy, 12 epochs": lambda result: f"{result.test_12:.2f} %",
    "validation accuracy, 12 epochs": lambda result: f"{result.val_12:.2f} %",
    "parameters, millions": lambda result: f"{result.params_m:.6f}",
    "multiply-adds, millions": lambda result: f"{result.flops_m:.5f}",
    "training for 200 epochs, seconds": lambda result: f"{result.train_seconds:,.0f}",
}
"""What is printed of a result, line by line."""


def _print(genotype: Genotype, index: int, results: dict[str, Result], costs: Costs | None) -> None:
    # text that comes from files stays text: no markup
    console = Console(markup=False, emoji=False, highlight=False)
    one = next(iter(results.values()))
    print(f"genotype  {genotype.text()}")
    others = {1: "no other cell", 2: "1 other cell"}.get(one.iso_cells, f"{one.iso_cells - 1} other cells")
    print(f"row       {index} of NAS-Bench-201, function class {one.iso_group}, shared with {others}\n", flush=True)
    grid = _grid(results)
    for label, shown in LINES.items():
        grid.add_row(label, *(shown(result) for result in results.values()))
    console.print(grid)
    by_seed = [(name, result.seeds_200) for name, result in results.items() if result.seeds_200 is not None]
    if by_seed:
        print("\naccuracy by seed, 200 epochs", flush=True)
    for name, accuracies in by_seed:
        images = " and ".join(SPLITS[split] for split in DATASETS[name].seed_splits)
        print(
            f"  {DATASETS[name].title:15} {' '.join(f'{accuracy:.2f}' for accuracy in accuracies)}  ({images} images)"
        )
    if costs is not None:
        print(flush=True)
        grid = _grid(results)
        for metric, (title, unit) in METRICS.items():
            label = f"{title}, {unit}" if unit else title
            grid.add_row(label, *(f"{costs[name][metric]:.4g}" for name in results))
        console.print(grid)


SPLITS = {"val": "validation", "test": "test"}


def _grid(results: dict[str, Result]) -> Grid:
    grid = Grid(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    grid.add_column("", overflow="fold")
    for name in results:
        grid.add_column(DATASETS[name].title, justify="right", overflow="fold")
    return grid


COMMAND = Query
