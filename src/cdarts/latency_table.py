"""What operations have been measured to take, as plain data, without torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from cdarts.settings import STRICT


@dataclass(frozen=True, kw_only=True)
class LatencyTable:
    """What operations have been measured to take, so that a resumed search judges by the same numbers."""

    __pydantic_config__: ClassVar = STRICT

    device: str
    threads: int
    rest_nanoseconds: int
    """What a network takes besides its edges."""
    nanoseconds: Mapping[str, int]
    """Of each ``kind source-target operation``, all cells of the kind together."""
    mean_error: float
    """Mean of |predicted - measured| / measured over networks that the model was not fitted on."""
