"""The DARTS space (Liu et al., ICLR 2019), as CDARTS searches it.

A normal and a reduction cell, each of 2 inputs and 4 nodes. The operations stand in the order of the CDARTS authors'
code, with ``none`` last.
"""

from dataclasses import dataclass
from itertools import combinations, product
from typing import TYPE_CHECKING, ClassVar, Literal

from tyro.conf import Suppress

from cdarts.errors import GenotypeError
from cdarts.settings import STRICT
from cdarts.spaces.base import Space, Strengths, strongest
from cdarts.topology import Choice, Edge, Genotype, Port, Slot

if TYPE_CHECKING:
    from torch import Tensor, nn

    from cdarts.operations import Operation

EDGES_KEPT = 2
"""Incoming edges each node keeps when a cell is discretised."""


@dataclass(frozen=True, kw_only=True)
class DartsSpace(Space):
    """Normal and reduction cells; the reduction cells stand at one and two thirds of the depth."""

    operations: ClassVar[tuple[str, ...]] = (
        "max_pool_3x3",
        "avg_pool_3x3",
        "skip_connect",
        "sep_conv_3x3",
        "sep_conv_5x5",
        "dil_conv_3x3",
        "dil_conv_5x5",
        "none",
    )
    num_inputs: ClassVar[int] = 2
    num_nodes: ClassVar[int] = 4
    kinds: ClassVar[tuple[str, ...]] = ("normal", "reduce")
    usual_cells: ClassVar[int] = 20
    usual_channels: ClassVar[int] = 36
    __pydantic_config__: ClassVar = STRICT

    name: Suppress[Literal["darts"]] = "darts"
    pool_batchnorm: bool = False
    """BatchNorm without weights after every pool, as in DARTS's search network; the CDARTS authors' pools have none."""
    stem_name: Literal["cifar", "half", "imagenet"] = "cifar"
    """``cifar``: one 3x3 convolution at full resolution; ``half``: the same with stride 2; ``imagenet``: three of
    stride 2, so that cells begin at an eighth of the side."""

    def check_cell(self, kind: str, choices: tuple[Choice, ...]) -> None:
        if any(choice.operation == "none" for choice in choices):
            raise GenotypeError(f"{kind} cell: 'none' cannot be an operation of a genotype of the DARTS space")
        for node in range(self.num_inputs, self.num_inputs + self.num_nodes):
            kept = sum(choice.edge.target == node for choice in choices)
            if kept != EDGES_KEPT:
                raise GenotypeError(f"{kind} cell, node {node}: has {kept} edges, must have {EDGES_KEPT}")

    def derive(self, strengths: Strengths) -> Genotype:
        """Best operation an edge, leaving out ``none``; then the two strongest edges of every node."""
        allowed = [index for index, name in enumerate(self.operations) if name != "none"]
        names = [self.operations[index] for index in allowed]
        cells = {}
        for kind in self.kinds:
            best: dict[int, list[tuple[float, Edge, str]]] = {}
            for edge, row in zip(self.all_edges(), strengths[kind], strict=True):
                strength, operation = strongest([row[index] for index in allowed], names)
                best.setdefault(edge.target, []).append((strength, edge, operation))
            cells[kind] = tuple(
                Choice(edge, operation)
                for edges in best.values()
                for _, edge, operation in sorted(edges, key=lambda item: (-item[0], item[1]))[:EDGES_KEPT]
            )
        return Genotype(self.name, cells)

    def decisions(self) -> list[list[tuple[Choice, ...]]]:
        """One for each node: its two edges and their operations."""
        names = [name for name in self.operations if name != "none"]
        edges = self.all_edges()
        nodes = range(self.num_inputs, self.num_inputs + self.num_nodes)
        return [
            [
                tuple(map(Choice, kept, operations))
                for kept in combinations([edge for edge in edges if edge.target == node], EDGES_KEPT)
                for operations in product(names, repeat=EDGES_KEPT)
            ]
            for node in nodes
        ]

    def stem_channels(self, channels: int) -> tuple[int, ...]:
        width = channels if self.stem_name == "imagenet" else 3 * channels
        return (width, width)

    def layout(self, cells: int, channels: int) -> list[Slot]:
        self.check_size(cells, channels)
        before_previous, previous = self.stem_channels(channels)
        previous_halved = self.stem_name == "imagenet"
        slots, stage = [], 0
        for index in range(cells):
            reduces = index in (cells // 3, 2 * cells // 3)
            channels = 2 * channels if reduces else channels
            slots.append(
                Slot(
                    name=f"cells.{index}",
                    kind="reduce" if reduces else "normal",
                    stage=stage,
                    inputs=(Port(index, before_previous, previous_halved), Port(index + 1, previous, False)),
                    channels=channels,
                    out_channels=self.num_nodes * channels,
                    stride=2 if reduces else 1,
                    closes_stage=reduces,
                )
            )
            before_previous, previous, previous_halved = previous, self.num_nodes * channels, reduces
            stage += reduces
        return slots

    def stem(self, image_channels: int, channels: int) -> "nn.Module":
        from cdarts.operations import STEMS

        return STEMS[self.stem_name](image_channels, self.stem_channels(channels))

    def preprocess(self, port: Port, channels: int, affine: bool) -> "nn.Module":
        from cdarts.operations import FactorizedReduce, ReluConvBatchNorm

        if port.halve:
            return FactorizedReduce(port.channels, channels, affine)
        return ReluConvBatchNorm(port.channels, channels, 1, 1, affine)

    def operation(self, name: str, channels: int, stride: int, affine: bool) -> "Operation":
        from cdarts.operations import OPERATIONS, BatchNormalized, Pool

        operation = OPERATIONS[name](channels, channels, stride, affine)
        return (
            BatchNormalized(operation, channels) if self.pool_batchnorm and isinstance(operation, Pool) else operation
        )

    def output(self, nodes: "list[Tensor]") -> "Tensor":
        import torch

        return torch.cat(nodes, dim=1)
