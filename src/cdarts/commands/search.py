"""Search an architecture with a preset; every field of the algorithm is a flag."""

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import tyro

from cdarts.algorithms import AnyAlgorithm
from cdarts.commands.common import (
    Setup,
    announce,
    config_of,
    default_out,
    describe,
    dry_run,
    memory_permitting,
    note_setting,
    session,
    suited_side,
)
from cdarts.commands.memory import parse_memory, within
from cdarts.errors import ConfigurationError
from cdarts.presets import PRESETS, SUMMARIES
from cdarts.settings import STRICT
from cdarts.spaces import AnySpace, NasBench201Space
from cdarts.topology import Genotype, parse_genotype, read_genotype

if TYPE_CHECKING:
    import torch

    from cdarts.algorithms.base import SearchAlgorithm
    from cdarts.benchmarks.nasbench201 import Table
    from cdarts.data import ImageData
    from cdarts.engine.run_dir import RunDir
    from cdarts.engine.task import Epoch, Records


@dataclass(frozen=True, kw_only=True)
class Search(Setup):
    """Search an architecture; the run directory then holds genotype.json, cell.svg and how they came about."""

    __pydantic_config__: ClassVar = STRICT

    data: str = "digits"
    """Name of a data set (digits, cifar10, cifar10-5k, cifar100, fashion-mnist, synthetic), folder of images, or .npz
    file."""
    algorithm: Annotated[AnyAlgorithm, tyro.conf.arg(name="")] = field(default=PRESETS["cdarts"])
    preset: tyro.conf.Suppress[str] = "cdarts"
    """Name of the preset that the settings come from, and what was made of it: ``cdarts, sized to 4m``; or ``cdarts,
    cdarts-no-feedback, nasbench201-small``, where the last is a protocol."""
    shuffled_labels: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Training labels are permuted among the images: a control that shows what a search finds without them."""
    table: Path | None = None
    """NAS-Bench-201 table: the true accuracy of every epoch's cell is shown and recorded; it decides nothing."""
    snapshots: tuple[int, ...] = ()
    """Epochs of the plan, counted from 1, after which the state is kept, in snapshots/: `cdarts correlate --epoch`."""
    memory_limit: str | None = None
    """Most memory that the process may take, e.g. 8G: if it would take more, what can be computed again is not kept
    (`--execution recompute`, where it would be `fused`), then batches and learning rates are halved."""
    out: Path | None = None
    """The run directory, new or empty; default: runs/<preset>-<data>-seed<seed>-<time>."""
    dry_run: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print the plan, the sizes and a forecast of time and memory; train nothing, write nothing."""

    def run(self) -> int:
        announce("search", self.preset, f"data {self.data}", f"seed {self.seed}")
        from cdarts.engine.run_dir import RunDir, check_free

        if self.out is not None:
            check_free(self.out)
        self.watch()
        if self.memory_limit is not None:
            parse_memory(self.memory_limit)  # a slip is told before anything slow
        device, threads = self.machine()
        data = self.load_data()
        print(describe(data), flush=True)
        out = self.out or default_out(self.preset, data.name, f"seed{self.seed}")
        settings = replace(self.settled(device, threads), out=out)
        if self.memory_limit is not None:
            settings = within(settings, parse_memory(self.memory_limit))
        settings = settings.with_latencies(data, device, threads)
        if self.dry_run:
            dry_run(lambda: settings.build(data, device), _sizes, device, threads)
            return 0
        # what cannot be built fails here, before anything is written
        task = settings.build(data, device)
        search(RunDir.create(out, config_of("search", settings)), settings, data, task)
        name = shlex.quote(str(out))
        print(f"next    cdarts retrain {name}    cdarts show genotype {name}")
        return 0

    def resume(self, path: Path) -> int:
        from cdarts.engine.run_dir import RunDir, is_done

        if is_done(path):
            searched(path)
            return 0
        device, _ = self.machine()
        data = self.load_data()
        task = self.build(data, device)
        search(RunDir(path), self, data, task)
        return 0

    def space_of(self, path: Path) -> AnySpace:  # noqa: ARG002 - these settings say it themselves
        return self.algorithm.space

    def largest_side(self) -> int:
        return suited_side(self.algorithm.space)

    def load_data(self) -> "ImageData":
        from cdarts.data import with_shuffled_labels

        data = super().load_data()
        return with_shuffled_labels(data, self.seed) if self.shuffled_labels else data

    def settled(self, device: "torch.device", threads: int) -> "Search":
        settings = super().settled(device, threads)
        return replace(settings, table=None if self.table is None else self.table.resolve())

    def with_latencies(self, data: "ImageData", device: "torch.device", threads: int) -> "Search":
        """With operations measured on this machine, if latency is limited; a resumed search judges by the same."""
        limits, space = self.algorithm.limits, self.algorithm.space
        limits.check()
        size = limits.size(space, num_classes=data.num_classes, side=data.side, image_channels=data.channels)
        measured = limits.measured(space, size, device, threads)
        if measured.latency is not None and measured is not limits:
            print(
                f"limits  operations measured on {device} with {threads} threads; times of networks are predicted "
                f"with a mean error of {measured.latency.mean_error:.1%}",
                flush=True,
            )
        return replace(self, algorithm=replace(self.algorithm, limits=measured))

    def watch(self) -> "Watch":
        """What looks at every epoch's cell. Raises `ConfigurationError`, `DataError`."""
        if self.table is None:
            return Watch(None)
        from cdarts.benchmarks.nasbench201 import Table

        if not isinstance(self.algorithm.space, NasBench201Space):
            raise ConfigurationError(
                f"--table {self.table}: it holds cells of the NAS-Bench-201 space; this search is in the "
                f"{self.algorithm.space.name} space"
            )
        return Watch(Table.load(self.table))

    def build(self, data: "ImageData", device: "torch.device") -> "SearchAlgorithm":
        """The search as a task, at its beginning. Raises `ConfigurationError`, `DataError`."""
        with memory_permitting():
            task = self.algorithm.build(data, seed=self.seed, device=device, execution=self.execution)
        last = len(task.plan())
        for epoch in self.snapshots:
            if not 1 <= epoch <= last:
                raise ConfigurationError(f"--snapshots {epoch}: the plan has epochs 1 to {last}")
        return task


def _sizes(task: "SearchAlgorithm") -> list[str]:
    """What a dry run says of a search before it times it."""
    return [*(f"plan    {line}" for line in plan_lines(task.plan())), *model_lines(task)]


def searched(path: Path) -> Genotype:
    """What the search that is done at `path` found; it stays as it is."""
    print(f"run     {path}: searched already", flush=True)
    return read_genotype(path / "genotype.json")


def search(run_dir: "RunDir", settings: Search, data: "ImageData", task: "SearchAlgorithm") -> Genotype:
    """Search, or go on searching, in a run directory; writes genotype, drawing and ``summary.json``.

    `task`: as `settings.build` gives it.
    """
    from cdarts.commands.report import LivePage
    from cdarts.engine import loop
    from cdarts.engine.progress import PlanProgress

    with session(run_dir) as stop:
        device, threads = settings.machine()
        note_setting(run_dir, data, device, threads)
        plan = task.plan()
        page = LivePage(run_dir.path)

        def after_epoch() -> None:
            keep_snapshot(run_dir, task, settings.snapshots)
            page.after_epoch()

        for line in [*model_lines(task), f"plan    {'; '.join(plan_lines(plan))}"]:
            print(line, flush=True)
        loop.run(
            task,
            run_dir,
            PlanProgress("search", plan),
            stop,
            settings.watch(),
            after_epoch=after_epoch,
            checkpoint_seconds=settings.checkpoint_seconds,
            skips_nonfinite=settings.on_nonfinite == "skip",
        )
        provenance = {
            "algorithm": settings.algorithm.name,
            "preset": settings.preset,
            "data": data.name,
            "seed": settings.seed,
        }
        genotype = replace(task.genotype(), provenance=provenance)
        write_genotype(run_dir, genotype)
        summary: dict[str, Any] = {"genotype": genotype.text(), "seconds": run_dir.seconds()}
        if task.limited is not None:
            cost = task.limited.table.cost(genotype)
            summary["limits"] = {
                flag: {"found": found, "limit": limit}
                for flag, (found, limit) in settings.algorithm.limits.against(cost).items()
            }
        run_dir.write_json("summary.json", summary)
        print(f"found   {genotype}", flush=True)
        for flag, kept in summary.get("limits", {}).items():
            print(f"cost    {kept['found']} of {flag} {kept['limit']}", flush=True)
        print(f"run     {run_dir.path}", flush=True)
        return genotype


def keep_snapshot(run_dir: "RunDir", task: "SearchAlgorithm", wanted: "Sequence[int]") -> None:
    """Keep the state after the epoch that was written last, if it is one of those wanted. Raises `DiskError`."""
    from cdarts.engine import checkpoint
    from cdarts.engine.files import refuse_links
    from cdarts.engine.run_dir import snapshot_path

    if not wanted:
        return
    done = run_dir.journal("metrics")[-1]["epoch"] + 1
    if done in wanted:
        path = snapshot_path(run_dir.path, done)
        refuse_links(path.parent)
        path.parent.mkdir(exist_ok=True)
        checkpoint.save(path, {"task": task.state()})


class Watch:
    """Looks at the cell of every epoch: warns when it collapses, and records its true accuracy where a table has it."""

    def __init__(self, table: "Table | None") -> None:
        self.table = table
        self.collapsed: str | None = None

    def __call__(self, records: "Records") -> "Records":
        from cdarts.algorithms.collapse import UNDECIDED, collapse

        genotype = parse_genotype(records["genotypes"]["text"])
        if records["metrics"]["phase"] not in UNDECIDED:
            before, self.collapsed = self.collapsed, collapse(genotype)
            if self.collapsed is not None and before is None:
                print(
                    f"warning: the search is collapsing: {self.collapsed}. Such networks are usually poor. "
                    "Longer training before alpha moves, or a method with a guard (cdarts, beta-darts), can help; "
                    "see docs/methods.md",
                    file=sys.stderr,
                    flush=True,
                )
        if self.table is None:
            return records
        result = self.table.result(genotype, "cifar10")
        truth = {"true_val_accuracy": result.val_200 / 100, "true_test_accuracy": result.test_200 / 100}
        return {**records, "genotypes": {**records["genotypes"], **truth}, "metrics": {**records["metrics"], **truth}}


def write_genotype(run_dir: "RunDir", genotype: Genotype) -> None:
    """``genotype.json`` and its drawing, ``cell.svg``."""
    from cdarts.report.drawing import draw_genotype

    run_dir.write_json("genotype.json", genotype.to_json())
    run_dir.write_text("cell.svg", draw_genotype(genotype))


def model_lines(task: "SearchAlgorithm") -> list[str]:
    """``model   search_net 58,870 parameters, eval_net ...``; no line where there is no network."""
    sizes = [f"{name} {count:,} parameters" for name, count in task.num_parameters().items()]
    return [f"model   {', '.join(sizes)}"] if sizes else []


def plan_lines(plan: "Sequence[Epoch]") -> list[str]:
    """A plan in words: ``2 x pretrain (391 steps)``, repeated phases of cycles counted together."""
    counts: dict[tuple[str, int], int] = {}
    for epoch in plan:
        counts[(epoch.phase, epoch.steps)] = counts.get((epoch.phase, epoch.steps), 0) + 1
    return [f"{count} x {phase} ({steps} steps)" for (phase, steps), count in counts.items()]


COMMAND = tyro.extras.subcommand_type_from_defaults(
    {name: Search(algorithm=algorithm, preset=name) for name, algorithm in PRESETS.items()}, descriptions=SUMMARIES
)
