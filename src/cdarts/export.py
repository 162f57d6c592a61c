"""A trained network in forms that run without this package: ONNX, `torch.export`, and one file of plain torch code.

All three take images as float32 (N, C, H, W) in 0 to 1, at the side that the network was trained at, and give class
logits (N, K); normalising is part of them, auxiliary head and drop-path are not. A file appears under its name only
after it has been read back and compared with the network that it was made from.
"""

import importlib
import importlib.util
import io
import json
import keyword
import os
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from textwrap import fill, indent
from typing import Any, ClassVar, NamedTuple, cast

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from cdarts import __version__
from cdarts.engine.files import write_bytes
from cdarts.errors import CheckpointError, ConfigurationError, DataError, ExportError
from cdarts.model import CARD, WEIGHTS, ModelCard
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
from cdarts.settings import STRICT, from_json, to_json
from cdarts.spaces import DartsSpace
from cdarts.topology import Edge, Slot, genotype_from_json

TOLERANCE = 1e-5
"""Largest difference between two logits, as a fraction of the largest logit."""

BATCHES = (1, 4, 7)
"""Sizes of the batches that an export is compared on."""

Model = Callable[[Tensor], Tensor]
"""From images (N, C, H, W) in 0 to 1 to logits (N, K)."""


# -- what goes in and what comes out -----------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Resize:
    """How a picture of any size is brought to the network's: as `cdarts.data.read_image` does it."""

    __pydantic_config__: ClassVar = STRICT

    rule: str = "the shorter side is brought to `side` pixels, then the central square is cut out"
    filter: str = "bilinear, antialiased"
    colours: str = "RGB, or grey where channels is 1; transparent parts on white"


@dataclass(frozen=True, kw_only=True)
class ImageRule:
    """The images that a model takes."""

    __pydantic_config__: ClassVar = STRICT

    side: int
    channels: int
    layout: str = "NCHW"
    values: str = "float32, 0 to 1"
    resize: Resize = Resize()

    def check(self, images: Tensor) -> None:
        """Raise `DataError` for images of another size."""
        if images.ndim != 4 or images.shape[1:] != (self.channels, self.side, self.side):
            raise DataError(
                f"images of shape {tuple(images.shape)}: the model takes (N, {self.channels}, {self.side}, {self.side})"
            )


def as_images(pixels: UInt8[np.ndarray, "N H W C"]) -> Float32[Tensor, "N C H W"]:
    """What a model takes, from bytes."""
    return torch.tensor(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))).float() / 255


class Classifier(nn.Module):
    """Images in 0 to 1 in, logits out: normalising, then the network, in evaluation mode. What every export equals."""

    mean: Tensor
    std: Tensor

    def __init__(self, card: ModelCard, network: Network) -> None:
        super().__init__()
        self.class_names = card.class_names
        self.rule = ImageRule(side=card.side, channels=card.image_channels)
        self.network = network
        for name in ("mean", "std"):
            self.register_buffer(name, torch.tensor(getattr(card, name), dtype=torch.float32).view(1, -1, 1, 1))
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network((images - self.mean) / self.std).logits
        return logits


# -- exporting ---------------------------------------------------------------------------------------------------------


class Exported(NamedTuple):
    """What an export has come to."""

    files: tuple[Path, ...]
    difference: float
    """Largest difference to the network's logits, as a fraction of the largest logit."""


@dataclass(frozen=True)
class Format:
    """A form that networks are written in."""

    suffix: str
    stem: str
    """Name of the file, without its suffix, in a run's directory."""
    encode: Callable[[ModelCard, Classifier, str], Mapping[str, bytes]]
    """The files' bytes by suffix, from the network and the files' name without suffix."""
    load: Callable[[Path], Model]
    """From the file with `suffix`."""


def default_out(directory: Path, form: str) -> Path:
    """Where a model's export goes if nobody says otherwise: beside it."""
    return directory / f"{FORMATS[form].stem}{FORMATS[form].suffix}"


def check_out(out: Path, form: str) -> None:
    """Raise `ConfigurationError` for a name that an export cannot have."""
    suffix = FORMATS[form].suffix
    if out.suffix != suffix:
        raise ConfigurationError(f"--out {out}: a file of --format {form} is named *{suffix}")
    if not out.parent.is_dir():
        raise ConfigurationError(f"--out {out}: there is no folder {out.parent}")
    if suffix == MODULE_SUFFIX:
        if not out.stem.isidentifier() or keyword.iskeyword(out.stem):
            raise ConfigurationError(f"--out {out}: {out.stem!r} cannot be the name of a Python module")
        if out.with_suffix(".safetensors").name == WEIGHTS and (out.parent / CARD).is_file():
            raise ConfigurationError(
                f"--out {out}: its weights would replace {out.parent / WEIGHTS}; take another name"
            )


def export(card: ModelCard, network: Network, form: str, out: Path, pixels: UInt8[np.ndarray, "N H W C"]) -> Exported:
    """Write a network to `out` in a form of `FORMATS`, once its copy is seen to give the same logits for `pixels`.

    Raises `ExportError` and writes nothing if they differ, `ConfigurationError` for a name or a form that cannot be,
    `DataError` for images of another size, `DiskError`.
    """
    check_out(out, form)
    expected = Classifier(card, network)
    images = as_images(pixels)
    expected.rule.check(images)
    # a copy in torch's own operations and its usual layout of memory, which are what other programs know
    copy = card.build("share").to(memory_format=torch.contiguous_format).requires_grad_(False)
    copy.load_state_dict(network.state_dict())
    form_of = FORMATS[form]
    files = form_of.encode(card, Classifier(card, copy), out.stem)
    with tempfile.TemporaryDirectory() as folder:
        for suffix, data in files.items():
            (Path(folder) / f"{out.stem}{suffix}").write_bytes(data)
        difference = compare(expected, form_of.load(Path(folder) / f"{out.stem}{form_of.suffix}"), images)
    for suffix, data in files.items():
        write_bytes(out.with_suffix(suffix), data)
    return Exported(tuple(out.with_suffix(suffix) for suffix in files), difference)


@torch.no_grad()
def compare(expected: Model, found: Model, images: Float32[Tensor, "N C H W"]) -> float:
    """max |a - b| / max |a| over batches of `BATCHES` images, a the expected logits.

    Raises `ExportError` if it is over `TOLERANCE` or a class differs.
    """
    worst = 0.0
    order = torch.arange(sum(BATCHES)) % len(images)
    for batch in torch.split(images[order], list(BATCHES)):
        wanted, given = expected(batch), found(batch)
        if given.shape != wanted.shape:
            raise ExportError(f"logits of shape {tuple(given.shape)} came back, not {tuple(wanted.shape)}")
        difference = float((wanted - given).abs().max() / wanted.abs().max())
        if not difference <= TOLERANCE:  # NaN is no agreement
            raise ExportError(
                f"the export is not the network: for {len(batch)} images its logits differ by {difference:.1e} of the "
                f"largest, {TOLERANCE:.0e} are allowed; nothing was written"
            )
        if not torch.equal(wanted.argmax(dim=1), given.argmax(dim=1)):
            raise ExportError(
                f"the export is not the network: {len(batch)} images are classed otherwise; nothing was written"
            )
        worst = max(worst, difference)
    return worst


def _metadata(card: ModelCard, classifier: Classifier) -> dict[str, str]:
    """What a file says about itself; every value is JSON."""
    return {
        "class_names": json.dumps(classifier.class_names),
        "image": json.dumps(to_json(classifier.rule)),
        "genotype": json.dumps(card.genotype),
        "cdarts": json.dumps(__version__),
    }


# -- torch.export ------------------------------------------------------------------------------------------------------


ANY_BATCH = ({0: torch.export.Dim("batch", min=1)},)
"""The one dimension of the input that is not fixed."""


def _program(classifier: Classifier) -> torch.export.ExportedProgram:
    """The computation as a graph, for any number of images. It tells nothing of the files it was traced in."""
    rule = classifier.rule
    example = torch.zeros(2, rule.channels, rule.side, rule.side)
    program = torch.export.export(classifier, (example,), dynamic_shapes=ANY_BATCH)
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)
    return program


def _pt2_files(card: ModelCard, classifier: Classifier, name: str) -> dict[str, bytes]:  # noqa: ARG001
    buffer = io.BytesIO()
    extra = {f"{key}.json": value for key, value in _metadata(card, classifier).items()}
    torch.export.save(_program(classifier), buffer, extra_files=extra)
    return {".pt2": buffer.getvalue()}


def _load_pt2(path: Path) -> Model:
    with path.open("rb") as file:
        return cast(Model, torch.export.load(io.BytesIO(file.read())).module())


# -- ONNX --------------------------------------------------------------------------------------------------------------


def _needed(name: str) -> Any:
    """A module of the extra `export`. Raises `ConfigurationError` if it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ConfigurationError(f"ONNX needs {name}, which is not installed: pip install 'cdarts[export]'") from error


def _onnx_files(card: ModelCard, classifier: Classifier, name: str) -> dict[str, bytes]:  # noqa: ARG001
    onnx = _needed("onnx")
    _needed("onnxscript")
    exported = torch.onnx.export(
        _program(classifier),
        (),
        dynamo=True,
        input_names=["images"],
        output_names=["logits"],
        dynamic_shapes=ANY_BATCH,
        verbose=False,
    )
    assert exported is not None
    proto: Any = exported.model_proto
    graph = proto.graph
    # where each node came from is of no use without the program, and names folders of this machine
    for holder in (graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        holder.ClearField("metadata_props")
    proto.producer_name, proto.producer_version = "cdarts", __version__
    for key, value in _metadata(card, classifier).items():
        proto.metadata_props.add(key=key, value=value)
    onnx.checker.check_model(proto)
    return {".onnx": proto.SerializeToString()}


class OnnxModel:
    """An ONNX file of `cdarts export`, computed by ONNX Runtime on the CPU."""

    def __init__(self, path: Path, threads: int | None = None) -> None:
        """Raises `CheckpointError` for any other file, `ConfigurationError` if ONNX Runtime is not installed."""
        runtime = _needed("onnxruntime")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads() if threads is None else threads
        options.log_severity_level = 4  # what is wrong is an error here
        # weights are in the file itself: a name of another file, which the format allows, leads nowhere
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", os.devnull)
        try:
            self.session = runtime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # each kind of damage has a class of its own
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            raise CheckpointError(f"{path}: not a readable ONNX file ({reason})") from error
        try:
            metadata = self.session.get_modelmeta().custom_metadata_map
            names, rule = json.loads(metadata["class_names"]), json.loads(metadata["image"])
            self.rule = from_json(ImageRule, rule, f"{path}, image")
            if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
                raise ConfigurationError(f"{path}, class_names: must be a list of texts")
        except KeyError as error:
            raise CheckpointError(f"{path}: an ONNX file, but not one of cdarts export: it has no {error}") from error
        except (ValueError, RecursionError, ConfigurationError) as error:
            raise CheckpointError(f"{path}: its metadata cannot be used: {error}") from error
        self.class_names = tuple(names)
        takes = [value.shape[1:] for value in self.session.get_inputs()]
        gives = [value.shape[1:] for value in self.session.get_outputs()]
        if takes != [[self.rule.channels, self.rule.side, self.rule.side]] or gives != [[len(names)]]:
            raise CheckpointError(f"{path}: the network is not the one that its metadata tell of")

    def __call__(self, images: Tensor) -> Tensor:
        """Logits (N, K). Raises `DataError` for images of another size."""
        self.rule.check(images)
        (given,) = self.session.get_inputs()
        (logits,) = self.session.run(None, {given.name: images.contiguous().numpy()})
        return torch.from_numpy(logits)


# -- a module of plain torch code --------------------------------------------------------------------------------------

MODULE_SUFFIX = ".py"

LINE = 116
"""Characters that fit into a line of the text."""

HEAD = '''
"""A network that tells {num_classes} classes of images apart, written by cdarts {version}. It needs torch alone.

    from {name} import CLASS_NAMES, load

    network = load()  # the weights lie beside this file, in {name}.safetensors
    classes = network(images).argmax(dim=1)  # images: float32 (N, {channels}, {side}, {side}), 0 to 1

A picture of another size is brought to this one so: the shorter side to {side} pixels (bilinear, antialiased), then the
central square is cut out.

{genotype}
"""

import json
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CLASS_NAMES = {class_names}
SIDE = {side}
CHANNELS = {channels}
MEAN = {mean}
STD = {std}
WEIGHTS = Path(__file__).with_suffix(".safetensors")
'''

LAYERS: dict[str, str] = {
    "FactorizedReduce": '''
class FactorizedReduce(nn.Module):
    """Halves the side: ReLU, two 1x1 convolutions of stride 2, one of them a pixel further on, BatchNorm."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.even = nn.Conv2d(c_in, c_out // 2, 1, stride=2, bias=False)
        self.odd = nn.Conv2d(c_in, c_out // 2, 1, stride=2, bias=False)
        self.norm = nn.BatchNorm2d(c_out)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        x = F.pad(F.relu(x), (0, width % 2, 0, height % 2))  # to even sides
        return self.norm(torch.cat([self.even(x), self.odd(x[:, :, 1:, 1:])], dim=1))
''',
    "ReluConvBatchNorm": '''
class ReluConvBatchNorm(nn.Module):
    """ReLU, convolution, BatchNorm."""

    def __init__(self, c_in: int, c_out: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c_in, c_out, kernel, stride, padding=kernel // 2, bias=False)
        self.norm = nn.BatchNorm2d(c_out)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(F.relu(x)))
''',
    "DepthwisePointwise": '''
class DepthwisePointwise(nn.Module):
    """ReLU, a convolution of each channel by itself, a 1x1 convolution across channels, BatchNorm."""

    def __init__(self, channels: int, kernel: int, stride: int = 1, dilation: int = 1) -> None:
        super().__init__()
        padding = dilation * (kernel // 2)
        self.depthwise = nn.Conv2d(channels, channels, kernel, stride, padding, dilation, groups=channels, bias=False)
        self.pointwise = nn.Conv2d(channels, channels, 1, bias=False)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.pointwise(self.depthwise(F.relu(x))))
''',
    "SeparableConv": '''
class SeparableConv(nn.Module):
    """Two depthwise-pointwise convolutions; the first carries the stride."""

    def __init__(self, channels: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.first = DepthwisePointwise(channels, kernel, stride)
        self.second = DepthwisePointwise(channels, kernel)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x))
''',
    "NormedPool": '''
class NormedPool(nn.Module):
    """A pool, then BatchNorm without weights."""

    def __init__(self, pool: nn.Module, channels: int) -> None:
        super().__init__()
        self.pool = pool
        self.norm = nn.BatchNorm2d(channels, affine=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.pool(x))
''',
    "ResidualReduction": '''
class ResidualReduction(nn.Module):
    """Halves the side: two 3x3 convolutions, beside a shortcut that is averaged and projected."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.first = ReluConvBatchNorm(c_in, c_out, kernel=3, stride=2)
        self.second = ReluConvBatchNorm(c_out, c_out, kernel=3)
        self.shortcut = nn.Sequential(nn.AvgPool2d(2, ceil_mode=True), nn.Conv2d(c_in, c_out, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        return self.shortcut(x) + self.second(self.first(x))
''',
}
"""The layers that networks may need, in the order in which they build on one another."""

CELL = '''
class {name}(nn.Module):
    """{does}: from {inputs}, what it is given, to {gives}."""

    def __init__(self, {arguments}) -> None:
{layers}

    def forward(self, {states}) -> Tensor:
{forward}
'''

NETWORK = '''
class Network(nn.Module):
    """Normalising, a stem, {count} cells, the mean over the image, a linear classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(MEAN).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(STD).view(1, -1, 1, 1), persistent=False)
{layers}

    def forward(self, images: Tensor) -> Tensor:
        if images.shape[1:] != (CHANNELS, SIDE, SIDE):
            raise ValueError(f"images of shape {{tuple(images.shape)}}, expected (N, {{CHANNELS}}, {{SIDE}}, {{SIDE}})")
{forward}
'''

TAIL = '''
def load(weights: Path = WEIGHTS) -> Network:
    """The trained network, ready to use. Raises ValueError if the file does not hold its weights."""
    network = Network()
    try:
        network.load_state_dict(read_safetensors(weights))
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f"{weights} does not hold the weights of this network") from error
    return network.eval()


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a file: the length of its header in 8 bytes, the header as JSON, then the numbers themselves."""
    data = Path(path).read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    types = {"F32": torch.float32, "I64": torch.int64}
    tensors = {}
    for name, entry in header.items():
        if name != "__metadata__":
            first, end = entry["data_offsets"]
            numbers = bytearray(data[start + first : start + end])
            tensors[name] = torch.frombuffer(numbers, dtype=types[entry["dtype"]]).reshape(entry["shape"])
    return tensors
'''

CELL_NAMES = {
    ("normal", 1): "NormalCell",
    ("reduce", 2): "ReductionCell",
    ("cell", 1): "Cell",
    ("cell", 2): "HalvingCell",
}
"""By kind and stride."""


def _module_files(card: ModelCard, classifier: Classifier, name: str) -> dict[str, bytes]:
    source = ModuleSource(card, classifier.network)
    # the weights are written first: a module that is there has them
    return {".safetensors": save_tensors(source.weights()), MODULE_SUFFIX: source.text(name).encode()}


def _load_module(path: Path) -> Model:
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


# -- all of them -------------------------------------------------------------------------------------------------------

FORMATS: dict[str, Format] = {
    "onnx": Format(".onnx", "model", _onnx_files, OnnxModel),
    "pt2": Format(".pt2", "model", _pt2_files, _load_pt2),
    "module": Format(MODULE_SUFFIX, "network", _module_files, _load_module),
}
"""The forms by name. A new one is two functions and a line here."""
