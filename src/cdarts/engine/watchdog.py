"""A thread that says where a run hangs."""

import faulthandler
import os
import sys
import threading
import time
from pathlib import Path
from types import TracebackType

from cdarts.durations import clock
from cdarts.engine.files import open_regular
from cdarts.errors import DiskError

PATIENCE = 300.0
"""Seconds without a step before a run may be called stuck."""

STEPS_OF_PATIENCE = 10
"""It must also have been silent for so many times its longest step."""


class Watchdog:
    """Within its block: if no step ends for long, what every thread is at goes to a log, once for each silence.

    It stops nothing: a run may only be slow.
    """

    def __init__(self, log: Path, patience: float = PATIENCE) -> None:
        self.log = log
        self.patience = patience
        self._last = time.monotonic()
        self._longest = 0.0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def step_done(self) -> None:
        """Called whenever a step has ended."""
        now = time.monotonic()
        self._longest = max(self._longest, now - self._last)
        self._last = now

    def __enter__(self) -> "Watchdog":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        told: float | None = None
        while not self._over.wait(self.patience / 10):
            last = self._last
            silence = time.monotonic() - last
            if last != told and silence > max(self.patience, STEPS_OF_PATIENCE * self._longest):
                told = last
                self._tell(silence)

    def _tell(self, silence: float) -> None:
        words = f"no step has ended for {clock(silence)}"
        try:
            with os.fdopen(open_regular(self.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT), "w") as file:
                file.write(f"{time.strftime('%Y-%m-%dT%H:%M:%S%z')} {words}\n")
                file.flush()
                faulthandler.dump_traceback(file, all_threads=True)
                file.write("\n")
            words += f"; {self.log} says what every thread is at. The run goes on"
        except (OSError, DiskError) as error:
            words += f"; {self.log} cannot be written: {error}"
        print(f"warning: {words}", file=sys.stderr, flush=True)
