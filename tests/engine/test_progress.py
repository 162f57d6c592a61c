"""Progress: where a plan stands and when it will be done."""

import re
from collections.abc import Iterator

import pytest

from cdarts.engine import progress as progress_module
from cdarts.engine.progress import SECONDS_BETWEEN_LINES, PlanProgress
from cdarts.engine.task import Epoch

PLAN = [Epoch("pretrain", 3), Epoch("joint", 2, cycle=0), Epoch("joint", 2, cycle=1)]


class Clock:
    """Time that passes only when told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    fake = Clock()
    monkeypatch.setattr(progress_module, "time", fake)
    yield fake


def steps(progress: PlanProgress, time: Clock, count: int, seconds: float) -> None:
    for _ in range(count):
        time.now += seconds
        progress.step(1.0 if progress.wants_loss() else None)


def test_time_left_by_each_phases_own_steps(time: Clock) -> None:
    progress = PlanProgress("search", PLAN)
    progress.start_epoch(0)
    steps(progress, time, 1, 50.0)  # the first step pays for imports and is not counted
    assert progress.left() == 0.0
    steps(progress, time, 1, 2.0)
    assert progress.left() == pytest.approx((1 + 2 + 2) * 2.0)  # phases not met yet are taken to cost the same
    steps(progress, time, 1, 4.0)
    progress.end_epoch({})
    progress.start_epoch(1)
    steps(progress, time, 1, 10.0)
    assert progress.left() == pytest.approx(3 * 10.0)


def test_piped_lines(time: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    progress = PlanProgress("search", PLAN)
    progress.start_epoch(0)
    steps(progress, time, 1, 3.0)
    assert capsys.readouterr().out == "search 1/3 pretrain  step 1/3  loss 1.000\n", "the first step shows at once"
    steps(progress, time, 1, 3.0)
    assert capsys.readouterr().out == ""
    steps(progress, time, 1, SECONDS_BETWEEN_LINES)
    assert re.fullmatch(r"search 1/3 pretrain  step 3/3  loss 1.000  left \d+s\n", capsys.readouterr().out)
    progress.end_epoch({"phase": "pretrain", "loss": 0.123456, "accuracy": 0.5, "cycle": None, "count": 3})
    assert re.fullmatch(r"search 1/3 pretrain  loss 0.1235  accuracy 0.5  left \d+s\n", capsys.readouterr().out)
    progress.start_epoch(2)
    progress.end_epoch({})
    assert capsys.readouterr().out == "search 3/3 joint cycle 2  left 0s\n"


def test_a_terminal_gets_a_line_that_moves_and_goes_away(
    time: Clock, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    progress = PlanProgress("search", PLAN)
    monkeypatch.setattr(progress, "live", True)
    progress.start_epoch(0)
    steps(progress, time, 3, 1.0)
    assert progress._bar is not None
    (bar,) = progress._bar.tasks
    assert (bar.completed, bar.total) == (3, 3)
    progress.end_epoch({"loss": 0.5})
    assert progress._bar is None
    assert "search 1/3 pretrain  loss 0.5" in capsys.readouterr().out
    progress.close()
