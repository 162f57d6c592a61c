"""P-DARTS: search in stages, deeper and with fewer operations (Chen et al., ICCV 2019; arXiv 1904.12760)."""

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from tyro.conf import Suppress

from cdarts.algorithms.bilevel_config import BilevelConfig
from cdarts.algorithms.config import Protocol
from cdarts.engine.optimizers import Adam, Sgd
from cdarts.errors import ConfigurationError

if TYPE_CHECKING:
    import torch

    from cdarts.algorithms.p_darts_search import PDartsSearch
    from cdarts.data import ImageData

NUM_STAGES = 3
RESTRICTED = "normal"
"""The kind of cell whose skip connections are restricted in the end."""


@dataclass(frozen=True, kw_only=True)
class PDartsConfig(BilevelConfig):
    """P-DARTS (Chen et al., ICCV 2019): three stages, each a deeper network with the stronger operations of the last.

    Every stage has a network, alpha, optimizers and a learning rate schedule of its own. The stages share the epochs
    as evenly as possible, the first ones taking what is left over. Not published in the NAS-Bench-201 space: there the
    same shares of operations are kept, 5, 3 and 2, and skip connections are not restricted, as the one kind of cell is
    no normal cell. Under a protocol its epochs are shared among the stages, and every stage has its number of cells.
    """

    name: Suppress[Literal["p-darts"]] = "p-darts"
    cells: int = 5
    """Cells of the first stage's network."""
    added_cells: tuple[int, int, int] = (0, 6, 12)
    """In each stage, cells beyond those of the first."""
    kept: tuple[float, float, float] = (1.0, 0.625, 0.375)
    """In each stage, part of the space's operations that every edge has: 8, 5 and 3 in the DARTS space."""
    skip_dropout: tuple[float, float, float] = (0.0, 0.4, 0.7)
    """In each stage, dropout behind skip connections as it begins."""
    max_skips: int = 2
    """Skip connections that the normal cell of the result may have; the weakest of more are struck out."""
    batch_size: int = 96
    """Images a step takes from each half."""
    epochs: int = 75
    """Passes over the half of the images that network weights learn from, in all stages together."""
    still_epochs: int = 10
    """At the beginning of each stage, epochs before alpha begins to move."""
    weights: Sgd = field(default_factory=lambda: Sgd(lr=0.025, lr_end=0.0, weight_decay=3e-4, clip_norm=5.0))
    """For network weights; the learning rate falls in each stage."""
    alpha: Adam = field(default_factory=lambda: Adam(lr=6e-4, betas=(0.5, 0.999), weight_decay=1e-3, clip_norm=5.0))
    """For the architecture logits."""

    def first_epoch(self, stage: int) -> int:
        """The epoch that a stage begins with; for the number of stages, the number of epochs."""
        return -(-stage * self.epochs // NUM_STAGES)

    def num_kept(self, stage: int) -> int:
        """Operations that every edge has in a stage: besides ``none`` one, and one more where a skip may be struck."""
        least = 3 if RESTRICTED in self.space.kinds else 2
        return max(least, round(self.kept[stage] * len(self.space.operations)))

    def check(self, data: "ImageData") -> None:
        self.at_least("epochs", NUM_STAGES)
        shortest = self.epochs // NUM_STAGES
        if self.still_epochs >= shortest:
            raise ConfigurationError(
                f"--still-epochs {self.still_epochs}: {NUM_STAGES} stages share {self.epochs} epochs, so that one has "
                f"{shortest}, and alpha must move in each; choose at most {shortest - 1}"
            )
        super().check(data)
        self.at_least("max_skips", 0)
        self._check_stages("added_cells", all(cells >= 0 for cells in self.added_cells), "none may be negative")
        falling = all(a >= b for a, b in zip(self.kept, self.kept[1:], strict=False))
        shares = all(0 < share <= 1 for share in self.kept)
        self._check_stages("kept", shares and falling, "each must be above 0 and at most 1, none above the one before")
        rates = all(0 <= rate < 1 for rate in self.skip_dropout)
        self._check_stages("skip_dropout", rates, "each must be at least 0 and below 1")

    def _check_stages(self, name: str, met: bool, what: str) -> None:
        if not met:
            values = " ".join(str(value) for value in getattr(self, name))
            raise ConfigurationError(f"--{name.replace('_', '-')} {values}: {what}")

    def build(self, data: "ImageData", *, seed: int, device: "torch.device", execution: str) -> "PDartsSearch":
        from cdarts.algorithms.p_darts_search import PDartsSearch

        self.check(data)
        return PDartsSearch(self, data, seed=seed, device=device, execution=execution)

    def under(self, protocol: Protocol) -> "PDartsConfig":
        still_epochs = max(0, min(protocol.still_epochs, protocol.epochs // NUM_STAGES - 1))
        return replace(super().under(protocol), added_cells=(0, 0, 0), still_epochs=still_epochs)
