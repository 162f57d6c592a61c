"""One retraining with several seeds: a run directory for each, and a summary of them all."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cdarts.commands.common import config_of, session
from cdarts.commands.many_runs import DECIDING, PlannedRun, carry_out, parse_seeds
from cdarts.commands.resume import settings_of
from cdarts.errors import CdartsError, ConfigurationError
from cdarts.settings import to_json
from cdarts.topology import Genotype

if TYPE_CHECKING:
    from cdarts.commands.retrain import Retrain
    from cdarts.engine.run_dir import RunDir

SPREADS = ("test_accuracy", "best_epoch_test_accuracy", "test_flip_accuracy")
"""What a summary has the mean and the standard deviation of, where runs have it."""


class SeedFailed(CdartsError):  # noqa: N818 - what failed is the run of a seed
    """The runs of some seeds failed, the others are done."""

    def __init__(self, message: str, exit_code: int) -> None:
        """`exit_code`: that of the first run that failed; a bug's where a signal killed it."""
        super().__init__(message)
        self.exit_code = exit_code if exit_code > 0 else 1


def open_folder(out: Path, config: dict[str, Any]) -> "RunDir":
    """The folder of the runs: a new one, or one that was begun with the same settings, be it for other seeds.

    Raises `ConfigurationError`, `DiskError`, `RunInUseError`.
    """
    from cdarts.engine.files import write_json
    from cdarts.engine.run_dir import RunDir, check_unchanged, read_json

    if not (out / "config.json").is_file():
        return RunDir.create(out, config)
    begun = read_json(out / "config.json")
    before = begun.get("settings")
    if begun.get("command") != "retrain" or not isinstance(before, dict) or before.get("seeds") is None:
        raise ConfigurationError(f"{out} holds a run of another kind already; choose a new name with --out")
    free = {name: before.get(name) for name in ("seeds", "jobs")}
    # settings that are younger than the folder count as their defaults
    stored = to_json(settings_of(out))
    check_unchanged(out, {**begun, "settings": stored}, {**config, "settings": {**config["settings"], **free}})
    if changed := [name for name in DECIDING if stored.get(name) != config["settings"].get(name)]:
        raise ConfigurationError(
            f"{out} was begun with other settings ({', '.join(changed)}); choose a new name with --out"
        )
    run_dir = RunDir(out)
    write_json(out / "config.json", config)
    return run_dir


def retrain_seeds(run_dir: "RunDir", settings: "Retrain", genotype: Genotype) -> int:
    """Train with each of the seeds that is not done, and write ``summary.json`` and a page; returns an exit code.

    Each run is an ordinary one, ``seed-N``. Raises `SeedFailed` after the summary if runs have failed, `Interrupted`
    once a signal has stopped them all.
    """
    from cdarts.commands.report import leave_page_of_several
    from cdarts.engine.processes import RESOURCES
    from cdarts.engine.run_dir import read_json
    from cdarts.report.page_records import runs_of

    assert settings.seeds is not None
    runs = [_planned(settings, seed, run_dir.path, genotype) for seed in parse_seeds(settings.seeds)]
    with session(run_dir, page=False):
        try:
            failures = carry_out("retrain", runs, run_dir.path, settings.jobs, run_dir.how_to_resume())
        finally:
            leave_page_of_several(runs_of(run_dir.path), run_dir.path)
        done = {run.seed: run.path for run in runs if run not in failures}
        if done:
            summary = summarize(done, {run.seed: message for run, message in failures.items()})
            run_dir.write_json("summary.json", summary)
            run_dir.write_json("genotype.json", genotype.to_json())
            for line in in_words(summary):
                print(line, flush=True)
        if failures:
            first, message = next(iter(failures.items()))
            raise SeedFailed(
                f"{len(failures)} of {len(runs)} runs failed, first {first}: {message}",
                read_json(first.path / RESOURCES)["exit_code"],
            )
    return 0


def _planned(settings: "Retrain", seed: int, folder: Path, genotype: Genotype) -> PlannedRun:
    """The run of one seed."""
    path = folder / f"seed-{seed}"
    own = replace(settings, seed=seed, seeds=None, jobs=None, out=path)
    return PlannedRun("retraining", seed, path, own, config_of("retrain", own) | {"genotype": genotype.to_json()})


def summarize(runs: dict[int, Path], failures: dict[int, str]) -> dict[str, Any]:
    """What retrainings that are done, by seed, come to together: mean, sample standard deviation, n, worst."""
    from cdarts.engine.run_dir import read_json
    from cdarts.statistics import spread

    summaries = {seed: read_json(path / "summary.json") for seed, path in runs.items()}
    environment = read_json(next(iter(runs.values())) / "environment.json")
    first = next(iter(summaries.values()))
    worst = min(summaries, key=lambda seed: (summaries[seed]["test_accuracy"], seed))
    spreads = {
        name: asdict(spread([summary[name] for summary in summaries.values()])) for name in SPREADS if name in first
    }
    return {
        "n": len(summaries),
        **spreads,
        "worst": {"seed": worst, "test_accuracy": summaries[worst]["test_accuracy"]},
        "seeds": [{"seed": seed, **{name: summary[name] for name in spreads}} for seed, summary in summaries.items()],
        "failures": [{"seed": seed, "message": message} for seed, message in failures.items()],
        **{name: first[name] for name in ("parameters", "macs", "genotype", "data")},
        "seconds": round(sum(summary["seconds"] for summary in summaries.values()), 1),
        **{name: environment[name] for name in ("cdarts", "torch", "device", "threads", "processor")},
    }


def in_words(summary: dict[str, Any]) -> Sequence[str]:
    """A summary in lines for a terminal."""
    lines = [f"seed    {one['seed']}: test accuracy {one['test_accuracy']:.4f}" for one in summary["seeds"]]
    accuracy = summary["test_accuracy"]
    std = "unknown (one seed)" if accuracy["std"] is None else f"{accuracy['std']:.4f}"
    worst = summary["worst"]
    lines.append(
        f"test    accuracy {accuracy['mean']:.4f} after the last epoch, sample standard deviation {std}, "
        f"n {summary['n']}, worst {worst['test_accuracy']:.4f} (seed {worst['seed']})"
    )
    return lines
