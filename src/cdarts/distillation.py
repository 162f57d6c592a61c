"""Feature feedback from the evaluation network to the search network: embedding modules, fusion of levels, distance.

Source: Yu et al., "Cyclic Differentiable Architecture Search" (TPAMI 2023), eq. 4 and 5; shapes from the authors' code.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

Logits = Float[Tensor, "B K"]


class StagePool(nn.Module):
    """Average pooling before an embedding's 2x2 convolution: 6x6 (5x5 at side 7) with stride 2; to 2x2 below that."""

    def forward(self, x: Tensor) -> Tensor:
        side = min(x.shape[2:])
        if side < 7:
            return F.adaptive_avg_pool2d(x, 2)
        return F.avg_pool2d(x, 5 if side == 7 else 6, stride=2, count_include_pad=False)


class AuxiliaryPool(nn.Module):
    """Average pooling to 2x2 before the auxiliary head: 5x5, stride 3 at side 8, 2 at side 7; adaptive elsewhere."""

    def forward(self, x: Tensor) -> Tensor:
        match tuple(x.shape[2:]):
            case (8, 8):
                return F.avg_pool2d(x, 5, stride=3, count_include_pad=False)
            case (7, 7):
                return F.avg_pool2d(x, 5, stride=2, count_include_pad=False)
            case _:
                return F.adaptive_avg_pool2d(x, 2)


class Embedding(nn.Module):
    """From a stage's features (B, C, H, W) to logits (B, classes).

    The head that CDARTS compares networks by, and DARTS's auxiliary head: ReLU, pool, 1x1 convolution to 128,
    BatchNorm, ReLU, 2x2 convolution to 768, BatchNorm, ReLU, global average, linear.
    """

    def __init__(
        self, channels: int, num_classes: int, *, pool: nn.Module, affine: bool, last_batchnorm: bool = True
    ) -> None:
        super().__init__()
        self.pool = pool
        self.squeeze = nn.Conv2d(channels, 128, 1, bias=False)
        self.squeeze_norm = nn.BatchNorm2d(128, affine=affine)
        self.expand = nn.Conv2d(128, 768, 2, bias=False)
        self.expand_norm = nn.BatchNorm2d(768, affine=affine) if last_batchnorm else nn.Identity()
        self.classifier = nn.Linear(768, num_classes)

    def forward(self, features: Float[Tensor, "B C H W"]) -> Logits:
        x = self.pool(F.relu(features))
        x = F.relu(self.squeeze_norm(self.squeeze(x)))
        x = F.relu(self.expand_norm(self.expand(x)))
        logits: Tensor = self.classifier(x.mean(dim=(2, 3)))
        return logits


# -- fusion of the levels' logits --------------------------------------------------------------------------------------


def fuse_sum(levels: Sequence[Logits]) -> list[Tensor]:
    """The levels added up, (N, K): the circled plus in the paper's figure."""
    return [torch.stack(list(levels)).sum(dim=0)]


def fuse_batch(levels: Sequence[Logits]) -> list[Tensor]:
    """The levels one after another along the batch axis, (L * N, K), as the authors' code does."""
    return [torch.cat(list(levels), dim=0)]


def fuse_none(levels: Sequence[Logits]) -> list[Tensor]:
    """Each level compared by itself, L times (N, K)."""
    return list(levels)


FUSIONS: dict[str, Callable[[Sequence[Tensor]], list[Tensor]]] = {
    "sum": fuse_sum,
    "batch": fuse_batch,
    "levels": fuse_none,
}

# -- distances ---------------------------------------------------------------------------------------------------------


def kl(student: Logits, teacher: Logits, temperature: float) -> Float[Tensor, ""]:
    """T^2 / N * sum_i p_i log(p_i / q_i), p = softmax(teacher / T), q = softmax(student / T)  (eq. 4 and 5).

    N is the batch, so that the weight means the same for 10 classes and for 1,000.
    """
    q = F.log_softmax(student / temperature, dim=1)
    p = F.log_softmax(teacher / temperature, dim=1)
    return temperature**2 * F.kl_div(q, p, reduction="batchmean", log_target=True)


def kl_mean(student: Logits, teacher: Logits, temperature: float) -> Float[Tensor, ""]:
    """As `kl`, but divided by batch and class count, as the authors' code does on ImageNet.

    Weaker than `kl` by the number of classes.
    """
    return kl(student, teacher, temperature) / student.shape[1]


def smooth_l1(student: Logits, teacher: Logits, temperature: float) -> Float[Tensor, ""]:
    """T^2 times the smooth L1 distance of raw logits, as the authors' code does on CIFAR; T acts as a factor only."""
    return temperature**2 * F.smooth_l1_loss(student, teacher)


def mse(student: Logits, teacher: Logits, temperature: float) -> Float[Tensor, ""]:
    """T^2 times the mean squared distance of raw logits."""
    return temperature**2 * F.mse_loss(student, teacher)


def cosine(student: Logits, teacher: Logits, temperature: float) -> Float[Tensor, ""]:
    """T^2 times one minus the cosine similarity of raw logits, averaged over the batch."""
    return temperature**2 * (1.0 - F.cosine_similarity(student, teacher, dim=1)).mean()


FEEDBACKS: dict[str, Callable[[Tensor, Tensor, float], Tensor]] = {
    "kl": kl,
    "kl_mean": kl_mean,
    "smooth_l1": smooth_l1,
    "mse": mse,
    "cosine": cosine,
}
"""Distances between fused logits by name. A new one is one function and one line here."""
