"""Drawings of a genotype's cells and of its whole network, as SVG or PNG."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from cdarts import zoo
from cdarts.commands.usual import IMAGE_CHANNELS, OfGenotype, UsualNetwork
from cdarts.errors import ConfigurationError
from cdarts.report.drawing import draw_genotype
from cdarts.report.network_drawing import Layer, draw_network
from cdarts.topology import Genotype

if TYPE_CHECKING:
    from torch import Tensor, nn

Target = tyro.conf.Positional[Annotated[str, tyro.conf.arg(metavar="NAME_OR_FILE")]]
Out = Annotated[Path, tyro.conf.arg(metavar="FILE.svg|FILE.png")]


def _cell_svg(genotype: Genotype, title: str) -> bytes:
    return draw_genotype(genotype, title=title).encode()


def _cell_png(genotype: Genotype, title: str) -> bytes:
    from cdarts.report.raster import genotype_png

    return genotype_png(genotype, title=title)


def _network_svg(genotype: Genotype, layers: Sequence[Layer], title: str) -> bytes:
    return draw_network(genotype, layers, title=title).encode()


def _network_png(genotype: Genotype, layers: Sequence[Layer], title: str) -> bytes:
    from cdarts.report.raster import network_png

    return network_png(genotype, layers, title=title)


CELL_DRAWINGS: dict[str, Callable[[Genotype, str], bytes]] = {".svg": _cell_svg, ".png": _cell_png}
NETWORK_DRAWINGS: dict[str, Callable[[Genotype, Sequence[Layer], str], bytes]] = {
    ".svg": _network_svg,
    ".png": _network_png,
}
"""By what the file's name ends in."""


@dataclass(frozen=True, kw_only=True)
class ShowCell:
    """Draw a genotype's cells: an SVG file, for light and dark pages, or a PNG. Neither needs anything else."""

    target: Target
    """A published cell (cdarts show genotypes), a genotype file, a run directory, or a text form in quotes."""
    out: Out
    """The file to write; one that is there is replaced. Its name ends in .svg or .png."""

    def run(self) -> int:
        _check_suffix(self.out, CELL_DRAWINGS)
        genotype = zoo.find(self.target)
        _write(self.out, CELL_DRAWINGS[self.out.suffix.lower()](genotype, _title(self.target)))
        return 0


@dataclass(frozen=True, kw_only=True)
class ShowNetwork(OfGenotype):
    """Draw the network that a genotype makes, layer by layer, and its cells beside it: an SVG file or a PNG.

    Its sizes are those of the literature unless flags say otherwise.
    """

    out: Out
    """The file to write; one that is there is replaced. Its name ends in .svg or .png."""

    def run(self) -> int:
        _check_suffix(self.out, NETWORK_DRAWINGS)
        genotype = zoo.find(self.target)
        layers = layers_of(self.network(genotype), genotype)
        _write(self.out, NETWORK_DRAWINGS[self.out.suffix.lower()](genotype, layers, _title(self.target)))
        return 0


def _check_suffix(out: Path, drawings: Iterable[str]) -> None:
    if out.suffix.lower() not in drawings:
        raise ConfigurationError(f"--out {out}: a drawing's name must end in {' or '.join(drawings)}")


def _title(target: str) -> str:
    """What stands above a drawing: of a text form, which has no name, nothing."""
    return "" if target.lstrip().startswith(zoo.TEXT_FORMS) else Path(target).name


def _write(out: Path, drawing: bytes) -> None:
    from cdarts.engine.files import write_bytes

    write_bytes(out, drawing)
    print(out)


# -- layers ------------------------------------------------------------------------------------------------------------


def layers_of(network: UsualNetwork, genotype: Genotype) -> list[Layer]:
    """The layers of a genotype's network, the image first; their parameters add up to the network's.

    Raises `ConfigurationError` for sizes that the space cannot build.
    """
    import torch
    from torch import nn

    from cdarts.networks import num_parameters

    built = network.build(network.space.topology(genotype)).eval()
    outputs: dict[nn.Module, Any] = {}

    def keep(module: nn.Module, _: Any, output: Any) -> None:
        # the network appends to its stem's list
        outputs[module] = tuple(output) if isinstance(output, list) else output

    for part in (*built.stem.modules(), *(built.get_submodule(slot.name) for slot in built.layout), built.tail):
        part.register_forward_hook(keep)
    with torch.no_grad():
        built(torch.zeros(1, IMAGE_CHANNELS, network.image_size, network.image_size, device="meta"))

    layers = [Layer("image", "image", network.image_size, IMAGE_CHANNELS, 0, ())]

    def add(name: str, kind: str, output: "Tensor", parameters: int, inputs: tuple[int, ...]) -> None:
        layers.append(Layer(name, kind, output.shape[-1], output.shape[1], parameters, inputs))

    stem = _stem_parts(built.stem, outputs)
    for number, (output, parameters) in enumerate(stem):
        add("stem" if len(stem) == 1 else f"stem {number}", "stem", output, parameters, (number,))
    made = [output for output, _ in stem]
    # where what cells can read comes from, by its place in the list
    position = [1 + next(n for n, one in enumerate(made) if one is output) for output in outputs[built.stem]]
    for slot in built.layout:
        block = built.get_submodule(slot.name)
        group, index = slot.name.split(".")
        inputs = tuple(position[port.source] for port in slot.inputs)
        position.append(len(layers))
        add(f"{group.removesuffix('s')} {index}", slot.kind or "block", outputs[block], num_parameters(block), inputs)
    if not isinstance(built.tail, nn.Identity):
        names = ", ".join(type(part).__name__.removesuffix("2d") for part in built.tail.children())
        add(names, "tail", outputs[built.tail], num_parameters(built.tail), (len(layers) - 1,))
    width = layers[-1].channels
    layers.append(Layer("pooling", "pooling", 1, width, 0, (len(layers) - 1,)))
    parameters = num_parameters(built.classifier)
    layers.append(Layer("classifier", "classifier", 1, network.classes, parameters, (len(layers) - 1,)))
    return layers


def _stem_parts(stem: "nn.Module", outputs: "dict[nn.Module, Any]") -> "list[tuple[Tensor, int]]":
    """Each different output of a stem, with the parameters that come in for it.

    They are told apart where a part of the stem makes an output; otherwise they count with the last.
    """
    from cdarts.networks import num_parameters

    different = list({id(output): output for output in outputs[stem]}.values())
    parameters = [0] * len(different)
    current = 0
    for part in stem.children():
        parameters[current] += num_parameters(part)
        if outputs.get(part) is different[current] and current + 1 < len(different):
            current += 1
    parameters[-1] += num_parameters(stem) - sum(parameters)
    return list(zip(different, parameters, strict=True))
