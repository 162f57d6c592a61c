"""A genotype at random: what every search has to beat (Li & Talwalkar, UAI 2019; Yu et al., ICLR 2020)."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, TypeVar

from tyro.conf import Suppress

from cdarts.algorithms.config import Protocol, SearchConfig

if TYPE_CHECKING:
    import torch

    from cdarts.algorithms.random_draw import RandomDraw
    from cdarts.data import ImageData

Config = TypeVar("Config", bound="RandomConfig")


@dataclass(frozen=True, kw_only=True)
class RandomConfig(SearchConfig):
    """One genotype of the space, each as likely as any other; nothing is trained, so no size matters."""

    name: Suppress[Literal["random"]] = "random"

    def build(self, data: "ImageData", *, seed: int, device: "torch.device", execution: str) -> "RandomDraw":
        from cdarts.algorithms.random_draw import RandomDraw

        self.check(data)
        return RandomDraw(self, data, seed=seed, device=device, execution=execution)

    def under(self: Config, protocol: Protocol) -> Config:
        return replace(self, space=protocol.space, channels=protocol.channels, batch_size=protocol.batch_size)
