"""A network as a program of `torch.export`: a graph of torch's own operations, which needs no Python text of ours."""

import io
from pathlib import Path
from typing import cast

import torch

from cdarts.export.classifier import Classifier, Model, metadata
from cdarts.model import ModelCard

ANY_BATCH = ({0: torch.export.Dim("batch", min=1)},)
"""The one dimension of the input that is not fixed."""


def program(classifier: Classifier) -> torch.export.ExportedProgram:
    """The computation as a graph, for any number of images. It tells nothing of the files it was traced in."""
    rule = classifier.rule
    example = torch.zeros(2, rule.channels, rule.side, rule.side)
    program = torch.export.export(classifier, (example,), dynamic_shapes=ANY_BATCH)
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)
    return program


def pt2_files(card: ModelCard, classifier: Classifier, name: str) -> dict[str, bytes]:  # noqa: ARG001
    buffer = io.BytesIO()
    extra = {f"{key}.json": value for key, value in metadata(card, classifier).items()}
    torch.export.save(program(classifier), buffer, extra_files=extra)
    return {".pt2": buffer.getvalue()}


def load_pt2(path: Path) -> Model:
    with path.open("rb") as file:
        return cast(Model, torch.export.load(io.BytesIO(file.read())).module())
