"""A network as an ONNX file, and such a file computed by ONNX Runtime."""

import importlib
import json
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cdarts import __version__
from cdarts.errors import CheckpointError, ConfigurationError
from cdarts.export.classifier import Classifier, ImageRule, metadata
from cdarts.export.torch_export import ANY_BATCH, program
from cdarts.model import ModelCard
from cdarts.settings import from_json


def _needed(name: str) -> Any:
    """A module of the extra `export`. Raises `ConfigurationError` if it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ConfigurationError(f"ONNX needs {name}, which is not installed: pip install 'cdarts[export]'") from error


def onnx_files(card: ModelCard, classifier: Classifier, name: str) -> dict[str, bytes]:  # noqa: ARG001
    onnx = _needed("onnx")
    _needed("onnxscript")
    exported = torch.onnx.export(
        program(classifier),
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
    for key, value in metadata(card, classifier).items():
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
