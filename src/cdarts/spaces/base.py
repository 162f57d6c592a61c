"""What a search space is: the candidate operations, the cells, the macro skeleton, and how strengths become a genotype.

A space is data and imports no torch until a network is built; its methods that return modules import them then.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from cdarts.errors import ConfigurationError, GenotypeError
from cdarts.topology import CellTopology, Choice, Edge, Genotype, Port, Slot, Topology

if TYPE_CHECKING:
    from torch import Tensor, nn

    from cdarts.operations import Operation

Strengths = Mapping[str, Sequence[Sequence[float]]]
"""For each kind of cell a matrix edges x operations, in the order of the topology; the larger, the stronger."""


@dataclass(frozen=True, kw_only=True)
class Space(ABC):
    """Base of all search spaces. A subclass is final and is listed in `cdarts.spaces.SPACES`."""

    operations: ClassVar[tuple[str, ...]]
    """Candidate operations in the order in which ties break."""
    num_inputs: ClassVar[int]
    num_nodes: ClassVar[int]
    kinds: ClassVar[tuple[str, ...]]
    """Kinds of cell that are searched."""
    usual_cells: ClassVar[int]
    """Searched cells of the network that published figures refer to."""
    usual_channels: ClassVar[int]
    """Channels of that network's first stage."""

    name: str

    # -- data ----------------------------------------------------------------------------------------------------------

    def supernet(self) -> Topology:
        """Every operation on every edge."""
        return {kind: self._cell([(edge, self.operations) for edge in self.all_edges()]) for kind in self.kinds}

    def topology(self, genotype: Genotype) -> Topology:
        """The genotype's one operation on each kept edge. Raises `GenotypeError` if it is not one of this space."""
        self.check(genotype)
        return {
            kind: self._cell([(choice.edge, (choice.operation,)) for choice in genotype.cells[kind]])
            for kind in self.kinds
        }

    def _cell(self, edges: list[tuple[Edge, tuple[str, ...]]]) -> CellTopology:
        return CellTopology(self.num_inputs, self.num_nodes, tuple(edges))

    def all_edges(self) -> list[Edge]:
        """Every edge a cell can have, in order."""
        first, last = self.num_inputs, self.num_inputs + self.num_nodes
        return [Edge(target=target, source=source) for target in range(first, last) for source in range(target)]

    def check(self, genotype: Genotype) -> None:
        """Raise `GenotypeError`, naming the place, if the genotype is not one of this space."""
        if genotype.space != self.name:
            raise GenotypeError(f"the genotype belongs to space {genotype.space!r}, not to {self.name!r}")
        if set(genotype.cells) != set(self.kinds):
            raise GenotypeError(
                f"space {self.name} has cells {', '.join(self.kinds)}; found {', '.join(genotype.cells)}"
            )
        last = self.num_inputs + self.num_nodes - 1
        for kind, choices in genotype.cells.items():
            for choice in choices:
                place = f"{kind} cell, edge {choice.edge}"
                if choice.operation not in self.operations:
                    known = ", ".join(self.operations)
                    raise GenotypeError(
                        f"{place}: unknown operation {choice.operation!r}; space {self.name} has {known}"
                    )
                if not self.num_inputs <= choice.edge.target <= last:
                    raise GenotypeError(f"{place}: a node is one of {self.num_inputs} to {last}")
            self.check_cell(kind, choices)

    @abstractmethod
    def check_cell(self, kind: str, choices: tuple[Choice, ...]) -> None:
        """Raise `GenotypeError` if the kept edges of one cell break this space's own rule."""

    @abstractmethod
    def derive(self, strengths: Strengths) -> Genotype:
        """Discretise to the strongest operations. Ties break by lowest edge, then lowest operation index."""

    @abstractmethod
    def decisions(self) -> list[list[tuple[Choice, ...]]]:
        """The independent decisions that a cell of any kind consists of: the alternatives of each, in order.

        One alternative of every decision, taken together, make a cell, and every cell is made so. `derive` takes the
        alternative with the largest sum of strengths.
        """

    @abstractmethod
    def layout(self, cells: int, channels: int) -> list[Slot]:
        """The macro skeleton of a network of `cells` searched cells whose first stage has `channels` channels.

        Raises `ConfigurationError` for impossible numbers.
        """

    @abstractmethod
    def stem_channels(self, channels: int) -> tuple[int, ...]:
        """Channels of each of the stem's outputs."""

    def check_size(self, cells: int, channels: int) -> None:
        """Raise `ConfigurationError` unless `cells` >= 1 and `channels` is a positive even number."""
        if cells < 1:
            raise ConfigurationError(f"cells {cells}: a network needs at least 1")
        if channels < 2 or channels % 2:
            raise ConfigurationError(
                f"channels {channels}: must be a positive even number, since reductions split them in two"
            )

    # -- modules -------------------------------------------------------------------------------------------------------

    @abstractmethod
    def stem(self, image_channels: int, channels: int) -> "nn.Module":
        """From images (B, image_channels, H, W) to a list of the cells' first inputs."""

    @abstractmethod
    def preprocess(self, port: Port, channels: int, affine: bool) -> "nn.Module":
        """What brings one input of a cell to `channels` channels and to the cell's side."""

    def operation(self, name: str, channels: int, stride: int, affine: bool) -> "Operation":
        """One candidate operation as this space builds it: from `OPERATIONS`, unless a space says otherwise."""
        from cdarts.operations import OPERATIONS

        return OPERATIONS[name](channels, channels, stride, affine)

    def block(self, slot: Slot) -> "nn.Module":
        """The fixed block that fills a slot without a kind."""
        raise ConfigurationError(f"space {self.name} has no fixed block for slot {slot.name}")

    @abstractmethod
    def output(self, nodes: "list[Tensor]") -> "Tensor":
        """A cell's output from its nodes, each (B, C, H, W)."""

    def tail(self, channels: int) -> "nn.Module":  # noqa: ARG002 (for subclasses)
        """What stands between the last block and global average pooling: nothing, unless a space says otherwise."""
        from torch import nn

        return nn.Identity()


@dataclass(frozen=True, kw_only=True)
class EveryEdgeSpace(Space):
    """Base of the spaces whose cells have one input and keep all their edges: ``none`` is a choice like others."""

    def check_cell(self, kind: str, choices: tuple[Choice, ...]) -> None:
        edges = self.all_edges()
        if [choice.edge for choice in choices] != edges:
            raise GenotypeError(
                f"{kind}: {len(choices)} edges given; each of the {len(edges)} edges carries exactly one operation"
            )

    def derive(self, strengths: Strengths) -> Genotype:
        """The strongest operation of every edge, ``none`` included."""
        cells = {
            kind: tuple(
                Choice(edge, strongest(row, self.operations)[1])
                for edge, row in zip(self.all_edges(), strengths[kind], strict=True)
            )
            for kind in self.kinds
        }
        return Genotype(self.name, cells)

    def decisions(self) -> list[list[tuple[Choice, ...]]]:
        """One for each edge: its operation."""
        return [[(Choice(edge, name),) for name in self.operations] for edge in self.all_edges()]

    def stem_channels(self, channels: int) -> tuple[int, ...]:
        return (channels,)

    def stem(self, image_channels: int, channels: int) -> "nn.Module":
        from cdarts.operations import STEMS

        return STEMS["cifar"](image_channels, self.stem_channels(channels))

    def output(self, nodes: "list[Tensor]") -> "Tensor":
        return nodes[-1]


def strongest(row: Sequence[float], operations: Sequence[str]) -> tuple[float, str]:
    """The largest value of a row and its operation; the first of equals."""
    best = max(range(len(row)), key=lambda index: (row[index], -index))
    return row[best], operations[best]
