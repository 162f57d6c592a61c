"""SETN: alpha learns by gradient beside weights that never see it, and says which candidates are worth a score."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import nn

from cdarts.algorithms.gumbel import gumbel
from cdarts.algorithms.sampling import BestOfSearch
from cdarts.algorithms.setn import SetnConfig
from cdarts.data import Batch, ImageData
from cdarts.engine.descent import Optimizer, descend
from cdarts.engine.task import Epoch, Losses
from cdarts.networks import accuracy
from cdarts.randomness import generator
from cdarts.relaxations import Softmax
from cdarts.spaces.base import Strengths
from cdarts.topology import Genotype


class SetnSearch(BestOfSearch):
    """Uniform paths teach the weights; alpha, softmax over all operations, learns on the val half which are good.

    Candidates are drawn from softmax(alpha), edge by edge. The authors' later code takes the likeliest ones instead.
    """

    config: SetnConfig

    def __init__(self, config: SetnConfig, data: ImageData, *, seed: int, device: torch.device, execution: str) -> None:
        super().__init__(config, data, seed=seed, device=device, execution=execution)
        self.relaxation = Softmax(config.space.supernet(), generator(seed, "alpha")).to(device)
        self.alpha_optimizer: Optimizer = config.alpha.build(self.relaxation.named_parameters())

    def training(self) -> list[Epoch]:
        still, moving = self.config.still_epochs, self.config.epochs - self.config.still_epochs
        both = min(len(self.train), len(self.val))
        return [Epoch("still", len(self.train))] * still + [Epoch("search", both)] * moving

    def batches(self, index: int) -> Iterator[tuple[Batch, ...]]:
        if self.phase == "search":
            return zip(self.train(index), self.val(index), strict=False)
        return super().batches(index)

    def step(self, position: int, *batch: Batch) -> Losses:
        if self.phase != "search":
            return super().step(position, *batch)
        train, val = batch
        return {**self.weight_step(position, train), **self.architecture_step(val)}

    def architecture_step(self, val: Batch) -> Losses:
        """Alpha goes down the loss of the val half, weights held."""
        logits = self.search_net(val.images, self.relaxation()).logits
        loss = F.cross_entropy(logits, val.labels)
        descend(loss, self.alpha_optimizer)
        return {"val_loss": loss.detach(), "val_accuracy": accuracy(logits, val.labels)}

    @torch.no_grad()
    def sample(self, number: int) -> Genotype:
        """Each edge's operation drawn with the probabilities softmax(alpha).

        In the DARTS space ``none`` is never drawn, and a node's two edges are drawn with the probability that they are
        not ``none``, one after the other.
        """
        draw = self.draw("candidate", number)
        return self.derive(
            {
                kind: (alpha.log_softmax(dim=1).cpu() + gumbel(alpha.shape, draw)).tolist()
                for kind, alpha in self.relaxation.alpha.items()
            }
        )

    def guess(self) -> Genotype:
        return self.derive(self.relaxation.strengths())

    def strengths(self) -> Strengths:
        return self.relaxation.strengths()

    def modules(self) -> dict[str, nn.Module]:
        return {**super().modules(), "relaxation": self.relaxation}

    def optimizers(self) -> list[Optimizer]:
        return [*super().optimizers(), self.alpha_optimizer]
