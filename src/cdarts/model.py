"""A trained network and all that is needed to use it: topology, sizes, classes, normalisation. JSON and safetensors."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from cdarts.data import ImageData
from cdarts.engine import checkpoint
from cdarts.engine.files import write_json
from cdarts.engine.run_dir import read_json
from cdarts.errors import CheckpointError, ConfigurationError
from cdarts.networks import Network
from cdarts.settings import STRICT, from_json, to_json
from cdarts.spaces import AnySpace
from cdarts.topology import genotype_from_json

WEIGHTS, CARD = "model.safetensors", "model.json"


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """What ``model.json`` says about the weights beside it."""

    __pydantic_config__: ClassVar = STRICT

    space: AnySpace
    genotype: dict[str, Any]
    cells: int
    channels: int
    class_names: tuple[str, ...]
    side: int
    """Side of the images in pixels."""
    image_channels: int
    mean: tuple[float, ...]
    """Per channel, of pixels in 0 to 1; with `std` the normalisation that the network was trained with."""
    std: tuple[float, ...]

    def build(self, execution: str = "share") -> Network:
        """The network, with weights of its own making."""
        return Network(
            self.space,
            self.space.topology(genotype_from_json(self.genotype)),
            cells=self.cells,
            channels=self.channels,
            num_classes=len(self.class_names),
            image_channels=self.image_channels,
            affine=True,
            execution=execution,
        )

    def normalising(self, data: ImageData) -> ImageData:
        """The data set with the normalisation that the network was trained with."""
        return replace(data, mean=self.mean, std=self.std)

    def normalise(self, pixels: np.ndarray, device: torch.device) -> Tensor:
        """From uint8 (N, H, W, C) to what the network takes, float32 (N, C, H, W)."""
        images = torch.from_numpy(pixels).to(device).permute(0, 3, 1, 2).float() / 255
        mean, std = (torch.tensor(values, device=device).view(1, -1, 1, 1) for values in (self.mean, self.std))
        return ((images - mean) / std).contiguous()


def save_model(directory: Path, card: ModelCard, network: Network) -> None:
    """Write ``model.safetensors`` and ``model.json``; raises `DiskError`."""
    checkpoint.save(directory / WEIGHTS, {"network": network.state_dict()})
    write_json(directory / CARD, to_json(card))


def load_model(directory: Path, execution: str = "share") -> tuple[ModelCard, Network]:
    """The card and the network in evaluation mode. Raises `CheckpointError` if the directory holds no usable model."""
    if not directory.is_dir():
        raise CheckpointError(f"{directory}: there is no such file or folder")
    if not (directory / CARD).is_file():
        raise CheckpointError(
            f"{directory} holds no trained model ({CARD} is missing): finish it with cdarts resume, "
            "or train the network it found with cdarts retrain"
        )
    try:
        card = from_json(ModelCard, read_json(directory / CARD), str(directory / CARD))
        network = card.build(execution)
    except ConfigurationError as error:
        raise CheckpointError(f"{error}. The model cannot be built from this file") from error
    stored = checkpoint.load(directory / WEIGHTS)
    try:
        network.load_state_dict(stored["network"])
    except (KeyError, RuntimeError) as error:
        raise CheckpointError(f"{directory / WEIGHTS} does not belong to {directory / CARD}: other weights") from error
    return card, network.eval()


def find_model(run: Path) -> Path:
    """The directory of a run that holds its model: the run itself, or the retraining within a run of the whole way."""
    return run / "retrain" if (run / "retrain" / CARD).is_file() else run


def card_of(data: ImageData, space: AnySpace, genotype: dict[str, Any], cells: int, channels: int) -> ModelCard:
    """The card of a network trained on a data set."""
    return ModelCard(
        space=space,
        genotype=genotype,
        cells=cells,
        channels=channels,
        class_names=data.class_names,
        side=data.side,
        image_channels=data.channels,
        mean=data.mean,
        std=data.std,
    )
