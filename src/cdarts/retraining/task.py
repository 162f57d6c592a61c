"""The network of a genotype, trained from scratch as DARTS and CDARTS train it: a task on the engine's loop."""

import math
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cdarts.data import Batch, Batches, ImageData, evaluation_batches, idle
from cdarts.distillation import AuxiliaryPool, Embedding
from cdarts.engine.checkpoint import State
from cdarts.engine.descent import accumulated, descend, descend_along
from cdarts.engine.task import Epoch, Losses, Records, Task
from cdarts.errors import ConfigurationError
from cdarts.execution import DropPath
from cdarts.networks import Network, num_parameters
from cdarts.randomness import generator, key, seeded
from cdarts.retraining.averaging import WeightAverage
from cdarts.retraining.config import Retraining, size_rule
from cdarts.retraining.mixing import Mixed, Targets, cutmix, mixup
from cdarts.spaces import DartsSpace
from cdarts.topology import Genotype

EVALUATION_BATCH = 250


class Scores(NamedTuple):
    """What an evaluation finds."""

    accuracy: float
    """Fraction correct, 0 to 1."""
    loss: float
    predictions: Tensor
    """Predicted class of each image, (N,)."""
    confidence: Tensor
    """Probability of the predicted class, (N,)."""
    label_probability: Tensor
    """Probability of the image's own class, (N,)."""


@torch.no_grad()
def evaluate(network: Network, batches: Iterator[Batch], *, flip: bool = False) -> Scores:
    """Accuracy and mean cross-entropy of a network over batches, in evaluation mode; the mode is restored.

    `flip`: an image's probabilities are the mean of its own and those of its mirror image, left to right.
    """
    training = network.training
    network.eval()
    predictions, confidence, label_probability, correct, loss, count = [], [], [], 0, 0.0, 0
    for images, labels in batches:
        logits = network(images).logits
        if flip:
            both = (logits.log_softmax(dim=1), network(images.flip(3)).logits.log_softmax(dim=1))
            logits = torch.logaddexp(*both) - math.log(2)
        predictions.append(logits.argmax(dim=1).cpu())
        probabilities = logits.double().softmax(dim=1).cpu()
        confidence.append(probabilities.gather(1, predictions[-1][:, None])[:, 0])
        label_probability.append(probabilities.gather(1, labels.cpu()[:, None])[:, 0])
        correct += int((logits.argmax(dim=1) == labels).sum())
        loss += float(F.cross_entropy(logits, labels, reduction="sum"))
        count += len(labels)
    network.train(training)
    return Scores(
        correct / count, loss / count, torch.cat(predictions), torch.cat(confidence), torch.cat(label_probability)
    )


class RetrainTask(Task):
    """One network, one optimizer, labels."""

    def __init__(
        self,
        config: Retraining,
        genotype: Genotype,
        data: ImageData,
        *,
        seed: int,
        device: torch.device,
        execution: str,
    ) -> None:
        self.data = data
        self.genotype = genotype
        self.seed = seed
        self.device = device
        cells, channels = config.size()
        with seeded(seed, "retrain"):
            self.network = Network(
                config.space,
                config.space.topology(genotype),
                cells=cells,
                channels=channels,
                num_classes=data.num_classes,
                image_channels=data.channels,
                affine=True,
                execution=execution,
            ).to(device)
            self.auxiliary = self._auxiliary_head(config).to(device) if config.auxiliary_weight else None
        weight_decay, drop_path = size_rule(self.num_parameters())
        self.config = replace(
            config,
            weight_decay=weight_decay if config.weight_decay is None else config.weight_decay,
            drop_path=drop_path if config.drop_path is None else config.drop_path,
        )
        self.train = Batches(
            data.train,
            data,
            batch_size=config.batch_size,
            seed=seed,
            stream="retrain",
            augmentation=config.augmentation(data.augmentation, data.side),
            device=device,
            policies=config.policies(),
        )
        parameters = dict(self.network.named_parameters(prefix="network"))
        if self.auxiliary is not None:
            parameters |= dict(self.auxiliary.named_parameters(prefix="auxiliary"))
        self.optimizer = self.config.weights().build(parameters.items())
        self.average = WeightAverage(self.network, config.ema_decay) if config.ema_decay else None
        self.best_accuracy = 0.0
        self.last_accuracy = 0.0
        self.flip_accuracy: float | None = None
        """With `test_flip`, once the last epoch is over."""

    @property
    def model(self) -> Network:
        """What is tested and kept: the network, or the average of its weights."""
        return self.network if self.average is None else self.average.network

    def _auxiliary_head(self, config: Retraining) -> Embedding:
        channels = self.network.feature_channels
        if len(channels) < 2:
            raise ConfigurationError(
                f"--cells {config.size()[0]}: the auxiliary head stands after the second stage, and this network has "
                f"{len(channels)} reduction(s); use more cells or --auxiliary-weight 0"
            )
        imagenet = isinstance(config.space, DartsSpace) and config.space.stem_name == "imagenet"
        return Embedding(
            channels[1], self.data.num_classes, pool=AuxiliaryPool(), affine=True, last_batchnorm=not imagenet
        )

    def num_parameters(self) -> int:
        """Of the network, without the auxiliary head."""
        return num_parameters(self.network)

    def plan(self) -> list[Epoch]:
        return [Epoch("train", len(self.train))] * self.config.epochs

    def start_epoch(self, index: int, epoch: Epoch) -> None:  # noqa: ARG002 - all its epochs are alike
        self.epoch = index
        self.optimizer.set_lr(self.config.lr_at(index))
        self.drop_path = self.config.drop_path_at(index)

    def batches(self, index: int) -> Iterator[tuple[Batch, ...]]:
        return zip(self.train(index))

    def skipping(self) -> AbstractContextManager[None]:
        return idle(self.train)

    def step(self, position: int, *batch: Batch) -> Losses:
        ((images, labels),) = batch
        mixed = self._mixed(images, labels, position)
        drop_path = None
        if self.drop_path:
            draw = generator(self.seed, "drop_path", self.epoch, position, device=self.device)
            drop_path = DropPath(self.drop_path, draw)
        # the last batch of an epoch may be smaller
        parts = min(self.config.accumulation, len(images) // 2)
        if parts <= 1:
            total, losses = self._losses(*mixed, drop_path)
            descend(total, self.optimizer, terms={name: loss for name, loss in losses.items() if name != "accuracy"})
        else:
            losses = self._descend_in_parts(mixed, parts, drop_path)
        if self.average is not None:
            self.average.follow(self.network, self.epoch * len(self.train) + position)
        return {name: loss.detach() for name, loss in losses.items()}

    def _mixed(self, images: Tensor, labels: Tensor, position: int) -> Mixed:
        """With mixup, CutMix, or as they are."""
        chosen = [
            (mix, alpha) for mix, alpha in ((mixup, self.config.mixup), (cutmix, self.config.cutmix)) if alpha > 0
        ]
        if not chosen:
            return Mixed(images, Targets(labels))
        draw = np.random.Generator(np.random.PCG64(key(self.seed, "mixing", self.epoch, position)))
        mix, alpha = chosen[draw.integers(len(chosen))]
        return mix(images, labels, alpha, draw)

    def _losses(self, images: Tensor, targets: Targets, drop_path: DropPath | None) -> tuple[Tensor, dict[str, Tensor]]:
        """What is descended, and what is logged."""
        reduced = self.config.precision == "bfloat16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=reduced):
            output = self.network(images, drop_path=drop_path)
            auxiliary = None if self.auxiliary is None else self.auxiliary(output.features[1])
        logits, smoothing = output.logits.float(), self.config.label_smoothing
        losses = {"loss": targets.cross_entropy(logits, smoothing)}
        total = losses["loss"]
        if auxiliary is not None:
            losses["auxiliary_loss"] = targets.cross_entropy(auxiliary.float(), smoothing)
            total = total + self.config.auxiliary_weight * losses["auxiliary_loss"]
        return total, {**losses, "accuracy": targets.accuracy(logits)}

    def _descend_in_parts(self, mixed: Mixed, parts: int, drop_path: DropPath | None) -> dict[str, Tensor]:
        """One step with the gradient of the batch, added up part by part; returns the batch's losses."""
        sums: dict[str, Tensor] = {}

        def totals() -> Iterator[Tensor]:
            for images, targets in zip(mixed.images.tensor_split(parts), mixed.targets.split(parts), strict=True):
                share = len(images) / len(mixed.images)
                total, losses = self._losses(images, targets, drop_path)
                for name, loss in losses.items():
                    sums[name] = sums.get(name, 0.0) + share * loss.detach()
                yield share * total

        descend_along(accumulated(totals(), self.optimizer), self.optimizer)
        return sums

    def samples(self) -> Mapping[str, list[int]]:
        return {"train": self.train.current()}

    def end_epoch(self, index: int, losses: Mapping[str, float]) -> Records:
        metrics: dict[str, Any] = {"phase": "train", "lr": self.config.lr_at(index), **losses}
        if (index + 1) % self.config.evaluate_every == 0 or index + 1 == self.config.epochs:
            scores = self.test()
            metrics |= {"test_accuracy": scores.accuracy, "test_loss": scores.loss}
            self.last_accuracy = scores.accuracy
            self.best_accuracy = max(self.best_accuracy, scores.accuracy)
        if self.config.test_flip and index + 1 == self.config.epochs:
            self.flip_accuracy = metrics["test_flip_accuracy"] = self.test(flip=True).accuracy
        return {"metrics": metrics}

    def test(self, *, flip: bool = False) -> Scores:
        """On the test images, as they are; `flip`: and mirrored."""
        batches = evaluation_batches(self.data.test, self.data, EVALUATION_BATCH, self.device)
        return evaluate(self.model, batches, flip=flip)

    def state(self) -> State:
        return {
            "modules": {name: module.state_dict() for name, module in self._modules().items()},
            "optimizer": self.optimizer.state(),
            "best_accuracy": self.best_accuracy,
            "last_accuracy": self.last_accuracy,
            "flip_accuracy": self.flip_accuracy,
        }

    def load_state(self, state: State) -> None:
        for name, module in self._modules().items():
            module.load_state_dict(state["modules"][name])
        self.optimizer.load_state(state["optimizer"])
        self.best_accuracy, self.last_accuracy = state["best_accuracy"], state["last_accuracy"]
        self.flip_accuracy = state.get("flip_accuracy")  # checkpoints of versions without it have none

    def _modules(self) -> dict[str, nn.Module]:
        modules: dict[str, nn.Module | None] = {
            "network": self.network,
            "auxiliary": self.auxiliary,
            "average": None if self.average is None else self.average.network,
        }
        return {name: module for name, module in modules.items() if module is not None}
