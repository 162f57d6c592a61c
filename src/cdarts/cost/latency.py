"""How long networks and operations take, measured, and an additive model of it."""

import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch

from cdarts.cost.table import CostTable, Place, Size, built_operation, places
from cdarts.latency_table import LatencyTable
from cdarts.randomness import generator
from cdarts.spaces import Space
from cdarts.topology import Choice, Genotype

WARM_UP = 3
"""Calls before those that count: memory is fetched and kernels are chosen in them."""
REPEATS = 15
"""Calls that count."""
FITTED, TESTED = 6, 4
"""Random networks that the additive model is fitted to, and others that it is tested on."""


class Timing(NamedTuple):
    """Times of repeated calls, in milliseconds."""

    median: float
    low: float
    """Lower quartile."""
    high: float
    """Upper quartile."""
    repeats: int


def timed(call: Callable[[], object], device: torch.device, repeats: int = REPEATS) -> Timing:
    """Time a call that needs no gradient; work of a GPU is waited for."""
    wait: Callable[[], object] = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    milliseconds = []
    with torch.no_grad():
        for number in range(WARM_UP + repeats):
            wait()
            began = time.perf_counter_ns()
            call()
            wait()
            if number >= WARM_UP:
                milliseconds.append((time.perf_counter_ns() - began) / 1e6)
    low, median, high = statistics.quantiles(milliseconds, n=4, method="inclusive")
    return Timing(median, low, high, repeats)


def operation_timing(space: Space, name: str, place: Place, device: torch.device) -> Timing:
    """One operation alone, for one image."""
    operation = built_operation(space, name, place).to(device)
    state = torch.rand(1, place.channels, place.side, place.side, device=device)
    state = state.contiguous(memory_format=torch.channels_last)
    operation = operation.to(memory_format=torch.channels_last)
    return timed(lambda: operation(state), device)


def network_timing(space: Space, size: Size, genotype: Genotype, device: torch.device, batch_size: int = 1) -> Timing:
    """A genotype's network, for a batch; its weights are as they are initialised, which times do not depend on."""
    network = size.network(space, genotype, "cpu").eval().to(device)
    images = torch.rand(batch_size, size.image_channels, size.side, size.side, device=device)
    return timed(lambda: network(images), device)


def measure_operations(space: Space, size: Size, *, device: torch.device, threads: int) -> LatencyTable:
    """Measure every operation where it stands in a network of a size, for one image; takes some ten seconds.

    The time of a network is modelled as ``rest + scale * sum of its operations``; rest and scale are fitted to random
    networks, and the model's error is measured on others.
    """
    alone: dict[tuple[str, Place], float] = {}
    sums: dict[tuple[str, Choice], float] = {}
    for kind, edges in places(space, size).items():
        for edge, counts in edges.items():
            for name in space.operations:
                total = 0.0
                for place, times in counts.items():
                    if (name, place) not in alone:
                        alone[name, place] = operation_timing(space, name, place, device).median
                    total += times * alone[name, place]
                sums[kind, Choice(edge, name)] = total
    drawn = [_random(space, number) for number in range(FITTED + TESTED)]
    additive = np.array(
        [sum(sums[kind, choice] for kind, cell in genotype.cells.items() for choice in cell) for genotype in drawn]
    )
    measured = np.array([network_timing(space, size, genotype, device).median for genotype in drawn])
    scale, rest = _line(additive[:FITTED], measured[:FITTED])
    predicted = rest + scale * additive[FITTED:]
    error = float(np.abs(predicted / measured[FITTED:] - 1).mean())
    return LatencyTable(
        device=device.type,
        threads=threads,
        rest_nanoseconds=round(1e6 * rest),
        nanoseconds={_key(kind, choice): round(1e6 * scale * total) for (kind, choice), total in sums.items()},
        mean_error=error,
    )


def _line(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Slope and intercept of least squares, neither below zero."""
    slope, intercept = np.polyfit(x, y, 1) if np.ptp(x) > 0 else (1.0, 0.0)
    if slope <= 0:  # noise alone: operations hardly matter beside the rest
        return 0.0, float(y.mean())
    if intercept < 0:
        return float((x @ y) / (x @ x)), 0.0
    return float(slope), float(intercept)


def _random(space: Space, number: int) -> Genotype:
    """A genotype whose decisions are random."""
    draw = generator(0, "latency", number)
    cells = {}
    for kind in space.kinds:
        taken = [
            alternatives[int(torch.randint(len(alternatives), (1,), generator=draw))]
            for alternatives in space.decisions()
        ]
        cells[kind] = tuple(choice for kept in taken for choice in kept)
    return Genotype(space.name, cells)


def with_latency(table: CostTable, latency: LatencyTable) -> CostTable:
    """The same table with times."""
    return CostTable(
        rest=table.rest._replace(nanoseconds=latency.rest_nanoseconds),
        choices={
            kind: {
                choice: amount._replace(nanoseconds=latency.nanoseconds[_key(kind, choice)])
                for choice, amount in choices.items()
            }
            for kind, choices in table.choices.items()
        },
    )


def _key(kind: str, choice: Choice) -> str:
    return f"{kind} {choice.edge} {choice.operation}"
