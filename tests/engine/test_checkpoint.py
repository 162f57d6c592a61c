"""Checkpoint files: what goes in comes out to the bit, and damage never passes for content."""

import json
import os
import random
import resource
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from cdarts.engine import checkpoint
from cdarts.errors import CheckpointError, DiskError
from cdarts.randomness import generator


def example() -> dict[str, Any]:
    """Everything a state may hold, and every kind of tensor that makes trouble."""
    draw = generator(0, "checkpoint")
    images = torch.randn(2, 3, 4, 5, generator=draw)
    return {
        "epoch": 7,
        "lr": 0.1 + 0.2,
        "done": False,
        "nothing": None,
        "text": 'quotes " \\ and ünïcode \n',
        "list": [1, [torch.arange(3), {"deep": True}], []],
        "empty": {},
        "tensors": {
            "plain": torch.randn(4, 3, generator=draw),
            "no elements": torch.empty(0, 5),
            "scalar": torch.tensor(3.5),
            "steps": torch.tensor(2**40 + 1),
            "mask": torch.tensor([True, False, True]),
            "double": torch.randn(3, generator=draw, dtype=torch.float64),
            "half": torch.randn(3, generator=draw).bfloat16(),
            "channels last": images.contiguous(memory_format=torch.channels_last),
            "depthwise": torch.randn(6, 1, 3, 3, generator=draw).to(memory_format=torch.channels_last),
            "transposed": torch.randn(3, 4, generator=draw).t(),
            "expanded": torch.randn(3, 1, generator=draw).expand(3, 4),
            "special": torch.tensor([float("nan"), float("inf"), -0.0]),
            "needs gradient": torch.ones(2, requires_grad=True),
        },
        # these two places would bear the same name, were they only joined by slashes
        "a/b": torch.zeros(1),
        "a": {"b": torch.ones(1)},
    }


def same(left: Any, right: Any) -> bool:
    """Equal in structure, types and bits."""
    match left, right:
        case Tensor(), Tensor():
            raw = [
                tensor.detach().contiguous().view(-1).view(torch.uint8) for tensor in (left, right) if tensor.numel()
            ]
            bits = len(raw) != 2 or torch.equal(*raw)
            return left.dtype == right.dtype and left.shape == right.shape and bits
        case Mapping(), Mapping():
            return list(left) == list(right) and all(same(left[name], right[name]) for name in left)
        case list(), list():
            return len(left) == len(right) and all(same(a, b) for a, b in zip(left, right, strict=True))
        case _:
            return type(left) is type(right) and left == right


def small_file(path: Path) -> tuple[bytes, dict[str, Any]]:
    state = {"next_epoch": 3, "task": {"weight": torch.arange(6.0).view(2, 3), "steps": torch.tensor(5), "on": True}}
    checkpoint.save(path, state)
    return path.read_bytes(), checkpoint.load(path)


def test_round_trip_to_the_bit(tmp_path: Path) -> None:
    state = example()
    checkpoint.save(tmp_path / "state", state)
    loaded = checkpoint.load(tmp_path / "state")
    assert same(loaded, state)
    assert not any(tensor.requires_grad for tensor in loaded["tensors"].values())


def test_what_is_saved_does_not_follow_later_changes(tmp_path: Path) -> None:
    weight = torch.zeros(3)
    checkpoint.save(tmp_path / "state", {"weight": weight})
    weight += 1
    assert checkpoint.load(tmp_path / "state")["weight"].tolist() == [0, 0, 0]


def test_the_same_state_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        checkpoint.save(tmp_path / name, example())
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize(
    "state",
    [{"x": {1, 2}}, {"x": object()}, {1: "one"}, {"x": {2: 3}}, {"x": {"$tensor": "weight"}}, {"x": b"bytes"}],
    ids=["set", "object", "number as key", "number as key within", "mark of tensors", "bytes"],
)
def test_what_a_state_cannot_hold(tmp_path: Path, state: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        checkpoint.save(tmp_path / "state", state)
    assert list(tmp_path.iterdir()) == []


def test_numbers_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        checkpoint.save(tmp_path / "state", {"accuracy": float("nan")})


def test_every_flipped_bit_is_found_or_harmless(tmp_path: Path) -> None:
    path = tmp_path / "state"
    data, state = small_file(path)
    positions = random.Random(0)
    found = 0
    flips = [(index, bit) for index in range(len(data)) for bit in range(8)]
    for index, bit in positions.sample(flips, 500):
        damaged = bytearray(data)
        damaged[index] ^= 1 << bit
        path.write_bytes(damaged)
        try:
            loaded = checkpoint.load(path)
        except CheckpointError:
            found += 1
        else:
            assert same(loaded, state), f"bit {bit} of byte {index} changed the content and went unnoticed"
    assert found > 400


def test_flipped_bits_in_the_tensors_are_all_found(tmp_path: Path) -> None:
    path = tmp_path / "state"
    checkpoint.save(path, {"weight": torch.randn(1000, generator=generator(0, "flips"))})
    data = path.read_bytes()
    for index in random.Random(1).sample(range(len(data) - 4000, len(data)), 200):
        damaged = bytearray(data)
        damaged[index] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match="damaged"):
            checkpoint.load(path)


def test_every_truncation_is_found(tmp_path: Path) -> None:
    path = tmp_path / "state"
    data, _ = small_file(path)
    for length in range(len(data)):
        path.write_bytes(data[:length])
        with pytest.raises(CheckpointError):
            checkpoint.load(path)


def test_files_that_are_no_checkpoints(tmp_path: Path) -> None:
    path = tmp_path / "state"
    tensors = {"weight": torch.ones(2)}
    foreign = [
        b"",
        b"not a checkpoint",
        b"\x80\x04K\x01.",
        bytes(1000),
        save_tensors(tensors),
        save_tensors(tensors, {"cdarts": "[]"}),
        save_tensors(tensors, {"cdarts": "null"}),
        save_tensors(tensors, {"cdarts": json.dumps({"state": 5, "sha256": ""})}),
    ]
    for data in foreign:
        path.write_bytes(data)
        with pytest.raises(CheckpointError, match=r"state") as raised:
            checkpoint.load(path)
        assert raised.value.exit_code == 4
    with pytest.raises(CheckpointError, match="No such file"):
        checkpoint.load(tmp_path / "absent")


def test_the_file_is_plain_safetensors(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "state", {"network": {"stem.weight": torch.ones(2)}})
    assert list(load_tensors((tmp_path / "state").read_bytes())) == ["/network/stem.weight"]


@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_the_files_mode_follows_umask(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        checkpoint.save(tmp_path / "state", {"x": 1})
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o666 & ~mask


def test_a_full_disk_leaves_the_checkpoint_before(tmp_path: Path) -> None:
    path = tmp_path / "state"
    checkpoint.save(path, {"weight": torch.ones(3)})
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(DiskError, match="cannot write") as raised:
            checkpoint.save(path, {"weight": torch.ones(10_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert raised.value.exit_code == 6
    assert str(path) in str(raised.value)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_rename_that_fails_leaves_the_checkpoint_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "state"
    checkpoint.save(path, {"weight": torch.ones(3)})
    before = path.read_bytes()

    def refuse(*_: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(DiskError, match="No space left on device"):
        checkpoint.save(path, {"weight": torch.zeros(3)})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
