"""ENAS's alternation: weights of the paths that the controller draws, then the controller, by REINFORCE."""

from collections.abc import Iterator, Mapping
from itertools import chain, islice
from typing import Any

import torch
from torch import Tensor, nn

from cdarts.algorithms.enas import EnasConfig
from cdarts.algorithms.enas_controller import Controller
from cdarts.algorithms.sampling import BestOfSearch, batch_statistics
from cdarts.data import Batch, ImageData
from cdarts.engine.checkpoint import State
from cdarts.engine.descent import Optimizer, descend
from cdarts.engine.task import Epoch, Losses
from cdarts.networks import accuracy
from cdarts.randomness import seeded
from cdarts.topology import Genotype


class EnasSearch(BestOfSearch):
    """After each pass of the weights the controller makes its steps on the val half; in the end, the best of its draws.

    The baseline is the moving average of all rewards. NAS-Bench-201's run moves it from the epoch's first value each
    time, and lets gradients flow through the entropy in the reward; the paper's code stops them, and so does this.
    """

    config: EnasConfig

    def __init__(self, config: EnasConfig, data: ImageData, *, seed: int, device: torch.device, execution: str) -> None:
        super().__init__(config, data, seed=seed, device=device, execution=execution)
        with seeded(seed, "controller"):
            self.controller = Controller(config.space)
        self.controller_optimizer: Optimizer = config.controller.build(self.controller.named_parameters())
        for group in self.controller_optimizer.optimizer.param_groups:
            group["eps"] = config.controller_epsilon
        self.baseline: float | None = None

    def training(self) -> list[Epoch]:
        return [
            Epoch("train", len(self.train)),
            Epoch("controller", self.config.controller_steps),
        ] * self.config.epochs

    def batches(self, index: int) -> Iterator[tuple[Batch, ...]]:
        if self.phase != "controller":
            return super().batches(index)
        # as many passes over the val half as the steps need, each in an order of its own
        steps, samples = self.config.controller_steps, self.config.samples
        passes = -(-steps * samples // len(self.val))
        batches = chain.from_iterable(self.val(index * passes + number) for number in range(passes))
        return islice(zip(*[batches] * samples, strict=False), steps)

    def step(self, position: int, *batch: Batch) -> Losses:
        if self.phase == "controller":
            return self.controller_step(position, *batch)
        return super().step(position, *batch)

    @torch.no_grad()
    def path(self, position: int) -> Genotype:
        return self.controller.sample(self.draw("path", position)).genotype

    def controller_step(self, position: int, *batches: Batch) -> Losses:
        """The controller goes up the mean of (reward - baseline) * log-probability over its draws, one a batch."""
        draw = self.draw("controller", position)
        decisions = [self.controller.sample(draw) for _ in batches]
        accuracies = [self.reward(made.genotype, batch) for made, batch in zip(decisions, batches, strict=True)]
        entropies = torch.stack([made.entropy for made in decisions])
        # the one thing that waits for the device
        scores = torch.stack(accuracies).cpu()
        rewards = scores + self.config.entropy_weight * entropies.detach()
        advantages = self.advantages(rewards)
        log_probabilities = torch.stack([made.log_probability for made in decisions])
        descend(-(advantages * log_probabilities).mean(), self.controller_optimizer)
        return {
            "val_accuracy": scores.mean(),
            "controller_entropy": entropies.detach().mean(),
            "advantage": advantages.mean(),
        }

    @torch.no_grad()
    def reward(self, genotype: Genotype, batch: Batch) -> Tensor:
        """Accuracy on one batch, with its own statistics."""
        with batch_statistics(self.search_net):
            logits = self.search_net(batch.images, paths=self.config.space.topology(genotype)).logits
        return accuracy(logits, batch.labels)

    def advantages(self, rewards: Tensor) -> Tensor:
        """Each reward over the moving average, which has taken it in already; it begins at the first reward."""
        decay, advantages = self.config.baseline_decay, []
        for reward in rewards.tolist():
            self.baseline = reward if self.baseline is None else decay * self.baseline + (1.0 - decay) * reward
            advantages.append(reward - self.baseline)
        return torch.tensor(advantages)

    @torch.no_grad()
    def sample(self, number: int) -> Genotype:
        return self.fitting(self.controller.sample(self.draw("candidate", number)).genotype)

    def guess(self) -> Genotype:
        return self.fitting(self.controller.likeliest())

    def modules(self) -> dict[str, nn.Module]:
        return {**super().modules(), "controller": self.controller}

    def optimizers(self) -> list[Optimizer]:
        return [*super().optimizers(), self.controller_optimizer]

    def state(self) -> State:
        return {**super().state(), "baseline": self.baseline}

    def load_state(self, state: Mapping[str, Any]) -> None:
        super().load_state(state)
        self.baseline = state["baseline"]
