"""ENAS: a controller that learns by reinforcement to draw genotypes (Pham et al., ICML 2018; arXiv 1802.03268)."""

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, TypeVar

from tyro.conf import Suppress

from cdarts.algorithms.config import Protocol
from cdarts.algorithms.sampling_config import BestOfConfig
from cdarts.engine.optimizers import Adam, Sgd
from cdarts.errors import ConfigurationError

if TYPE_CHECKING:
    import torch

    from cdarts.algorithms.enas_search import EnasSearch
    from cdarts.data import ImageData

Config = TypeVar("Config", bound="EnasConfig")


@dataclass(frozen=True, kw_only=True)
class EnasConfig(BestOfConfig):
    """ENAS (Pham et al., ICML 2018): a controller draws the paths whose weights are trained, and learns from scores.

    Defaults: NAS-Bench-201's run of it (Dong & Yang, ICLR 2020), with plain momentum where that has Nesterov's. The
    paper's own space is neither this nor DARTS's.
    """

    name: Suppress[Literal["enas"]] = "enas"
    batch_size: int = 128
    """Images a step takes from each half."""
    epochs: int = 310
    """Passes over the half of the images that network weights learn from; the controller learns after each."""
    weights: Sgd = field(default_factory=lambda: Sgd(lr=0.05, lr_end=0.01, weight_decay=2.5e-4, clip_norm=5.0))
    """For network weights."""
    controller: Adam = field(default_factory=lambda: Adam(lr=1e-3, betas=(0.0, 0.999), clip_norm=5.0))
    """For the controller."""
    controller_epsilon: float = 1e-3
    """Added to the denominator of the controller's Adam; gradients far below it move the controller little."""
    controller_steps: int = 50
    """Steps of the controller after each pass of the network weights."""
    samples: int = 20
    """Genotypes drawn for each step of the controller, each scored on one batch of the val half."""
    baseline_decay: float = 0.99
    """Of the moving average of rewards, from which a reward's advantage is reckoned."""
    entropy_weight: float = 1e-4
    """The reward is the accuracy plus so much times the entropy of the controller's decisions, in nats."""

    def check(self, data: "ImageData") -> None:
        super().check(data)
        self.controller.check("controller")
        self.at_least("controller_steps", 1)
        self.at_least("samples", 1)
        self.finite("controller_epsilon")
        self.finite("entropy_weight")
        if not 0 <= self.baseline_decay < 1:
            raise ConfigurationError(f"--baseline-decay {self.baseline_decay}: must be at least 0 and below 1")

    def build(self, data: "ImageData", *, seed: int, device: "torch.device", execution: str) -> "EnasSearch":
        from cdarts.algorithms.enas_search import EnasSearch

        self.check(data)
        return EnasSearch(self, data, seed=seed, device=device, execution=execution)

    def under(self: Config, protocol: Protocol) -> Config:
        """The controller makes fewer steps after each pass, in the measure in which the passes are fewer."""
        shrunk = min(1.0, protocol.epochs / self.epochs)
        return replace(
            super().under(protocol),
            controller=replace(self.controller, lr=protocol.alpha_rate * self.controller.lr),
            controller_steps=max(1, round(shrunk * self.controller_steps)),
        )
