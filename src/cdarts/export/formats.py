"""The forms that networks are written in, and the writing: what is written has been read back and compared."""

import keyword
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import UInt8

from cdarts.engine.files import write_bytes
from cdarts.errors import CdartsError, ConfigurationError, ExportError
from cdarts.export.classifier import Classifier, Model, as_images
from cdarts.export.comparison import compare
from cdarts.export.module import MODULE_SUFFIX, load_module, module_files
from cdarts.export.onnx_file import OnnxModel, onnx_files
from cdarts.export.torch_export import load_pt2, pt2_files
from cdarts.model import CARD, WEIGHTS, ModelCard
from cdarts.networks import Network


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


FORMATS: dict[str, Format] = {
    "onnx": Format(".onnx", "model", onnx_files, OnnxModel),
    "pt2": Format(".pt2", "model", pt2_files, load_pt2),
    "module": Format(MODULE_SUFFIX, "network", module_files, load_module),
}
"""The forms by name. A new one is two functions and a line here."""


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

    Raises `ExportError` and writes nothing if they differ or the exporter fails, `ConfigurationError` for a name or a
    form that cannot be, `DataError` for images of another size, `DiskError`.
    """
    check_out(out, form)
    expected = Classifier(card, network)
    images = as_images(pixels)
    expected.rule.check(images)
    # a copy in torch's own operations and its usual layout of memory, which are what other programs know
    copy = card.build("share").to(memory_format=torch.contiguous_format).requires_grad_(False)
    copy.load_state_dict(network.state_dict())
    form_of = FORMATS[form]
    try:
        files = form_of.encode(card, Classifier(card, copy), out.stem)
    except CdartsError:
        raise
    except Exception as error:  # exporters are others' code, and fail in ways of their own
        reason = next(iter(str(error).splitlines()), "")
        raise ExportError(f"the export failed: {type(error).__name__}: {reason}") from error
    with tempfile.TemporaryDirectory() as folder:
        for suffix, data in files.items():
            (Path(folder) / f"{out.stem}{suffix}").write_bytes(data)
        difference = compare(expected, form_of.load(Path(folder) / f"{out.stem}{form_of.suffix}"), images)
    for suffix, data in files.items():
        write_bytes(out.with_suffix(suffix), data)
    return Exported(tuple(out.with_suffix(suffix) for suffix in files), difference)
