"""What a genotype's network costs: parameters, multiply-adds, memory and time; the whole, its cells, its operations."""

import json
import platform
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro
from rich.console import Console
from rich.table import Table

from cdarts import zoo
from cdarts.commands.usual import IMAGE_CHANNELS, OfGenotype, UsualNetwork
from cdarts.errors import ConfigurationError
from cdarts.topology import Genotype

if TYPE_CHECKING:
    import torch

    from cdarts.cost import Amount, CostTable, Size
    from cdarts.cost.latency import Timing

Flag = Annotated[bool, tyro.conf.FlagCreatePairsOff]

BATCHES = (1, 32)
"""Sizes of the batches that latency is measured for."""


@dataclass(frozen=True, kw_only=True)
class ShowCost(OfGenotype):
    """What a genotype's network costs, with its parts: parameters, multiply-adds, memory, and time if asked for.

    Sizes are those of the literature unless flags say otherwise. An edge's costs are those of all cells of its kind.
    """

    latency: Flag = False
    """Measure times on this machine, which takes a minute: the network in PyTorch and in ONNX Runtime, for 1 and 32
    images, and each operation."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where PyTorch computes what is timed; ONNX Runtime computes on the CPU."""
    threads: int | None = None
    """Threads to compute with."""
    json: Flag = False
    """Print one JSON object instead."""

    def run(self) -> int:
        genotype = zoo.find(self.target)
        network = self.network(genotype)
        network.space.check(genotype)
        from cdarts.cost import Size, cost_table
        from cdarts.engine.runtime import choose_device, set_threads

        device, threads = choose_device(self.device), set_threads(self.threads)
        size = Size(network.cells, network.channels, network.classes, network.image_size, IMAGE_CHANNELS)
        table = cost_table(network.space, size)
        found: dict[str, Any] = {
            "name": self.target,
            "text": genotype.text(),
            **_sizes(network, self.stem),
            **_whole(table.cost(genotype), network, size, genotype),
        }
        found["parts"] = _parts(genotype, table)
        if self.latency:
            found["latency"] = measured(network, size, genotype, device, threads)
        if self.json:
            print(json.dumps(found, indent=2, allow_nan=False))
        else:
            _print(found)
        return 0


def _sizes(network: UsualNetwork, stem: str) -> dict[str, Any]:
    return {
        "space": network.space.name,
        "stem": stem,
        "cells": network.cells,
        "channels": network.channels,
        "classes": network.classes,
        "image_size": network.image_size,
    }


def _whole(cost: "Amount", network: UsualNetwork, size: "Size", genotype: Genotype) -> dict[str, Any]:
    """The network's parameters, multiply-adds and bytes."""
    import torch

    from cdarts.cost import activation_bytes

    built = size.network(network.space, genotype, "cpu").train()
    images = torch.rand(2, size.image_channels, size.side, size.side)
    # BatchNorm needs two images; all that the backward pass keeps grows with them
    return {
        "parameters": cost.parameters,
        "macs": cost.macs,
        "weight_bytes": sum(tensor.nbytes for tensor in built.state_dict().values()),
        "activation_bytes_per_image": activation_bytes(built, images) // 2,
    }


def _parts(genotype: Genotype, table: "CostTable") -> list[dict[str, Any]]:
    """Edges, cells by kind, and the rest."""
    parts: list[dict[str, Any]] = []
    for kind, choices in genotype.cells.items():
        amounts = [table.choices[kind][choice] for choice in choices]
        for choice, amount in zip(choices, amounts, strict=True):
            parts.append(_part(f"{kind} {choice.edge}", choice.operation, amount))
        total = amounts[0]
        for amount in amounts[1:]:
            total = total.plus(amount)
        parts.append(_part(f"{kind} cells", "all edges", total))
    parts.append(_part("rest", "stem, preprocessing, classifier", table.rest))
    return parts


def _part(place: str, operation: str, amount: "Amount") -> dict[str, Any]:
    return {"place": place, "operation": operation, "parameters": amount.parameters, "macs": amount.macs}


# -- time --------------------------------------------------------------------------------------------------------------


def measured(
    network: UsualNetwork, size: "Size", genotype: Genotype, device: "torch.device", threads: int
) -> dict[str, Any]:
    """Medians and quartiles in milliseconds, and on what they were measured."""
    from cdarts.cost.latency import network_timing, operation_timing
    from cdarts.cost.table import places

    runs = {
        f"PyTorch, {batch} image{'s' * (batch > 1)}": _timing(
            network_timing(network.space, size, genotype, device, batch)
        )
        for batch in BATCHES
    }
    runs |= {name: _timing(timing) for name, timing in _onnx_timings(network, size, genotype, threads).items()}
    edges: dict[str, float] = {}
    alone: dict[Any, float] = {}
    for kind, by_edge in places(network.space, size).items():
        for choice in genotype.cells[kind]:
            total = 0.0
            for place, times in by_edge[choice.edge].items():
                key = (choice.operation, place)
                if key not in alone:
                    alone[key] = operation_timing(network.space, choice.operation, place, device).median
                total += times * alone[key]
            edges[f"{kind} {choice.edge}"] = total
    return {"device": _device_name(device), "threads": threads, "networks": runs, "edges": edges}


def _onnx_timings(network: UsualNetwork, size: "Size", genotype: Genotype, threads: int) -> "dict[str, Timing]":
    """Of ONNX Runtime on the CPU; nothing, and a line that says so, where it is not installed."""
    import tempfile
    from pathlib import Path

    import torch

    from cdarts.cost.latency import timed
    from cdarts.export import FORMATS, Classifier, OnnxModel
    from cdarts.model import ModelCard

    card = ModelCard(
        space=network.space,  # type: ignore[arg-type]
        genotype=genotype.to_json(),
        cells=size.cells,
        channels=size.channels,
        class_names=tuple(map(str, range(size.num_classes))),
        side=size.side,
        image_channels=size.image_channels,
        mean=(0.5,) * size.image_channels,
        std=(0.25,) * size.image_channels,
    )
    built = card.build().to(memory_format=torch.contiguous_format).requires_grad_(False)
    with tempfile.TemporaryDirectory() as folder:
        try:
            files = FORMATS["onnx"].encode(card, Classifier(card, built), "model")
            path = Path(folder) / "model.onnx"
            path.write_bytes(files[".onnx"])
            model = OnnxModel(path, threads)
        except ConfigurationError as error:
            print(f"note    {error}", file=sys.stderr, flush=True)
            return {}
    images = {batch: torch.rand(batch, size.image_channels, size.side, size.side) for batch in BATCHES}
    cpu = torch.device("cpu")
    return {
        f"ONNX Runtime, {batch} image{'s' * (batch > 1)}": timed(lambda batch=batch: model(images[batch]), cpu)  # type: ignore[misc]
        for batch in BATCHES
    }


def _timing(timing: "Timing") -> dict[str, float]:
    return {
        "median_ms": timing.median,
        "lower_quartile_ms": timing.low,
        "upper_quartile_ms": timing.high,
        "repeats": timing.repeats,
    }


def _device_name(device: "torch.device") -> str:
    import torch

    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU {platform.machine()}"


# -- printing ----------------------------------------------------------------------------------------------------------


def _print(found: dict[str, Any]) -> None:
    side = found["image_size"]
    print(f"network     {found['name']}, space {found['space']}, stem {found['stem']}")
    print(
        f"sizes       {found['cells']} cells, {found['channels']} channels, {found['classes']} classes, {side}x{side}"
    )
    print("            of the literature where no flag says otherwise, not those of a run")
    print(f"parameters  {found['parameters']:,} ({found['weight_bytes'] / 2**20:.1f} MiB with statistics)")
    print(f"macs        {found['macs']:,} (multiply-adds of convolutions and linear layers, one image)")
    memory = found["activation_bytes_per_image"] / 2**20
    print(f"memory      {memory:.1f} MiB an image that a training step keeps for the backward pass\n")
    edges = found.get("latency", {}).get("edges", {})
    columns = ["place", "operation", "parameters", "M MACs", *(["ms"] if edges else [])]
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(column, justify="left" if column in ("place", "operation") else "right", no_wrap=True)
    for part in found["parts"]:
        time = edges.get(part["place"])
        row = [part["place"], part["operation"], f"{part['parameters']:,}", f"{part['macs'] / 1e6:,.2f}"]
        table.add_row(*row, *([] if not edges else ["" if time is None else f"{time:.2f}"]))
    Console(markup=False, emoji=False, highlight=False).print(table)
    print("an edge's costs are those of all cells of its kind together")
    if "latency" in found:
        latency = found["latency"]
        print(f"\nmeasured on {latency['device']} with {latency['threads']} threads; ms, lower to upper quartile:")
        for name, timing in latency["networks"].items():
            spread = f"{timing['lower_quartile_ms']:.1f} to {timing['upper_quartile_ms']:.1f}"
            print(f"  {name:26}{timing['median_ms']:8.1f}  ({spread}, {timing['repeats']:.0f} calls)")
