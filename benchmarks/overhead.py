"""What safety costs: the share of a search's time that goes into checkpoints, guards, status and the page.

    python benchmarks/overhead.py [--cycles 15] [--threads 1] [--preset smoke] [further flags of `cdarts search`]

Times every call that a search without them would not make, from outside, in one process: the state and its checkpoint;
journals, heartbeat, watchdog and status; the gradient's norm and the question whether it is finite (clipping needs the
norm too, so part of it would be there anyway); the page. CPU time of the process, nested calls counted once.
"""

import argparse
import functools
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from cdarts import cli
from cdarts.commands.report import LivePage
from cdarts.engine import descent, loop
from cdarts.engine.run_dir import RunDir
from cdarts.engine.watchdog import Watchdog


class Meter:
    """Adds up the CPU time within the functions it watches."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.inside = False

    def watch(self, owner: Any, name: str, what: str) -> None:
        """Replace a function by one that is timed."""
        function: Callable[..., Any] = getattr(owner, name)

        @functools.wraps(function)
        def timed(*arguments: Any, **options: Any) -> Any:
            if self.inside:
                return function(*arguments, **options)
            self.inside, began = True, time.process_time()
            try:
                return function(*arguments, **options)
            finally:
                self.inside = False
                self.seconds[what] = self.seconds.get(what, 0.0) + time.process_time() - began

        setattr(owner, name, timed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="smoke")
    parser.add_argument("--cycles", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--data", default="cifar10-5k")
    options, further = parser.parse_known_args()
    meter = Meter()
    meter.watch(loop._Walk, "save", "checkpoints")
    meter.watch(RunDir, "append", "journals")
    meter.watch(RunDir, "heartbeat", "status")
    meter.watch(RunDir, "status", "status")
    meter.watch(Watchdog, "step_done", "watchdog")
    meter.watch(LivePage, "after_epoch", "page")
    meter.watch(descent, "_norms", "gradient norms")
    meter.watch(descent, "_total", "gradient norms")
    meter.watch(torch, "isfinite", "guards")
    with tempfile.TemporaryDirectory() as folder:
        words = [
            *("search", options.preset, "--data", options.data, "--cycles", str(options.cycles)),
            *("--threads", str(options.threads), "--device", "cpu", "--out", str(Path(folder) / "run"), *further),
        ]
        wall, cpu = time.monotonic(), time.process_time()
        code = cli.main(words)
        total, wall = time.process_time() - cpu, time.monotonic() - wall
    if code:
        sys.exit(code)
    print(f"\n{total:.0f} s of CPU time in {wall:.0f} s")
    for what, seconds in sorted(meter.seconds.items(), key=lambda item: -item[1]):
        print(f"{what:16}{seconds:8.2f} s{seconds / total:9.2%}")
    print(f"{'all':16}{sum(meter.seconds.values()):8.2f} s{sum(meter.seconds.values()) / total:9.2%}")


if __name__ == "__main__":
    main()
