"""A network's forward and backward pass as graphs that a GPU replays, instead of kernels that it is told one by one.

`torch.compile` traces the network, whole, into one graph of operators for each pass; on CUDA its backend ``cudagraphs``
records them and replays the record. Nothing is generated or reordered: the kernels are those of ``merged``. What would
make a record wrong makes a new one: other shapes, other weights that learn. A network of another topology has its own.

Elsewhere the traced graphs are run as they are, operator by operator. That is of no use but to tests: it is all of
this but the recording.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

Compute = Callable[[Tensor, Mapping[str, Tensor] | None], tuple[Tensor, list[Tensor]]]
"""From images and mixing weights to logits and features."""

OPTIONS: dict[str, Any] = {"fullgraph": True, "dynamic": False, "isolate_recompiles": True}
"""All or nothing, in shapes that are constants; and one network's graphs are not counted against another's."""


def why_not_captured(device: torch.device) -> str | None:
    """Why steps on this device cannot be captured, or None."""
    if device.type != "cuda":
        return "it records kernels of a GPU"
    if "isolate_recompiles" not in inspect.signature(torch.compile).parameters:
        return f"it needs PyTorch 2.14 or newer, and this is {torch.__version__}"
    return None


class Captured:
    """The graphs of one network. A copy of the network begins without any."""

    def __init__(self) -> None:
        self.has_computed = False
        self.compiled: Compute | None = None

    def __call__(
        self, compute: Compute, images: Tensor, weights: Mapping[str, Tensor] | None
    ) -> tuple[Tensor, list[Tensor]]:
        """What `compute` gives; it is the same in every call."""
        if not self.has_computed:  # cells find out what can be merged, which is no part of a step
            self.has_computed = True
            return compute(images, weights)
        if self.compiled is None:
            backend = "cudagraphs" if images.device.type == "cuda" else "aot_eager"
            self.compiled = torch.compile(compute, backend=backend, **OPTIONS)
        return self.compiled(images, weights)

    def __deepcopy__(self, memo: object) -> "Captured":
        return Captured()
