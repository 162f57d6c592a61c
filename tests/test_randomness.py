"""Draws are a function of their key and of nothing else."""

import subprocess
import sys

import pytest
import torch

from cdarts.randomness import generator, key, seeded


def test_golden_keys() -> None:
    """Frozen: a changed key would change every published run."""
    assert key(0) == GOLDEN[0]
    assert key(0, "order", 3) == GOLDEN[1]
    assert key(-1, "") == GOLDEN[2]


GOLDEN = (4761921975702974394, 554563163506081016, 2553221135848197338)


def test_keys_differ_in_every_part() -> None:
    streams: list[tuple[int, tuple[str | int, ...]]] = [
        (seed, (name, epoch, step))
        for seed in range(5)
        for name in ("a", "b")
        for epoch in range(10)
        for step in range(10)
    ]
    streams += [
        (1, ()),
        (11, ()),
        (1, (1,)),
        (1, ("a",)),
        (1, ("a", "b")),
        (1, ("ab",)),
        (1, ("", "ab")),
        (1, ("ab", "")),
    ]
    keys = {key(seed, *stream) for seed, stream in streams}
    assert len(keys) == len(streams)
    assert all(0 <= value < 2**63 for value in keys)


def test_keys_do_not_depend_on_the_process() -> None:
    program = "from cdarts.randomness import key; print(key(7, 'order', 2))"
    result = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONHASHSEED": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(result.stdout) == key(7, "order", 2)


def test_a_generator_repeats_its_stream_and_no_other() -> None:
    first, again = (torch.rand(100, generator=generator(3, "order", 5)) for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, torch.rand(100, generator=generator(3, "order", 6)))
    assert not torch.equal(first, torch.rand(100, generator=generator(4, "order", 5)))


def test_seeded_repeats_and_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    with seeded(0, "network"):
        first = torch.nn.Linear(4, 4).weight
    assert torch.equal(torch.rand(3), expected)
    with seeded(0, "network"):
        assert torch.equal(torch.nn.Linear(4, 4).weight, first)
    with seeded(0, "other"):
        assert not torch.equal(torch.nn.Linear(4, 4).weight, first)


def test_seeded_restores_after_an_error() -> None:
    before = torch.get_rng_state()
    with pytest.raises(KeyError), seeded(0, "network"):
        torch.rand(3)
        raise KeyError
    assert torch.equal(torch.get_rng_state(), before)
