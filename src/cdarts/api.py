"""The commands as functions: `from cdarts import search, retrain, load, create_model`.

They do what `cdarts search` and `cdarts retrain` do, print what those print and write the same run directories; every
error is a `cdarts.errors.CdartsError`. Signals stop them with a checkpoint, so call them from the main thread.
"""

import difflib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, cast

from cdarts import zoo
from cdarts.algorithms import AnyAlgorithm
from cdarts.commands.common import default_out
from cdarts.commands.report import PAGE, reference_of
from cdarts.commands.retrain import Retrain
from cdarts.commands.search import Search
from cdarts.engine.journals import read_journal
from cdarts.engine.run_dir import check_run, read_json
from cdarts.errors import ConfigurationError, GenotypeError
from cdarts.model import CARD, ModelCard, find_model, load_model
from cdarts.networks import Network
from cdarts.presets import PRESETS
from cdarts.randomness import seeded
from cdarts.report.page import write_page
from cdarts.retraining import Retraining
from cdarts.spaces import SPACES, AnySpace
from cdarts.topology import Genotype, read_genotype

Device = Literal["auto", "cpu", "cuda"]
Execution = Literal["auto", "plain", "share", "merged", "captured", "fused", "recompute"]


@dataclass(frozen=True)
class Run:
    """A run directory: what a search or a training has come to. `load`, `search` and `retrain` give one."""

    path: Path

    @property
    def state(self) -> str:
        """``running``, ``done``, ``interrupted`` or ``failed``. Raises `ConfigurationError` if it has none yet."""
        return str(read_json(self.path / "status.json").get("state"))

    @property
    def config(self) -> dict[str, Any]:
        """The settings it was begun with, as ``config.json`` has them."""
        return read_json(self.path / "config.json")

    @property
    def summary(self) -> dict[str, Any]:
        """The result: accuracy, parameters, seconds. Raises `ConfigurationError` if the run is not done."""
        return read_json(self.path / "summary.json")

    @property
    def genotype(self) -> Genotype:
        """What was found or trained. Raises `GenotypeError` if the run is not done."""
        return read_genotype(self.path / "genotype.json")

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """One dictionary an epoch, as in ``metrics.jsonl``; of `cdarts run`, the search's and then the training's."""
        parts = [self.path, self.path / "search", self.path / "retrain"]
        return [line for part in parts for line in read_journal(part / "metrics.jsonl")]

    def report(self) -> Path:
        """Write the run's page, ``report.html``, anew, and return where it lies; a run that goes on may be asked too.

        Raises `ConfigurationError` if the run's files cannot be used, `DiskError`.
        """
        path = self.path / PAGE
        write_page([self.path], path, reference_of)
        return path

    @property
    def is_trained(self) -> bool:
        """Whether it has a model."""
        return (find_model(self.path) / CARD).is_file()

    @property
    def card(self) -> ModelCard:
        """What the model takes and gives: sizes, class names, normalisation. Raises `CheckpointError`."""
        return self._model[0]

    @property
    def model(self) -> Network:
        """The trained network, in evaluation mode; ``model(images).logits``, of images as `card` normalises them.

        Raises `CheckpointError` if there is none yet.
        """
        return self._model[1]

    @cached_property
    def _model(self) -> tuple[ModelCard, Network]:
        return load_model(find_model(self.path))


def load(run: str | Path) -> Run:
    """A run directory of any command that trains. Raises `ConfigurationError` if it is none."""
    path = Path(run).expanduser()
    check_run(path)
    return Run(path)


def create_model(
    genotype: str | Path | Genotype,
    *,
    num_classes: int,
    cells: int | None = None,
    channels: int | None = None,
    image_channels: int = 3,
    space: AnySpace | None = None,
    seed: int = 0,
) -> Network:
    """A genotype's network, untrained: ``create_model("cdarts-cifar10", num_classes=10)``.

    It maps float images (N, `image_channels`, H, W) to ``.logits`` (N, `num_classes`) and ``.features``, the outputs
    of its stages.

    genotype: a published cell's name (`cdarts.zoo.names`), a text form, a file, a search's run directory, or an object.
    cells, channels: size; default: the usual one of the genotype's space, 20 and 36 in DARTS's, 15 and 16 in
        NAS-Bench-201.
    space: where it is not the usual one: ``DartsSpace(stem_name="imagenet")`` for images of 64 pixels and more.
    seed: of the weights.

    Raises `GenotypeError`, `ConfigurationError`.
    """
    if num_classes < 1:
        raise ConfigurationError(f"num_classes {num_classes}: must be at least 1")
    if image_channels < 1:
        raise ConfigurationError(f"image_channels {image_channels}: must be at least 1")
    found = genotype if isinstance(genotype, Genotype) else zoo.find(str(genotype))
    if found.space not in SPACES:
        raise GenotypeError(f"the genotype's space {found.space!r} is unknown; there are {', '.join(SPACES)}")
    if space is None:
        space = cast(AnySpace, SPACES[found.space]())  # type: ignore[call-arg]
    topology = space.topology(found)
    with seeded(seed, "create_model"):
        return Network(
            space,
            topology,
            cells=space.usual_cells if cells is None else cells,
            channels=space.usual_channels if channels is None else channels,
            num_classes=num_classes,
            image_channels=image_channels,
            affine=True,
        )


def search(
    algorithm: str | AnyAlgorithm = "cdarts",
    *,
    data: str | Path = "digits",
    data_root: Path | None = None,
    image_size: int | None = None,
    seed: int = 0,
    device: Device = "auto",
    threads: int | None = None,
    execution: Execution = "auto",
    out: str | Path | None = None,
) -> Run:
    """Search an architecture, as `cdarts search` does; ``search("cdarts").genotype`` is what was found.

    algorithm: a preset's name (`cdarts.presets.PRESETS`), or settings: ``replace(PRESETS["cdarts"], cycles=10)``.
    data: the name of a data set, a folder of images or an ``.npz`` file.
    out: the run directory, new or empty; default: ``runs/`` and a name with preset, data, seed and time.
    The rest: as the flags of those names.

    Raises `ConfigurationError`, `DataError`, `DiskError`, `NonFiniteError`; `Interrupted` at a signal.
    """
    name = algorithm if isinstance(algorithm, str) else algorithm.name
    path = _out(out, name, data, seed)
    Search(
        data=str(data),
        data_root=data_root,
        image_size=image_size,
        seed=seed,
        device=device,
        threads=threads,
        execution=execution,
        algorithm=_preset(algorithm) if isinstance(algorithm, str) else algorithm,
        preset=name if isinstance(algorithm, str) else f"{name}, with settings of its own",
        out=path,
    ).run()
    return Run(path)


def retrain(
    genotype: str | Path | Genotype | Run,
    *,
    training: Retraining | None = None,
    data: str | Path | None = None,
    data_root: Path | None = None,
    image_size: int | None = None,
    seed: int = 0,
    device: Device = "auto",
    threads: int | None = None,
    execution: Execution = "auto",
    out: str | Path | None = None,
) -> Run:
    """Train a genotype's network from scratch and test it, as `cdarts retrain` does; the result has a `Run.model`.

    genotype: as for `create_model`, or the `Run` of a search, whose data and space are then taken.
    training: the recipe and the network's size; default: that of the CDARTS authors for CIFAR, days on a CPU.
    data: as for `search`; default: the run's own where the genotype is that of a run, else digits.
    out: the run directory, new or empty; default: ``runs/`` and a name with data, seed and time.
    The rest: as the flags of those names.

    Raises `GenotypeError`, `ConfigurationError`, `DataError`, `DiskError`, `NonFiniteError`; `Interrupted` at a signal.
    """
    match genotype:
        case Run():
            text = str(genotype.path)
        case Genotype():
            text = genotype.text()
        case _:
            text = str(genotype)
    path = _out(out, "retrain", data or "own", seed)
    Retrain(
        data=None if data is None else str(data),
        data_root=data_root,
        image_size=image_size,
        seed=seed,
        device=device,
        threads=threads,
        execution=execution,
        genotype=text,
        training=training or Retraining(),
        out=path,
    ).run()
    return Run(path)


def _preset(name: str) -> AnyAlgorithm:
    """A preset by name. Raises `ConfigurationError` with the nearest."""
    if name not in PRESETS:
        nearest = difflib.get_close_matches(name, PRESETS, n=1)
        hint = f"did you mean {nearest[0]}?" if nearest else f"there are {', '.join(PRESETS)}"
        raise ConfigurationError(f"{name}: no preset of that name; {hint}")
    return PRESETS[name]


def _out(out: str | Path | None, name: str, data: str | Path, seed: int) -> Path:
    """The run directory that was asked for, else a new one."""
    return default_out(name, Path(data).stem, f"seed{seed}") if out is None else Path(out).expanduser()
