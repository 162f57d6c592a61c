"""Train the network of a genotype from scratch and test it."""

import difflib
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import tyro

from cdarts import zoo
from cdarts.commands.common import (
    Setup,
    accuracy_words,
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
from cdarts.commands.many_runs import check_jobs, parse_seeds
from cdarts.commands.seeds import open_folder, retrain_seeds
from cdarts.errors import ConfigurationError, GenotypeError
from cdarts.retraining import DEFAULT_PRESET, RETRAINING_PRESETS, Retraining
from cdarts.settings import STRICT, differences
from cdarts.spaces import AnySpace, DartsSpace
from cdarts.statistics import binomial_interval, class_accuracy
from cdarts.topology import Genotype, genotype_from_json

if TYPE_CHECKING:
    import torch

    from cdarts.data import ImageData
    from cdarts.engine.run_dir import RunDir
    from cdarts.retraining.task import RetrainTask


@dataclass(frozen=True, kw_only=True)
class Retrain(Setup):
    """Train a genotype's network; the run directory then holds model.safetensors, model.json and summary.json."""

    __pydantic_config__: ClassVar = STRICT

    data: str | None = None
    """Name of a data set (digits, cifar10, cifar10-5k, cifar100, fashion-mnist, synthetic), folder of images, or .npz
    file. Default: the run's own data where the genotype is that of a run, else digits."""
    genotype: tyro.conf.Positional[str]
    """A search run, a genotype file, a published cell's name (cdarts show genotypes), or a text form."""
    preset: Annotated[str, tyro.conf.arg(metavar="NAME")] = DEFAULT_PRESET
    """The recipe that all the following defaults are from: cifar10, cifar100, imagenet or quick (cdarts show presets).
    With --help, the help shows its values."""
    training: Annotated[Retraining, tyro.conf.arg(name="")] = field(
        default_factory=lambda: RETRAINING_PRESETS[DEFAULT_PRESET]
    )
    seeds: Annotated[str | None, tyro.conf.arg(metavar="LIST")] = None
    """Train once with each of these seeds, e.g. 0-2 or 0,1,5, in run directories OUT/seed-N; the same command goes on
    where it was stopped. The summary has mean, sample standard deviation, n and the worst."""
    jobs: int | None = None
    """With --seeds: runs at a time, each on one thread unless --threads says otherwise; default: one for each core, on
    a GPU one."""
    out: Path | None = None
    """The run directory, new or empty; default: runs/retrain-<data>-seed<seed>-<time>."""
    dry_run: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print the sizes and a forecast of time and memory; train nothing, write nothing."""

    def run(self) -> int:
        seeds = f"seed {self.seed}" if self.seeds is None else f"seeds {self.seeds}"
        announce("retrain", self.genotype, *([] if self.data is None else [f"data {self.data}"]), seeds)
        self._check_seeds()
        genotype = zoo.find(self.genotype)
        return self._as_in_its_run(genotype)._run(genotype)

    def _as_in_its_run(self, genotype: Genotype) -> "Retrain":
        """With the data and the space of the run that the genotype is from, where no flag says otherwise."""
        from cdarts.commands.resume import settings_of

        run = zoo.run_of(self.genotype)
        if run is None:
            return self if self.data is not None else replace(self, data="digits")
        theirs = settings_of(run)
        changed, taken = self, []
        if self.data is None:
            changed = replace(
                changed,
                data=theirs.data or "digits",
                data_root=self.data_root or theirs.data_root,
                image_size=self.image_size or theirs.image_size,
                on_bad_image="skip" if "skip" in (self.on_bad_image, theirs.on_bad_image) else "stop",
                class_balance=theirs.class_balance if self.class_balance == "auto" else self.class_balance,
                images=theirs.images if self.images == "auto" else self.images,
            )
            taken.append(f"data {changed.data}")
        space = theirs.space_of(run)
        # what a flag says comes first, and the genotype's file may have been replaced
        if self.training.space == DartsSpace() and space.name == genotype.space:
            changed = replace(changed, training=replace(changed.training, space=space))
            words = [f"{name} {value}" for name, (value, _) in differences(space, type(space)()).items()]
            taken.append(", ".join([f"space {space.name}", *words]))
        if taken:
            print(f"taken   from {run}: {'; '.join(taken)}", flush=True)
        return changed

    def _check_seeds(self) -> None:
        """Raise `ConfigurationError` for a slip in the flags about seeds."""
        if self.seeds is None:
            if self.jobs is not None:
                raise ConfigurationError(f"--jobs {self.jobs}: there is one run only; name several with --seeds")
            return
        parse_seeds(self.seeds)
        check_jobs(self.jobs)
        if self.seed:
            raise ConfigurationError(f"--seed {self.seed}: --seeds {self.seeds} names all seeds; leave it out")

    def _check_preset(self, genotype: Genotype) -> None:
        """Raise `ConfigurationError` if the preset's recipe is for cells of another space than the genotype's."""
        space = preset_of(self.preset).space
        if space != DartsSpace() and space == self.training.space and space.name != genotype.space:
            raise ConfigurationError(
                f"--preset {self.preset}: its recipe is for cells of space {space.name}, and the genotype belongs to "
                f"space {genotype.space}; choose another preset"
            )

    def _in_its_precision(self) -> "Retrain":
        """With an execution that can compute in the precision asked for. Raises `ConfigurationError` if none can."""
        from cdarts.engine.runtime import choose_device

        self.training.check_execution(self.execution)
        precise = self.training.precision == "float32" or choose_device(self.device).type != "cpu"
        if precise or self.execution != "auto":
            return self
        print(f"note    execution share, not fused, whose kernels have no {self.training.precision}", flush=True)
        return replace(self, execution="share")

    def _run(self, genotype: Genotype) -> int:
        """Once it is clear on which data and in which space."""
        self._check_preset(genotype)
        training = self.training.for_genotype(genotype)
        from cdarts.engine.run_dir import RunDir, check_free

        if self.out is not None and self.seeds is None:
            check_free(self.out)
        asked = self._in_its_precision()
        if asked.seeds is not None:
            asked = replace(asked, threads=asked.threads or 1)
        device, threads = asked.machine()
        data = asked.load_data()
        if self.seeds is None or self.dry_run:  # otherwise it is told once the runs are counted
            print(describe(data), flush=True)
        named = f"seed{self.seed}" if self.seeds is None else f"seeds{self.seeds}"
        out = self.out or default_out("retrain", data.name, named)
        settings = replace(asked.settled(device, threads), training=training, out=out)
        if self.dry_run:
            dry_run(lambda: settings.build(genotype, data, device), _sizes, device, threads)
            return 0
        # what cannot be built fails here, before anything is written
        task = settings.build(genotype, data, device)
        config = config_of("retrain", settings) | {"genotype": genotype.to_json()}
        if self.seeds is not None:
            del task
            return retrain_seeds(open_folder(out, config), settings, genotype)
        retrain(RunDir.create(out, config), settings, data, task)
        name = shlex.quote(str(out))
        print(f"next    cdarts predict {name} IMAGE...    cdarts evaluate {name}")
        return 0

    def resume(self, path: Path) -> int:
        from cdarts.engine.run_dir import RunDir, is_done

        if self.seeds is not None:
            return retrain_seeds(RunDir(path), self, genotype_of(path))
        if is_done(path):
            trained(path)
            return 0
        genotype = genotype_of(path)
        device, _ = self.machine()
        data = self.load_data()
        task = self.build(genotype, data, device)
        retrain(RunDir(path), self, data, task)
        return 0

    def space_of(self, path: Path) -> AnySpace:  # noqa: ARG002 - these settings say it themselves
        return self.training.space

    def largest_side(self) -> int:
        return suited_side(self.training.space)

    def build(self, genotype: Genotype, data: "ImageData", device: "torch.device") -> "RetrainTask":
        """The training as a task, at its beginning. Raises `ConfigurationError`, `GenotypeError`."""
        with memory_permitting():
            return self.training.build(genotype, data, seed=self.seed, device=device, execution=self.execution)


def _sizes(task: "RetrainTask") -> list[str]:
    """What a dry run says of a training before it times it."""
    plan = task.plan()
    return [f"plan    {len(plan)} epochs of {plan[0].steps} steps", f"model   {task.num_parameters():,} parameters"]


def trained(path: Path) -> dict[str, Any]:
    """The summary of the training that is done at `path`; it stays as it is."""
    from cdarts.engine.run_dir import read_json

    print(f"run     {path}: trained already", flush=True)
    return read_json(path / "summary.json")


def retrain(run_dir: "RunDir", settings: Retrain, data: "ImageData", task: "RetrainTask") -> dict[str, Any]:
    """Train, or go on training, in a run directory; writes model and ``summary.json``, and returns the latter.

    `task`: as `settings.build` gives it.
    """
    from cdarts.commands.report import LivePage
    from cdarts.cost import cost_by_part, network_cost
    from cdarts.engine import loop
    from cdarts.engine.progress import PlanProgress
    from cdarts.model import card_of, save_model
    from cdarts.report.predictions import PREDICTIONS, predictions_json

    training, genotype = settings.training, task.genotype
    cells, channels = training.size()
    with session(run_dir) as stop:
        device, threads = settings.machine()
        note_setting(run_dir, data, device, threads)
        cost = network_cost(task.network, data.side, data.channels)
        print(
            f"model   {cells} cells, {channels} channels: "
            f"{cost.parameters:,} parameters, {cost.macs / 1e6:,.1f} M multiply-adds"
        )
        print(f"plan    {training.epochs} epochs of {task.plan()[0].steps} steps", flush=True)
        loop.run(
            task,
            run_dir,
            PlanProgress("retrain", task.plan()),
            stop,
            after_epoch=LivePage(run_dir.path).after_epoch,
            checkpoint_seconds=settings.checkpoint_seconds,
            skips_nonfinite=settings.on_nonfinite == "skip",
        )
        card = card_of(data, training.space, genotype.to_json(), cells, channels)
        save_model(run_dir.path, card, task.model)
        scores = task.test()
        run_dir.write_json(PREDICTIONS, predictions_json(data, scores))
        summary = {
            "test_accuracy": task.last_accuracy,
            "test_interval": binomial_interval(task.last_accuracy, len(data.test)),
            "test_images": len(data.test),
            "best_epoch_test_accuracy": task.best_accuracy,
            **({} if task.flip_accuracy is None else {"test_flip_accuracy": task.flip_accuracy}),
            "parameters": cost.parameters,
            "macs": cost.macs,
            "cost_by_part": {
                name: asdict(part) for name, part in cost_by_part(task.network, data.side, data.channels).items()
            },
            "latency": _latency(task, data, device, threads),
            "genotype": genotype.text(),
            "data": data.name,
            "seed": settings.seed,
            "seconds": run_dir.seconds(),
        }
        if data.balanced:
            summary["test_class_accuracy"] = class_accuracy(scores.predictions.numpy(), data.test.labels)
        run_dir.write_json("summary.json", summary)
        run_dir.write_json("genotype.json", genotype.to_json())
        words = accuracy_words(task.last_accuracy, len(data.test))
        print(f"test    {words} after the last epoch (best epoch {task.best_accuracy:.4f})", flush=True)
        if data.balanced:
            mean = summary["test_class_accuracy"]
            print(f"test    mean of the classes' accuracies {mean:.4f}, each class counting the same", flush=True)
        if task.flip_accuracy is not None:
            print(f"test    accuracy {task.flip_accuracy:.4f} with mirror images averaged in", flush=True)
        return summary


def _latency(task: "RetrainTask", data: "ImageData", device: "torch.device", threads: int) -> dict[str, Any]:
    """How long the trained network takes for one image, in milliseconds: the median of some calls, and on what."""
    from cdarts.cost.latency import timed
    from cdarts.data import evaluation_batches

    image, _ = next(evaluation_batches(data.test, data, 1, device))
    training = task.model.training
    task.model.eval()
    timing = timed(lambda: task.model(image), device)
    task.model.train(training)
    return {"milliseconds": round(timing.median, 3), "device": str(device), "threads": threads, "batch_size": 1}


def genotype_of(path: Path) -> Genotype:
    """The genotype that the retraining at `path` was begun with. Raises `ConfigurationError` naming the file."""
    from cdarts.engine.run_dir import read_json

    stored = read_json(path / "config.json").get("genotype")
    try:
        if not isinstance(stored, dict):
            raise GenotypeError("must be a genotype in its JSON form")
        return genotype_from_json(stored)
    except GenotypeError as error:
        raise ConfigurationError(f"{path / 'config.json'}: genotype: {error}") from error


def default_for(arguments: Sequence[str]) -> Retrain:
    """What the command line's flags have as defaults: the recipe of the preset that is named among its words.

    Raises `ConfigurationError` for a name that there is none of.
    """
    preset = DEFAULT_PRESET
    for word, following in pairwise([*arguments, ""]):
        if word == "--preset":
            preset = following
        elif word.startswith("--preset="):
            preset = word.removeprefix("--preset=")
    default = Retrain(genotype="", preset=preset, training=preset_of(preset))
    # tyro's word for what has no default is no string, so that the class itself would not take it
    object.__setattr__(default, "genotype", tyro.MISSING)
    return default


def preset_of(name: str) -> Retraining:
    """A recipe by name. Raises `ConfigurationError` with the nearest."""
    if name not in RETRAINING_PRESETS:
        nearest = difflib.get_close_matches(name, RETRAINING_PRESETS, n=1, cutoff=0.5)
        hint = f" Did you mean {nearest[0]}?" if nearest else ""
        known = ", ".join(RETRAINING_PRESETS)
        raise ConfigurationError(f"--preset {name}: no preset of that name for retraining.{hint} There are {known}")
    return RETRAINING_PRESETS[name]


COMMAND = Retrain
