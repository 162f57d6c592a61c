"""A network as one readable file of plain torch code with its weights beside it, which needs torch alone."""

import importlib.util
from collections.abc import Iterable
from pathlib import Path
from textwrap import fill, indent
from typing import cast

from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from cdarts import __version__
from cdarts.errors import ExportError
from cdarts.export.classifier import Classifier, Model
from cdarts.export.module_text import CELL, HEAD, LAYERS, NETWORK, TAIL
from cdarts.model import ModelCard
from cdarts.networks import Cell, Network
from cdarts.operations import (
    AvgPool3x3,
    BatchNormalized,
    ConvStem,
    DilatedConv,
    FactorizedReduce,
    Identity,
    ImageNetStem,
    MaxPool3x3,
    Operation,
    Pool,
    ReluConvBatchNorm,
    ResidualReduction,
    SeparableConv,
    Zero,
)
from cdarts.spaces import DartsSpace
from cdarts.topology import Edge, Slot, genotype_from_json

MODULE_SUFFIX = ".py"

LINE = 116
"""Characters that fit into a line of the text."""


CELL_NAMES = {
    ("normal", 1): "NormalCell",
    ("reduce", 2): "ReductionCell",
    ("cell", 1): "Cell",
    ("cell", 2): "HalvingCell",
}
"""By kind and stride."""


def module_files(card: ModelCard, classifier: Classifier, name: str) -> dict[str, bytes]:
    source = ModuleSource(card, classifier.network)
    # the weights are written first: a module that is there has them
    return {".safetensors": save_tensors(source.weights()), MODULE_SUFFIX: source.text(name).encode()}


def load_module(path: Path) -> Model:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return cast(Model, module.load())


class ModuleSource:
    """The Python text of a network: the layers it has, a class for each kind of cell, and the network itself.

    What the output of a cell does not depend on is left out, and so are its weights.
    """

    def __init__(self, card: ModelCard, network: Network) -> None:
        """Raises `ExportError` for a space, a block or an operation that has no text here."""
        self.card = card
        self.network = network
        self.layers: set[str] = set()
        """Those of `LAYERS` that are used."""
        self.renamed: dict[str, str] = {}
        """How the names of weights begin: in the network -> in the text."""
        self.cells: dict[str, list[tuple[Slot, Cell]]] = {}
        """The cells of each class."""
        self.group = "cells" if all(slot.kind for slot in network.layout) else "blocks"
        blocks = [self._block(position, slot) for position, slot in enumerate(network.layout)]
        classes = [self._cell_class(name, cells) for name, cells in self.cells.items()]
        self.body = [*classes, self._network_class(blocks)]

    def weights(self) -> dict[str, Tensor]:
        """The tensors beside the text."""
        state = self.network.state_dict()
        return {
            new + name.removeprefix(old): tensor.contiguous()
            for old, new in self.renamed.items()
            for name, tensor in state.items()
            if name.startswith(old)
        }

    def text(self, name: str) -> str:
        """The whole file, for a module called `name`."""
        card = self.card
        head = HEAD.format(
            version=__version__,
            name=name,
            genotype=fill(self._genotype(), LINE, break_long_words=False, break_on_hyphens=False),
            num_classes=len(card.class_names),
            class_names=_tuple([repr(class_name) for class_name in card.class_names]),
            side=card.side,
            channels=card.image_channels,
            mean=card.mean,
            std=card.std,
        )
        layers = [text for layer, text in LAYERS.items() if layer in self.layers]
        return "\n\n".join(f"{part.strip()}\n" for part in (head, *layers, *self.body, TAIL))

    def _genotype(self) -> str:
        return genotype_from_json(self.card.genotype).text()

    # -- cells ---------------------------------------------------------------------------------------------------------

    def _block(self, position: int, slot: Slot) -> str:
        """What fills a slot, as it stands in the network's list."""
        block = self.network.get_submodule(slot.name)
        old, new = f"{slot.name}.", f"{self.group}.{position}."
        match block:
            case ResidualReduction():
                self.layers |= {"ResidualReduction", "ReluConvBatchNorm"}
                self.renamed[old] = new
                return f"ResidualReduction({slot.inputs[0].channels}, {slot.channels})"
            case Cell():
                name = CELL_NAMES[slot.kind or "", slot.stride]
                self.cells.setdefault(name, []).append((slot, block))
                entered = self._entered(block)
                for number in entered:
                    self.renamed[f"{old}preprocess.{number}."] = f"{new}enter_{number}."
                for edge, operation_name, operation in self._kept(block):
                    inner = "conv." if isinstance(operation, DilatedConv) else ""
                    place = f"{old}edges.{edge}.{operation_name}.{inner}"
                    self.renamed[place] = f"{new}{_attribute(edge, operation_name)}."
                sizes = [str(slot.inputs[number].channels) for number in entered]
                halved = [f"halve_{number}=True" for number in entered if slot.inputs[number].halve]
                return f"{name}({', '.join([*sizes, str(slot.channels), *halved])})"
        raise _without_text(block)

    def _cell_class(self, name: str, cells: list[tuple[Slot, Cell]]) -> str:
        """The class of the cells of one kind and stride."""
        slot, cell = cells[0]
        entered = self._entered(cell)
        inputs = range(cell.topology.num_inputs)
        nodes = sorted(self._needed(cell) - set(inputs))
        halved = [number for number in entered if any(other.inputs[number].halve for other, _ in cells)]
        arguments = [
            *(f"c{number}: int" for number in entered),
            "channels: int",
            *(f"halve_{number}: bool = False" for number in halved),
        ]
        layers = [f"self.enter_{number} = {self._enter(number, number in halved)}" for number in entered]
        layers += [
            f"self.{_attribute(edge, operation_name)} = {self._layer(operation)}"
            for edge, operation_name, operation in self._kept(cell)
        ]
        forward = [f"s{number} = self.enter_{number}(s{number})" for number in entered]
        forward += [f"s{node} = {self._node(cell, node, slot.stride)}" for node in nodes]
        concatenated = isinstance(self.card.space, DartsSpace)
        every = ", ".join(f"s{node}" for node in nodes)
        forward.append(f"return torch.cat([{every}], dim=1)" if concatenated else f"return s{nodes[-1]}")
        return CELL.format(
            name=name,
            does="Halves the side" if slot.stride == 2 else "Keeps the side",
            inputs=" and ".join(f"s{number}" for number in inputs),
            gives=f"the nodes {every}, concatenated" if concatenated else f"the last node s{nodes[-1]}",
            arguments=", ".join(arguments),
            layers=_indented(["super().__init__()", *layers], 8),
            states=", ".join(f"s{number}: Tensor" for number in inputs),
            forward=_indented(forward, 8),
        )

    def _needed(self, cell: Cell) -> set[int]:
        """The states that a cell's output depends on."""
        topology = cell.topology
        first, last = topology.num_inputs, topology.num_inputs + topology.num_nodes - 1
        needed = set(range(first, last + 1)) if isinstance(self.card.space, DartsSpace) else {last}
        for node in range(last, first - 1, -1):
            if node in needed:
                needed |= {edge.source for edge, _, _ in self._incoming(cell, node)} or {_shape_of(cell, node).source}
        return needed

    def _entered(self, cell: Cell) -> list[int]:
        """The inputs that are needed and are preprocessed."""
        needed = self._needed(cell)
        return [
            number
            for number, preprocess in enumerate(cell.preprocess)
            if number in needed and isinstance(preprocess, Operation)
        ]

    def _incoming(self, cell: Cell, node: int) -> list[tuple[Edge, str, Operation]]:
        """The edges into a node that carry something."""
        operations = cell.operations(cell.topology)
        found = []
        for position in cell.topology.incoming(node):
            edge, (name,) = cell.topology.edges[position]
            (operation,) = operations[position]
            if not isinstance(operation, Zero):
                found.append((edge, name, operation))
        return found

    def _kept(self, cell: Cell) -> list[tuple[Edge, str, Operation]]:
        """The edges that are layers of the text: all that are needed, but those that pass a state on as it is."""
        return [
            (edge, name, operation)
            for node in sorted(self._needed(cell))
            for edge, name, operation in self._incoming(cell, node)
            if not isinstance(operation, Identity)
        ]

    def _node(self, cell: Cell, node: int, stride: int) -> str:
        """A node as the sum that it is."""
        terms = [
            f"s{edge.source}" if isinstance(operation, Identity) else f"self.{_attribute(edge, name)}(s{edge.source})"
            for edge, name, operation in self._incoming(cell, node)
        ]
        if terms:
            return " + ".join(terms)
        source = _shape_of(cell, node).source
        halved = "[:, :, ::2, ::2]" if stride == 2 and source < cell.topology.num_inputs else ""
        return f"torch.zeros_like(s{source}{halved})"

    def _enter(self, number: int, halves: bool) -> str:
        """An input's preprocessing, as it is built in a cell's class."""
        self.layers.add("ReluConvBatchNorm")
        plain = f"ReluConvBatchNorm(c{number}, channels, kernel=1)"
        if not halves:
            return plain
        self.layers.add("FactorizedReduce")
        return f"FactorizedReduce(c{number}, channels) if halve_{number} else {plain}"

    def _layer(self, operation: Operation) -> str:
        """An operation, as it is built in a cell's class."""
        match operation:
            case Pool(prologue=MaxPool3x3(stride=stride)):
                return f"nn.MaxPool2d(3, stride={stride}, padding=1)"
            case Pool(prologue=AvgPool3x3(stride=stride)):
                return f"nn.AvgPool2d(3, stride={stride}, padding=1, count_include_pad=False)"
            case BatchNormalized():
                self.layers.add("NormedPool")
                return f"NormedPool({self._layer(operation.operation)}, channels)"
            case FactorizedReduce():
                self.layers.add("FactorizedReduce")
                return "FactorizedReduce(channels, channels)"
            case ReluConvBatchNorm():
                self.layers.add("ReluConvBatchNorm")
                return f"ReluConvBatchNorm(channels, channels, {_kernel(operation.conv)})"
            case SeparableConv():
                self.layers |= {"DepthwisePointwise", "SeparableConv"}
                return f"SeparableConv(channels, {_kernel(operation.first.depthwise)})"
            case DilatedConv():
                self.layers.add("DepthwisePointwise")
                return f"DepthwisePointwise(channels, {_kernel(operation.conv.depthwise)}, dilation=2)"
        raise _without_text(operation)

    # -- the network ---------------------------------------------------------------------------------------------------

    def _network_class(self, blocks: list[str]) -> str:
        stem, tail, classifier = self.network.stem, self.network.tail, self.network.classifier
        two = self.card.space.num_inputs == 2
        normalised = "(images - self.mean) / self.std"
        match stem:
            case ConvStem():
                self.renamed |= {"stem.conv.": "stem.0.", "stem.norm.": "stem.1."}
                layers = {"stem": _sequence([stem.conv, stem.norm])}
                forward = [f"{'before = previous' if two else 'x'} = self.stem({normalised})"]
            case ImageNetStem():
                self.renamed |= {"stem.quarter.": "quarter.", "stem.eighth.": "eighth."}
                layers = {"quarter": _sequence(stem.quarter), "eighth": _sequence(stem.eighth)}
                forward = [f"before = self.quarter({normalised})", "previous = self.eighth(before)"]
            case _:
                raise _without_text(stem)
        layers[self.group] = _listed("nn.ModuleList([", blocks, "])")
        block = self.group.removesuffix("s")
        forward += [
            f"for {block} in self.{self.group}:",
            f"    before, previous = previous, {block}(before, previous)" if two else f"    x = {block}(x)",
        ]
        last = "previous" if two else "x"
        if isinstance(tail, nn.Sequential):
            self.renamed["tail."] = "tail."
            layers["tail"] = _sequence(tail)
            last = f"self.tail({last})"
        self.renamed["classifier."] = "classifier."
        layers["classifier"] = f"nn.Linear({classifier.in_features}, len(CLASS_NAMES))"
        forward.append(f"return self.classifier({last}.mean(dim=(2, 3)))")
        return NETWORK.format(
            count=sum(slot.kind is not None for slot in self.network.layout),
            layers=_indented([f"self.{name} = {layer}" for name, layer in layers.items()], 8),
            forward=_indented(forward, 8),
        )


def _shape_of(cell: Cell, node: int) -> Edge:
    """The edge whose zeros a node is if nothing leads into it."""
    edge, _ = cell.topology.edges[cell.topology.incoming(node)[0]]
    return edge


def _attribute(edge: Edge, operation: str) -> str:
    """The name of an edge's layer."""
    return f"{operation}_{edge.source}_to_{edge.target}"


def _kernel(conv: nn.Conv2d) -> str:
    """Kernel and stride, as arguments."""
    stride = "" if conv.stride[0] == 1 else f", stride={conv.stride[0]}"
    return f"kernel={conv.kernel_size[0]}{stride}"


def _sequence(modules: Iterable[nn.Module]) -> str:
    """A stem or a tail. Raises `ExportError` for a layer that is not known."""
    layers = []
    for module in modules:
        match module:
            case nn.Conv2d():
                stride = "" if module.stride[0] == 1 else f", stride={module.stride[0]}"
                sizes = f"{module.in_channels}, {module.out_channels}, {module.kernel_size[0]}"
                layers.append(f"nn.Conv2d({sizes}{stride}, padding={module.padding[0]}, bias=False)")
            case nn.BatchNorm2d():
                layers.append(f"nn.BatchNorm2d({module.num_features})")
            case nn.ReLU():
                layers.append("nn.ReLU()")
            case _:
                raise _without_text(module)
    return f"nn.Sequential({', '.join(layers)})" if len(layers) < 3 else _listed("nn.Sequential(", layers, ")")


def _listed(begin: str, items: list[str], end: str) -> str:
    """Items within brackets, one a line."""
    return f"{begin}\n{_indented([f'{item},' for item in items], 4)}\n{end}"


def _tuple(items: list[str]) -> str:
    """A tuple, on one line where it fits."""
    short = f"({', '.join(items)})"
    return short if len(items) > 1 and len(short) < LINE - len("CLASS_NAMES = ") else _listed("(", items, ")")


def _indented(lines: list[str], spaces: int) -> str:
    return indent("\n".join(lines), " " * spaces)


def _without_text(module: nn.Module) -> ExportError:
    return ExportError(f"{type(module).__name__} has no text of its own in a module; use --format onnx or pt2")
