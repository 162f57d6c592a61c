"""The NAS-Bench-201 space (Dong & Yang, ICLR 2020).

One cell of 1 input and 3 nodes, all 6 edges kept, 5 operations, ``none`` among them. Three stages of cells with
residual reduction blocks between them, and a final BatchNorm and ReLU, without which networks of this space score 5 to
6 points too low.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from tyro.conf import Suppress

from cdarts.settings import STRICT
from cdarts.spaces.base import EveryEdgeSpace
from cdarts.topology import Port, Slot

if TYPE_CHECKING:
    from torch import nn

NUM_STAGES = 3


@dataclass(frozen=True, kw_only=True)
class NasBench201Space(EveryEdgeSpace):
    """One cell for the whole network; the benchmark's networks have 15 of them, 5 a stage, and 16 channels."""

    operations: ClassVar[tuple[str, ...]] = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
    num_inputs: ClassVar[int] = 1
    num_nodes: ClassVar[int] = 3
    kinds: ClassVar[tuple[str, ...]] = ("cell",)
    usual_cells: ClassVar[int] = 15
    usual_channels: ClassVar[int] = 16
    __pydantic_config__: ClassVar = STRICT

    name: Suppress[Literal["nasbench201"]] = "nasbench201"

    def layout(self, cells: int, channels: int) -> list[Slot]:
        self.check_size(cells, channels)
        slots: list[Slot] = []
        index = 0
        for stage in range(NUM_STAGES):
            if stage:
                port = Port(len(slots), channels, True)
                channels *= 2
                slots.append(
                    Slot(
                        f"reductions.{stage - 1}",
                        None,
                        stage - 1,
                        (port,),
                        channels,
                        channels,
                        stride=2,
                        closes_stage=True,
                    )
                )
            # as even as possible; the first stages take what is left over
            for _ in range(cells // NUM_STAGES + (stage < cells % NUM_STAGES)):
                port = Port(len(slots), channels, False)
                slots.append(
                    Slot(f"cells.{index}", "cell", stage, (port,), channels, channels, stride=1, closes_stage=False)
                )
                index += 1
        return slots

    def preprocess(self, port: Port, channels: int, affine: bool) -> "nn.Module":  # noqa: ARG002 (inputs fit already)
        from torch import nn

        return nn.Identity()

    def block(self, slot: Slot) -> "nn.Module":
        from cdarts.operations import ResidualReduction

        return ResidualReduction(slot.inputs[0].channels, slot.channels)

    def tail(self, channels: int) -> "nn.Module":
        from torch import nn

        return nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU())
