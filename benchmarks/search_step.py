"""How long a step of differentiable search takes, how much memory, how exactly: every execution beside `plain`.

    python benchmarks/search_step.py [--cases NAME ...] [--executions NAME ...] [--rounds 5] [--threads 1] [--json FILE]
    python benchmarks/search_step.py --device cuda

Executions take turns within one process, with the same weights, the same alpha and the same images: A B C A B C. The
first round is not counted, it pays for page faults. Times are given as ratios to `plain` (or to the first execution
named), of the median and of the minimum over rounds: process CPU time, and wall time beside it. Memory is the rise of
the process's peak over what it held once network and images were there, each execution in a process of its own
(Linux). Numerics: a step in double precision (against `plain` in double precision, which tests the formulas) and in
single precision (its distance from the double-precision truth beside that of `plain`), as the largest distance of any
tensor relative to that tensor's norm.

On a GPU the wall time counts, waiting for the device at either end, and memory is what its allocator held at most. A
`captured` step is only a replay from the third on; the first two rounds are not counted there.
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from math import nan
from pathlib import Path
from typing import Any, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from cdarts import zoo
from cdarts.algorithms import CyclicConfig
from cdarts.data import Batch, load
from cdarts.errors import ConfigurationError
from cdarts.execution import EXECUTIONS, choose_execution
from cdarts.execution.choice import ExecutionName
from cdarts.networks import Network, frozen
from cdarts.presets import PRESETS
from cdarts.randomness import generator, seeded
from cdarts.relaxations import Softmax
from cdarts.spaces import DartsSpace, NasBench201Space, Space

SIDE, BATCH, CHANNELS, CLASSES = 32, 64, 16, 10
EXACT_BATCH = 16  # images of the steps in double precision, which would otherwise need some 20 GiB
DARTS, NASBENCH201 = DartsSpace(pool_batchnorm=True), NasBench201Space()

Step = Callable[[], list[Tensor]]
"""One step; gives loss, gradients and BatchNorm statistics."""


Build = Callable[[str, torch.dtype, int, torch.device], Step]
"""From execution, type of numbers, images in a batch and device to the step."""


@dataclass(frozen=True)
class Case:
    """What is timed."""

    title: str
    build: Build
    has_numerics: bool = True


def images_and_labels(dtype: torch.dtype, batch: int, device: torch.device) -> Batch:
    draw = generator(0, "benchmark")
    images = torch.randn(batch, 3, SIDE, SIDE, generator=draw)
    return Batch(images.to(device, dtype), torch.randint(CLASSES, (batch,), generator=draw).to(device))


def search_step(space: Space, cells: int, learns_alpha: bool) -> Build:
    """S-Net forward and backward: gradients of its weights with alpha held, or of alpha with the weights held."""

    def build(execution: str, dtype: torch.dtype, batch: int, device: torch.device) -> Step:
        topology = space.supernet()
        with seeded(0, "network"):
            network = Network(
                space, topology, cells=cells, channels=CHANNELS, num_classes=CLASSES, affine=False, execution=execution
            ).to(device, dtype)
        relaxation = Softmax(topology, generator(0, "alpha"), scale=0.5).to(device, dtype)
        images, labels = images_and_labels(dtype, batch, device)

        def step() -> list[Tensor]:
            weights = relaxation()
            if learns_alpha:
                with frozen(network):
                    loss = F.cross_entropy(network(images, weights).logits, labels)
                gradients = torch.autograd.grad(loss, list(relaxation.parameters()))
            else:
                held = {kind: weight.detach() for kind, weight in weights.items()}
                loss = F.cross_entropy(network(images, held).logits, labels)
                gradients = torch.autograd.grad(loss, list(network.parameters()))
            return [loss.detach(), *gradients, *statistics_of(network)]

        return step

    return build


def evaluation_step(space: Space, genotype: str, cells: int) -> Build:
    """E-Net forward and backward."""

    def build(execution: str, dtype: torch.dtype, batch: int, device: torch.device) -> Step:
        topology = space.topology(zoo.load(genotype))
        with seeded(0, "network"):
            network = Network(
                space, topology, cells=cells, channels=CHANNELS, num_classes=CLASSES, affine=True, execution=execution
            ).to(device, dtype)
        images, labels = images_and_labels(dtype, batch, device)

        def step() -> list[Tensor]:
            loss = F.cross_entropy(network(images).logits, labels)
            gradients = torch.autograd.grad(loss, list(network.parameters()))
            return [loss.detach(), *gradients, *statistics_of(network)]

        return step

    return build


def joint_step(preset: str) -> Build:
    """A whole step of joint optimisation: alpha, E-Net, S-Net, optimizers included."""

    def build(execution: str, dtype: torch.dtype, batch: int, device: torch.device) -> Step:
        assert dtype == torch.float32
        config = PRESETS[preset]
        assert isinstance(config, CyclicConfig)
        config = replace(config, batch_size=batch, channels=CHANNELS)
        task = config.build(load("synthetic"), seed=0, device=device, execution=execution)
        plan = task.plan()
        index = next(i for i, epoch in enumerate(plan) if epoch.phase == "joint")
        task.start_epoch(index, plan[index])
        images, labels = images_and_labels(dtype, batch, device)
        halves = (Batch(images, labels % task.num_classes),) * 2
        return lambda: list(task.step(0, *halves).values())

    return build


def statistics_of(network: Network) -> list[Tensor]:
    return [buffer.clone() for buffer in network.buffers() if buffer.is_floating_point()]


CASES = {
    "darts-weights": Case("S-Net, DARTS space, 8 cells: weights", search_step(DARTS, 8, learns_alpha=False)),
    "darts-alpha": Case("S-Net, DARTS space, 8 cells: alpha", search_step(DARTS, 8, learns_alpha=True)),
    "darts-eval": Case("E-Net, DARTS space, 20 cells", evaluation_step(DartsSpace(), "darts-v2", 20)),
    "darts-joint": Case("CDARTS joint step, DARTS space", joint_step("cdarts"), has_numerics=False),
    "nasbench201-weights": Case("S-Net, NAS-Bench-201, 15 cells: weights", search_step(NASBENCH201, 15, False)),
    "nasbench201-alpha": Case("S-Net, NAS-Bench-201, 15 cells: alpha", search_step(NASBENCH201, 15, True)),
    "nasbench201-eval": Case(
        "E-Net, NAS-Bench-201, 15 cells", evaluation_step(NASBENCH201, "cdarts-nasbench201-1", 15)
    ),
    "nasbench201-joint": Case("CDARTS joint step, NAS-Bench-201", joint_step("cdarts-nasbench201"), has_numerics=False),
}


def available(device: torch.device) -> list[str]:
    """Every execution that computes on the device, in the order of `EXECUTIONS`."""
    found = []
    for name in get_args(ExecutionName):
        with suppress(ConfigurationError):
            choose_execution(name, device)
            found.append(name)
    return found


# -- measuring ---------------------------------------------------------------------------------------------------------


def times(
    case: Case, executions: Sequence[str], rounds: int, device: torch.device
) -> dict[str, list[tuple[float, float]]]:
    """Seconds of CPU and of wall time by execution, round by round."""
    steps = {execution: case.build(execution, torch.float32, BATCH, device) for execution in executions}
    taken: dict[str, list[tuple[float, float]]] = {execution: [] for execution in executions}
    warm_up = 2 if device.type == "cuda" else 1
    for number in range(rounds + warm_up):
        for execution, step in steps.items():
            wait_for(device)
            cpu, wall = time.process_time(), time.perf_counter()
            step()
            wait_for(device)
            if number >= warm_up:
                taken[execution].append((time.process_time() - cpu, time.perf_counter() - wall))
    return taken


def wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def memory(name: str, execution: str, threads: int, device: torch.device) -> float:
    """Rise of the peak during two steps, MiB, in a process of its own."""
    command = [sys.executable, __file__, "--memory-of", name, execution, "--threads", str(threads)]
    command += ["--device", device.type]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def print_memory(name: str, execution: str, device: torch.device) -> None:
    step = CASES[name].build(execution, torch.float32, BATCH, device)
    if device.type == "cuda":
        before = torch.cuda.memory_allocated()
        step()
        step()
        print((torch.cuda.max_memory_reserved() - before) / 2**20)
        return
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew; it is inherited from the parent process
    before = peak()
    step()
    step()
    print((peak() - before) / 1024)


def peak() -> int:
    """The most this process has held, KiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def distances(case: Case, executions: Sequence[str], device: torch.device) -> dict[str, dict[str, float]]:
    """The largest distance of any tensor from `plain` in double precision, relative to that tensor's norm."""
    truth = case.build("plain", torch.float64, EXACT_BATCH, device)()
    # a tensor that is zero but for rounding, as the gradient of a convolution that nothing reaches, tells nothing
    least = 1e-6 * max(float(tensor.norm()) for tensor in truth)
    return {
        execution: {
            name: max(
                relative(x, y, least)
                for x, y in zip(case.build(execution, dtype, EXACT_BATCH, device)(), truth, strict=True)
            )
            for name, dtype in (("float64", torch.float64), ("float32", torch.float32))
        }
        for execution in executions
    }


def relative(value: Tensor, truth: Tensor, least: float) -> float:
    return float((value.double() - truth).norm()) / max(float(truth.norm()), least)


def probes() -> dict[str, float]:
    """What this machine can do: single-precision matrix products (GFLOP/s) and copies (GB/s), on these threads."""
    a, b = torch.randn(2, 1024, 1024)
    source, target = torch.randn(2, 2**25)
    return {
        "gemm_gflops": 2 * 1024**3 / best(lambda: torch.mm(a, b)) / 1e9,
        "copy_gbytes": 2 * source.numel() * 4 / best(lambda: target.copy_(source)) / 1e9,
    }


def best(action: Callable[[], object]) -> float:
    durations = []
    for _ in range(7):
        began = time.perf_counter()
        action()
        durations.append(time.perf_counter() - began)
    return min(durations)


def measure(
    name: str,
    executions: Sequence[str],
    rounds: int,
    threads: int,
    numerics: bool,
    with_memory: bool,
    device: torch.device,
) -> dict[str, Any]:
    case = CASES[name]
    taken = times(case, executions, rounds, device)
    first = executions[0]
    exact = distances(case, executions, device) if numerics and case.has_numerics else {}
    space = {execution: memory(name, execution, threads, device) for execution in executions if with_memory}
    result: dict[str, Any] = {"case": name, "title": case.title, "rounds": rounds, "executions": {}}
    for execution in executions:
        cpu, wall = zip(*taken[execution], strict=True)
        base_cpu, base_wall = zip(*taken[first], strict=True)
        result["executions"][execution] = {
            "cpu_seconds_median": statistics.median(cpu),
            "cpu_ratio_median": statistics.median(base_cpu) / statistics.median(cpu),
            "cpu_ratio_minimum": min(base_cpu) / min(cpu),
            "wall_ratio_median": statistics.median(base_wall) / statistics.median(wall),
            **({"memory_mib": space[execution], "memory_ratio": space[first] / space[execution]} if space else {}),
            **{f"distance_{kind}": distance for kind, distance in exact.get(execution, {}).items()},
        }
    return result


def print_table(result: dict[str, Any]) -> None:
    print(f"\n{result['title']}  ({result['rounds']} rounds)")
    print(f"{'':12}{'CPU':>8}{'min':>8}{'wall':>8}{'memory':>10}{'':>8}{'float64':>10}{'float32':>10}")
    for execution, row in result["executions"].items():
        exact = "".join(f"{row.get(f'distance_{kind}', nan):>10.1e}" for kind in ("float64", "float32"))
        print(
            f"{execution:12}{row['cpu_ratio_median']:>7.2f}x{row['cpu_ratio_minimum']:>7.2f}x"
            f"{row['wall_ratio_median']:>7.2f}x{row.get('memory_mib', nan):>6.0f} MiB"
            f"{row.get('memory_ratio', nan):>7.2f}x{exact}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--executions", nargs="+", choices=EXECUTIONS, help="default: all that the device has")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--no-numerics", action="store_true", help="leave out the steps in double precision")
    parser.add_argument("--no-memory", action="store_true", help="leave out the processes that memory is measured in")
    parser.add_argument("--json", type=Path, help="file for all figures")
    parser.add_argument("--memory-of", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device)
    if arguments.memory_of is not None:
        name, execution = arguments.memory_of
        print_memory(name, execution, device)
        return
    executions = arguments.executions or available(device)
    machine = {"threads": arguments.threads, "torch": torch.__version__, "machine": platform.machine(), **probes()}
    print(
        "  ".join(
            f"{key} {value:.1f}" if isinstance(value, float) else f"{key} {value}" for key, value in machine.items()
        )
    )
    results = []
    for name in arguments.cases:
        results.append(
            measure(
                name,
                executions,
                arguments.rounds,
                arguments.threads,
                not arguments.no_numerics,
                not arguments.no_memory,
                device,
            )
        )
        print_table(results[-1])
    if arguments.json is not None:
        arguments.json.write_text(json.dumps({"machine": machine, "results": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
