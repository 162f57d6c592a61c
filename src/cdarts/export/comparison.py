"""When an export counts as the network that it was made from."""

import torch
from jaxtyping import Float32
from torch import Tensor

from cdarts.errors import ExportError
from cdarts.export.classifier import Model

TOLERANCE = 1e-5
"""Largest difference between two logits, as a fraction of the largest logit."""

BATCHES = (1, 4, 7)
"""Sizes of the batches that an export is compared on."""


@torch.no_grad()
def compare(expected: Model, found: Model, images: Float32[Tensor, "N C H W"]) -> float:
    """max |a - b| / max |a| over batches of `BATCHES` images, a the expected logits.

    Raises `ExportError` if it is over `TOLERANCE` or a class differs.
    """
    worst = 0.0
    order = torch.arange(sum(BATCHES)) % len(images)
    for batch in torch.split(images[order], list(BATCHES)):
        wanted, given = expected(batch), found(batch)
        if given.shape != wanted.shape:
            raise ExportError(f"logits of shape {tuple(given.shape)} came back, not {tuple(wanted.shape)}")
        difference = float((wanted - given).abs().max() / wanted.abs().max())
        if not difference <= TOLERANCE:  # NaN is no agreement
            raise ExportError(
                f"the export is not the network: for {len(batch)} images its logits differ by {difference:.1e} of the "
                f"largest, {TOLERANCE:.0e} are allowed; nothing was written"
            )
        if not torch.equal(wanted.argmax(dim=1), given.argmax(dim=1)):
            raise ExportError(
                f"the export is not the network: {len(batch)} images are classed otherwise; nothing was written"
            )
        worst = max(worst, difference)
    return worst
