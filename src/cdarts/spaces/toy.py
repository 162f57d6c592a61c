"""A small space for tests and first experiments: one input, two nodes, three edges, three operations."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from tyro.conf import Suppress

from cdarts.settings import STRICT
from cdarts.spaces.base import EveryEdgeSpace
from cdarts.topology import Port, Slot

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class ToySpace(EveryEdgeSpace):
    """All edges kept, ``none`` allowed; the middle cell halves the side, and a skip there is a factorised reduction."""

    operations: ClassVar[tuple[str, ...]] = ("none", "skip_connect", "nor_conv_3x3")
    num_inputs: ClassVar[int] = 1
    num_nodes: ClassVar[int] = 2
    kinds: ClassVar[tuple[str, ...]] = ("cell",)
    usual_cells: ClassVar[int] = 3
    usual_channels: ClassVar[int] = 8
    __pydantic_config__: ClassVar = STRICT

    name: Suppress[Literal["toy"]] = "toy"

    def layout(self, cells: int, channels: int) -> list[Slot]:
        self.check_size(cells, channels)
        slots = []
        previous, stage = channels, 0
        for index in range(cells):
            reduces = index == cells // 2
            channels = 2 * channels if reduces else channels
            stride = 2 if reduces else 1
            port = Port(index, previous, False)
            slots.append(
                Slot(f"cells.{index}", "cell", stage, (port,), channels, channels, stride, closes_stage=reduces)
            )
            previous, stage = channels, stage + reduces
        return slots

    def preprocess(self, port: Port, channels: int, affine: bool) -> "nn.Module":
        from cdarts.operations import ReluConvBatchNorm

        return ReluConvBatchNorm(port.channels, channels, 1, 1, affine)
