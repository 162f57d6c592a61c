"""What a search will take of memory, and what it becomes when it must do with less.

The expectation is a measurement: a process of its own builds the search and takes a step of every kind with few images;
what a whole batch takes follows, since all that a batch needs grows with its images.
"""

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from cdarts.errors import ConfigurationError

if TYPE_CHECKING:
    import torch

    from cdarts.commands.search import Search

UNITS = {"M": 2**20, "G": 2**30}

FEW = (8, 16)
"""Images of the two steps from which a whole batch's memory follows."""


def parse_memory(text: str) -> int:
    """``800M`` or ``2.5G`` in bytes, of 2^20 and 2^30. Raises `ConfigurationError`."""
    match = re.fullmatch(r"(\d{1,9}(?:\.\d+)?)([MG])", text, re.ASCII)
    if match is None:
        raise ConfigurationError(f"--memory-limit {text}: write a number and M or G, e.g. 800M, 2.5G")
    return round(float(match[1]) * UNITS[match[2]])


def within(settings: "Search", limit: int) -> "Search":
    """The settings, changed as little as keeps the process within `limit` bytes: recomputation, then smaller batches.

    Learning rates of network weights shrink with the batch (Goyal et al., 2017). Says what was changed. Raises
    `ConfigurationError` if nothing fits.
    """
    tried = settings
    least = 0
    while True:
        expected = expected_memory(tried)
        if expected <= limit:
            changes = _changes(settings, tried)
            print(f"memory  {_size(expected)} expected of {_size(limit)}{changes}", flush=True)
            return tried
        least = expected
        batch = tried.algorithm.batch_size
        if tried.execution == "fused":
            tried = replace(tried, execution="recompute")
        elif batch >= 2 * FEW[0]:
            tried = replace(tried, algorithm=tried.algorithm.with_batch_size(batch // 2))
        else:
            raise ConfigurationError(
                f"--memory-limit {settings.memory_limit}: even with {batch} images a batch the search takes "
                f"{_size(least)}; give it more, or take fewer --channels or cells"
            )


def _changes(before: "Search", after: "Search") -> str:
    words = []
    if after.execution != before.execution:
        words.append(f"execution {after.execution}")
    if (batch := after.algorithm.batch_size) != (was := before.algorithm.batch_size):
        words.append(f"batches of {batch} instead of {was}, learning rates of weights x {batch / was:g}")
    return f": {', '.join(words)}" if words else ""


def _size(number: int) -> str:
    return f"{number / 2**30:.2f} GiB"


def expected_memory(settings: "Search") -> int:
    """The most bytes that a process with these settings will hold, or on a GPU allocate.

    Raises `ConfigurationError` where it cannot be measured.
    """
    from cdarts.commands.common import config_of

    command = [sys.executable, "-m", "cdarts.commands.memory"]
    asked = json.dumps(config_of("search", settings))
    answer = subprocess.run(command, input=asked, capture_output=True, text=True, check=False)
    if answer.returncode:
        words = answer.stderr.strip().splitlines() or [f"exit code {answer.returncode}"]
        raise ConfigurationError(f"--memory-limit: what the search takes could not be measured: {words[-1]}")
    return int(answer.stdout.splitlines()[-1])


def main() -> None:
    """In the process of its own: settings from standard input, bytes to standard output."""
    from cdarts.commands.search import Search
    from cdarts.settings import from_json

    print(measure(from_json(Search, json.load(sys.stdin)["settings"], "the settings")))


def measure(settings: "Search") -> int:
    """Take the steps and measure; the process is used up by it."""
    import torch

    device, _ = settings.machine()
    data = settings.load_data()
    task = settings.build(data, device)
    whole = settings.algorithm.batch_size
    plan = task.plan()
    expected = 0
    for phase in dict.fromkeys(epoch.phase for epoch in plan):
        index = next(i for i, epoch in enumerate(plan) if epoch.phase == phase)
        task.start_epoch(index, plan[index])
        batches = next(task.batches(index), None)
        if batches is None:
            continue
        peaks = []
        for images in (min(few, whole) for few in FEW):
            part = [type(batch)(*(tensor[:images] for tensor in batch)) for batch in batches]
            for _ in range(2):  # optimizers keep moments from the first step on
                begin_anew(device)
                losses = task.step(0, *part)
                del losses
            peaks.append(torch.cuda.max_memory_allocated(device) if device.type == "cuda" else peak())
        slope = (peaks[1] - peaks[0]) / (FEW[1] - FEW[0])
        expected = max(expected, round(peaks[1] + max(slope, 0.0) * max(whole - FEW[1], 0)))
    return expected


def begin_anew(device: "torch.device") -> None:
    """Let the peak be what is held now."""
    if device.type == "cuda":
        import torch

        torch.cuda.reset_peak_memory_stats(device)
        return
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError as error:
        raise ConfigurationError("--memory-limit works on Linux and on GPUs") from error


def peak() -> int:
    """The most this process has held since, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


if __name__ == "__main__":
    main()
