"""Signals, device, threads."""

import signal

import pytest
import torch

from cdarts.engine.runtime import Interrupted, StopFlag, choose_device, set_threads, stop_on_signals
from cdarts.errors import ConfigurationError

SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1]


@pytest.mark.parametrize(
    ("number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGUSR1, 128 + signal.SIGUSR1)]
)
def test_a_signal_sets_a_flag_that_is_raised_later(number: signal.Signals, exit_code: int) -> None:
    with stop_on_signals() as stop:
        stop.check()
        signal.raise_signal(number)
        with pytest.raises(Interrupted, match=f"stopped by {number.name}$") as raised:
            stop.check()
    assert raised.value.exit_code == exit_code


def test_a_second_signal_stops_at_once() -> None:
    with stop_on_signals():
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(Interrupted):
            signal.raise_signal(signal.SIGINT)


def test_handlers_are_put_back() -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    with pytest.raises(ZeroDivisionError), stop_on_signals():
        assert [signal.getsignal(number) for number in SIGNALS] != before
        raise ZeroDivisionError
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_nested_blocks_share_a_flag() -> None:
    with stop_on_signals() as outer:
        with stop_on_signals() as inner:
            assert inner is outer
        signal.raise_signal(signal.SIGTERM)  # between two inner blocks
        with stop_on_signals() as inner, pytest.raises(Interrupted):
            inner.check()
    assert not isinstance(signal.getsignal(signal.SIGTERM), StopFlag)


def test_an_interruption_names_the_command_that_goes_on() -> None:
    assert str(Interrupted(15, "cdarts resume runs/a")) == "stopped by SIGTERM; go on: cdarts resume runs/a"


def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_device("cpu") == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device("auto") == choose_device("cuda") == torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == torch.device("cpu")
    with pytest.raises(ConfigurationError, match="--device cuda: no CUDA device"):
        choose_device("cuda")


def test_threads() -> None:
    before = torch.get_num_threads()
    try:
        assert set_threads(2) == 2
        assert torch.get_num_threads() == 2
        assert set_threads(None) == 2
    finally:
        torch.set_num_threads(before)
    with pytest.raises(ConfigurationError, match="--threads 0: must be at least 1"):
        set_threads(0)
