"""What limits on multiply-adds cost in accuracy: cells that finished searches give under five limits, and the front.

The strengths of each run's last epoch are discretised anew under each limit; nothing is trained. Accuracies are true
ones, of NAS-Bench-201's table. `python benchmarks/limits.py RUN... --table FILE --out FIGURE.svg`
"""

import argparse
import json
import statistics
from pathlib import Path

from cdarts.benchmarks.nasbench201 import Table, find_table
from cdarts.cost import Bounds, CostTable, Selection, Size, cost_table
from cdarts.report.plots import Panel, Point, scatter_plots
from cdarts.spaces import NasBench201Space
from cdarts.topology import Genotype

LIMITS = (30, 60, 90, 120, 150)
"""Most multiply-adds, in millions."""
DRAWN = {"cifar10": ("CIFAR-10", 86.0), "imagenet16-120": ("ImageNet16-120", 28.0)}
"""Titles, and the least accuracy in percent that is drawn."""


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("runs", nargs="+", type=Path)
    arguments.add_argument("--table", type=Path)
    arguments.add_argument("--out", type=Path, required=True)
    given = arguments.parse_args()
    space, table = NasBench201Space(), Table.load(find_table(given.table))
    costs = cost_table(space, Size(space.usual_cells, space.usual_channels, 10, 32, 3))
    macs = [costs.cost(table.genotype(index)).macs / 1e6 for index in range(15_625)]
    chosen = {(run.name, limit): found(run, limit, costs) for run in given.runs for limit in LIMITS}
    panels = []
    for dataset, (title, least) in DRAWN.items():
        accuracies = table.accuracies(dataset, "test", 200)
        ordered = sorted(range(len(macs)), key=lambda index: (macs[index], -accuracies[index]))
        points, best = [], least
        for index in ordered:
            if accuracies[index] > best:
                best = float(accuracies[index])
                points.append(Point(macs[index], best, hollow=True, label="front"))
        hidden = 0
        for (run, limit), genotype in chosen.items():
            index = table.index(genotype)
            assert macs[index] <= limit
            if accuracies[index] >= least:
                points.append(Point(macs[index], float(accuracies[index]), label=f"{run}, at most {limit} M"))
            else:
                hidden += 1
        for limit in LIMITS:
            reached = [float(accuracies[table.index(chosen[run.name, limit])]) for run in given.runs]
            spread = (
                f"{statistics.mean(reached):.2f} ± {statistics.stdev(reached):.2f}" if len(reached) > 1 else reached
            )
            front = max(float(accuracies[index]) for index in ordered if macs[index] <= limit)
            print(f"| {title} | {limit} M | {spread} | {min(reached):.2f} | {front:.2f} |")
        caption = f"{hidden} found below {least:g} % not shown" if hidden else ""
        panels.append(Panel(title, caption, "million multiply-adds", "test accuracy, %", points))
    note = f"filled: {len(given.runs)} searches under {', '.join(map(str, LIMITS))} M; hollow: front of all cells"
    given.out.write_text(scatter_plots("Accuracy under limits on multiply-adds", note, panels), encoding="utf-8")


def found(run: Path, limit: int, costs: CostTable) -> Genotype:
    """What a run's last strengths give under a limit."""
    line = json.loads((run / "genotypes.jsonl").read_text(encoding="utf-8").splitlines()[-1])
    return Selection(NasBench201Space(), costs, Bounds(macs=limit * 10**6)).derive(line["strengths"])


if __name__ == "__main__":
    main()
