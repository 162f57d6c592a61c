"""What a plan will cost: tried on a task that is thrown away."""

import time
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import torch

from cdarts.algorithms import CyclicConfig
from cdarts.data import load
from cdarts.engine.forecast import LEAST_STEPS, MOST_STEPS, expected_seconds, forecast, peak_memory
from cdarts.engine.task import Epoch, Losses, Records, Task
from cdarts.spaces import ToySpace

SECONDS = {"short": 0.002, "long": 0.2}


class Sleeper(Task):
    """Steps that take a known time; the first of all takes far longer."""

    def __init__(self) -> None:
        self.tried: list[str] = []

    def plan(self) -> list[Epoch]:
        return [Epoch("short", 50), Epoch("long", 10), Epoch("short", 50), Epoch("idle", 0)]

    def start_epoch(self, index: int, epoch: Epoch) -> None:  # noqa: ARG002
        self.phase = epoch.phase

    def batches(self, index: int) -> Iterator[tuple[int]]:
        return iter([(number,) for number in range(self.plan()[index].steps)])

    def step(self, position: int, *batch: int) -> Losses:  # noqa: ARG002
        time.sleep(SECONDS[self.phase] if self.tried else 0.5)
        self.tried.append(self.phase)
        return {"loss": torch.tensor(1.0)}

    def end_epoch(self, index: int, losses: Mapping[str, float]) -> Records:  # noqa: ARG002
        raise AssertionError("a forecast ends no epoch")

    def state(self) -> dict[str, Any]:
        raise AssertionError("a forecast saves nothing")

    def load_state(self, state: Mapping[str, Any]) -> None:  # noqa: ARG002
        raise AssertionError("a forecast loads nothing")


def test_each_phase_is_tried_for_a_few_steps() -> None:
    task = Sleeper()
    found = forecast(task)
    assert task.tried == ["short"] * (MOST_STEPS + 1) + ["long"] * (LEAST_STEPS + 1), "moments are not long enough"
    assert found.seconds_per_step["short"] == pytest.approx(0.002, abs=0.008)
    assert found.seconds_per_step["long"] == pytest.approx(0.2, abs=0.1)
    assert found.seconds_per_step["idle"] == 0.0
    assert found.seconds == pytest.approx(
        sum(found.seconds_per_step[epoch.phase] * epoch.steps for epoch in task.plan())
    )


def test_expected_seconds() -> None:
    assert expected_seconds([Epoch("a", 3), Epoch("b", 2), Epoch("a", 1)], {"a": 0.5, "b": 10.0}) == 22.0
    assert expected_seconds([], {}) == 0


def test_a_real_search() -> None:
    config = CyclicConfig(
        space=ToySpace(), channels=4, search_cells=2, eval_cells=2, pretrain_epochs=1, cycles=2, feedback_levels=(0, 1)
    )
    task = config.build(load("synthetic"), seed=0, device=torch.device("cpu"), execution="share")
    found = forecast(task)
    assert set(found.seconds_per_step) == {"pretrain", "warmup", "joint"}
    assert 0 < found.seconds < 60


def test_peak_memory_grows_with_what_was_held() -> None:
    before = peak_memory(torch.device("cpu"))
    assert 50 * 2**20 < before < 2**40
    held = torch.ones(before // 4 + 2**26)  # in bytes, more than the process has held so far
    assert peak_memory(torch.device("cpu")) >= held.numel() * 4
