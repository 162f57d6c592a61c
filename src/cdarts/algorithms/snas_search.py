"""SNAS's step: one loss, one batch, one draw, for weights and alpha together."""

from collections.abc import Iterator

import torch.nn.functional as F

from cdarts.algorithms.bilevel import BilevelSearch
from cdarts.algorithms.gumbel import Concrete
from cdarts.algorithms.snas import SnasConfig
from cdarts.data import Batch, Batches
from cdarts.engine.descent import descend
from cdarts.engine.task import Epoch, Losses
from cdarts.networks import accuracy
from cdarts.randomness import generator
from cdarts.relaxations import Relaxation


class SnasSearch(BilevelSearch):
    """A network whose operations are mixed by a concrete draw Z(alpha); weights and alpha descend E[L(Z)] (eq. 6).

    Single level: all training images teach both. So that an epoch has as many steps as in other searches, it passes
    over one half of the images, and the halves take turns.

    Left out: the term for the network's cost in parameters, operations and memory accesses (eq. 13), with which the
    paper's published cells were found; the authors' drop-path during the search. In the DARTS space the genotype keeps
    two edges a node, where the paper keeps each edge whose strongest operation is not ``none``.
    """

    config: SnasConfig
    relaxation: Concrete

    def relax(self) -> Relaxation:
        return Concrete(self.config.space.supernet(), generator(self.seed, "alpha"), scale=0.01)

    def half(self, index: int) -> Batches:
        """The images of an epoch."""
        return self.val if index % 2 else self.train

    def plan(self) -> list[Epoch]:
        still = self.config.still_epochs
        return [
            Epoch("still" if index < still else "search", len(self.half(index))) for index in range(self.config.epochs)
        ]

    def start_epoch(self, index: int, epoch: Epoch) -> None:
        super().start_epoch(index, epoch)
        self.relaxation.temperature = self.config.temperature_at(index)

    def batches(self, index: int) -> Iterator[tuple[Batch, ...]]:
        return zip(self.half(index)(index))

    def step(self, position: int, *batch: Batch) -> Losses:
        if self.phase == "still":
            return self.weight_step(position, *batch)
        return self.joint_step(position, *batch)

    def joint_step(self, position: int, batch: Batch) -> Losses:
        """Weights and alpha go down the loss of one draw."""
        logits = self.logits(batch.images, self.draw("weights", position), learns_alpha=True)
        loss = F.cross_entropy(logits, batch.labels)
        descend(loss, self.weight_optimizer, self.alpha_optimizer)
        return {"train_loss": loss.detach(), "train_accuracy": accuracy(logits, batch.labels)}
