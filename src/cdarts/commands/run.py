"""The whole way, from images to a model for use: search, retrain, evaluate, export, sized to a time budget."""

import shlex
import sys
import time
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from cdarts import zoo
from cdarts.commands.common import Setup, announce, config_of, default_out, describe, memory_permitting, session
from cdarts.commands.export import hand_over
from cdarts.commands.resume import settings_of
from cdarts.commands.retrain import Retrain, retrain, trained
from cdarts.commands.search import Search, search, searched, write_genotype
from cdarts.durations import clock, parse_duration
from cdarts.errors import ConfigurationError, ExportError, GenotypeError
from cdarts.retraining import NO_PRESET
from cdarts.settings import STRICT, from_json, to_json
from cdarts.spaces import AnySpace, DartsSpace
from cdarts.topology import Genotype

if TYPE_CHECKING:
    from cdarts.budget import Machine, RunPlan, TrainingPlan
    from cdarts.data import ImageData
    from cdarts.engine.run_dir import RunDir
    from cdarts.engine.runtime import StopFlag


@dataclass(frozen=True, kw_only=True)
class Run(Setup):
    """Search a network for your images, train it, test it, export it; one directory holds everything.

    What is chosen for the images, and why, is printed.
    """

    __pydantic_config__: ClassVar = STRICT

    data: str = "digits"
    """Name of a data set (digits, cifar10, cifar10-5k, cifar100, fashion-mnist, synthetic), folder of images, or .npz
    file."""
    budget: str = "4m"
    """Time for everything, e.g. 90s, 25m, 2h; networks and epochs are sized to it."""
    search: Literal["auto", "always", "never"] = "auto"
    """Whether a cell is searched; `auto` does unless there are too few images for a search to say anything, and trains
    a published cell then."""
    cell: str = "cdarts-cifar10"
    """The published cell that is trained where none is searched: `cdarts show genotypes`, those of space darts."""
    out: Path | None = None
    """The run directory, new or empty; default: runs/<data>-seed<seed>-<time>."""

    def run(self) -> int:
        began = time.monotonic()
        announce("run", f"data {self.data}", f"budget {self.budget}", f"seed {self.seed}")
        budget_seconds = parse_duration("--budget", self.budget)
        check_cell(self.cell)
        from cdarts.engine.run_dir import RunDir, check_free

        if self.out is not None:
            check_free(self.out)
        device, threads = self.machine()
        settled = self.settled(device, threads)
        from cdarts.budget import Machine, plan_run

        machine = Machine(self.seed, device, settled.execution)
        with memory_permitting():
            settings, reasons = settled.sized(budget_seconds, machine)
            data = settings.load_data()
            print(describe(data), flush=True)
            settings = replace(settings, out=self.out or default_out(data.name, f"seed{self.seed}"))
            cell = settings.instead_of_a_search(data)
            print("plan    trying sizes on this machine; what fits the budget:", flush=True)
            plan = plan_run(
                data,
                budget_seconds,
                machine,
                began=began,
                report=lambda line: print(f"plan    {line}", flush=True),
                cell=cell,
            )
        plan = replace(plan, reasons=(*reasons, *plan.reasons))
        for reason in plan.reasons:
            print(f"why     {reason}", flush=True)
        assert settings.out is not None
        out = settings.out
        return settings.execute(RunDir.create(out, config_of("run", settings) | {"plan": to_json(plan)}), data)

    def sized(self, budget_seconds: float, machine: "Machine") -> "tuple[Run, list[str]]":
        """With an image size, where the data is a folder and no flag gives one, and why it is that."""
        from cdarts.budget import choose_side
        from cdarts.data import DATASETS, path_of
        from cdarts.data.folder import glance
        from cdarts.data.preflight import survey

        path = path_of(self.data)
        if self.image_size is not None or self.data in DATASETS or not path.is_dir():
            return self, []
        seen, num_classes = glance(path), len(survey(path).train)
        side, reason = choose_side(seen, num_classes, budget_seconds, machine)
        return replace(self, image_size=side), [reason]

    def instead_of_a_search(self, data: "ImageData") -> str | None:
        """The published cell that is trained, None to search one; warns of data that are too few for that."""
        from cdarts.budget import why_no_search

        if self.search == "never":
            return self.cell
        reason = why_no_search(data)
        if reason is None:
            return None
        if self.search == "always":
            print(f"note    too few images for a search: {reason}; what it finds is a guess", flush=True)
            return None
        print(
            f"warning: too few images for a search: {reason}; the published cell {self.cell} is trained instead; "
            "--search always searches all the same",
            file=sys.stderr,
            flush=True,
        )
        return self.cell

    def training(
        self,
        run_dir: "RunDir",
        plan: "RunPlan",
        genotype: Genotype,
        search_seconds: float,
        data: "ImageData",
        stop: "StopFlag",
    ) -> "TrainingPlan":
        """The training, planned when the cell is known, and from then on kept in ``plan.json``."""
        from cdarts.budget import Machine, TrainingPlan, plan_training
        from cdarts.engine.run_dir import read_json

        path = run_dir.path / "plan.json"
        if path.exists():
            return from_json(TrainingPlan, read_json(path), str(path))
        expected = {"seconds": plan.retraining_seconds, "planning_seconds": 0.0}
        begun = run_dir.path / "retrain"
        if (begun / "config.json").is_file():  # what it has been trained by is not measured anew
            settings = settings_of(begun)
            assert isinstance(settings, Retrain)
            planned = TrainingPlan(training=settings.training, reason="as it was begun", **expected)
        elif plan.search is None:  # the cell was known from the beginning
            planned = TrainingPlan(training=plan.retraining, reason="as planned", **expected)
        else:

            def report(line: str) -> None:
                stop.check()
                print(f"plan    {line}", flush=True)

            print("plan    trying sizes with the cell found; what fits the rest of the budget:", flush=True)
            device, _ = self.machine()
            remaining = parse_duration("--budget", self.budget) - plan.planning_seconds - search_seconds
            machine = Machine(self.seed, device, self.execution)
            with memory_permitting():
                planned = plan_training(data, genotype, remaining, machine, report)
            print(f"why     {planned.reason}", flush=True)
        run_dir.write_json("plan.json", to_json(planned))
        return planned

    def resume(self, path: Path) -> int:
        from cdarts.engine.run_dir import RunDir, is_done, read_json

        if is_done(path):
            print_summary(path, read_json(path / "summary.json"))
            return 0
        data = self.load_data()
        return self.execute(RunDir(path), data)

    def space_of(self, path: Path) -> AnySpace:
        from cdarts.engine.run_dir import read_json

        begun = path / "retrain"
        if (begun / "config.json").is_file():
            return settings_of(begun).space_of(begun)
        return plan_of(read_json(path / "config.json"), path).retraining.space

    def execute(self, run_dir: "RunDir", data: "ImageData") -> int:
        """Walk the way from wherever it stopped: the search, the retraining, the summary."""
        from cdarts.engine.files import refuse_links
        from cdarts.engine.run_dir import is_done, read_json

        device, _ = self.machine()
        setup = {field.name: getattr(self, field.name) for field in fields(Setup)}
        search_path, retrain_path = run_dir.path / "search", run_dir.path / "retrain"
        with session(run_dir) as stop:
            refuse_links(search_path, retrain_path)
            plan = plan_of(run_dir.config(), run_dir.path)
            search_seconds = 0.0
            if plan.search is None:
                assert plan.cell is not None
                genotype, source = zoo.load(plan.cell), plan.cell
            else:
                source = str(search_path)
                searching = Search(
                    **setup, algorithm=plan.search, preset=f"cdarts, sized to {self.budget}", out=search_path
                )
                if is_done(search_path):
                    genotype = searched(search_path)
                else:
                    search_task = searching.build(data, device)
                    search_dir = open_or_create(search_path, config_of("search", searching))
                    genotype = search(search_dir, searching, data, search_task)
                    del search_task  # the training needs the memory
                search_seconds = read_json(search_path / "summary.json")["seconds"]
            write_genotype(run_dir, genotype)
            stop.check()

            training = self.training(run_dir, plan, genotype, search_seconds, data, stop)
            retraining = Retrain(
                **setup, genotype=source, preset=NO_PRESET, training=training.training, out=retrain_path
            )
            if is_done(retrain_path):
                scores = trained(retrain_path)
            else:
                retrain_task = retraining.build(genotype, data, device)
                retrain_config = config_of("retrain", retraining) | {"genotype": genotype.to_json()}
                retrain_dir = open_or_create(retrain_path, retrain_config)
                scores = retrain(retrain_dir, retraining, data, retrain_task)

            began = time.monotonic()
            exported, failure = exported_or_why_not(retrain_path, data)
            export_seconds = round(time.monotonic() - began, 1)

            planning_seconds = plan.planning_seconds + training.planning_seconds
            took = planning_seconds + search_seconds + scores["seconds"] + export_seconds
            expected = planning_seconds + plan.search_seconds + training.seconds
            summary = {
                **scores,
                "cell": plan.cell,
                "search_seconds": search_seconds,
                "retraining_seconds": scores["seconds"],
                "export_seconds": export_seconds,
                "exported": [str(path.relative_to(run_dir.path)) for path in exported],
                "seconds": round(took, 1),
                "forecast": {
                    "search_seconds": plan.search_seconds,
                    "retraining_seconds": training.seconds,
                    "planning_seconds": planning_seconds,
                    "error": round(took / expected - 1, 3),
                },
            }
            run_dir.write_json("summary.json", summary)
        print_summary(run_dir.path, summary)
        if failure is not None:
            raise failure
        return 0


def exported_or_why_not(directory: Path, data: "ImageData") -> tuple[list[Path], ExportError | None]:
    """The files of the export, and why there are none: the model is trained, and that is not lost by it."""
    try:
        return hand_over(directory, data), None
    except ExportError as error:
        return [], error


def plan_of(config: dict[str, Any], path: Path) -> "RunPlan":
    """The plan in the ``config.json`` of the run at `path`. Raises `ConfigurationError` naming the file."""
    from cdarts.budget import RunPlan

    return from_json(RunPlan, config.get("plan"), f"{path / 'config.json'}, plan")


def check_cell(name: str) -> None:
    """Raise `ConfigurationError` unless it is a published cell of the DARTS space."""
    try:
        space = zoo.load(name).space
    except GenotypeError as error:
        raise ConfigurationError(f"--cell {error}") from error
    if space != DartsSpace().name:
        known = ", ".join(each for each in zoo.names() if zoo.load(each).space == DartsSpace().name)
        raise ConfigurationError(
            f"--cell {name}: belongs to space {space}, and networks of space {DartsSpace().name} are sized here; "
            f"choose one of {known}"
        )


def open_or_create(path: Path, config: dict[str, Any]) -> "RunDir":
    """A stage's run directory: the one that an interrupted run left, or a new one."""
    from cdarts.engine.run_dir import RunDir, check_unchanged, read_json

    if not (path / "config.json").is_file():
        return RunDir.create(path, config)
    # settings that are younger than the run count as their defaults
    check_unchanged(path, read_json(path / "config.json") | {"settings": to_json(settings_of(path))}, config)
    return RunDir(path)


def print_summary(path: Path, summary: dict[str, Any]) -> None:
    """The result as a table, where everything lies, and what can be done next."""
    from rich.console import Console
    from rich.table import Table

    forecast = summary["forecast"]
    # runs of before this version do not say how many images they were tested on
    tested = summary.get("test_images")
    low, high = summary.get("test_interval", (0.0, 1.0))
    uncertain = f" (95 % interval {low:.3f} to {high:.3f}, {tested:,} images)" if tested else ""
    cell = summary.get("cell")
    searched = f"{clock(summary['search_seconds'])} (forecast {clock(forecast['search_seconds'])})"
    rows = [("test accuracy, last epoch", f"{summary['test_accuracy']:.4f}{uncertain}")]
    if "test_class_accuracy" in summary:
        rows.append(("mean of the classes' accuracies", f"{summary['test_class_accuracy']:.4f}"))
    rows += [
        ("best epoch (chosen on test images)", f"{summary['best_epoch_test_accuracy']:.4f}"),
        ("parameters", f"{summary['parameters']:,}"),
        ("multiply-adds", f"{summary['macs'] / 1e6:,.1f} M"),
        ("search", searched if cell is None else f"none: published cell {cell}"),
        ("retraining", f"{clock(summary['retraining_seconds'])} (forecast {clock(forecast['retraining_seconds'])})"),
        ("everything", f"{clock(summary['seconds'])} (forecast off by {forecast['error']:+.0%})"),
    ]
    table = Table(title=f"{summary['data']}, seed {summary['seed']}", show_header=False)
    for name, value in rows:
        table.add_row(name, value)
    # the name of a data set is a user's: no markup, so that brackets in it stay brackets
    Console(markup=False, emoji=False, highlight=False).print(table)
    files = ["summary.json", "genotype.json", "cell.svg", "retrain/model.safetensors", *summary.get("exported", ())]
    print(f"run     {path}: {', '.join(files)}")
    name = shlex.quote(str(path))
    print(f"next    cdarts predict {name} IMAGE...    cdarts evaluate {name}    cdarts show genotype {name}")


COMMAND = Run
