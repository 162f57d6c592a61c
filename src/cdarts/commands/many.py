"""What commands that carry out many runs have in common: naming seeds, beginning runs, going on with all of them."""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cdarts.errors import ConfigurationError

if TYPE_CHECKING:
    from cdarts.engine.processes import RunsProgress
    from cdarts.engine.runtime import StopFlag

MAX_SEEDS = 10_000


def parse_seeds(text: str) -> list[int]:
    """``10-13`` or ``10,11,20-23`` as numbers, in order. Raises `ConfigurationError`."""
    seeds: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,9})(?:-(\d{1,9}))?\s*", part, re.ASCII)
        first, last = (0, -1) if match is None else (int(match[1]), int(match[2] or match[1]))
        if last < first or last - first >= MAX_SEEDS:
            raise ConfigurationError(f"--seeds {text}: write 10-13 or 10,11,20")
        seeds.extend(range(first, last + 1))
    if len(set(seeds)) < len(seeds):
        raise ConfigurationError(f"--seeds {text}: a seed is named twice")
    return seeds


def check_jobs(jobs: int | None) -> None:
    """Raise `ConfigurationError` for a number of processes that cannot be."""
    if jobs is not None and jobs < 1:
        raise ConfigurationError(f"--jobs {jobs}: must be at least 1")


def default_jobs(device: str) -> int:
    """Runs at a time: one for each core that this process may use; on a GPU one."""
    if device == "cuda":
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def begin_run(path: Path, config: Mapping[str, Any], decisive: Sequence[str], label: str) -> None:
    """Make a run directory that a process of its own will go on in, or make sure that the one there is the same run.

    `decisive`: the settings that must be as they were when it was begun; `label`: what to call it in an error.
    Raises `ConfigurationError`, `DiskError`.
    """
    from cdarts.engine.run_dir import RunDir, read_json

    if not (path / "config.json").is_file():
        RunDir.create(path, config).close()
        return
    begun = read_json(path / "config.json").get("settings")
    changes = [
        name for name in decisive if not isinstance(begun, dict) or begun.get(name) != config["settings"].get(name)
    ]
    if changes:
        raise ConfigurationError(
            f"{path} was begun with other settings than {label} has now "
            f"({', '.join(changes)}); remove it, or choose a new name with --out"
        )


def pending_of(paths: Sequence[Path], out: Path) -> list[Path]:
    """Those that are not done; says how many there are."""
    from cdarts.engine.run_dir import is_done

    pending = [path for path in paths if not is_done(path)]
    print(f"runs    {len(paths)} in {out}, {len(paths) - len(pending)} of them done already", flush=True)
    return pending


def carry_out(
    title: str,
    pending: Sequence[Path],
    labels: Mapping[Path, str],
    groups: Mapping[Path, str],
    jobs: int,
    stop: "StopFlag",
) -> "RunsProgress":
    """Go on with all that is pending, each in a process of its own; returns how they went, failures included.

    `labels`, `groups`: of all runs, done ones too: what each is called, and which others take as long as it. Raises
    `Interrupted` once a signal has stopped them all.
    """
    from cdarts.engine.processes import RunsProgress, resume_all

    progress = RunsProgress(title, labels, groups, jobs)
    resume_all(pending, jobs, stop, progress)
    return progress
