"""Whether the choice of an execution changes what a search finds, more than the last bit of alpha does.

    python benchmarks/agreement.py [--protocol nasbench201-small] [--method cdarts] [--seeds 100-107] --out DIR

Executions compute the same numbers in another order, so single-precision results differ in their last bits, and a
search is long enough to amplify that. The yardsticks are `plain` against itself with every alpha, or every weight of
S-Net, moved to the next number that single precision has. (Alphas begin so near zero that a move leaves nearly all
mixing weights as they are; a move of weights is what rounding does everywhere.) Each seed is searched once with each;
the table says how often two of them end with the same cell, how many of a cell's choices agree, and what NAS-Bench-201
says of both. Results are kept in DIR/results.json, and what stands there already is not searched again.
"""

import argparse
import json
import math
import statistics
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from torch import nn

from cdarts.algorithms.cyclic import CyclicSearch
from cdarts.benchmarks.nasbench201 import Table, find_table
from cdarts.commands.common import ExecutionChoice
from cdarts.commands.compare import method_settings
from cdarts.commands.many_runs import parse_seeds
from cdarts.commands.search import Search
from cdarts.protocols import PROTOCOLS
from cdarts.topology import Genotype, parse_genotype

ALPHA_MOVED, WEIGHTS_MOVED = "plain, alpha one bit off", "plain, weights one bit off"
VARIANTS: dict[str, ExecutionChoice] = {
    "plain": "plain",
    ALPHA_MOVED: "plain",
    WEIGHTS_MOVED: "plain",
    "share": "share",
    "fused": "fused",
}
"""What is searched -> its execution."""


def move(parameters: Iterable[nn.Parameter]) -> None:
    """Every number to the next larger one."""
    for parameter in parameters:
        parameter.data = torch.nextafter(parameter.data, torch.full_like(parameter, math.inf))


def search(method: str, protocol_name: str, seed: int, variant: str) -> Genotype:
    """A whole search, without a run directory."""
    protocol = PROTOCOLS[protocol_name]
    algorithm, change = method_settings(method, protocol)
    settings = change(
        Search(
            data=protocol.data,
            image_size=protocol.image_size,
            algorithm=algorithm,
            seed=seed,
            execution=VARIANTS[variant],
        )
    )
    task = settings.build(settings.load_data(), torch.device("cpu"))
    assert isinstance(task, CyclicSearch)
    if variant == ALPHA_MOVED:
        move(task.relaxation.parameters())
    if variant == WEIGHTS_MOVED:
        move(task.search_net.parameters())
    for index, epoch in enumerate(task.plan()):
        task.start_epoch(index, epoch)
        for position, batches in enumerate(task.batches(index)):
            task.step(position, *batches)
        task.end_epoch(index, {})
    return task.genotype()


def table(found: dict[str, str], seeds: Sequence[int]) -> str:
    """How often two searches of a seed agree, in Markdown."""
    truth = Table.load(find_table())
    lines = [
        "| pair | the same cell | choices that agree | mean difference in true validation accuracy (points) |",
        "|---|---|---|---|",
    ]
    for one, other in (
        ("plain", ALPHA_MOVED),
        ("plain", WEIGHTS_MOVED),
        ("plain", "share"),
        ("plain", "fused"),
        ("share", "fused"),
    ):
        pairs = [(parse_genotype(found[f"{seed} {one}"]), parse_genotype(found[f"{seed} {other}"])) for seed in seeds]
        same = sum(a == b for a, b in pairs)
        matches = [x == y for a, b in pairs for x, y in zip(a.operations(), b.operations(), strict=True)]
        gaps = [abs(truth.result(a, "cifar10").val_200 - truth.result(b, "cifar10").val_200) for a, b in pairs]
        lines.append(
            f"| {one} and {other} | {same} of {len(pairs)} | {sum(matches)} of {len(matches)} | "
            f"{statistics.mean(gaps):.2f} |"
        )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--protocol", default="nasbench201-small", choices=list(PROTOCOLS))
    parser.add_argument("--method", default="cdarts")
    parser.add_argument("--seeds", default="100-107")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    options.out.mkdir(parents=True, exist_ok=True)
    file = options.out / "results.json"
    found: dict[str, str] = json.loads(file.read_text()) if file.exists() else {}
    for seed in parse_seeds(options.seeds):
        for variant in VARIANTS:
            key = f"{seed} {variant}"
            if key not in found:
                began = time.process_time()
                found[key] = search(options.method, options.protocol, seed, variant).text()
                file.write_text(json.dumps(found, indent=1))
                print(f"{key}: {found[key]} ({time.process_time() - began:.0f} s of CPU)", flush=True)
    print(table(found, parse_seeds(options.seeds)))


if __name__ == "__main__":
    main()
