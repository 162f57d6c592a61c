"""Memory is told before a search begins, and kept within a limit."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest

from cdarts.algorithms import CyclicConfig, DartsConfig
from cdarts.commands.common import config_of
from cdarts.commands.memory import expected_memory, parse_memory, within
from cdarts.commands.search import Search
from cdarts.engine.optimizers import Sgd
from cdarts.errors import ConfigurationError

MIDDLE = Search(
    algorithm=CyclicConfig(search_cells=3, eval_cells=3, channels=16, batch_size=64, cycles=1, joint_epochs=1),
    data="synthetic",
    image_size=16,
    threads=1,
    device="cpu",
    execution="fused",
)
"""Large enough for a step to take far more than the program itself varies by."""


@pytest.mark.parametrize(("text", "size"), [("8G", 8 * 2**30), ("1.5G", 3 * 2**29), ("800M", 800 * 2**20)])
def test_sizes(text: str, size: int) -> None:
    assert parse_memory(text) == size


@pytest.mark.parametrize("text", ["8", "8g", "-1G", "G", "8 G", "1e3M", "٣G"])
def test_slips(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"write a number and M or G, e.g. 800M, 2.5G"):
        parse_memory(text)


def measured(settings: Search) -> int:
    """The peak of steps with whole batches, in a process of their own as well."""
    program = "import cdarts.commands.memory as memory; memory.FEW = (32, 64); memory.main()"
    asked = json.dumps(config_of("search", settings))
    answer = subprocess.run([sys.executable, "-c", program], input=asked, capture_output=True, text=True, check=True)
    return int(answer.stdout.splitlines()[-1])


@pytest.mark.parametrize("execution", [pytest.param("share", marks=pytest.mark.slow), "fused"])
def test_expected_is_what_it_takes(execution: Literal["share", "fused"]) -> None:
    settings = replace(MIDDLE, execution=execution)
    actual = measured(settings)
    assert actual > 2**29, "too small to tell"
    assert abs(expected_memory(settings) - actual) < 0.2 * actual


def test_a_limit_takes_recomputation_first_and_then_smaller_batches(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def pretended(settings: Search) -> int:
        return settings.algorithm.batch_size * (2**24 if settings.execution == "recompute" else 2**25)

    monkeypatch.setattr("cdarts.commands.memory.expected_memory", pretended)
    assert within(MIDDLE, 2**31) == MIDDLE
    assert within(MIDDLE, 2**30) == replace(MIDDLE, execution="recompute")
    small = within(MIDDLE, 2**28)
    assert small.execution == "recompute"
    assert isinstance(small.algorithm, CyclicConfig) and isinstance(MIDDLE.algorithm, CyclicConfig)
    assert small.algorithm.batch_size == 16
    for name in ("search_weights", "eval_weights"):
        before, after = (getattr(settings.algorithm, name) for settings in (MIDDLE, small))
        assert after == replace(before, lr=before.lr / 4)
    assert small.algorithm.alpha == MIDDLE.algorithm.alpha
    assert capsys.readouterr().out.splitlines()[-1] == (
        "memory  0.25 GiB expected of 0.25 GiB: execution recompute, batches of 16 instead of 64, "
        "learning rates of weights x 0.25"
    )
    with pytest.raises(
        ConfigurationError, match=r"--memory-limit 1M: even with 8 images a batch the search takes 0.12"
    ):
        within(replace(MIDDLE, memory_limit="1M"), 2**20)


def test_batches_and_learning_rates_change_together() -> None:
    config = DartsConfig(batch_size=64, weights=Sgd(lr=0.1))
    assert config.with_batch_size(16) == replace(config, batch_size=16, weights=Sgd(lr=0.025))


def test_what_cannot_be_measured_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"could not be measured: .*nowhere"):
        expected_memory(replace(MIDDLE, data=str(tmp_path / "nowhere")))
