"""A trained run as a file that works without this package."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from cdarts.commands.common import announce
from cdarts.errors import ConfigurationError, DataError

if TYPE_CHECKING:
    import numpy as np

    from cdarts.data import ImageData
    from cdarts.export import Exported
    from cdarts.model import ModelCard


@dataclass(frozen=True, kw_only=True)
class Export:
    """Write the network of a trained run as a file that works without cdarts: it takes images in 0 to 1, at the side of
    the training, and gives class logits. It is read back and compared with the network before it gets its name."""

    run_dir: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="RUN")]]
    """A run of `cdarts run` or `cdarts retrain`."""
    format: Literal["onnx", "pt2", "module"] = "onnx"
    """`onnx`: one file, which `cdarts predict` takes too; `pt2`: one file for `torch.export.load`; `module`: a readable
    Python file and its weights (.safetensors), which need torch alone."""
    out: Path | None = None
    """The file; default: model.onnx, model.pt2 or network.py beside the run's model. One that is there is replaced."""
    threads: int | None = None
    """Threads torch computes with."""

    def run(self) -> int:
        announce("export", str(self.run_dir), f"format {self.format}")
        from cdarts.engine.runtime import set_threads
        from cdarts.export import check_out, default_out, export
        from cdarts.model import find_model, load_model
        from cdarts.networks import num_parameters

        set_threads(self.threads)
        directory = find_model(self.run_dir)
        card, network = load_model(directory)
        out = self.out or default_out(directory, self.format)
        check_out(out, self.format)
        classes, size = len(card.class_names), f"{card.side}x{card.side}x{card.image_channels}"
        print(f"model   {num_parameters(network):,} parameters, {classes} classes, images {size}", flush=True)
        name, pixels = self._images(card)
        tell(export(card, network, self.format, out, pixels), name)
        return 0

    def _images(self, card: "ModelCard") -> "tuple[str, np.ndarray]":
        """Real images to compare on: the run's own test images, or handwritten digits where there are none now."""
        from cdarts.commands.resume import settings_of
        from cdarts.data import load

        wanted = (card.side, card.image_channels)
        try:
            data = settings_of(self.run_dir).load_data()
            if (data.side, data.channels) != wanted:
                raise DataError(f"{data.name} has other images now")
        except (ConfigurationError, DataError) as error:
            reason = next(iter(str(error).splitlines()))
            print(f"note    compared on digits, since the run's own images cannot be had: {reason}", flush=True)
            data = load("digits", image_size=card.side)
        pixels = some_pixels(data)
        return data.name, pixels if data.channels == card.image_channels else pixels.repeat(card.image_channels, axis=3)


def hand_over(directory: Path, data: "ImageData") -> list[Path]:
    """Export the model in a directory for use elsewhere: as ONNX, or as plain torch code where ONNX is not installed.

    Returns the files. Raises `ExportError` if the export is not the network, `DiskError`.
    """
    from cdarts.export import default_out, export
    from cdarts.model import load_model

    card, network = load_model(directory)
    pixels = some_pixels(data)
    try:
        exported = export(card, network, "onnx", default_out(directory, "onnx"), pixels)
    except ConfigurationError as error:
        print(f"note    {error}; exported as plain torch code instead", flush=True)
        exported = export(card, network, "module", default_out(directory, "module"), pixels)
    tell(exported, data.name)
    return list(exported.files)


def some_pixels(data: "ImageData") -> "np.ndarray":
    """As many test images as an export is compared on, uint8 (N, H, W, C)."""
    import numpy as np

    from cdarts.export import BATCHES

    return data.test.pixels_of(np.arange(min(sum(BATCHES), len(data.test))))


def tell(exported: "Exported", images: str) -> None:
    """Say what was written, and that it was compared on test images of a data set of this name."""
    from cdarts.export import BATCHES, TOLERANCE

    batches = f"{', '.join(map(str, BATCHES[:-1]))} and {BATCHES[-1]}"
    print(
        f"equal   read back and compared on test images of {images}, in batches of {batches}: the same classes, "
        f"logits within {exported.difference:.1e} of the largest ({TOLERANCE:.0e} are allowed)"
    )
    for path in exported.files:
        print(f"wrote   {path} ({path.stat().st_size:,} bytes)", flush=True)


COMMAND = Export
