"""Train the network of a genotype from scratch and test it."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import tyro

from cdarts import zoo
from cdarts.commands.common import Setup, announce, config_of, default_out, describe, print_costs, session
from cdarts.errors import ConfigurationError, GenotypeError
from cdarts.retraining import Retraining
from cdarts.settings import STRICT
from cdarts.topology import Genotype, genotype_from_json

if TYPE_CHECKING:
    from cdarts.data import ImageData
    from cdarts.engine.run_dir import RunDir


@dataclass(frozen=True, kw_only=True)
class Retrain(Setup):
    """Train a genotype's network; the run directory then holds model.safetensors, model.json and summary.json."""

    __pydantic_config__: ClassVar = STRICT

    genotype: tyro.conf.Positional[str]
    """A search run, a genotype file, a published cell's name (cdarts show genotypes), or a text form."""
    training: Annotated[Retraining, tyro.conf.arg(name="")] = field(default_factory=Retraining)
    out: Path | None = None
    """The run directory, new or empty; default: runs/retrain-<data>-<time>."""
    dry_run: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print the sizes and a forecast of time and memory; train nothing, write nothing."""

    def run(self) -> int:
        announce("retrain", self.genotype, f"data {self.data}", f"seed {self.seed}")
        genotype = zoo.find(self.genotype)
        training = self.training.for_genotype(genotype)
        from cdarts.engine.run_dir import RunDir, check_free

        if self.out is not None:
            check_free(self.out)
        device, threads = self.machine()
        data = self.load_data()
        print(describe(data), flush=True)
        if self.dry_run:
            return self._dry_run(training, genotype, data)
        out = self.out or default_out("retrain", data.name, f"seed{self.seed}")
        settings = replace(self.settled(threads), training=training, out=out)
        # what cannot be built fails here, before anything is written
        training.build(genotype, data, seed=self.seed, device=device, execution=self.execution)
        run_dir = RunDir.create(out, config_of("retrain", settings) | {"genotype": genotype.to_json()})
        retrain(run_dir, settings, data)
        print(f"next    cdarts predict {out} IMAGE...    cdarts evaluate {out}")
        return 0

    def resume(self, path: Path) -> int:
        from cdarts.engine.run_dir import RunDir

        data = self.load_data()
        retrain(RunDir(path), self, data)
        return 0

    def _dry_run(self, training: Retraining, genotype: Genotype, data: "ImageData") -> int:
        from cdarts.engine.forecast import forecast, peak_memory

        device, threads = self.machine()
        before = peak_memory(device)
        task = training.build(genotype, data, seed=self.seed, device=device, execution=self.execution)
        print(f"plan    {training.epochs} epochs of {task.plan()[0].steps} steps")
        print(f"model   {task.num_parameters():,} parameters", flush=True)
        expected = forecast(task)
        machine = f"{device} with {threads} threads"
        print_costs(expected.seconds, expected.seconds_per_step, peak_memory(device), before, machine)
        return 0


def retrain(run_dir: "RunDir", settings: Retrain, data: "ImageData") -> dict[str, Any]:
    """Train, or go on training, in a run directory; writes model and ``summary.json``, and returns the latter.

    A training that is done stays as it is.
    """
    from cdarts.cost import network_cost
    from cdarts.engine import loop
    from cdarts.engine.progress import PlanProgress
    from cdarts.engine.run_dir import read_json
    from cdarts.model import card_of, save_model

    if run_dir.done():
        run_dir.close()
        print(f"run     {run_dir.path}: trained already", flush=True)
        return read_json(run_dir.path / "summary.json")
    training = settings.training
    with session(run_dir) as stop:
        genotype = genotype_of(run_dir)
        device, threads = settings.machine()
        run_dir.write_environment(device=str(device), threads=threads, data=data.fingerprint())
        task = training.build(genotype, data, seed=settings.seed, device=device, execution=settings.execution)
        cost = network_cost(task.network, data.side, data.channels)
        print(
            f"model   {training.cells} cells, {training.channels} channels: "
            f"{cost.parameters:,} parameters, {cost.macs / 1e6:,.1f} M multiply-adds"
        )
        print(f"plan    {training.epochs} epochs of {task.plan()[0].steps} steps", flush=True)
        loop.run(task, run_dir, PlanProgress("retrain", task.plan()), stop)
        card = card_of(data, training.space, genotype.to_json(), training.cells, training.channels)
        save_model(run_dir.path, card, task.network)
        summary = {
            "test_accuracy": task.last_accuracy,
            "best_epoch_test_accuracy": task.best_accuracy,
            "parameters": cost.parameters,
            "macs": cost.macs,
            "genotype": genotype.text(),
            "data": data.name,
            "seed": settings.seed,
            "seconds": run_dir.seconds(),
        }
        run_dir.write_json("summary.json", summary)
        run_dir.write_json("genotype.json", genotype.to_json())
        print(
            f"test    accuracy {task.last_accuracy:.4f} after the last epoch (best epoch {task.best_accuracy:.4f})",
            flush=True,
        )
        return summary


def genotype_of(run_dir: "RunDir") -> Genotype:
    """The genotype that a retraining was begun with. Raises `ConfigurationError` naming the file."""
    stored = run_dir.config().get("genotype")
    try:
        if not isinstance(stored, dict):
            raise GenotypeError("must be a genotype in its JSON form")
        return genotype_from_json(stored)
    except GenotypeError as error:
        raise ConfigurationError(f"{run_dir.path / 'config.json'}: genotype: {error}") from error


COMMAND = Retrain
