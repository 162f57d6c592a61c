"""Show what there is: genotypes, their cost and their drawings, presets, plans, spaces, operations, algorithms."""

import dataclasses
import difflib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro
from rich.console import Console
from rich.table import Table

from cdarts import zoo
from cdarts.algorithms import ALGORITHMS
from cdarts.commands.show_cost import ShowCost
from cdarts.commands.show_drawing import ShowCell, ShowNetwork
from cdarts.commands.usual import IMAGE_CHANNELS, OfGenotype, UsualNetwork
from cdarts.errors import ConfigurationError
from cdarts.presets import PRESETS, SUMMARIES
from cdarts.retraining import DEFAULT_PRESET, RETRAINING_PRESETS, RETRAINING_SUMMARIES
from cdarts.settings import differences, to_json
from cdarts.spaces import SPACES
from cdarts.topology import Topology

if TYPE_CHECKING:
    from cdarts.cost import Cost
    from cdarts.engine.task import Epoch

Flag = Annotated[bool, tyro.conf.FlagCreatePairsOff]

REFERENCE_PRESET = "cdarts"
"""The preset that the others are compared with."""


# -- genotypes ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class ShowGenotype(OfGenotype):
    """A genotype: its cells, its text form, and the parameters and multiply-adds of the network it makes.

    As published figures count them: BatchNorm with weights, no auxiliary head, and the sizes of the literature.
    """

    json: Flag = False
    """Print one JSON object instead."""

    def run(self) -> int:
        genotype = zoo.find(self.target)
        network = self.network(genotype)
        topology = network.space.topology(genotype)
        if self.json:
            cost = _cost(network, topology)
            _print_json(
                {
                    "name": self.target,
                    "space": genotype.space,
                    "parameters": cost.parameters,
                    "macs": cost.macs,
                    "cells": network.cells,
                    "channels": network.channels,
                    "classes": network.classes,
                    "stem": self.stem,
                    "image_size": network.image_size,
                    "text": genotype.text(),
                    "genotype": genotype.to_json(),
                }
            )
            return 0
        print(f"genotype    {_one_line(self.target)}, space {genotype.space}")
        print(f"file        {_place(self.target)}")
        for key, value in genotype.provenance.items():
            print(f"{_one_line(key):11} {_one_line(_in_words(value))}")
        print()
        rows = [
            (kind, str(choice.edge.source), str(choice.edge.target), choice.operation)
            for kind, choices in genotype.cells.items()
            for choice in choices
        ]
        _print_table(("cell", "from", "to", "operation"), rows)
        inputs = network.space.num_inputs
        print("0 is the cell's input" if inputs == 1 else "0 and 1 are the cell's inputs, c_{k-2} and c_{k-1}")
        print(f"\n{genotype.text()}\n", flush=True)
        side = network.image_size
        sizes = f"{network.cells} cells, {network.channels} channels, {network.classes} classes"
        print(f"network     {sizes}, stem {self.stem}, images {side}x{side}x{IMAGE_CHANNELS}", flush=True)
        cost = _cost(network, topology)
        print(f"parameters  {cost.parameters:,}")
        print(f"macs        {cost.macs:,} (multiply-adds of convolutions and linear layers)")
        return 0


def _cost(network: UsualNetwork, topology: Topology) -> "Cost":
    from cdarts.cost import network_cost

    return network_cost(network.build(topology), network.image_size, IMAGE_CHANNELS)


def _place(target: str) -> str:
    """Where the genotype that `zoo.find` gives for the target is written."""
    if target in zoo.names():
        return str(zoo.file(target))
    if target.lstrip().startswith(zoo.TEXT_FORMS):
        return "none: given as text"
    path = Path(target).expanduser()
    return str(path / "genotype.json" if path.is_dir() else path)


@dataclass(frozen=True, kw_only=True)
class ShowGenotypes:
    """The published cells that are known by name."""

    json: Flag = False
    """Print one JSON object instead."""

    def run(self) -> int:
        genotypes = {name: zoo.load(name) for name in zoo.names()}
        counts = {name: dict(sorted(Counter(genotype.operations()).items())) for name, genotype in genotypes.items()}
        if self.json:
            _print_json(
                {
                    name: {"space": genotype.space, "operations": counts[name], **genotype.provenance}
                    for name, genotype in genotypes.items()
                }
            )
            return 0
        rows = [
            (
                name,
                genotype.space,
                ", ".join(f"{count} {operation}" for operation, count in counts[name].items()),
                genotype.provenance["source"],
            )
            for name, genotype in genotypes.items()
        ]
        _print_table(("name", "space", "operations", "source"), rows, spaced=True)
        return 0


# -- presets and plans -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class ShowPresets:
    """The named configurations of searches and of retrainings, each with what it changes of its command's default."""

    json: Flag = False
    """Print one JSON object instead."""

    def run(self) -> int:
        reference, recipe = PRESETS[REFERENCE_PRESET], RETRAINING_PRESETS[DEFAULT_PRESET]
        changed = {name: _changes(preset, reference) for name, preset in PRESETS.items()}
        changed_recipes = {name: _changes(preset, recipe) for name, preset in RETRAINING_PRESETS.items()}
        if self.json:
            searches = {
                name: {
                    "command": "search",
                    "summary": SUMMARIES[name],
                    "algorithm": preset.name,
                    "space": preset.space.name,
                    "differences": changed[name],
                }
                for name, preset in PRESETS.items()
            }
            recipes = {
                name: {
                    "command": "retrain",
                    "summary": RETRAINING_SUMMARIES[name],
                    "settings": to_json(preset),
                    "differences": changed_recipes[name],
                }
                for name, preset in RETRAINING_PRESETS.items()
            }
            _print_json(searches | recipes)
            return 0
        rows = [
            (name, f"{SUMMARIES[name]} (algorithm {preset.name}, space {preset.space.name})", _in_words(changed[name]))
            for name, preset in PRESETS.items()
        ]
        _print_table(("search preset", "what it is", f"differs from {REFERENCE_PRESET} in"), rows, spaced=True)
        rows = [(name, RETRAINING_SUMMARIES[name], _in_words(changed_recipes[name])) for name in RETRAINING_PRESETS]
        _print_table(("retrain --preset", "what it is", f"differs from {DEFAULT_PRESET} in"), rows, spaced=True)
        return 0


def _changes(settings: Any, reference: Any) -> dict[str, Any]:
    """Fields in which settings differ, inner ones by dotted names; of settings of another class the name alone."""
    if type(settings) is not type(reference):
        return {"name": settings.name}
    changes: dict[str, Any] = {}
    for name, (value, other) in differences(settings, reference).items():
        if not dataclasses.is_dataclass(value) or isinstance(value, type):
            changes[name] = value
        else:
            is_comparable = type(value) is type(other) or hasattr(value, "name")
            inner = _changes(value, other) if is_comparable else to_json(value)
            changes |= {f"{name}.{key}": item for key, item in inner.items()}
    return changes


@dataclass(frozen=True, kw_only=True)
class ShowPlan:
    """The epochs that a search with a preset goes through."""

    preset: tyro.conf.Positional[Annotated[str, tyro.conf.arg(metavar="PRESET")]]
    """Name of a preset (cdarts show presets)."""
    data: str = "digits"
    """Name of a data set, folder of images, or .npz file: it decides how many steps an epoch has."""
    json: Flag = False
    """Print one JSON object instead."""

    def run(self) -> int:
        if self.preset not in PRESETS:
            nearest = difflib.get_close_matches(self.preset, PRESETS, n=1, cutoff=0.5)
            hint = f" Did you mean {nearest[0]}?" if nearest else ""
            raise ConfigurationError(f"{self.preset}: no preset of that name.{hint} Presets: {', '.join(PRESETS)}")
        import torch

        from cdarts.data import load

        data = load(self.data)
        task = PRESETS[self.preset].build(data, seed=0, device=torch.device("cpu"), execution="share")
        stages = group_plan(task.plan())
        epochs, steps = sum(stage.total_epochs for stage in stages), sum(stage.total_steps for stage in stages)
        if self.json:
            described = [dataclasses.asdict(stage) for stage in stages]
            _print_json({"preset": self.preset, "data": data.name, "plan": described, "epochs": epochs, "steps": steps})
            return 0
        rows = [
            (stage.cycles_in_words(), stage.phase, str(stage.epochs), str(stage.steps), f"{stage.total_steps:,}")
            for stage in stages
        ]
        _print_table(("cycles", "phase", "epochs a cycle", "steps an epoch", "steps in all"), rows)
        print(f"{self.preset} on {data.name}: {epochs:,} epochs, {steps:,} steps")
        return 0


@dataclass(frozen=True)
class Stage:
    """Equal epochs of a plan: those of one phase in a run of cycles that go alike."""

    first_cycle: int | None
    last_cycle: int | None
    phase: str
    epochs: int
    """In each cycle."""
    steps: int
    """In each epoch."""

    @property
    def total_epochs(self) -> int:
        """Over all of its cycles."""
        if self.first_cycle is None or self.last_cycle is None:
            return self.epochs
        return self.epochs * (self.last_cycle - self.first_cycle + 1)

    @property
    def total_steps(self) -> int:
        """Over all of its cycles."""
        return self.total_epochs * self.steps

    def cycles_in_words(self) -> str:
        """``0 to 29``, or nothing for epochs outside of cycles."""
        if self.first_cycle is None:
            return ""
        first, last = str(self.first_cycle), str(self.last_cycle)
        return first if first == last else f"{first} to {last}"


def group_plan(plan: "Sequence[Epoch]") -> list[Stage]:
    """A plan as few lines: equal epochs of a cycle together, and successive cycles that go alike."""
    cycles = []
    for cycle, epochs in groupby(plan, key=lambda epoch: epoch.cycle):
        pattern = [(phase, len(list(same)), steps) for (phase, steps), same in groupby(epochs, key=_phase_and_steps)]
        cycles.append((cycle, pattern))
    stages = []
    for (pattern, _), alike in groupby(cycles, key=lambda item: (item[1], item[0] is None)):
        numbers = [cycle for cycle, _ in alike]
        stages += [Stage(numbers[0], numbers[-1], phase, count, steps) for phase, count, steps in pattern]
    return stages


def _phase_and_steps(epoch: "Epoch") -> tuple[str, int]:
    return epoch.phase, epoch.steps


# -- registries --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class ShowSpaces:
    """The search spaces."""

    json: Flag = False
    """Print one JSON object instead."""

    def run(self) -> int:
        spaces = {
            name: {
                "cells": list(space.kinds),
                "inputs": space.num_inputs,
                "nodes": space.num_nodes,
                "edges": sum(space.num_inputs + node for node in range(space.num_nodes)),
                "operations": list(space.operations),
                "summary": _summary(space),
            }
            for name, space in SPACES.items()
        }
        if self.json:
            _print_json(spaces)
            return 0
        columns = ("cells", "inputs", "nodes", "edges", "operations", "summary")
        rows = [(name, *(_in_words(row[key]) for key in columns)) for name, row in spaces.items()]
        _print_table(("space", *columns), rows, spaced=True)
        return 0


@dataclass(frozen=True, kw_only=True)
class ShowOperations:
    """The candidate operations, the spaces that have them, and their weights at 16 channels and stride 1."""

    json: Flag = False
    """Print one JSON object instead."""

    def run(self) -> int:
        from cdarts.operations import OPERATIONS

        operations = {
            name: {
                "spaces": [space_name for space_name, space in SPACES.items() if name in space.operations],
                "parameters": sum(parameter.numel() for parameter in build(16, 16, 1, True).parameters()),
            }
            for name, build in OPERATIONS.items()
        }
        if self.json:
            _print_json(operations)
            return 0
        rows = [(name, _in_words(row["spaces"]), _in_words(row["parameters"])) for name, row in operations.items()]
        _print_table(("operation", "spaces", "weights at 16 channels"), rows)
        return 0


@dataclass(frozen=True, kw_only=True)
class ShowAlgorithms:
    """The search algorithms, and the presets that configure them."""

    json: Flag = False
    """Print one JSON object instead."""

    def run(self) -> int:
        algorithms = {
            name: {
                "summary": _summary(settings),
                "settings": [field.name for field in dataclasses.fields(settings)],
                "presets": [preset for preset, value in PRESETS.items() if value.name == name],
            }
            for name, settings in ALGORITHMS.items()
        }
        if self.json:
            _print_json(algorithms)
            return 0
        columns = ("summary", "presets")
        rows = [(name, *(_in_words(row[key]) for key in columns)) for name, row in algorithms.items()]
        _print_table(("algorithm", *columns), rows, spaced=True)
        return 0


# -- printing ----------------------------------------------------------------------------------------------------------


def _print_table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, spaced: bool = False) -> None:
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 1 if spaced else 0, 0))
    for position, column in enumerate(columns):
        table.add_column(column, overflow="fold", no_wrap=position == 0)
    for row in rows:
        table.add_row(*row)
    # what is shown comes from files too: no markup, so that brackets in it stay brackets
    Console(markup=False, emoji=False, highlight=False).print(table)


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, allow_nan=False))


def _summary(documented: type) -> str:
    """The first line of a class's documentation."""
    return (documented.__doc__ or "").strip().splitlines()[0].replace("`", "")


def _in_words(value: Any) -> str:
    """A JSON value for a table: ``a, b`` for lists, ``key value, key value`` for objects."""
    match value:
        case dict():
            return ", ".join(f"{key} {_in_words(item)}" for key, item in value.items())
        case list() | tuple():
            return ", ".join(_in_words(item) for item in value)
        case float():
            return f"{value:g}"
    return str(value)


def _one_line(text: str) -> str:
    """Without line breaks and other control characters, which a file's text might use to forge output."""
    return "".join(character if character.isprintable() else " " for character in text)


COMMAND = (
    Annotated[ShowGenotype, tyro.conf.subcommand("genotype")]
    | Annotated[ShowGenotypes, tyro.conf.subcommand("genotypes")]
    | Annotated[ShowCost, tyro.conf.subcommand("cost")]
    | Annotated[ShowCell, tyro.conf.subcommand("cell")]
    | Annotated[ShowNetwork, tyro.conf.subcommand("network")]
    | Annotated[ShowPresets, tyro.conf.subcommand("presets")]
    | Annotated[ShowPlan, tyro.conf.subcommand("plan")]
    | Annotated[ShowSpaces, tyro.conf.subcommand("spaces")]
    | Annotated[ShowOperations, tyro.conf.subcommand("operations")]
    | Annotated[ShowAlgorithms, tyro.conf.subcommand("algorithms")]
)
