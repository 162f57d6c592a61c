"""Randomness as a function of a key: every draw depends on (seed, stream, counters) and on no hidden generator state.

So a run cut anywhere and resumed draws the same numbers, and so does any number of workers or ranks.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def key(seed: int, *stream: str | int) -> int:
    """A 63-bit integer that depends on the seed and on every part of the stream's name."""
    text = "\x1f".join(str(part) for part in (seed, *stream))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def generator(seed: int, *stream: str | int, device: torch.device | str = "cpu") -> torch.Generator:
    """A fresh generator for one stream, e.g. ``generator(seed, "order", epoch)``."""
    return torch.Generator(device=device).manual_seed(key(seed, *stream))


@contextmanager
def seeded(seed: int, *stream: str | int) -> Iterator[None]:
    """Run a block (building a network, mostly) under a stream of its own; torch's CPU generator stays untouched."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(key(seed, *stream))
        yield
