"""The network of a genotype, trained from scratch as DARTS and CDARTS train it: a task on the engine's loop."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cdarts.data import Batch, Batches, ImageData, evaluation_batches, idle
from cdarts.distillation import AuxiliaryPool, Embedding
from cdarts.engine.checkpoint import State
from cdarts.engine.descent import descend
from cdarts.engine.task import Epoch, Losses, Records, Task
from cdarts.errors import ConfigurationError
from cdarts.execution import DropPath
from cdarts.networks import Network, accuracy, num_parameters
from cdarts.randomness import generator, seeded
from cdarts.retraining.config import Retraining, size_rule
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
def evaluate(network: Network, batches: Iterator[Batch]) -> Scores:
    """Accuracy and mean cross-entropy of a network over batches, in evaluation mode; the mode is restored."""
    training = network.training
    network.eval()
    predictions, confidence, label_probability, correct, loss, count = [], [], [], 0, 0.0, 0
    for images, labels in batches:
        logits = network(images).logits
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
        augmentation = replace(data.augmentation, cutout=min(config.cutout, data.side // 2))
        self.train = Batches(
            data.train,
            data,
            batch_size=config.batch_size,
            seed=seed,
            stream="retrain",
            augmentation=augmentation,
            device=device,
        )
        parameters = dict(self.network.named_parameters(prefix="network"))
        if self.auxiliary is not None:
            parameters |= dict(self.auxiliary.named_parameters(prefix="auxiliary"))
        self.optimizer = self.config.weights().build(parameters.items())
        self.best_accuracy = 0.0
        self.last_accuracy = 0.0

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
        self.drop_path = (self.config.drop_path or 0.0) * index / self.config.epochs

    def batches(self, index: int) -> Iterator[tuple[Batch, ...]]:
        return zip(self.train(index))

    def skipping(self) -> AbstractContextManager[None]:
        return idle(self.train)

    def step(self, position: int, *batch: Batch) -> Losses:
        ((images, labels),) = batch
        drop_path = None
        if self.drop_path:
            draw = generator(self.seed, "drop_path", self.epoch, position, device=self.device)
            drop_path = DropPath(self.drop_path, draw)
        output = self.network(images, drop_path=drop_path)
        losses = {"loss": F.cross_entropy(output.logits, labels, label_smoothing=self.config.label_smoothing)}
        total = losses["loss"]
        if self.auxiliary is not None:
            logits = self.auxiliary(output.features[1])
            losses["auxiliary_loss"] = F.cross_entropy(logits, labels, label_smoothing=self.config.label_smoothing)
            total = total + self.config.auxiliary_weight * losses["auxiliary_loss"]
        descend(total, self.optimizer, terms=losses)
        losses = {name: loss.detach() for name, loss in losses.items()}
        return {**losses, "accuracy": accuracy(output.logits, labels)}

    def samples(self) -> Mapping[str, list[int]]:
        return {"train": self.train.current()}

    def end_epoch(self, index: int, losses: Mapping[str, float]) -> Records:
        metrics = {"phase": "train", "lr": self.config.lr_at(index), **losses}
        if (index + 1) % self.config.evaluate_every == 0 or index + 1 == self.config.epochs:
            scores = self.test()
            metrics |= {"test_accuracy": scores.accuracy, "test_loss": scores.loss}
            self.last_accuracy = scores.accuracy
            self.best_accuracy = max(self.best_accuracy, scores.accuracy)
        return {"metrics": metrics}

    def test(self) -> Scores:
        """On the test images, as they are."""
        return evaluate(self.network, evaluation_batches(self.data.test, self.data, EVALUATION_BATCH, self.device))

    def state(self) -> State:
        return {
            "modules": {name: module.state_dict() for name, module in self._modules().items()},
            "optimizer": self.optimizer.state(),
            "best_accuracy": self.best_accuracy,
            "last_accuracy": self.last_accuracy,
        }

    def load_state(self, state: State) -> None:
        for name, module in self._modules().items():
            module.load_state_dict(state["modules"][name])
        self.optimizer.load_state(state["optimizer"])
        self.best_accuracy, self.last_accuracy = state["best_accuracy"], state["last_accuracy"]

    def _modules(self) -> dict[str, nn.Module]:
        return {"network": self.network} | ({} if self.auxiliary is None else {"auxiliary": self.auxiliary})
