"""Search an architecture with a preset; every field of the algorithm is a flag."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import tyro

from cdarts.algorithms import AnyAlgorithm
from cdarts.commands.common import Setup, announce, config_of, default_out, describe, session
from cdarts.presets import PRESETS, SUMMARIES
from cdarts.settings import STRICT
from cdarts.topology import Genotype, read_genotype

if TYPE_CHECKING:
    from cdarts.data import ImageData
    from cdarts.engine.run_dir import RunDir


@dataclass(frozen=True, kw_only=True)
class Search(Setup):
    """Search an architecture; the run directory then holds genotype.json, cell.svg and how they came about."""

    __pydantic_config__: ClassVar = STRICT

    algorithm: Annotated[AnyAlgorithm, tyro.conf.arg(name="")] = field(default=PRESETS["cdarts"])
    preset: tyro.conf.Suppress[str] = "cdarts"
    """Name of the preset that the settings come from."""
    out: Path | None = None
    """The run directory, new or empty; default: runs/<preset>-<data>-<time>."""
    dry_run: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print the plan, the sizes and a forecast of time and memory; train nothing, write nothing."""

    def run(self) -> int:
        announce("search", self.preset, f"data {self.data}", f"seed {self.seed}")
        from cdarts.engine.run_dir import RunDir

        data = self.load_data()
        print(describe(data), flush=True)
        if self.dry_run:
            return self._dry_run(data)
        _, threads = self.machine()
        out = self.out or default_out(self.preset, data.name, f"seed{self.seed}")
        settings = replace(self, out=out, threads=threads)
        self.algorithm.check(data)
        run_dir = RunDir.create(out, config_of("search", settings))
        search(run_dir, settings, data)
        print(f"next    cdarts retrain {out}    cdarts show genotype {out}")
        return 0

    def resume(self, path: Path) -> int:
        from cdarts.engine.run_dir import RunDir

        search(RunDir(path), self, self.load_data())
        return 0

    def _dry_run(self, data: "ImageData") -> int:
        from cdarts.engine.forecast import forecast, peak_memory
        from cdarts.engine.progress import clock

        device, threads = self.machine()
        before = peak_memory(device)
        task = self.algorithm.build(data, seed=self.seed, device=device, execution=self.execution)
        for line in plan_lines(task.plan()):
            print(f"plan    {line}")
        print("model   " + ", ".join(f"{name} {count:,} parameters" for name, count in task.num_parameters().items()), flush=True)
        expected = forecast(task)
        steps = ", ".join(f"{phase} {seconds:.2f} s" for phase, seconds in expected.seconds_per_step.items())
        print(f"time    {clock(expected.seconds)} on {device} with {threads} threads (a step: {steps})")
        print(f"memory  {(peak_memory(device) - before) / 2**20:,.0f} MiB beside {before / 2**20:,.0f} MiB of the program itself")
        return 0


def search(run_dir: "RunDir", settings: Search, data: "ImageData") -> Genotype:
    """Search, or go on searching, in a run directory; writes genotype, drawing and ``summary.json``. A search that is done stays."""
    from cdarts.engine import loop
    from cdarts.engine.progress import PlanProgress

    if run_dir.done():
        run_dir.close()
        return read_genotype(run_dir.path / "genotype.json")
    with session(run_dir) as stop:
        device, threads = settings.machine()
        run_dir.write_environment(device=str(device), threads=threads, data=data.fingerprint())
        task = settings.algorithm.build(data, seed=settings.seed, device=device, execution=settings.execution)
        plan = task.plan()
        print("model   " + ", ".join(f"{name} {count:,} parameters" for name, count in task.num_parameters().items()))
        print(f"plan    {'; '.join(plan_lines(plan))}", flush=True)
        loop.run(task, run_dir, PlanProgress("search", plan), stop)
        provenance = {"algorithm": settings.algorithm.name, "preset": settings.preset, "data": data.name, "seed": settings.seed}
        genotype = replace(task.genotype(), provenance=provenance)
        write_genotype(run_dir, genotype)
        run_dir.write_json("summary.json", {"genotype": genotype.text(), "seconds": run_dir.seconds()})
        print(f"found   {genotype}\nrun     {run_dir.path}", flush=True)
        return genotype


def write_genotype(run_dir: "RunDir", genotype: Genotype) -> None:
    """``genotype.json`` and its drawing, ``cell.svg``."""
    from cdarts.report.drawing import draw_genotype

    run_dir.write_json("genotype.json", genotype.to_json())
    run_dir.write_text("cell.svg", draw_genotype(genotype))


def plan_lines(plan: Any) -> list[str]:
    """A plan in words: ``2 x pretrain (391 steps)``, repeated phases of cycles counted together."""
    counts: dict[tuple[str, int], int] = {}
    for epoch in plan:
        counts[(epoch.phase, epoch.steps)] = counts.get((epoch.phase, epoch.steps), 0) + 1
    return [f"{count} x {phase} ({steps} steps)" for (phase, steps), count in counts.items()]


COMMAND = tyro.extras.subcommand_type_from_defaults(
    {name: Search(algorithm=algorithm, preset=name) for name, algorithm in PRESETS.items()}, descriptions=SUMMARIES
)
