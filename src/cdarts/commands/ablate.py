"""The paper's ablations: lists of settings under one protocol, searched over seeds, with a table and a plot at the end.

A list is data (`cdarts.ablations`). Each search is an ordinary run, so that what is done is never done again.
"""

import json
import shlex
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import tyro

from cdarts import ablations
from cdarts.ablations import Setting
from cdarts.algorithms import Protocol
from cdarts.benchmarks.nasbench201 import DATASETS, SPACE, Table, find_table
from cdarts.commands.common import ExecutionChoice, announce, config_of, default_out, describe
from cdarts.commands.compare import describe_protocol, find_protocol
from cdarts.commands.correlate import Correlate, check_sample
from cdarts.commands.many_runs import (
    PlannedRun,
    carry_out,
    check_jobs,
    default_jobs,
    machine_of,
    parse_names,
    parse_seeds,
    preset_words,
    settle,
    unknown,
)
from cdarts.commands.retrain import Retrain
from cdarts.commands.search import Search
from cdarts.errors import ConfigurationError
from cdarts.protocols import PROTOCOLS, RETRAININGS
from cdarts.retraining import NO_PRESET
from cdarts.settings import to_json
from cdarts.topology import Genotype, read_genotype

if TYPE_CHECKING:
    from cdarts.data import ImageData
    from cdarts.report.ablation import Ablation, Measured, Metric, RowSpec
    from cdarts.report.spread_plots import SeedValue, SpreadPanel
    from cdarts.retraining import Retraining

ABLATION = "ablation.json"
"""What an ablation's directory says about itself."""

FILES = ("table.md", "table.csv", "table.json", "plot.svg")
"""What it ends with."""

Failures = dict[PlannedRun, str]


# -- what a cell is worth ----------------------------------------------------------------------------------------------


class Judge(ABC):
    """Says how accurate the network of a found cell is."""

    @abstractmethod
    def metrics(self) -> "list[Metric]":
        """What it says of a cell; the first decides."""

    @abstractmethod
    def says(self) -> str:
        """A sentence about where the figures come from."""

    @abstractmethod
    def trainings(self, searches: Sequence[PlannedRun]) -> list[PlannedRun]:
        """What must be trained before it can tell, a run for each search that is done."""

    @abstractmethod
    def values(self, search: PlannedRun) -> dict[str, float | None]:
        """Of what a search that is done has found, by metric."""


@dataclass(frozen=True)
class TableJudge(Judge):
    """The benchmark's table: accuracy after 200 epochs of real training."""

    table: Table

    def metrics(self) -> "list[Metric]":
        from cdarts.report.ablation import Metric

        unit = "accuracy, %"
        validation = Metric("validation", "CIFAR-10 validation", unit)
        tests = [Metric(f"{data.prefix}_test", f"{data.title} test", unit) for data in DATASETS.values()]
        return [tests[0], validation, *tests[1:], Metric("percentile", "CIFAR-10 percentile", "%")]

    def says(self) -> str:
        return (
            "accuracy in percent from NAS-Bench-201's table, after 200 epochs; percentile: share of its 15,625 cells "
            "that are not better on CIFAR-10's test images"
        )

    def trainings(self, searches: Sequence[PlannedRun]) -> list[PlannedRun]:  # noqa: ARG002 - the table knows
        return []

    def values(self, search: PlannedRun) -> dict[str, float | None]:
        return self.of(read_genotype(search.path / "genotype.json"))

    def of(self, genotype: Genotype) -> dict[str, float | None]:
        """Of any cell."""
        results = {name: self.table.result(genotype, name) for name in DATASETS}
        first = next(iter(results.values()))
        tests = {f"{DATASETS[name].prefix}_test": result.test_200 for name, result in results.items()}
        return {**tests, "validation": first.val_200, "percentile": first.percentile}


@dataclass(frozen=True)
class RetrainJudge(Judge):
    """A short training of every found cell, tested after its last epoch."""

    training: "Retraining"
    protocol: str

    def metrics(self) -> "list[Metric]":
        from cdarts.report.ablation import Metric

        return [Metric("test", "test", "accuracy, %"), Metric("parameters", "parameters, M", digits=3)]

    def says(self) -> str:
        training = self.training
        return (
            f"test accuracy in percent after the last of {training.epochs} epochs of training from scratch, "
            f"{training.cells} cells of {training.channels} channels, batch {training.batch_size}, the search's seed"
        )

    def trainings(self, searches: Sequence[PlannedRun]) -> list[PlannedRun]:
        return [self._training(search) for search in searches]

    def _training(self, search: PlannedRun) -> PlannedRun:
        searched = search.settings
        genotype = read_genotype(search.path / "genotype.json")
        path = _trained(search)
        settings = Retrain(
            data=searched.data,
            data_root=searched.data_root,
            image_size=searched.image_size,
            seed=search.seed,
            device=searched.device,
            threads=searched.threads,
            execution=searched.execution,
            genotype=str(search.path),
            preset=NO_PRESET,
            training=self.training.for_genotype(genotype),
            out=path,
        )
        config = config_of("retrain", settings) | {"genotype": genotype.to_json()}
        return PlannedRun(f"{search.name} retrained", search.seed, path, settings, config)

    def values(self, search: PlannedRun) -> dict[str, float | None]:
        from cdarts.engine.run_dir import read_json

        summary = read_json(_trained(search) / "summary.json")
        return {"test": 100 * summary["test_accuracy"], "parameters": summary["parameters"] / 1e6}


def _trained(search: PlannedRun) -> Path:
    """Where the cell of a search is trained."""
    return search.path.with_name(f"{search.path.name}-retrained")


# -- the command -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Ablate(ABC):
    """What the ablations have in common."""

    name: ClassVar[str]

    protocol: str = "nasbench201-small"
    """Name of what all rows share: images, network, epochs. It also decides what a cell is worth: in the NAS-Bench-201
    space the table's accuracy, in the DARTS space that of a short retraining."""
    seeds: str = "10-12"
    """E.g. 10-13 or 10,11,20."""
    rows: str | None = None
    """Only these rows, with commas between; default: all."""
    out: Path | None = None
    """Directory of the ablation; default: runs/ablate-<name>-<protocol>-<time>."""
    jobs: int | None = None
    """Runs at a time, each on one thread; default: one for each core, on a GPU one."""
    dry_run: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print the rows, how they differ and a forecast of the time; train nothing, write nothing."""
    table: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """The table; default: $CDARTS_NASBENCH201, else nasbench201.csv.gz in $CDARTS_DATA, else in ~/.cache/cdarts."""
    data_root: Path | None = None
    """Where downloaded data sets lie; $CDARTS_DATA, else ~/.cache/cdarts."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    execution: ExecutionChoice = "auto"
    """How cells are computed, the same for all rows: another execution finds other cells."""

    def run(self) -> int:
        announce("ablate", self.name, f"protocol {self.protocol}", f"seeds {self.seeds}")
        seeds, protocol = parse_seeds(self.seeds), self.shared()
        check_jobs(self.jobs)
        settings = self.chosen(protocol)
        judge = self.judge(protocol)
        out = self.out or default_out("ablate", self.name, self.protocol)
        searches = self.searches(settings, seeds, protocol, out)
        if self.dry_run:
            self.forecast(settings, searches, judge)
            return 0
        settle(out, ABLATION, {"ablation": self.name, "protocol": self.protocol, **to_json(protocol)})
        failures = self.carry_out(searches, out)
        done = [search for search in searches if search not in failures]
        failures |= self.prepare(done, judge, out)
        done = [search for search in done if search not in failures]
        specs, measured = self.measured(settings, done, judge)
        self.write(out, specs, measured, failures, judge, machine_of(searches), protocol)
        return 0

    # what an ablation is about

    @abstractmethod
    def settings(self, protocol: Protocol) -> list[Setting]:
        """All its rows. Raises `ConfigurationError`."""

    @abstractmethod
    def plot(self, ablation: "Ablation") -> str:
        """As SVG."""

    def shared(self) -> Protocol:
        """The protocol. Raises `ConfigurationError`."""
        if self.protocol not in PROTOCOLS:
            raise ConfigurationError(f"--protocol {self.protocol}: {unknown(self.protocol, PROTOCOLS)}")
        return PROTOCOLS[self.protocol]

    def judge(self, protocol: Protocol) -> Judge:
        """Who says what a cell is worth. Raises `ConfigurationError`, `DataError`."""
        if protocol.space.name == SPACE:
            return TableJudge(Table.load(find_table(self.table)))
        if self.protocol not in RETRAININGS:
            raise ConfigurationError(
                f"--protocol {self.protocol}: there is no table of space {protocol.space.name}, and no retraining is "
                f"known for this protocol; choose one of {', '.join([*RETRAININGS, 'nasbench201-small'])}"
            )
        return RetrainJudge(RETRAININGS[self.protocol], self.protocol)

    def metrics(self, judge: Judge) -> "list[Metric]":
        return judge.metrics()

    def says(self, judge: Judge) -> str:
        """A sentence about where the figures come from."""
        return judge.says()

    def chosen(self, protocol: Protocol) -> list[Setting]:
        """The rows that are asked for, in their own order. Raises `ConfigurationError`."""
        settings = self.settings(protocol)
        if self.rows is None:
            return settings
        names = parse_names("--rows", self.rows, [setting.name for setting in settings], "rows")
        return [setting for setting in settings if setting.name in names]

    # its runs

    def searches(
        self, settings: Sequence[Setting], seeds: Sequence[int], protocol: Protocol, out: Path
    ) -> list[PlannedRun]:
        """Every search, seed by seed, so that a table of all rows is there early."""
        return [self._search(setting, seed, protocol, out) for seed in seeds for setting in settings]

    def _search(self, setting: Setting, seed: int, protocol: Protocol, out: Path) -> PlannedRun:
        from cdarts.engine.runtime import choose_device

        path = out / setting.name / f"seed-{seed}"
        search = Search(
            algorithm=setting.algorithm,
            preset=preset_words(setting.preset, setting.name, self.protocol),
            data=protocol.data,
            data_root=self.data_root,
            image_size=protocol.image_size,
            seed=seed,
            execution=self.execution,
            out=path,
        ).settled(choose_device(self.device), 1)
        return PlannedRun(setting.name, seed, path, search, config_of("search", search))

    def carry_out(self, runs: Sequence[PlannedRun], out: Path) -> Failures:
        return carry_out(f"ablate {self.name}", runs, out, self.jobs, self.how_to_go_on(out))

    def prepare(self, searches: Sequence[PlannedRun], judge: Judge, out: Path) -> Failures:
        """Whatever must be done between the searches and the table; returns the searches it failed for, and why."""
        trainings = judge.trainings(searches)
        if not trainings:
            return {}
        failures = self.carry_out(trainings, out)
        return {
            search: failures[training]
            for search, training in zip(searches, trainings, strict=True)
            if training in failures
        }

    def measured(
        self, settings: Sequence[Setting], searches: Sequence[PlannedRun], judge: Judge
    ) -> "tuple[list[RowSpec], list[Measured]]":
        """The rows of the table, and what every search has come to."""
        from cdarts.report.ablation import Measured

        measured = [
            Measured(
                search.name,
                search.seed,
                judge.values(search),
                read_genotype(search.path / "genotype.json").text(),
                _seconds(search),
            )
            for search in searches
        ]
        return self.specs(settings), measured

    def specs(self, settings: Sequence[Setting]) -> "list[RowSpec]":
        """The rows that are searches. One whose counterpart is not among them is compared with nothing."""
        from cdarts.report.ablation import RowSpec

        there = {setting.name for setting in settings}
        every = self.settings(self.shared())
        return [
            RowSpec(
                setting.name,
                setting.group,
                setting.says,
                setting.versus if setting.versus in there else None,
                ablations.difference(setting, every) if setting.versus in there else {},
                setting.position,
            )
            for setting in settings
        ]

    # its end

    def write(
        self,
        out: Path,
        specs: "Sequence[RowSpec]",
        measured: "Sequence[Measured]",
        failures: Mapping[PlannedRun, str],
        judge: Judge,
        machine: str,
        protocol: Protocol,
    ) -> None:
        """The table in three forms, and the plot; the table on the terminal too."""
        import numpy as np

        from cdarts import __version__
        from cdarts.engine.files import write_bytes, write_json
        from cdarts.randomness import key
        from cdarts.report.ablation import Ablation, rows_of, to_csv, to_markdown
        from cdarts.report.ablation import to_json as as_json

        order = [spec.name for spec in specs]
        runs = sorted(measured, key=lambda run: (order.index(run.row), run.seed))
        draw = np.random.Generator(np.random.PCG64(key(0, "permutations")))
        metrics = self.metrics(judge)
        ablation = Ablation(
            title=f"Ablation: {self.name}, {self.protocol}",
            about=[
                describe_protocol(protocol),
                f"seeds {self.seeds}; cdarts {__version__}; {machine}",
                f"command: `{self.how_to_go_on(out)}`",
                self.says(judge),
            ],
            metrics=metrics,
            rows=rows_of(specs, metrics, runs, draw),
            runs=runs,
            failures=[{"row": run.name, "seed": run.seed, "message": message} for run, message in failures.items()],
        )
        markdown = to_markdown(ablation)
        write_bytes(out / "table.md", markdown.encode())
        write_bytes(out / "table.csv", to_csv(ablation).encode())
        write_json(out / "table.json", as_json(ablation))
        if ablation.rows:
            write_bytes(out / "plot.svg", self.plot(ablation).encode())
        names = FILES if ablation.rows else FILES[:-1]
        print(f"\n{markdown}\ntable   {out}: {', '.join(names)}", flush=True)

    def how_to_go_on(self, out: Path) -> str:
        """The command that goes on with this ablation."""
        words = [f"cdarts ablate {self.name}"]
        for field in fields(self):
            value = out if field.name == "out" else getattr(self, field.name)
            if value != field.default:
                words.append(f"--{field.name.replace('_', '-')} {shlex.quote(str(value))}")
        return " ".join(words)

    # a dry run

    def forecast(self, settings: Sequence[Setting], searches: Sequence[PlannedRun], judge: Judge) -> None:
        """Print every row and what is left of it to do; nothing is kept."""
        import torch

        from cdarts.durations import clock
        from cdarts.engine.forecast import forecast
        from cdarts.engine.run_dir import is_done
        from cdarts.engine.runtime import set_threads
        from cdarts.report.ablation import difference_text

        set_threads(1)
        data = searches[0].settings.load_data()
        print(describe(data), flush=True)
        specs = {spec.name: spec for spec in self.specs(settings)}
        device = torch.device(searches[0].settings.device)
        total, longest = 0.0, 0.0
        for setting in settings:
            mine = [search for search in searches if search.name == setting.name]
            left = sum(not is_done(search.path) for search in mine)
            search = mine[0].settings
            assert isinstance(search, Search)
            seconds = forecast(search.build(data, device)).seconds if left else 0.0
            total, longest = total + left * seconds, max(longest, seconds)
            spec = specs[setting.name]
            against = f"; against {spec.versus}: {difference_text(spec)}" if spec.versus else ""
            print(f"row     {setting.name}: {left} of {len(mine)} to do, {clock(seconds)} each{against}", flush=True)
        jobs = self.jobs or default_jobs(device.type)
        beside = self.forecast_rest(searches, judge, data)
        print(
            f"time    at most {clock(max(total / jobs, longest) + beside / jobs)} with {jobs} at a time, each on one "
            "thread; searches whose topology stays need less",
            flush=True,
        )

    def forecast_rest(self, searches: Sequence[PlannedRun], judge: Judge, data: "ImageData") -> float:
        """Seconds, one after another, of what follows the searches."""
        if not isinstance(judge, RetrainJudge):
            return 0.0
        import torch

        from cdarts.algorithms.base import random_genotype
        from cdarts.durations import clock
        from cdarts.engine.forecast import forecast
        from cdarts.engine.run_dir import is_done

        settings = searches[0].settings
        genotype = random_genotype(self.shared().space, 0, "forecast")
        training = judge.training.for_genotype(genotype)
        task = training.build(
            genotype, data, seed=0, device=torch.device(settings.device), execution=settings.execution
        )
        seconds = forecast(task).seconds
        left = sum(not is_done(_trained(search)) for search in searches)
        print(f"retrain {left} of {len(searches)} to do, {clock(seconds)} each", flush=True)
        return left * seconds


def _seconds(search: PlannedRun) -> float:
    from cdarts.engine.run_dir import read_json

    return float(read_json(search.path / "summary.json")["seconds"])


# -- the four ablations ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Components(Ablate):
    """What each part of the method is worth: built up one after another, and left out one at a time."""

    name: ClassVar[str] = "components"

    def settings(self, protocol: Protocol) -> list[Setting]:
        return ablations.components(protocol)

    def plot(self, ablation: "Ablation") -> str:
        from cdarts.report.spread_plots import PlotRow, row_plot

        metric = ablation.metrics[0]
        rows = [
            PlotRow(row.spec.name, row.spec.group, values)
            for row in ablation.rows
            if (values := _seed_values(ablation, row.spec.name, metric.key))
        ]
        return row_plot(ablation.title, metric.axis(), rows)


@dataclass(frozen=True, kw_only=True)
class Numbers(Ablate):
    """An ablation over a number, of one preset."""

    x_label: ClassVar[str]

    preset: str = "cdarts"
    """The preset that is varied, without its space: cdarts, cdarts-paper or cdarts-official."""

    def plot(self, ablation: "Ablation") -> str:
        from cdarts.report.spread_plots import curve_plot

        return curve_plot(ablation.title, [self._panel(ablation, metric) for metric in ablation.metrics[:2]])

    def _panel(self, ablation: "Ablation", metric: "Metric") -> "SpreadPanel":
        from cdarts.report.spread_plots import SpreadPanel

        title = metric.title[:1].upper() + metric.title[1:]
        return SpreadPanel(title, self.x_label, metric.axis(), list(_series(ablation, metric.key)))


@dataclass(frozen=True, kw_only=True)
class Depth(Numbers):
    """Evaluation networks of 2 to 20 cells, the search network the same throughout."""

    name: ClassVar[str] = "depth"
    x_label: ClassVar[str] = "cells of the evaluation network"

    def settings(self, protocol: Protocol) -> list[Setting]:
        return ablations.depth(protocol, self.preset)


@dataclass(frozen=True, kw_only=True)
class Epochs(Numbers):
    """How long to search: a search for each length, and the cell after each epoch of alpha in the longest ones."""

    name: ClassVar[str] = "epochs"
    x_label: ClassVar[str] = "search epochs"

    def settings(self, protocol: Protocol) -> list[Setting]:
        return ablations.epochs(protocol, self.preset)

    def measured(
        self, settings: Sequence[Setting], searches: Sequence[PlannedRun], judge: Judge
    ) -> "tuple[list[RowSpec], list[Measured]]":
        """On the table also the cell after each epoch of the longest searches; it costs nothing there."""
        from cdarts.report.ablation import Measured, RowSpec

        specs, measured = super().measured(settings, searches, judge)
        if not isinstance(judge, TableJudge):
            return specs, measured
        longest = max(settings, key=lambda setting: setting.position or 0.0)
        group = f"After each epoch of the {longest.name} searches"
        read: dict[int, RowSpec] = {}
        for search in searches:
            if search.name != longest.name:
                continue
            for epoch, genotype in cells_by_epoch(search.path):
                name = f"after-{epoch}"
                read[epoch] = RowSpec(name, group, f"the cell after {epoch} of them", position=float(epoch))
                measured.append(Measured(name, search.seed, judge.of(genotype), genotype.text()))
        return [*specs, *(read[epoch] for epoch in sorted(read))], measured


@dataclass(frozen=True, kw_only=True)
class Correlation(Ablate):
    """How well networks rank random cells: over seeds, and over the epochs of a search."""

    name: ClassVar[str] = "correlation"

    cells: int = 100
    """Random cells that every network scores."""
    images: int = 1000
    """Images that score a cell, rounded up to whole batches."""

    def shared(self) -> Protocol:
        check_sample(self.cells, self.images)
        return find_protocol(self.protocol)  # true accuracies are needed

    def settings(self, protocol: Protocol) -> list[Setting]:
        return ablations.correlation(protocol)

    def metrics(self, judge: Judge) -> "list[Metric]":  # noqa: ARG002 - it does not judge what was found
        from cdarts.report.ablation import Metric

        return [*(Metric(key, title) for key, (title, *_) in TAUS.items()), Metric(MET_CELLS, "cells met", digits=0)]

    def says(self, judge: Judge) -> str:  # noqa: ARG002 - as above
        return (
            f"Kendall's tau over {self.cells} random cells, others for each seed, against true CIFAR-10 test accuracy; "
            f"a cell is scored on {self.images} of the training images, in whole batches, which the network's weights "
            "have not learned from; met: the cells whose operations E-Net has all had"
        )

    def searches(
        self, settings: Sequence[Setting], seeds: Sequence[int], protocol: Protocol, out: Path
    ) -> list[PlannedRun]:
        """They keep their state on the way."""
        import torch

        searches = super().searches(settings, seeds, protocol, out)
        data = searches[0].settings.load_data()
        snapshots: dict[str, tuple[int, ...]] = {}
        for run in searches:
            search = run.settings
            assert isinstance(search, Search)
            if run.name not in snapshots:
                plan = search.build(data, torch.device(search.device)).plan()
                learning = learning_epochs([epoch.phase for epoch in plan])
                numbers = {max(round(share * len(learning)), 1) for share in ablations.POINTS} - {len(learning)}
                snapshots[run.name] = tuple(learning[number - 1] for number in sorted(numbers))
        planned = []
        for run in searches:
            assert isinstance(run.settings, Search)
            search = replace(run.settings, snapshots=snapshots[run.name])
            planned.append(replace(run, settings=search, config=config_of("search", search)))
        return planned

    def prepare(self, searches: Sequence[PlannedRun], judge: Judge, out: Path) -> Failures:
        """Score the cells, in this process, one network after another."""
        from cdarts.engine.runtime import Interrupted, stop_on_signals

        assert isinstance(judge, TableJudge)
        points = [(search, epoch, folder) for search in searches for epoch, folder in self.points(search)]
        left = [point for point in points if not _scored(point[2], point[0].seed)]
        print(f"scores  {len(points)} networks, {len(points) - len(left)} of them scored already", flush=True)
        with stop_on_signals() as stop:

            def check(done: int) -> None:  # noqa: ARG001 - how progress is reported
                stop.check()

            try:
                for number, (search, epoch, folder) in enumerate(left, start=1):
                    began = time.monotonic()
                    Correlate(
                        run_dir=search.path,
                        cells=self.cells,
                        images=self.images,
                        seed=search.seed,
                        epoch=epoch,
                        out=folder,
                        device=self.device,
                    ).measure(judge.table, check)
                    when = "its end" if epoch is None else f"epoch {epoch}"
                    print(
                        f"scored  {number}/{len(left)}  {search} at {when} in {time.monotonic() - began:.0f}s",
                        flush=True,
                    )
            except Interrupted as error:
                raise Interrupted(error.number, self.how_to_go_on(out)) from error
        return {}

    def points(self, search: PlannedRun) -> list[tuple[int | None, Path]]:
        """Epochs of a search that are asked, None for its end, and where the answers lie."""
        assert isinstance(search.settings, Search)
        asked = f"cells-{self.cells}-images-{self.images}"
        return [
            (epoch, search.path / "correlation" / f"{asked}-{'end' if epoch is None else f'epoch-{epoch}'}")
            for epoch in (*search.settings.snapshots, None)
        ]

    def measured(
        self,
        settings: Sequence[Setting],
        searches: Sequence[PlannedRun],
        judge: Judge,  # noqa: ARG002 - as above
    ) -> "tuple[list[RowSpec], list[Measured]]":
        from cdarts.report.ablation import Measured, RowSpec

        specs: dict[str, RowSpec] = {}
        measured = []
        for setting in settings:
            for search in searches:
                if search.name != setting.name:
                    continue
                learning = learning_epochs(_phases_of(search.path))
                for epoch, folder in self.points(search):
                    done = sum(position <= epoch for position in learning) if epoch else len(learning)
                    percent = round(100 * done / len(learning))
                    name = f"{setting.name}-{percent}"
                    says = f"after {done} of its {len(learning)} epochs" if epoch else "at the end of the search"
                    group = f"{setting.name}: {setting.says}"
                    specs[name] = RowSpec(name, group, says, position=float(percent))
                    seconds = None if epoch else _seconds(search)
                    measured.append(Measured(name, search.seed, _figures(folder), None, seconds))
        return list(specs.values()), measured

    def plot(self, ablation: "Ablation") -> str:
        from cdarts.report.spread_plots import SpreadPanel, curve_plot

        panels = []
        for key, (title, *_) in TAUS.items():
            series = list(_series(ablation, key))
            if series:
                panels.append(SpreadPanel(title, "share of the search network's epochs, %", "Kendall's tau", series))
        return curve_plot(ablation.title, panels)

    def forecast_rest(self, searches: Sequence[PlannedRun], judge: Judge, data: "ImageData") -> float:  # noqa: ARG002
        """The cells are scored one after another, whatever the number of jobs."""
        import torch

        from cdarts.algorithms.scoring import score_cells
        from cdarts.durations import clock

        left = sum(not _scored(folder, search.seed) for search in searches for _, folder in self.points(search))
        first = searches[0].settings
        assert isinstance(first, Search)
        task = first.build(data, torch.device(first.device))
        began = time.monotonic()
        score_cells(task, number=TRIED_CELLS, images=self.images, seed=0, report=lambda _: None)
        seconds = (time.monotonic() - began) / TRIED_CELLS * self.cells
        print(f"scores  {left} networks to score, {clock(seconds)} each, one after another", flush=True)
        return left * seconds * (self.jobs or default_jobs(first.device))


TRIED_CELLS = 3
"""Scored for a forecast."""

TAUS = {
    "s_net": ("S-Net with truth", "S-Net", "test", "all cells"),
    "e_net": ("E-Net with truth, met", "E-Net", "test", "wholly met cells"),
    "e_net_all": ("E-Net with truth, all", "E-Net", "test", "all cells"),
    "s_net_e_net": ("S-Net with E-Net", "S-Net", "E-Net", "all cells"),
}
"""Figures of `cdarts correlate`: key -> title, and which of its pairs it is."""


MET_CELLS = "met_cells"
"""How many of the cells E-Net has wholly met."""


def _figures(folder: Path) -> dict[str, float | None]:
    """From what `Correlate` has written."""
    from cdarts.engine.run_dir import read_json

    written = read_json(folder / "correlation.json")
    known = {(pair["first"], pair["second"], pair["over"]): pair["kendall"] for pair in written["correlations"]}
    found = {key: known.get((first, second, over)) for key, (_, first, second, over) in TAUS.items()}
    taus = {key: None if kendall is None else kendall["value"] for key, kendall in found.items()}
    coverage = written["coverage"]
    return {**taus, MET_CELLS: None if coverage is None else coverage["wholly_met_cells"]}


def _scored(folder: Path, seed: int) -> bool:
    """Whether the cells of this seed have been scored there."""
    from cdarts.engine.run_dir import read_json

    if not (folder / "correlation.svg").is_file():  # written last
        return False
    return bool(read_json(folder / "correlation.json")["seed"] == seed)


def learning_epochs(phases: Sequence[str]) -> list[int]:
    """Positions, from 1, of the epochs of a plan in which the search network learns.

    It does not while E-Net warms up, nor while candidates are scored.
    """
    return [position for position, phase in enumerate(phases, start=1) if phase not in ("warmup", "select")]


def _phases_of(run: Path) -> list[str]:
    """Of every epoch of a search that is done."""
    return [line["phase"] for line in _journal(run, "metrics")]


def _journal(run: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]


def cells_by_epoch(run: Path) -> Iterator[tuple[int, Genotype]]:
    """The cell after each epoch of CDARTS in which alpha has learned, of a search that is done.

    Epochs are those of the search network, counted from 1. Before alpha learns, its cell is one that was drawn.
    """
    from cdarts.topology import parse_genotype

    phases, genotypes = _phases_of(run), _journal(run, "genotypes")
    for epoch, position in enumerate(learning_epochs(phases), start=1):
        if phases[position - 1] != "pretrain":
            yield epoch, parse_genotype(genotypes[position - 1]["text"])


# -- plots -------------------------------------------------------------------------------------------------------------


def _seed_values(ablation: "Ablation", row: str, key: str) -> "list[SeedValue]":
    from cdarts.report.spread_plots import SeedValue

    return [
        SeedValue(value, f"{row}, seed {run.seed}: {value:.4g}")
        for run in ablation.runs
        if run.row == row and (value := run.values[key]) is not None
    ]


def _series(ablation: "Ablation", key: str) -> "Iterator[Any]":
    """One for each group of rows, over their positions."""
    from cdarts.report.spread_plots import Series

    for group in dict.fromkeys(row.spec.group for row in ablation.rows):
        at = [
            (row.spec.position, values)
            for row in ablation.rows
            if row.spec.group == group
            and row.spec.position is not None
            and (values := _seed_values(ablation, row.spec.name, key))
        ]
        if at:
            yield Series(group, at)


ABLATIONS: dict[str, Ablate] = {
    "components": Components(),
    "correlation": Correlation(),
    "depth": Depth(),
    "epochs": Epochs(),
}

COMMAND = tyro.extras.subcommand_type_from_defaults(
    ABLATIONS,
    descriptions={
        "components": "what each part of the method is worth: built up, and left out one at a time",
        "correlation": "how well search and evaluation networks rank cells, over seeds and epochs",
        "depth": "evaluation networks of 2 to 20 cells",
        "epochs": "how long to search: one run for each length, and one read at each epoch",
    },
)
