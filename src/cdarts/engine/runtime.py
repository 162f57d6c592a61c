"""The process a run lives in: device, threads, signals."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import torch

from cdarts.errors import CdartsError, ConfigurationError


class Interrupted(CdartsError):
    """A signal asked the run to stop; it can be resumed."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.exit_code = 128 + number


class StopFlag:
    """Whether a signal has asked the run to stop. The handler only sets a flag; a second signal stops at once."""

    def __init__(self) -> None:
        self.number: int | None = None

    def check(self) -> None:
        """Raise `Interrupted` if a signal has come. Called between steps, where the state is whole."""
        if self.number is not None:
            raise Interrupted(self.number)


@contextmanager
def stop_on_signals() -> Iterator[StopFlag]:
    """SIGINT and SIGTERM set the flag for the time of a block."""
    flag = StopFlag()

    def handle(number: int, frame: FrameType | None) -> None:
        if flag.number is not None:
            raise Interrupted(number)
        flag.number = number

    previous = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield flag
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def choose_device(name: str) -> torch.device:
    """``auto`` takes CUDA where there is one. Raises `ConfigurationError` for a device that is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigurationError("--device cuda: no CUDA device is visible to this process; use --device auto or cpu")
    return torch.device(name)


def set_threads(threads: int | None) -> int:
    """Set the number of threads torch computes with, and return it. It changes bits, so a run records it."""
    if threads is not None:
        if threads < 1:
            raise ConfigurationError(f"--threads {threads}: must be at least 1")
        torch.set_num_threads(threads)
    return torch.get_num_threads()
