"""Which execution a run takes: a fixed rule by what the machine can do, never a timing."""

from collections.abc import Callable
from typing import Literal

import torch

from cdarts.errors import ConfigurationError
from cdarts.execution.captured import why_not_captured
from cdarts.execution.compiler import why_unavailable

ExecutionName = Literal["plain", "share", "merged", "captured", "fused", "recompute"]

Choice = Literal["auto"] | ExecutionName
"""An execution, or leaving it to the machine."""


def choose_execution(
    name: Choice, device: torch.device, report: Callable[[str], None] = lambda _: None
) -> tuple[ExecutionName, str | None]:
    """The execution's name, and a remark if ``auto`` could not have the fastest on a CPU, ``fused``.

    On CUDA ``auto`` is ``share`` until ``merged`` and ``captured`` have been measured there.

    `report` hears that kernels are compiled, which takes some seconds.

    Raises `ConfigurationError` if an execution was asked for that this machine has not.
    """
    if name == "auto" and device.type != "cpu":
        return "share", None
    if name == "plain" or name == "share" or name == "merged":
        return name, None
    if name == "captured":
        if (reason := why_not_captured(device)) is not None:
            raise ConfigurationError(f"--execution {name}: {reason}; use --execution auto")
        return name, None
    reason = "its kernels are for the CPU" if device.type != "cpu" else why_unavailable(torch.float32, report)
    if name == "auto":
        return ("fused", None) if reason is None else ("share", f"execution share, not fused: {reason}")
    if reason is not None:
        raise ConfigurationError(f"--execution {name}: {reason}; use --execution auto")
    return name, None
