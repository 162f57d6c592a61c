"""The process a run lives in: device, threads, signals."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import torch

from cdarts.errors import CdartsError, ConfigurationError

STOPPING = tuple(
    signal.Signals[name] for name in ("SIGINT", "SIGTERM", "SIGUSR1") if name in signal.Signals.__members__
)
"""The signals that ask a run to stop; SIGUSR1 is what batch systems send some time before they kill."""


class Interrupted(CdartsError):  # noqa: N818 - no error of anybody's
    """A signal asked the run to stop; it can be resumed."""

    def __init__(self, number: int, how_to_resume: str = "") -> None:
        """`how_to_resume`: the command that goes on with the run, where there is one."""
        name = signal.Signals(number).name
        super().__init__(f"stopped by {name}; go on: {how_to_resume}" if how_to_resume else f"stopped by {name}")
        self.number = number
        self.exit_code = 128 + number


class StopFlag:
    """Whether a signal has asked the run to stop. As a handler it only sets a flag; a second signal stops at once."""

    def __init__(self) -> None:
        self.number: int | None = None

    def __call__(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - how handlers are called
        if self.number is not None:
            raise Interrupted(number)
        self.number = number

    def check(self) -> None:
        """Raise `Interrupted` if a signal has come. Called where the state is whole."""
        if self.number is not None:
            raise Interrupted(self.number)


@contextmanager
def stop_on_signals() -> Iterator[StopFlag]:
    """The stopping signals set the flag for the time of a block. Nested blocks share a flag: no signal is lost."""
    outer = signal.getsignal(signal.SIGTERM)
    if isinstance(outer, StopFlag):
        yield outer
        return
    flag = StopFlag()
    previous = {number: signal.signal(number, flag) for number in STOPPING}
    try:
        yield flag
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def choose_device(name: str) -> torch.device:
    """``auto`` takes CUDA where there is one. Raises `ConfigurationError` for a device that is not there."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigurationError(
            "--device cuda: no CUDA device is visible to this process; use --device auto or cpu "
            '(of a run that was begun: "device" in its config.json)'
        )
    device = torch.device(name)
    if device.type == "cuda":
        # cuDNN otherwise picks algorithms by timing, some of which add up in an order that varies
        torch.backends.cudnn.deterministic = True
        torch.backends.cudnn.benchmark = False
    return device


def set_threads(threads: int | None) -> int:
    """Set the number of threads torch computes with, and return it. It changes bits, so a run records it."""
    if threads is not None:
        if threads < 1:
            raise ConfigurationError(f"--threads {threads}: must be at least 1")
        torch.set_num_threads(threads)
    return torch.get_num_threads()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the device or the machine had too little memory; torch has no class of its own for the latter."""
    words = ("DefaultCPUAllocator: can't allocate memory", "DefaultCPUAllocator: not enough memory")
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or (
        isinstance(error, RuntimeError) and any(word in str(error) for word in words)
    )
