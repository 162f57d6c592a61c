"""What a plan will cost on this machine: every kind of epoch is tried for a few steps on a task that is thrown away."""

import math
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from cdarts.engine.task import Epoch, Task

LEAST_STEPS, MOST_STEPS = 3, 20
"""How many steps are tried."""
LEAST_SECONDS = 0.5
"""Steps are tried for so long, unless `MOST_STEPS` take less: other programs come and go within moments."""


@dataclass(frozen=True)
class Forecast:
    """Seconds a step of each phase, and for the whole plan."""

    seconds_per_step: dict[str, float]
    seconds: float


def forecast(task: Task) -> Forecast:
    """Try each phase of the plan; the task is used up by it."""
    plan = task.plan()
    seconds_per_step = {}
    for phase in dict.fromkeys(epoch.phase for epoch in plan):
        index = next(i for i, epoch in enumerate(plan) if epoch.phase == phase)
        seconds_per_step[phase] = _seconds_per_step(task, index, plan[index])
    return Forecast(seconds_per_step, expected_seconds(plan, seconds_per_step))


def expected_seconds(plan: Sequence[Epoch], seconds_per_step: dict[str, float]) -> float:
    """The plan's duration from its steps."""
    return math.fsum(epoch.steps * seconds_per_step[epoch.phase] for epoch in plan)


def _seconds_per_step(task: Task, index: int, epoch: Epoch) -> float:
    """The median of some steps, the first not counted: it pays for page faults and lazy imports."""
    task.start_epoch(index, epoch)
    durations: list[float] = []
    batches = task.batches(index)
    for position in range(MOST_STEPS + 1):
        if position > LEAST_STEPS and math.fsum(durations[1:]) >= LEAST_SECONDS:
            break
        began = time.monotonic()
        batch = next(batches, None)  # images may have to be read from files
        if batch is None:
            break
        losses = task.step(position, *batch)
        for loss in losses.values():
            loss.item()
        durations.append(time.monotonic() - began)
    tried = sorted(durations[1:] or durations)
    return tried[len(tried) // 2] if tried else 0.0


def peak_memory(device: torch.device) -> int:
    """The most memory this process has held so far, in bytes: on the GPU if that is the device, else of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
