"""The loop: walk a task's plan from where its run left off."""

import time
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from cdarts.engine.progress import PlanProgress
from cdarts.engine.run_dir import RunDir
from cdarts.engine.runtime import StopFlag, is_out_of_memory
from cdarts.engine.task import Losses, Records, Task
from cdarts.errors import CheckpointError, GenotypeError, NonFiniteError


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
            if not torch.isfinite(torch.tensor(value)):
                raise NonFiniteError(f"the epoch's mean of {name} is {value}; nothing of this epoch was saved")
        return values


def run(
    task: Task,
    run_dir: RunDir,
    progress: PlanProgress,
    stop: StopFlag,
    annotate: Callable[[Records], Records] = lambda records: records,
) -> None:
    """Train the task to the end of its plan; a checkpoint after every epoch.

    `annotate`: what is known beside the task joins an epoch's records here, before they are written.

    Raises `Interrupted` before an epoch or a step if a signal asked for it: an epoch whose last step is done is saved
    first. Raises `CheckpointError` if the run's checkpoint cannot be used, `NonFiniteError` from a step or for the mean
    loss of an epoch.
    """
    plan = task.plan()
    start = 0
    stored = run_dir.load_checkpoint()
    if stored is not None:
        start, state = stored
        try:
            task.load_state(state)
        except (KeyError, ValueError, RuntimeError, GenotypeError) as error:
            if is_out_of_memory(error):
                raise
            raise CheckpointError(
                f"the checkpoint in {run_dir.path} does not fit the settings in its config.json; were they changed? "
                f"({str(error).splitlines()[0] if str(error) else type(error).__name__})"
            ) from error
    try:
        for index in range(start, len(plan)):
            # an epoch may have no step to stop before
            stop.check()
            began = time.monotonic()
            task.start_epoch(index, plan[index])
            progress.start_epoch(index)
            means = Means()
            for position, batch in enumerate(task.batches(index)):
                stop.check()
                losses = task.step(position, *batch)
                means.add(losses)
                progress.step(_first(losses) if progress.wants_loss() else None)
            records = annotate(task.end_epoch(index, means.read()))
            for journal, line in records.items():
                run_dir.append(journal, {"epoch": index, **line, "seconds": round(time.monotonic() - began, 3)})
            run_dir.save_checkpoint(index + 1, task.state())
            progress.end_epoch(records.get("metrics", {}))
    finally:
        progress.close()


def _first(losses: Mapping[str, Tensor]) -> float:
    return next(iter(losses.values())).item()
