"""Searches that share weights among discrete paths: a step trains one genotype's part of a network (Guo et al., 2020).

After the training, candidates are scored with the shared weights, and the best one is the search's answer. What sets
methods apart is which path is trained, and where candidates come from.
"""

import copy
from abc import abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cdarts.algorithms.base import SearchAlgorithm, architecture_record, random_genotype
from cdarts.algorithms.sampling_config import BestOfConfig, SamplingConfig
from cdarts.data import Augmentation, Batch, Batches, ImageData
from cdarts.engine.checkpoint import State
from cdarts.engine.descent import Optimizer, descend
from cdarts.engine.task import Epoch, Losses, Records
from cdarts.networks import Network, accuracy, num_parameters
from cdarts.randomness import generator, seeded
from cdarts.spaces.base import Strengths
from cdarts.topology import Genotype, genotype_from_json


class SamplingSearch(SearchAlgorithm):
    """Weights learn on the train half, one path a step; candidates are scored on the val half."""

    config: SamplingConfig
    search_net: Network

    def __init__(
        self, config: SamplingConfig, data: ImageData, *, seed: int, device: torch.device, execution: str
    ) -> None:
        super().__init__(config, data, seed=seed, device=device, execution=execution)
        self.measured = unaugmented(self.val)
        self.epoch = 0
        self.candidates: list[Genotype] = []
        """What a selection epoch scores, in order."""
        self.epoch_scores: list[Tensor] = []
        """Scores of this epoch's candidates so far, still on the device."""
        self.scores: dict[Genotype, float] = {}
        """Scores of all candidates of the epochs that are done, in order."""
        with seeded(seed, "search_net"):
            self.search_net = self.make_network(config.space.supernet(), cells=config.cells, affine=config.affine)
        self.weight_optimizer: Optimizer = config.weights.build(self.search_net.named_parameters())

    # -- the plan ----------------------------------------------------------------------------------------------------

    def plan(self) -> list[Epoch]:
        return self.training() + self.selection()

    def training(self) -> list[Epoch]:
        """The epochs in which weights learn."""
        return [Epoch("train", len(self.train))] * self.config.epochs

    @abstractmethod
    def selection(self) -> list[Epoch]:
        """The epochs of phase ``select``, in which candidates are scored, one a step."""

    def start_epoch(self, index: int, epoch: Epoch) -> None:
        self.epoch, self.phase = index, epoch.phase
        if self.phase == "select":
            # the same ones within an epoch: what they follow from changes only when it ends
            self.candidates = self.propose()
        else:
            self.weight_optimizer.set_lr(self.config.weights.lr_at(index / len(self.training())))

    def batches(self, index: int) -> Iterator[tuple[Batch, ...]]:
        if self.phase == "select":
            return iter([()] * len(self.candidates))
        return zip(self.train(index))

    def draw(self, what: str, position: int) -> torch.Generator:
        """The randomness of one step, a function of seed, epoch and position alone."""
        return generator(self.seed, what, self.epoch, position)

    # -- learning ----------------------------------------------------------------------------------------------------

    def step(self, position: int, *batch: Batch) -> Losses:
        if self.phase == "select":
            return self.select_step(position)
        return self.weight_step(position, *batch)

    def weight_step(self, position: int, train: Batch) -> Losses:
        """The weights of one path go down the loss; those of other operations stay as they are, decay included."""
        logits = self.search_net(train.images, paths=self.config.space.topology(self.path(position))).logits
        loss = F.cross_entropy(logits, train.labels)
        descend(loss, self.weight_optimizer)
        return {"train_loss": loss.detach(), "train_accuracy": accuracy(logits, train.labels)}

    def path(self, position: int) -> Genotype:
        """What the step trains: a genotype at random."""
        return random_genotype(self.config.space, self.seed, "path", self.epoch, position)

    # -- selection ---------------------------------------------------------------------------------------------------

    @abstractmethod
    def propose(self) -> list[Genotype]:
        """The candidates of the selection epoch that begins: at most as many as the plan has steps for."""

    def select_step(self, position: int) -> Losses:
        score = self.score(self.candidates[position])
        self.epoch_scores.append(score)
        return {"score": score}

    @torch.no_grad()
    def score(self, genotype: Genotype) -> Tensor:
        """Accuracy on the whole val half, 0 to 1, with the shared weights and batch statistics; changes nothing."""
        paths = self.config.space.topology(genotype)
        with batch_statistics(self.search_net):
            hits = [
                self.search_net(images, paths=paths).logits.argmax(dim=1) == labels
                for images, labels in self.measured(0)
            ]
        return torch.cat(hits).double().mean()

    def genotype(self) -> Genotype:
        """The first of the best candidates so far; before any is scored, `guess`."""
        return max(self.scores, key=lambda genotype: self.scores[genotype]) if self.scores else self.guess()

    def guess(self) -> Genotype:
        """The answer while nothing is scored yet: a genotype at random."""
        return self.random_candidate("candidate", 0)

    # -- the record and the state ------------------------------------------------------------------------------------

    def num_parameters(self) -> dict[str, int]:
        return {"search_net": num_parameters(self.search_net)}

    def end_epoch(self, index: int, losses: Mapping[str, float]) -> Records:  # noqa: ARG002
        metrics = {"phase": self.phase, **losses}
        if self.phase == "select":
            self.scores.update(
                (genotype, score.item()) for genotype, score in zip(self.candidates, self.epoch_scores, strict=True)
            )
            self.epoch_scores = []
            metrics["best_score"] = max(self.scores.values())
        return {"metrics": metrics, "genotypes": architecture_record(self.genotype(), self.strengths())}

    def strengths(self) -> Strengths | None:
        """How strong each operation is, for methods that know."""
        return None

    def modules(self) -> dict[str, nn.Module]:
        """What the state holds, by name."""
        return {"search_net": self.search_net}

    def optimizers(self) -> list[Optimizer]:
        """Whose moments the state holds."""
        return [self.weight_optimizer]

    def state(self) -> State:
        return {
            "modules": {name: module.state_dict() for name, module in self.modules().items()},
            "optimizers": [optimizer.state() for optimizer in self.optimizers()],
            "scores": [[genotype.to_json(), score] for genotype, score in self.scores.items()],
            "epoch_scores": self.epoch_scores,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        for name, module in self.modules().items():
            module.load_state_dict(state["modules"][name])
        for optimizer, stored in zip(self.optimizers(), state["optimizers"], strict=True):
            optimizer.load_state(stored)
        self.scores = {genotype_from_json(genotype): score for genotype, score in state["scores"]}
        self.epoch_scores = [score.to(self.device) for score in state["epoch_scores"]]


class BestOfSearch(SamplingSearch):
    """One selection epoch: the best of some candidates, which are genotypes at random unless `sample` says otherwise.

    As it stands this is random search with parameter sharing, RSPS.
    """

    config: BestOfConfig

    def selection(self) -> list[Epoch]:
        return [Epoch("select", self.config.candidates)]

    def propose(self) -> list[Genotype]:
        count = self.config.candidates
        return distinct((self.sample(number) for number in range(10 * count)), count)

    def sample(self, number: int) -> Genotype:
        """A candidate."""
        return self.random_candidate("candidate", number)


def distinct(genotypes: Iterable[Genotype], count: int, known: Collection[Genotype] = ()) -> list[Genotype]:
    """The first `count` different ones that are not `known`, or fewer if there are no more."""
    chosen: dict[Genotype, None] = {}
    for genotype in genotypes:
        if len(chosen) == count:
            break
        if genotype not in known:
            chosen[genotype] = None
    return list(chosen)


def unaugmented(batches: Batches) -> Batches:
    """The same images, held once, without augmentation."""
    plain = copy.copy(batches)
    plain.augmentation = Augmentation()
    return plain


@contextmanager
def batch_statistics(network: nn.Module) -> Iterator[None]:
    """Within the block, BatchNorm in training mode leaves its running statistics as they are.

    Those of a network whose paths take turns are of no path in particular, so scores use each batch's own.
    """
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True
