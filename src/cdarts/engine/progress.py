"""Live progress with the time that is left: one line that moves on a terminal, plain lines when piped."""

import sys
import time
from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from cdarts.durations import clock
from cdarts.engine.task import Epoch

SECONDS_BETWEEN_LINES = 20.0


class PlanProgress:
    """Follows a plan and says where it stands. A phase's steps last as long as those of it that are done."""

    def __init__(self, title: str, plan: Sequence[Epoch]) -> None:
        self.title = title
        self.plan = plan
        self.console = Console(highlight=False)
        self.live = sys.stdout.isatty()
        self._seconds: dict[str, float] = {}
        self._steps: dict[str, int] = {}
        self._index = 0
        self._done = 0
        self._last_step = self._last_line = time.monotonic()
        self._first = True
        self._bar: Progress | None = None

    def start_epoch(self, index: int, done: int = 0) -> None:
        """`done`: steps of it that were done before, when a run goes on within an epoch."""
        self.close()
        self._index, self._done = index, done
        self._last_step = time.monotonic()
        if self.live:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.completed:.0f}/{task.total:.0f}  {task.fields[note]}"),
                console=self.console,
                transient=True,
            )
            self._bar.add_task(self._label(), total=max(self.plan[index].steps, 1), completed=done, note="")
            self._bar.start()

    def step(self, loss: float | None) -> None:
        """One step is done; `loss` where it was read from the device."""
        now = time.monotonic()
        phase = self.plan[self._index].phase
        # the very first step pays for page faults and lazy imports: it would spoil the forecast
        if not self._first:
            self._seconds[phase] = self._seconds.get(phase, 0.0) + now - self._last_step
            self._steps[phase] = self._steps.get(phase, 0) + 1
        self._last_step = now
        self._done += 1
        note = "  ".join(words for words in ("" if loss is None else f"loss {loss:.3f}", self._left_words()) if words)
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=self._done, note=note)
        elif self._first or now - self._last_line > SECONDS_BETWEEN_LINES:
            self.line(f"{self._label()}  step {self._done}/{self.plan[self._index].steps}  {note}")
        self._first = False

    def wants_loss(self) -> bool:
        """Whether the next `step` prints, so that reading a loss from the device is worth its wait."""
        return (
            self._first
            or time.monotonic() - self._last_line > SECONDS_BETWEEN_LINES
            or (self.live and self._done % 10 == 9)
        )

    def end_epoch(self, metrics: Mapping[str, object]) -> None:
        """An epoch is done; the numbers among its `metrics` are printed."""
        self.close()
        self._done = self.plan[self._index].steps
        numbers = "  ".join(f"{name} {value:.4g}" for name, value in metrics.items() if isinstance(value, float))
        self.line("  ".join(words for words in (self._label(), numbers, self._left_words()) if words))

    def _left_words(self) -> str:
        """``left 1m15s``, once a step has been timed."""
        return f"left {clock(self.left())}" if self._steps else ""

    def forecast(self) -> float | None:
        """Seconds that the rest of the plan takes, as `left` says; None until a step has been timed."""
        return self.left() if self._steps else None

    def left(self) -> float:
        """Seconds that the rest of the plan takes."""
        seconds = 0.0
        for index in range(self._index, len(self.plan)):
            epoch = self.plan[index]
            steps = epoch.steps - (self._done if index == self._index else 0)
            seconds += steps * self._step_seconds(epoch.phase)
        return seconds

    def _step_seconds(self, phase: str) -> float:
        if self._steps.get(phase):
            return self._seconds[phase] / self._steps[phase]
        total = sum(self._steps.values())
        return sum(self._seconds.values()) / total if total else 0.0

    def _label(self) -> str:
        epoch = self.plan[self._index]
        cycle = "" if epoch.cycle is None else f" cycle {epoch.cycle + 1}"
        return f"{self.title} {self._index + 1}/{len(self.plan)} {epoch.phase}{cycle}"

    def line(self, text: str) -> None:
        self.console.print(text, soft_wrap=True, markup=False)
        sys.stdout.flush()
        self._last_line = time.monotonic()

    def close(self) -> None:
        """Take the moving line away."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
