"""The loop: walk a task's plan from where its run left off, be it within an epoch."""

import contextlib
import math
import sys
import time
from collections.abc import Callable, Mapping
from itertools import islice
from typing import Any

from torch import Tensor

from cdarts.engine.checkpoint import State, not_finite
from cdarts.engine.progress import PlanProgress
from cdarts.engine.run_dir import Checkpoint, RunDir
from cdarts.engine.runtime import StopFlag, is_out_of_memory
from cdarts.engine.task import Losses, Records, Task
from cdarts.engine.watchdog import Watchdog
from cdarts.errors import CheckpointError, DiskError, GenotypeError, NonFiniteError

MOST_SKIPPED = 10
"""Batches that a run may leave out before it gives up."""

CHECKPOINT_SECONDS = 300

SHARE_OF_TIME = 0.01
"""An epoch that ends sooner is not followed by a checkpoint: its share of the time would be larger."""


class Means:
    """Means of losses over an epoch, kept on the device until they are read."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}

    def add(self, losses: Losses) -> None:
        for name, loss in losses.items():
            value = loss.detach().double()
            self._sums[name] = self._sums[name] + value if name in self._sums else value
            self._counts[name] = self._counts.get(name, 0) + 1

    def read(self) -> dict[str, float]:
        """Raises `NonFiniteError` naming the first loss that is not finite."""
        values = {name: float(total) / self._counts[name] for name, total in self._sums.items()}
        for name, value in values.items():
            if not math.isfinite(value):
                raise NonFiniteError(f"the epoch's mean of {name} is {value}; the checkpoint before is kept")
        return values

    def state(self) -> State:
        return {"sums": self._sums, "counts": self._counts}

    def load_state(self, state: State) -> None:
        # scalars on the CPU may be added to ones on any device
        self._sums, self._counts = dict(state["sums"]), dict(state["counts"])


def run(
    task: Task,
    run_dir: RunDir,
    progress: PlanProgress,
    stop: StopFlag,
    annotate: Callable[[Records], Records] = lambda records: records,
    *,
    after_epoch: Callable[[], None] = lambda: None,
    checkpoint_seconds: int = CHECKPOINT_SECONDS,
    skips_nonfinite: bool = False,
) -> None:
    """Train the task to the end of its plan, with checkpoints at the beginning, at the end, after epochs, and in time.

    `annotate`: what is known beside the task joins an epoch's records here, before they are written.
    `after_epoch`: called once they are written; its time is not the epoch's.
    `checkpoint_seconds`: a step that ends so long after the last checkpoint is followed by one. An epoch is too, unless
    the last checkpoint was so short a time ago that the run would spend more than `SHARE_OF_TIME` on them.
    `skips_nonfinite`: go on without a batch that raised `NonFiniteError`, as if it had never been.

    Raises `Interrupted` after a step or before an epoch if a signal asked for it; a checkpoint is saved first. Raises
    `CheckpointError` if the run's checkpoint cannot be used, `NonFiniteError` before anything that is not finite is
    stepped or saved, `DiskError`.
    """
    walk = _Walk(task, run_dir, progress, stop, annotate, after_epoch, checkpoint_seconds, skips_nonfinite)
    try:
        with walk.watchdog:
            walk.to_the_end()
    finally:
        progress.close()


class _Walk:
    """Where a run stands in its plan."""

    def __init__(
        self,
        task: Task,
        run_dir: RunDir,
        progress: PlanProgress,
        stop: StopFlag,
        annotate: Callable[[Records], Records],
        after_epoch: Callable[[], None],
        checkpoint_seconds: int,
        skips_nonfinite: bool,
    ) -> None:
        self.task = task
        self.run_dir = run_dir
        self.progress = progress
        self.stop = stop
        self.annotate = annotate
        self.after_epoch = after_epoch
        self.checkpoint_seconds = checkpoint_seconds
        self.skips_nonfinite = skips_nonfinite
        self.watchdog = Watchdog(run_dir.path / "stuck.log")
        self.plan = task.plan()
        self.skipped: list[dict[str, Any]] = []
        """A report on each batch that is left out."""
        self.saved: tuple[int, int] | None = None
        """Epoch and step of the last checkpoint."""
        self.saved_at = time.monotonic()
        self.saving_took = 0.0
        self.enter(0)

    def enter(self, epoch: int) -> None:
        """Stand at the beginning of an epoch."""
        self.epoch, self.step = epoch, 0
        self.means = Means()
        self.began = time.monotonic()

    def to_the_end(self) -> None:
        if not self.restore():
            self.save()
        while self.epoch < len(self.plan):
            self.stop_if_asked()  # an epoch may have no step to stop after
            if self.train():
                self.end_epoch()

    def train(self) -> bool:
        """What is left of the epoch's steps; False if a bad batch threw the run back."""
        self.task.start_epoch(self.epoch, self.plan[self.epoch])
        self.progress.start_epoch(self.epoch, self.step)
        left_out = {report["step"] for report in self.skipped if report["epoch"] == self.epoch}
        batches = self.task.batches(self.epoch)
        with self.task.skipping():
            for _ in islice(batches, self.step):
                pass
        for batch in batches:
            if self.step not in left_out:
                try:
                    losses = self.task.step(self.step, *batch)
                except NonFiniteError as error:
                    self.leave_out(error)
                    return False
                self.means.add(losses)
                self.progress.step(_first(losses) if self.progress.wants_loss() else None)
            self.step += 1
            self.watchdog.step_done()
            epoch = self.plan[self.epoch]
            self.run_dir.heartbeat(
                epoch.phase,
                self.epoch,
                self.step,
                epochs=len(self.plan),
                steps=epoch.steps,
                left=self.progress.forecast,
            )
            if self.since_checkpoint() >= self.checkpoint_seconds:
                self.save()
            self.stop_if_asked()
        return True

    def end_epoch(self) -> None:
        records = self.annotate(self.task.end_epoch(self.epoch, self.means.read()))
        common: dict[str, Any] = {"seconds": round(time.monotonic() - self.began, 3)}
        left_out = sum(report["epoch"] == self.epoch for report in self.skipped)
        if left_out:
            common["skipped_batches"] = left_out
        for journal, line in records.items():
            self.run_dir.append(journal, {"epoch": self.epoch, **line, **common})
        self.after_epoch()
        self.enter(self.epoch + 1)
        worth = min(self.checkpoint_seconds, self.saving_took / SHARE_OF_TIME)
        if self.epoch == len(self.plan) or self.since_checkpoint() >= worth:
            self.save()
        self.progress.end_epoch(records.get("metrics", {}))

    def stop_if_asked(self) -> None:
        if self.stop.number is not None:
            self.save()
            self.stop.check()

    # -- checkpoints -------------------------------------------------------------------------------------------------

    def since_checkpoint(self) -> float:
        """Seconds."""
        return time.monotonic() - self.saved_at

    def save(self) -> None:
        if self.saved == (self.epoch, self.step):
            return
        began = time.monotonic()
        self.means.read()
        state = self.task.state()
        place = not_finite(state)
        if place is not None:
            raise NonFiniteError(f"{place} in the state is not finite; the checkpoint before is kept")
        so_far = {
            "means": self.means.state(),
            "seconds": time.monotonic() - self.began,
            "skipped": self.skipped,
        }
        self.run_dir.save_checkpoint(Checkpoint(self.epoch, self.step, so_far, state))
        self.saved, self.saved_at = (self.epoch, self.step), time.monotonic()
        self.saving_took = self.saved_at - began

    def restore(self) -> bool:
        """Take over the newest checkpoint; False if there is none."""
        stored = self.run_dir.load_checkpoint()
        if stored is None:
            return False
        try:
            self.task.load_state(stored.task)
            self.enter(stored.epoch)
            self.step = stored.step
            self.means.load_state(stored.so_far["means"])
            self.began -= stored.so_far["seconds"]
            self.skipped = list(stored.so_far["skipped"])
        except (KeyError, ValueError, TypeError, AttributeError, RuntimeError, GenotypeError) as error:
            if is_out_of_memory(error):
                raise
            raise CheckpointError(
                f"the checkpoint in {self.run_dir.path} does not fit the settings in its config.json; were they "
                f"changed? ({str(error).splitlines()[0] if str(error) else type(error).__name__})"
            ) from error
        self.saved, self.saved_at = (self.epoch, self.step), time.monotonic()
        return True

    # -- batches that cannot be used ---------------------------------------------------------------------------------

    def leave_out(self, error: NonFiniteError) -> None:
        """Report on the batch, and go back to the last checkpoint to go on without it.

        What it did before it failed, to the statistics of BatchNorm among others, is thereby undone.
        """
        phase = self.plan[self.epoch].phase
        reports = [
            *self.skipped,
            {
                "epoch": self.epoch,
                "phase": phase,
                "step": self.step,
                "message": str(error),
                "samples": self.task.samples(),
            },
        ]
        with contextlib.suppress(DiskError):  # what happened matters more
            self.run_dir.write_json("nonfinite.json", reports)
        words = f"epoch {self.epoch + 1} ({phase}), step {self.step + 1}: {error}"
        if not self.skips_nonfinite:
            raise NonFiniteError(
                f"{words}. nonfinite.json names the batch, the checkpoint before is kept, and a resume with "
                "--on-nonfinite skip goes on without this batch"
            ) from error
        if len(reports) > MOST_SKIPPED:
            raise NonFiniteError(f"{words}. {MOST_SKIPPED} batches have been left out already") from error
        print(f"warning: {words}. The run goes on without this batch", file=sys.stderr, flush=True)
        self.restore()
        self.skipped = reports


def _first(losses: Mapping[str, Tensor]) -> float:
    return next(iter(losses.values())).item()
