"""Training images mixed with others of their batch: mixup and CutMix."""

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32, Int64
from torch import Tensor

from cdarts.networks import accuracy


class Targets(NamedTuple):
    """What a batch should be told for: each image's class and, where it is mixed, its partner's."""

    labels: Int64[Tensor, "B"]
    partners: Int64[Tensor, "B"] | None = None
    """Classes of the images that were mixed in; None where nothing was."""
    share: float = 1.0
    """Part of an image that is its own, 0 to 1; the rest is its partner's."""

    def cross_entropy(self, logits: Float[Tensor, "B K"], label_smoothing: float) -> Float[Tensor, ""]:
        """Mean over the batch, both classes by their shares."""
        own = F.cross_entropy(logits, self.labels, label_smoothing=label_smoothing)
        if self.partners is None:
            return own
        other = F.cross_entropy(logits, self.partners, label_smoothing=label_smoothing)
        return self.share * own + (1.0 - self.share) * other

    def accuracy(self, logits: Float[Tensor, "B K"]) -> Tensor:
        """Fraction correct, where the largest logit earns the share of the class that it is of."""
        own = accuracy(logits, self.labels)
        if self.partners is None:
            return own
        return self.share * own + (1.0 - self.share) * accuracy(logits, self.partners)

    def split(self, parts: int) -> "list[Targets]":
        """As `Tensor.tensor_split` splits the images."""
        labels = self.labels.tensor_split(parts)
        if self.partners is None:
            return [Targets(own) for own in labels]
        partners = self.partners.tensor_split(parts)
        return [Targets(own, other, self.share) for own, other in zip(labels, partners, strict=True)]


class Mixed(NamedTuple):
    """Images (B, C, H, W) and what they are to be told for."""

    images: Tensor
    targets: Targets


def mixup(
    images: Float32[Tensor, "B C H W"], labels: Int64[Tensor, "B"], alpha: float, draw: np.random.Generator
) -> Mixed:
    """lambda * image + (1 - lambda) * partner, with one lambda from Beta(alpha, alpha) and one permutation a batch.

    Source: Zhang et al., "mixup: Beyond Empirical Risk Minimization" (ICLR 2018).
    """
    share = float(draw.beta(alpha, alpha))
    partner = _partners(images, draw)
    return Mixed(share * images + (1.0 - share) * images[partner], Targets(labels, labels[partner], share))


def cutmix(
    images: Float32[Tensor, "B C H W"], labels: Int64[Tensor, "B"], alpha: float, draw: np.random.Generator
) -> Mixed:
    """A rectangle of each image is its partner's, the same for the whole batch; classes share by area.

    It has an area of 1 - lambda, lambda from Beta(alpha, alpha), the image's form, and a centre uniform over the image;
    what sticks out is cut off.

    Source: Yun et al., "CutMix: Regularization Strategy to Train Strong Classifiers with Localizable Features" (ICCV
    2019), Algorithm 1.
    """
    side = float(np.sqrt(1.0 - draw.beta(alpha, alpha)))
    partner = _partners(images, draw)
    height, width = images.shape[2:]
    top, bottom = _span(height, side, draw)
    left, right = _span(width, side, draw)
    mixed = images.clone()
    mixed[:, :, top:bottom, left:right] = images[partner, :, top:bottom, left:right]
    share = 1.0 - (bottom - top) * (right - left) / (height * width)
    return Mixed(mixed, Targets(labels, labels[partner], share))


def _span(length: int, fraction: float, draw: np.random.Generator) -> tuple[int, int]:
    """Ends of a stretch of pixels around a uniform centre, cut off at the border."""
    half = int(length * fraction) // 2
    centre = int(draw.integers(length))
    return max(centre - half, 0), min(centre + half, length)


def _partners(images: Tensor, draw: np.random.Generator) -> Tensor:
    """A permutation of the batch."""
    return torch.from_numpy(draw.permutation(len(images))).to(images.device)
