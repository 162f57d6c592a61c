"""Bilevel search: a network that holds all candidates, its weights and alpha optimised in turn (DARTS, eq. 3 to 5).

The alternation is written once. What sets methods apart is what they override: how alpha mixes operations, what is
added to the loss, which part of the network is computed.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cdarts.algorithms.base import SearchAlgorithm, architecture_record
from cdarts.algorithms.bilevel_config import BilevelConfig
from cdarts.data import Batch, ImageData
from cdarts.engine.checkpoint import State
from cdarts.engine.descent import Optimizer, descend
from cdarts.engine.task import Epoch, Losses, Records
from cdarts.networks import Network, accuracy, frozen, num_parameters
from cdarts.randomness import generator, seeded
from cdarts.relaxations import Relaxation, Softmax
from cdarts.topology import Genotype


class BilevelSearch(SearchAlgorithm):
    """First-order DARTS. Methods derive from it and override `relax`, `logits`, `regularisers` or a step."""

    config: BilevelConfig
    relaxation: Relaxation
    search_net: Network

    def __init__(
        self, config: BilevelConfig, data: ImageData, *, seed: int, device: torch.device, execution: str
    ) -> None:
        super().__init__(config, data, seed=seed, device=device, execution=execution)
        self.epoch = 0
        self.make_networks()
        self.make_optimizers()

    def make_networks(self) -> None:
        """Alpha and the network that holds all candidates."""
        self.relaxation = self.relax().to(self.device)
        with seeded(self.seed, "search_net"):
            self.search_net = self.make_search_net()

    def make_search_net(self) -> Network:
        """The network that holds all candidates."""
        config = self.config
        return self.make_network(config.space.supernet(), cells=config.cells, affine=config.affine)

    def relax(self) -> Relaxation:
        """How alpha mixes operations."""
        return Softmax(self.config.space.supernet(), generator(self.seed, "alpha"))

    def make_optimizers(self) -> None:
        self.weight_optimizer: Optimizer = self.config.weights.build(self.search_net.named_parameters())
        self.alpha_optimizer: Optimizer = self.config.alpha.build(self.relaxation.named_parameters())

    # -- the plan ----------------------------------------------------------------------------------------------------

    def plan(self) -> list[Epoch]:
        """Epochs in which alpha stands still, then epochs in which both move."""
        still, moving = self.config.still_epochs, self.config.epochs - self.config.still_epochs
        both = min(len(self.train), len(self.val))
        return [Epoch("still", len(self.train))] * still + [Epoch("search", both)] * moving

    def start_epoch(self, index: int, epoch: Epoch) -> None:
        self.epoch, self.phase = index, epoch.phase
        self.weight_optimizer.set_lr(self.config.weights.lr_at(self.progress))
        self.alpha_optimizer.set_lr(self.config.alpha.lr_at(self.progress))

    @property
    def progress(self) -> float:
        """Fraction of the plan's epochs that is done when this one begins, 0 to below 1."""
        return self.epoch / len(self.plan())

    def batches(self, index: int) -> Iterator[tuple[Batch, ...]]:
        if self.phase == "still":
            return zip(self.train(index))
        return zip(self.train(index), self.val(index), strict=False)

    # -- learning ----------------------------------------------------------------------------------------------------

    def step(self, position: int, *batch: Batch) -> Losses:
        if self.phase == "still":
            return self.weight_step(position, *batch)
        train, val = batch
        return {**self.architecture_step(position, train, val), **self.weight_step(position, train)}

    def architecture_step(self, position: int, train: Batch, val: Batch) -> Losses:  # noqa: ARG002 - first order
        """Alpha goes down the loss of the val half, weights held."""
        with frozen(self.search_net):
            logits = self.logits(val.images, self.draw("alpha", position), learns_alpha=True)
        losses = {"val_loss": F.cross_entropy(logits, val.labels), **self.regularisers()}
        descend(torch.stack(list(losses.values())).sum(), self.alpha_optimizer, terms=losses)
        return {
            **{name: loss.detach() for name, loss in losses.items()},
            "val_accuracy": accuracy(logits, val.labels),
        }

    def weight_step(self, position: int, train: Batch) -> Losses:
        """Weights go down the loss of the train half, alpha held."""
        logits = self.logits(train.images, self.draw("weights", position), learns_alpha=False)
        loss = F.cross_entropy(logits, train.labels)
        descend(loss, self.weight_optimizer, terms={"train_loss": loss})
        return {"train_loss": loss.detach(), "train_accuracy": accuracy(logits, train.labels)}

    def logits(self, images: Tensor, draw: torch.Generator, *, learns_alpha: bool) -> Tensor:
        """Class logits (B, classes) of the network as alpha mixes it. `draw`: what is random in this step."""
        weights = self.relaxation(draw)
        if not learns_alpha:
            weights = {kind: weight.detach() for kind, weight in weights.items()}
        logits: Tensor = self.search_net(images, weights).logits
        return logits

    def regularisers(self) -> dict[str, Tensor]:
        """Further terms, by name, of the loss that alpha goes down, weights of the terms included."""
        return {}

    def draw(self, what: str, position: int) -> torch.Generator:
        """The randomness of one step, a function of seed, epoch and position alone."""
        return generator(self.seed, what, self.epoch, position)

    # -- the record and the state ------------------------------------------------------------------------------------

    def genotype(self) -> Genotype:
        return self.derive(self.relaxation.strengths())

    def num_parameters(self) -> dict[str, int]:
        return {"search_net": num_parameters(self.search_net)}

    def end_epoch(self, index: int, losses: Mapping[str, float]) -> Records:  # noqa: ARG002
        return {
            "metrics": {"phase": self.phase, **losses},
            "genotypes": architecture_record(self.genotype(), self.relaxation.strengths()),
        }

    def modules(self) -> dict[str, nn.Module]:
        """What the state holds, by name."""
        return {"relaxation": self.relaxation, "search_net": self.search_net}

    def optimizers(self) -> list[Optimizer]:
        """Whose moments the state holds."""
        return [self.weight_optimizer, self.alpha_optimizer]

    def state(self) -> State:
        return {
            "modules": {name: module.state_dict() for name, module in self.modules().items()},
            "optimizers": [optimizer.state() for optimizer in self.optimizers()],
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        for name, module in self.modules().items():
            module.load_state_dict(state["modules"][name])
        for optimizer, stored in zip(self.optimizers(), state["optimizers"], strict=True):
            optimizer.load_state(stored)
