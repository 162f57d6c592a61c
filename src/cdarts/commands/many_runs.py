"""Many runs for one purpose, each an ordinary run directory of its own: begun, several at a time, gone on with."""

import difflib
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cdarts.commands.common import Setup, describe
from cdarts.errors import ConfigurationError, DiskError

MAX_SEEDS = 10_000

DECIDING = (
    *("algorithm", "training", "data", "image_size", "seed", "shuffled_labels"),
    *("device", "threads", "execution"),
)
"""Settings that decide what a run finds."""

VARIED = ", "
"""Between the parts of what a search calls its preset, see `preset_words`."""


def preset_words(preset: str, name: str, protocol: str) -> str:
    """What a search among many calls its preset: the preset, what was made of it, the protocol; no word twice."""
    return VARIED.join(dict.fromkeys([preset, name, protocol]))


@dataclass(frozen=True, eq=False)
class PlannedRun:
    """One run: what is tried, and with which seed."""

    name: str
    seed: int
    path: Path
    settings: Setup
    config: Mapping[str, Any]
    """Its ``config.json``."""

    def __str__(self) -> str:
        return f"{self.name} seed {self.seed}"


# -- words -------------------------------------------------------------------------------------------------------------


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


def parse_names(flag: str, text: str, known: Sequence[str], kind: str) -> list[str]:
    """``cdarts,darts`` as names, in order. Raises `ConfigurationError`.

    `flag`, `kind`: as the user knows them, such as ``--methods`` and ``methods``.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in known:
            raise ConfigurationError(f"{flag} {name}: {unknown(name, known)}")
    if not names or len(set(names)) < len(names):
        raise ConfigurationError(f"{flag} {text}: name one or more {kind}, each once, with commas between")
    return names


def unknown(name: str, known: Iterable[str]) -> str:
    """That there is nothing of that name, what is nearest, and what there is."""
    names = list(known)
    nearest = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"Did you mean {nearest[0]}? " if nearest else ""
    return f"there is none of that name. {hint}There are {', '.join(names)}"


def check_jobs(jobs: int | None) -> None:
    """Raise `ConfigurationError` for a number of jobs that cannot be."""
    if jobs is not None and jobs < 1:
        raise ConfigurationError(f"--jobs {jobs}: must be at least 1")


def default_jobs(device: str) -> int:
    """Runs at a time: one for each core that this process may use; on a GPU one."""
    if device == "cuda":
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# -- the directory -----------------------------------------------------------------------------------------------------


def settle(out: Path, file: str, wanted: Mapping[str, Any]) -> None:
    """Make the directory of all runs, or make sure that it was begun with the same protocol and for the same purpose.

    `file`, `wanted`: what the directory says about itself, and where; one of its keys is ``protocol``.

    Raises `ConfigurationError`, `DiskError`.
    """
    from cdarts.engine.files import write_json
    from cdarts.engine.run_dir import check_free, read_json

    if (out / file).is_file():
        begun = read_json(out / file)
        if begun != wanted:
            changes = [field for field in {**begun, **wanted} if begun.get(field) != wanted.get(field)]
            raise ConfigurationError(
                f"{out} was begun with another protocol, {begun.get('protocol')} (other: {', '.join(changes)}): "
                "what is in it cannot be compared with this one; choose a new name with --out"
            )
        return
    check_free(out)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DiskError(f"cannot create {out}: {error.strerror or error}") from error
    write_json(out / file, wanted)


def open_run(run: PlannedRun) -> None:
    """Make a run's directory, or make sure that the one there was begun with the same settings.

    Raises `ConfigurationError`, `DiskError`.
    """
    from cdarts.commands.resume import settings_of
    from cdarts.engine.files import refuse_links
    from cdarts.engine.run_dir import RunDir, read_json

    refuse_links(run.path)
    if not (run.path / "config.json").is_file():
        RunDir.create(run.path, run.config).close()
        return
    begun = settings_of(run.path)  # settings that are younger than the run count as their defaults
    changes = [
        name
        for name in DECIDING
        if hasattr(run.settings, name) and getattr(begun, name, None) != getattr(run.settings, name)
    ]
    if read_json(run.path / "config.json").get("genotype") != run.config.get("genotype"):
        changes.append("genotype")
    if changes:
        raise ConfigurationError(
            f"{run.path} was begun with other settings than {run.name} has now "
            f"({', '.join(changes)}); remove it, or choose a new name with --out"
        )


# -- carrying out ------------------------------------------------------------------------------------------------------


def carry_out(
    title: str, runs: Sequence[PlannedRun], out: Path, jobs: int | None, how_to_go_on: str
) -> dict[PlannedRun, str]:
    """Carry those runs out that are not done yet, several at a time; returns why those failed that did.

    `title`: begins the lines that tell how it goes. `how_to_go_on`: the command that does after a signal.

    Raises `Interrupted`, `ConfigurationError`, `DataError`, `DiskError`.
    """
    from cdarts.engine.processes import RunsProgress, resume_all
    from cdarts.engine.run_dir import is_done
    from cdarts.engine.runtime import Interrupted, stop_on_signals

    for run in runs:
        open_run(run)
    pending = [run for run in runs if not is_done(run.path)]
    print(f"runs    {len(runs)} in {out}, {len(runs) - len(pending)} of them done already", flush=True)
    if not pending:
        return {}
    # data that cannot be had fails here, once
    print(describe(pending[0].settings.load_data()), flush=True)
    at_a_time = min(jobs or default_jobs(pending[0].settings.device), len(pending))
    labels = {run.path: str(run) for run in runs}
    progress = RunsProgress(title, labels, {run.path: run.name for run in runs}, at_a_time)
    try:
        with stop_on_signals() as stop:
            resume_all([run.path for run in pending], at_a_time, stop, progress)
    except Interrupted as error:
        raise Interrupted(error.number, how_to_go_on) from error
    return {run: progress.failures[run.path] for run in pending if run.path in progress.failures}


def machine_of(runs: Sequence[PlannedRun]) -> str:
    """How and where runs were carried out, as their environments say; empty where none has begun."""
    from cdarts.engine.run_dir import read_json

    begun = [
        (run.settings.execution, read_json(file)) for run in runs if (file := run.path / "environment.json").is_file()
    ]
    told = {
        f"execution {execution}, {environment['device']}, {environment['threads']} thread a search, "
        f"torch {environment['torch']}, {environment['processor']}"
        for execution, environment in begun
    }
    return "; ".join(sorted(told))
