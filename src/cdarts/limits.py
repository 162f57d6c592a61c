"""Limits on what the found network may cost, as a user states them. Plain data, without torch."""

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from tyro.conf import Suppress

from cdarts.errors import ConfigurationError
from cdarts.latency_table import LatencyTable
from cdarts.settings import STRICT
from cdarts.spaces import Space

if TYPE_CHECKING:
    import torch

    from cdarts.cost import Amount, Bounds, Selection, Size

UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9}


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The most that the network of the found cells may cost; the search proposes no others.

    They hold for the network that is trained afterwards, not for the search's own.
    """

    __pydantic_config__: ClassVar = STRICT

    max_params: str | None = None
    """Most parameters of the found network, e.g. 3.5M."""
    max_macs: str | None = None
    """Most multiply-adds of the found network for one image, convolutions and linear layers, e.g. 600M."""
    max_latency_ms: float | None = None
    """Longest time of the found network for one image, in milliseconds, on this machine, by a sum of what operations
    are measured to take before the search; the model's error is told."""
    limit_cells: int | None = None
    """Cells of the network that limits hold for; default: the space's usual number, as `cdarts retrain` takes it."""
    limit_channels: int | None = None
    """Channels of that network's first stage; default: the space's usual number."""
    latency: Suppress[LatencyTable | None] = None
    """What has been measured for `max_latency_ms`."""

    def are_set(self) -> bool:
        """Whether anything is limited."""
        return any(value is not None for value in (self.max_params, self.max_macs, self.max_latency_ms))

    def check(self) -> None:
        """Raise `ConfigurationError` for what is no limit."""
        for flag, text in (("--max-params", self.max_params), ("--max-macs", self.max_macs)):
            if text is not None:
                parse_count(flag, text)
        if self.max_latency_ms is not None and not 0 < self.max_latency_ms < 1e9:
            raise ConfigurationError(f"--max-latency-ms {self.max_latency_ms}: must be above 0 milliseconds")
        for flag, number in (("--limit-cells", self.limit_cells), ("--limit-channels", self.limit_channels)):
            if number is not None and not self.are_set():
                raise ConfigurationError(
                    f"{flag} {number}: says for which network a limit holds, but none is given; add --max-params, "
                    "--max-macs or --max-latency-ms"
                )

    def bounds(self) -> "Bounds":
        """As numbers."""
        from cdarts.cost import Bounds

        return Bounds(
            parameters=None if self.max_params is None else parse_count("--max-params", self.max_params),
            macs=None if self.max_macs is None else parse_count("--max-macs", self.max_macs),
            nanoseconds=None if self.max_latency_ms is None else int(self.max_latency_ms * 1e6),
        )

    def size(self, space: Space, *, num_classes: int, side: int, image_channels: int) -> "Size":
        """The network that they hold for."""
        from cdarts.cost import Size

        return Size(
            cells=space.usual_cells if self.limit_cells is None else self.limit_cells,
            channels=space.usual_channels if self.limit_channels is None else self.limit_channels,
            num_classes=num_classes,
            side=side,
            image_channels=image_channels,
        )

    def selection(self, space: Space, size: "Size") -> "Selection":
        """What derives genotypes within the limits.

        Raises `ConfigurationError`, with the least that is possible, if no genotype of the space keeps them.
        """
        from cdarts.cost import Selection, cost_table
        from cdarts.cost.latency import with_latency

        table = cost_table(space, size)
        if self.max_latency_ms is not None:
            if self.latency is None:
                raise ConfigurationError("--max-latency-ms: operations have not been measured (`measured`)")
            table = with_latency(table, self.latency)
        selection = Selection(space, table, self.bounds())
        least = selection.least()
        place = f"a network of space {space.name} with {size.cells} cells and {size.channels} channels"
        for (flag, limit), possible, most in zip(self._in_words().items(), least, self.bounds().limits(), strict=True):
            if possible > most:
                raise ConfigurationError(
                    f"{flag} {limit}: {place} has at least {self._amount(flag, possible)}; allow more, or name a "
                    "smaller network with --limit-cells or --limit-channels"
                )
        if not selection.is_possible():
            flags = " ".join(f"{flag} {limit}" for flag, limit in self._in_words().items() if limit is not None)
            raise ConfigurationError(f"{flags}: each is possible by itself, but {place} cannot keep all; loosen one")
        return selection

    def measured(self, space: Space, size: "Size", device: "torch.device", threads: int) -> "Limits":
        """The same with operations measured on this machine, where latency is limited and they are not yet."""
        from cdarts.cost.latency import measure_operations

        if self.max_latency_ms is None or self.latency is not None:
            return self
        return replace(self, latency=measure_operations(space, size, device=device, threads=threads))

    def against(self, cost: "Amount") -> dict[str, tuple[str, str]]:
        """A cost beside each limit that is given: flag -> (cost, limit), in words."""
        return {
            flag: (self._amount(flag, value), str(limit))
            for (flag, limit), value in zip(self._in_words().items(), cost, strict=True)
            if limit is not None
        }

    def _in_words(self) -> dict[str, str | float | None]:
        """The flags in the order of `Amount`."""
        return {
            "--max-params": self.max_params,
            "--max-macs": self.max_macs,
            "--max-latency-ms": self.max_latency_ms,
        }

    @staticmethod
    def _amount(flag: str, value: int) -> str:
        units = {"--max-params": " parameters", "--max-macs": " multiply-adds"}
        return f"{value:,}{units[flag]}" if flag in units else f"{value / 1e6:.2f} ms"


def parse_count(flag: str, text: str) -> int:
    """``3.5M`` or ``600M`` or ``120000``, of thousands, millions, thousand millions. Raises `ConfigurationError`."""
    match = re.fullmatch(r"(\d{1,15}(?:\.\d{1,9})?)([KMGkmg]?)", text, re.ASCII)
    count = 0 if match is None else round(float(match[1]) * UNITS[match[2].upper()])
    if count < 1:
        raise ConfigurationError(
            f"{flag} {text}: write a positive number, with K, M or G if you like, e.g. 3.5M, 600M, 120000"
        )
    return count
