"""Cyclic Differentiable Architecture Search (Yu et al., TPAMI 2023), in the order in which the paper's algorithm goes.

The search network proposes a topology; the evaluation network trains on it and teaches back.
"""

from collections.abc import Iterator, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from cdarts.algorithms.cyclic_config import CyclicConfig
from cdarts.algorithms.cyclic_parts import CyclicParts, inheritance
from cdarts.data import Batch, Batches
from cdarts.distillation import FEEDBACKS, FUSIONS
from cdarts.engine.descent import descend
from cdarts.engine.task import Epoch, Losses
from cdarts.networks import Output, accuracy
from cdarts.relaxations import logsumexp_decay
from cdarts.topology import Genotype


class CyclicSearch(CyclicParts):
    """The cycle that S-Net, E-Net and alpha go through."""

    def plan(self) -> list[Epoch]:
        """Pretraining of S-Net, then cycles of E-Net's warm-up and joint optimisation."""
        config = self.config
        pretraining = [Epoch("pretrain", len(self.train))] * config.pretrain_epochs
        warmup_steps = len(self.warmup_batches) if config.eval_training else 0
        warmup = [Epoch("warmup", warmup_steps)] * config.warmup_epochs
        joint = [Epoch("joint", min(len(self.train), len(self.val)))] * config.joint_epochs
        return pretraining + [
            Epoch(epoch.phase, epoch.steps, cycle=cycle, opens_cycle=position == 0)
            for cycle in range(config.cycles)
            for position, epoch in enumerate(warmup + joint)
        ]

    @property
    def warmup_batches(self) -> Batches:
        return self.val if self.config.warmup_half == "val" else self.train

    def start_epoch(self, index: int, epoch: Epoch) -> None:
        plan = self.plan()
        self.phase = epoch.phase
        if epoch.opens_cycle and epoch.cycle is not None and epoch.cycle != self.cycle:
            self.transfer_topology(self.propose(epoch.cycle), epoch.cycle)
        self.search_optimizer.set_lr(self.config.search_weights.lr_at(index / len(plan)))
        self.eval_optimizer.set_lr(self.config.eval_weights.lr_at(index / len(plan)))
        self.alpha_optimizer.set_lr(self.config.alpha.lr_at(index / len(plan)))
        done, total = (sum(epoch.phase == "joint" for epoch in part) for part in (plan[:index], plan))
        self.l1_weight = l1_weight_at(self.config, done, total)
        self.relaxation.sharpness = 1.0 + (self.config.sharpness - 1.0) * index / len(plan)

    def batches(self, index: int) -> Iterator[tuple[Batch, ...]]:
        match self.phase:
            case "pretrain":
                return zip(self.train(index))
            case "warmup" if self.config.eval_training and (self.eval_net_is_new or self.config.warmup_unchanged):
                return zip(self.warmup_batches(index))
            case "joint":
                return zip(self.train(index), self.val(index), strict=False)
        return iter(())

    # -- learning ----------------------------------------------------------------------------------------------------

    def step(self, position: int, *batch: Batch) -> Losses:  # noqa: ARG002 - every batch of an epoch is treated alike
        match self.phase:
            case "pretrain":
                return self.search_weight_step(*batch)
            case "warmup":
                return self.evaluation_weight_step(*batch)
            case _:
                train, val = batch
                losses = self.architecture_step(val)
                if self.config.eval_training and self.config.joint_half == "train":
                    losses |= self.evaluation_weight_step(train)
                return losses | self.search_weight_step(train)

    def search_weight_step(self, batch: Batch) -> dict[str, Tensor]:
        """w_S follows the labels of the train half, and E-Net where it teaches weights; alpha held (eq. 1)."""
        config = self.config
        images, labels = batch
        logits = self.search_net(images, detached(self.relaxation())).logits
        losses = {"search_loss": F.cross_entropy(logits, labels)}
        total = losses["search_loss"]
        if config.teaching_weight and self.phase == "joint":
            with torch.no_grad():
                teacher = self.eval_net(images).logits
            losses["teaching"] = FEEDBACKS[config.feedback](logits, teacher, config.temperature)
            total = total + config.teaching_weight * losses["teaching"]
        descend(total, self.search_optimizer, terms=losses)
        return {
            **{name: loss.detach() for name, loss in losses.items()},
            "search_accuracy": accuracy(logits, labels),
        }

    def evaluation_weight_step(self, batch: Batch) -> dict[str, Tensor]:
        """w_E follows the labels on the topology proposed (eq. 2)."""
        images, labels = batch
        logits = self.eval_net(images).logits
        loss = F.cross_entropy(logits, labels)
        descend(loss, self.eval_optimizer, terms={"eval_loss": loss})
        return {"eval_loss": loss.detach(), "eval_accuracy": accuracy(logits, labels)}

    def architecture_step(self, batch: Batch) -> dict[str, Tensor]:
        """alpha and w_E go down L_S + L_E + lambda * L_SE + lambda' * |alpha_skip|, w_S held (eq. 3 and 6)."""
        config = self.config
        images, labels = batch
        trains_eval_net = config.eval_training and config.joint_half == "val"
        meets_eval_net = trains_eval_net or bool(config.feedback_weight)
        learners = [self.eval_optimizer, self.alpha_optimizer] if meets_eval_net else [self.alpha_optimizer]
        with self.held_search_net(learners):
            search = self.search_net(images, self.relaxation())
        losses = {"search_val_loss": F.cross_entropy(search.logits, labels)}
        weights = {"search_val_loss": 0.0 if config.prior_only else 1.0}
        metrics = {"search_val_accuracy": accuracy(search.logits, labels)}
        if meets_eval_net:
            evaluation = self.eval_net(images)
        if trains_eval_net:
            losses["eval_loss"], weights["eval_loss"] = F.cross_entropy(evaluation.logits, labels), 1.0
            metrics["eval_accuracy"] = accuracy(evaluation.logits, labels)
        if config.feedback_weight:
            losses["feedback"], heads = self.feedback(search, evaluation)
            weights["feedback"] = 0.0 if config.prior_only else config.feedback_weight
            if config.head_supervision:
                losses["head_loss"] = torch.stack([F.cross_entropy(head, labels) for head in heads]).sum()
                weights["head_loss"] = 1.0
        if self.l1_weight:
            losses["l1"], weights["l1"] = self.skip_penalty(), self.l1_weight
        if config.alpha_decay:
            losses["alpha_decay"], weights["alpha_decay"] = logsumexp_decay(self.relaxation), config.alpha_decay
        terms = [weights[name] * loss for name, loss in losses.items() if weights[name]]
        if terms:  # none where only a regulariser that has decayed was to move alpha
            descend(torch.stack(terms).sum(), *learners, joint_clip=self.joint_clip(), terms=losses)
        return {**{name: loss.detach() for name, loss in losses.items()}, **metrics}

    def feedback(self, search: Output, evaluation: Output) -> tuple[Tensor, list[Tensor]]:
        """Introspective distillation, S-Net the student, E-Net the teacher (eq. 4 and 5).

        Returns the loss, and the logits (B, classes) of E-Net's embedding modules.
        """
        config = self.config
        # a teacher that is not taught back is not reached through its heads' supervision either
        features = [x.detach() for x in evaluation.features] if config.detach_teacher else evaluation.features
        heads = [embed(x) for embed, x in zip(self.eval_embeddings, features, strict=True)]
        teachers = [*heads, evaluation.logits]
        students = [embed(x) for embed, x in zip(self.search_embeddings, search.features, strict=True)]
        students.append(search.logits)
        if config.detach_teacher:
            teachers = [teacher.detach() for teacher in teachers]
        scalars = self.level_scalars
        weights = torch.softmax(scalars, dim=0) if config.level_weights else torch.ones_like(scalars)
        fuse, distance = FUSIONS[config.fusion], FEEDBACKS[config.feedback]
        student, teacher = (
            fuse([weight * levels[level] for weight, level in zip(weights, config.feedback_levels, strict=True)])
            for levels in (students, teachers)
        )
        distances = [distance(s, t, config.temperature) for s, t in zip(student, teacher, strict=True)]
        return torch.stack(distances).sum(), heads

    def skip_penalty(self) -> Tensor:
        """The L1 norm of the regularised operations' raw logits (eq. 6)."""
        columns = [self.config.space.operations.index(name) for name in self.config.l1_operations]
        norms = [alpha[:, columns].abs().sum() for alpha in self.relaxation.alpha.values()]
        return self.config.l1_scale * torch.stack(norms).sum()

    # -- topology transfer, S -> E -----------------------------------------------------------------------------------

    def genotype(self) -> Genotype:
        """alpha-bar: the discretised architecture."""
        return self.derive(self.relaxation.strengths())

    def propose(self, cycle: int) -> Genotype:
        """The topology of the next E-Net: S-Net's, or for comparison one at random."""
        if not self.config.random_topology:
            return self.genotype()
        return self.random_candidate("topology", cycle)

    def transfer_topology(self, genotype: Genotype, cycle: int) -> None:
        """Build the E-Net that S-Net proposes; operations met in earlier cycles keep their weights and momentum."""
        config = self.config
        self.cycle = cycle
        self.eval_net_is_new = cycle == 0 or genotype != self.topology or not config.inherit_weights
        self.topology = genotype
        self.bank |= {name: x.clone() for name, x in inheritance(self.eval_net, config.inherit_batchnorm).items()}
        self.eval_net = self.make_eval_net(genotype, cycle)
        inherited = self.eval_net.state_dict().keys() & self.bank.keys() if config.inherit_weights else set()
        self.eval_net.load_state_dict({name: self.bank[name] for name in inherited}, strict=False)
        if config.persistent_optimizers:
            self.succeed_eval_optimizer(inherited)
        else:
            self.make_optimizers()


def l1_weight_at(config: CyclicConfig, joint_epoch: int, joint_epochs: int) -> float:
    """lambda' at a joint epoch: constant, or falling linearly to zero within a fraction of them (the authors' code)."""
    if config.l1_decay is None:
        return config.l1_weight
    return max(config.l1_weight * (1.0 - joint_epoch / (joint_epochs * config.l1_decay)), 0.0)


def detached(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same mixing weights, cut off from alpha."""
    return {kind: weight.detach() for kind, weight in weights.items()}
