"""Checkpoint files: safetensors and JSON with a SHA-256 over both. Damage is found, and nothing in a file can run code.

A state is a tree of dictionaries with string keys, lists, tensors, numbers, strings, booleans and None.
"""

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from cdarts.engine.files import write_bytes
from cdarts.errors import CheckpointError

State = Mapping[str, Any]
TENSOR_MARK = "$tensor"


def save(path: Path, state: State) -> None:
    """Write a state atomically.

    Raises `DiskError`; `TypeError` for what a state may not hold, `ValueError` for a number that is not finite.
    """
    tensors: dict[str, Tensor] = {}
    tree = json.dumps(_split(state, "", tensors), allow_nan=False)
    metadata = {"cdarts": json.dumps({"state": tree, "sha256": _digest(tensors, tree)})}
    write_bytes(path, save_tensors(tensors, metadata))


def load(path: Path) -> dict[str, Any]:
    """Read a state back, tensors on the CPU. Raises `CheckpointError` if the file is damaged or not a checkpoint."""
    try:
        data = path.read_bytes()
        tensors = load_tensors(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        stored = json.loads(header["__metadata__"]["cdarts"])
        tree, digest = stored["state"], stored["sha256"]
        intact = digest == _digest(tensors, tree)
        state = _join(json.loads(tree), tensors) if intact else None
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{path}: not a readable checkpoint: {error}") from error
    if not intact:
        raise CheckpointError(f"{path}: the content does not match its checksum; the file is damaged")
    if not isinstance(state, dict):
        raise CheckpointError(f"{path}: not a readable checkpoint: it holds no state")
    return state


def not_finite(state: Any, place: str = "") -> str | None:
    """Where a state holds a number that is infinite or not a number: the first such place; None if there is none."""
    match state:
        case Tensor():
            return None if not state.is_floating_point() or bool(torch.isfinite(state).all()) else place
        case Mapping():
            items: Iterable[tuple[Any, Any]] = state.items()
        case list() | tuple():
            items = enumerate(state)
        case float():
            return None if math.isfinite(state) else place
        case _:
            return None
    found = (not_finite(item, f"{place}/{name}") for name, item in items)
    return next((where for where in found if where is not None), None)


def _split(value: Any, place: str, tensors: dict[str, Tensor]) -> Any:
    match value:
        case Tensor():
            tensors[place] = value.detach().to("cpu").contiguous().clone()
            return {TENSOR_MARK: place}
        case Mapping():
            for name in value:
                if not isinstance(name, str):
                    raise TypeError(f"{place}: a state's keys are strings, not {name!r}")
                if name == TENSOR_MARK:
                    raise TypeError(f"{place}: {TENSOR_MARK} cannot be a state's key; it marks tensors in the file")
            return {name: _split(item, f"{place}/{_escaped(name)}", tensors) for name, item in value.items()}
        case list() | tuple():
            return [_split(item, f"{place}/{index}", tensors) for index, item in enumerate(value)]
        case None | bool() | int() | float() | str():
            return value
        case _:
            raise TypeError(f"{place}: a state cannot hold {type(value).__name__}")


def _escaped(name: str) -> str:
    """A key without slashes, as in JSON pointers (RFC 6901), so that no two places in a state share a name."""
    return name.replace("~", "~0").replace("/", "~1")


def _join(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    match value:
        case {"$tensor": str(place)}:
            return tensors[place]
        case dict():
            return {name: _join(item, tensors) for name, item in value.items()}
        case list():
            return [_join(item, tensors) for item in value]
        case _:
            return value


def _digest(tensors: Mapping[str, Tensor], tree: str) -> str:
    """SHA-256 over names, types, shapes, bytes and the tree."""
    digest = hashlib.sha256(tree.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        digest.update(tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b"")
    return digest.hexdigest()
