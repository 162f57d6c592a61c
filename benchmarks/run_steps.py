"""How long the steps of a run of `cdarts run` take by each execution: what its search and its training gain by it.

    python benchmarks/run_steps.py RUN [--executions plain share fused] [--rounds 5] [--threads 1]

RUN's own settings, data and cell. Executions take turns; every kind of step is tried a few times a round, and counts as
often as the plan has it. Prints the whole of a stage's steps against the first execution named: median over rounds of
wall time. Images, checkpoints and tests take the same time in all and are left out.
"""

import argparse
import json
import statistics
from collections.abc import Callable
from pathlib import Path

import torch

from cdarts.budget import TrainingPlan
from cdarts.commands.run import Run, plan_of
from cdarts.engine.forecast import forecast
from cdarts.engine.task import Task
from cdarts.execution import EXECUTIONS
from cdarts.settings import from_json
from cdarts.topology import read_genotype


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--executions", nargs="+", choices=EXECUTIONS, default=["plain", "share", "fused"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    device = torch.device("cpu")
    path = arguments.run / "config.json"
    config = json.loads(path.read_text())
    settings = from_json(Run, config["settings"], str(path))
    data, genotype = settings.load_data(), read_genotype(arguments.run / "genotype.json")
    plan_path = arguments.run / "plan.json"
    search = plan_of(config, arguments.run).search
    training = from_json(TrainingPlan, json.loads(plan_path.read_text()), str(plan_path)).training
    stages: dict[str, Callable[[str], Task]] = {
        "training": lambda name: training.build(genotype, data, seed=0, device=device, execution=name)
    }
    if search is not None:
        stages["search"] = lambda name: search.build(data, seed=0, device=device, execution=name)
    print(f"{arguments.run.name}, {arguments.threads} threads, {arguments.rounds} rounds")
    for stage, build in stages.items():
        seconds: dict[str, list[float]] = {name: [] for name in arguments.executions}
        for _ in range(arguments.rounds):
            for name in arguments.executions:
                seconds[name].append(forecast(build(name)).seconds)
        medians = {name: statistics.median(each) for name, each in seconds.items()}
        first = medians[arguments.executions[0]]
        ratios = "  ".join(f"{name} {first / median:.2f}x" for name, median in medians.items())
        print(f"{stage:10}{ratios}  ({arguments.executions[0]} {first:.0f} s)", flush=True)


if __name__ == "__main__":
    main()
