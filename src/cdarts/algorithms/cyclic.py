"""Cyclic Differentiable Architecture Search (Yu et al., TPAMI 2022), in the order in which the paper's algorithm goes.

The search network proposes a topology; the evaluation network trains on it and teaches back.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cdarts.algorithms.base import SearchAlgorithm, architecture_record
from cdarts.algorithms.cyclic_config import CyclicConfig
from cdarts.data import Batch, Batches, ImageData, balanced_halves
from cdarts.distillation import FEEDBACKS, FUSIONS, Embedding, StagePool
from cdarts.engine.checkpoint import State
from cdarts.engine.descent import Optimizer, descend
from cdarts.engine.task import Epoch, Losses, Records
from cdarts.networks import Network, Output
from cdarts.randomness import generator, seeded
from cdarts.relaxations import Softmax
from cdarts.topology import Genotype, genotype_from_json


class CyclicSearch(SearchAlgorithm):
    """S-Net, E-Net, alpha, the embedding modules between them, and the cycle that they go through."""

    def __init__(self, config: CyclicConfig, data: ImageData, *, seed: int, device: torch.device, execution: str) -> None:
        self.config = config
        self.seed = seed
        self.device = device
        self._network = {"num_classes": data.num_classes, "image_channels": data.channels, "execution": execution}

        train, val = balanced_halves(data.train, seed)
        halves = {
            name: Batches(
                half, data, batch_size=config.batch_size, seed=seed, stream=name, augmentation=data.augmentation, device=device
            )
            for name, half in (("train", train), ("val", val))
        }
        self.train, self.val = halves["train"], halves["val"]

        supernet = config.space.supernet()
        self.relaxation = Softmax(supernet, generator(seed, "alpha"), mean_nodes=config.mean_nodes).to(device)
        with seeded(seed, "search_net"):
            self.search_net = Network(
                config.space, supernet, cells=config.search_cells, channels=config.channels, affine=config.search_affine, **self._network
            ).to(device)
        self.topology = self.propose(cycle=0)
        self.eval_net = self.make_eval_net(self.topology, cycle=0)
        with seeded(seed, "embeddings"):
            self.search_embeddings = self.make_embeddings(data.num_classes)
            self.eval_embeddings = self.search_embeddings if config.shared_embeddings else self.make_embeddings(data.num_classes)
            self.level_scalars = nn.Parameter(torch.rand(len(config.feedback_levels), device=device) / 3)
        self.topology_changed = True
        self.bank: dict[str, Tensor] = {}
        self.moments: dict[str, dict[str, Any]] = {}
        self.make_optimizers()

    # -- the plan -----------------------------------------------------------------------------------------------------------------

    def plan(self) -> list[Epoch]:
        """Pretraining of S-Net, then cycles of E-Net's warm-up and joint optimisation."""
        config = self.config
        joint_steps = min(len(self.train), len(self.val))
        warmup = Epoch("warmup", len(self.warmup_batches))
        cycle = [warmup] * config.warmup_epochs + [Epoch("joint", joint_steps)] * config.joint_epochs
        return [Epoch("pretrain", len(self.train))] * config.pretrain_epochs + [
            Epoch(epoch.phase, epoch.steps, cycle=number, opens_cycle=position == 0)
            for number in range(config.cycles)
            for position, epoch in enumerate(cycle)
        ]

    @property
    def warmup_batches(self) -> Batches:
        return self.val if self.config.warmup_half == "val" else self.train

    def start_epoch(self, index: int, epoch: Epoch) -> None:
        plan = self.plan()
        self.phase = epoch.phase
        if epoch.opens_cycle and epoch.cycle is not None:
            self.transfer_topology(self.propose(epoch.cycle), epoch.cycle)
        self.search_optimizer.set_lr(self.config.search_weights.lr_at(index / len(plan)))
        self.eval_optimizer.set_lr(self.config.eval_weights.lr_at(index / len(plan)))
        done, total = (sum(epoch.phase == "joint" for epoch in part) for part in (plan[:index], plan))
        self.l1_weight = l1_weight_at(self.config, done, total)

    def batches(self, index: int) -> Iterator[tuple[Batch, ...]]:
        match self.phase:
            case "pretrain":
                return zip(self.train(index))
            case "warmup" if self.topology_changed or self.config.warmup_unchanged:
                return zip(self.warmup_batches(index))
            case "joint":
                return zip(self.train(index), self.val(index), strict=False)
        return iter(())

    # -- the algorithm ------------------------------------------------------------------------------------------------------------

    def step(self, position: int, *batch: Batch) -> Losses:
        match self.phase:
            case "pretrain":
                return self.search_weight_step(*batch)
            case "warmup":
                return self.evaluation_weight_step(*batch)
            case _:
                train, val = batch
                return {**self.architecture_step(val), **self.search_weight_step(train)}

    def search_weight_step(self, batch: Batch) -> Losses:
        """w_S follows the labels of the train half, alpha held (eq. 1, and between the joint steps)."""
        images, labels = batch
        logits = self.search_net(images, detached(self.relaxation())).logits
        loss = F.cross_entropy(logits, labels)
        descend(loss, self.search_optimizer)
        return {"search_loss": loss, "search_accuracy": accuracy(logits, labels)}

    def evaluation_weight_step(self, batch: Batch) -> Losses:
        """w_E follows the labels of the val half on the topology proposed (eq. 2)."""
        images, labels = batch
        logits = self.eval_net(images).logits
        loss = F.cross_entropy(logits, labels)
        descend(loss, self.eval_optimizer)
        return {"eval_loss": loss, "eval_accuracy": accuracy(logits, labels)}

    def architecture_step(self, batch: Batch) -> Losses:
        """Joint optimisation of alpha and w_E: L_S + L_E + lambda * L_SE + lambda' * |alpha_skip|  (eq. 3 and 6)."""
        config = self.config
        images, labels = batch
        search = self.search_net(images, self.relaxation())
        evaluation = self.eval_net(images)
        losses = {
            "search_val_loss": F.cross_entropy(search.logits, labels),
            "eval_loss": F.cross_entropy(evaluation.logits, labels),
        }
        total = losses["search_val_loss"] + losses["eval_loss"]
        if config.feedback_weight:
            losses["feedback"], heads = self.feedback(search, evaluation)
            total = total + config.feedback_weight * losses["feedback"]
            if config.head_supervision:
                losses["head_loss"] = torch.stack([F.cross_entropy(head, labels) for head in heads]).sum()
                total = total + losses["head_loss"]
        if self.l1_weight:
            losses["l1"] = self.skip_penalty()
            total = total + self.l1_weight * losses["l1"]
        descend(total, self.eval_optimizer, self.alpha_optimizer, joint_clip=self.joint_clip())
        return {
            **losses,
            "search_val_accuracy": accuracy(search.logits, labels),
            "eval_accuracy": accuracy(evaluation.logits, labels),
        }

    def feedback(self, search: Output, evaluation: Output) -> tuple[Tensor, list[Tensor]]:
        """Introspective distillation, S-Net the student, E-Net the teacher (eq. 4 and 5); also the logits of E-Net's heads."""
        config = self.config
        heads = [embed(features) for embed, features in zip(self.eval_embeddings, evaluation.features, strict=True)]
        teachers = [*heads, evaluation.logits]
        students = [*(embed(x) for embed, x in zip(self.search_embeddings, search.features, strict=True)), search.logits]
        if config.detach_teacher:
            teachers = [teacher.detach() for teacher in teachers]
        weights = torch.softmax(self.level_scalars, dim=0) if config.level_weights else torch.ones_like(self.level_scalars)
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
        return self.config.l1_scale * torch.stack([alpha[:, columns].abs().sum() for alpha in self.relaxation.alpha.values()]).sum()

    # -- topology transfer, S -> E -------------------------------------------------------------------------------------------------

    def genotype(self) -> Genotype:
        """alpha-bar: the discretised architecture."""
        return self.config.space.derive(self.relaxation.strengths())

    def propose(self, cycle: int) -> Genotype:
        """The topology of the next E-Net: S-Net's, or for comparison one at random."""
        if not self.config.random_topology:
            return self.genotype()
        draw = generator(self.seed, "topology", cycle)
        return self.config.space.derive(
            {kind: torch.rand(alpha.shape, generator=draw).tolist() for kind, alpha in self.relaxation.alpha.items()}
        )

    def transfer_topology(self, genotype: Genotype, cycle: int) -> None:
        """Build the E-Net that S-Net proposes; operations met in earlier cycles keep their weights."""
        config = self.config
        self.topology_changed = cycle == 0 or genotype != self.topology
        self.topology = genotype
        self.bank |= {name: tensor.clone() for name, tensor in inheritance(self.eval_net, config.inherit_batchnorm).items()}
        self.eval_net = self.make_eval_net(genotype, cycle)
        if config.inherit_weights:
            known = self.eval_net.state_dict().keys() & self.bank.keys()
            self.eval_net.load_state_dict({name: self.bank[name] for name in known}, strict=False)
        if config.persistent_optimizers:
            self.moments |= self.eval_optimizer.state()
            self.eval_optimizer = self.make_eval_optimizer()
            self.eval_optimizer.load_state(self.moments)
        else:
            self.make_optimizers()

    def make_eval_net(self, genotype: Genotype, cycle: int) -> Network:
        config = self.config
        with seeded(self.seed, "eval_net", cycle):
            return Network(
                config.space,
                config.space.topology(genotype),
                cells=config.eval_cells,
                channels=config.channels,
                affine=config.eval_affine,
                stem=self.search_net.stem if config.shared_stem else None,
                **self._network,
            ).to(self.device)

    def make_embeddings(self, num_classes: int) -> nn.ModuleList:
        embeddings = nn.ModuleList(
            Embedding(channels, num_classes, pool=StagePool(), affine=False) for channels in self.search_net.feature_channels
        )
        return embeddings.requires_grad_(self.config.train_embeddings).to(self.device)

    def make_optimizers(self) -> None:
        self.search_optimizer = self.config.search_weights.build(self.search_net.named_parameters())
        self.eval_optimizer = self.make_eval_optimizer()
        self.alpha_optimizer = self.config.alpha.build(self.relaxation.named_parameters())

    def make_eval_optimizer(self) -> Optimizer:
        """Of E-Net and of what the feedback passes through: the embedding modules of both networks and the levels' scalars."""
        config = self.config
        parameters = {f"eval_net.{name}": parameter for name, parameter in self.eval_net.named_parameters()}
        if config.train_embeddings and config.feedback_weight:
            parameters |= {f"eval_embeddings.{name}": parameter for name, parameter in self.eval_embeddings.named_parameters()}
            if not config.shared_embeddings:
                parameters |= {f"search_embeddings.{name}": p for name, p in self.search_embeddings.named_parameters()}
        if config.level_weights and config.feedback_weight:
            parameters["level_scalars"] = self.level_scalars
        return config.eval_weights.build(parameters.items())

    def joint_clip(self) -> tuple[float, list[nn.Parameter]] | None:
        """The authors' clip: one norm that also counts S-Net's gradients, which the step then throws away."""
        norm = self.config.eval_weights.clip_norm
        if not self.config.joint_clip or norm is None:
            return None
        stepped = {id(parameter) for parameter in self.eval_optimizer.parameters}
        return norm, [parameter for parameter in self.search_net.parameters() if id(parameter) not in stepped]

    # -- the record and the state ---------------------------------------------------------------------------------------------------

    def num_parameters(self) -> dict[str, int]:
        networks = {"search_net": self.search_net, "eval_net": self.eval_net}
        return {name: sum(parameter.numel() for parameter in network.parameters()) for name, network in networks.items()}

    def end_epoch(self, index: int, losses: Mapping[str, float]) -> Records:
        epoch = self.plan()[index]
        return {
            "metrics": {"phase": epoch.phase, "cycle": epoch.cycle, **losses},
            "genotypes": architecture_record(self.genotype(), self.relaxation.strengths()),
        }

    def state(self) -> State:
        return {
            "modules": {name: module.state_dict() for name, module in self._modules().items()},
            "level_scalars": self.level_scalars.data,
            "topology": self.topology.to_json(),
            "topology_changed": self.topology_changed,
            "bank": self.bank,
            "moments": self.moments,
            "optimizers": [optimizer.state() for optimizer in (self.search_optimizer, self.eval_optimizer, self.alpha_optimizer)],
        }

    def load_state(self, state: State) -> None:
        self.topology = genotype_from_json(state["topology"])
        self.topology_changed = state["topology_changed"]
        # the shape of E-Net follows from the topology; what it is initialised with is replaced below
        self.eval_net = self.make_eval_net(self.topology, cycle=0)
        for name, module in self._modules().items():
            module.load_state_dict(state["modules"][name])
        self.level_scalars.data.copy_(state["level_scalars"])
        self.bank = {name: tensor.to(self.device) for name, tensor in state["bank"].items()}
        self.moments = dict(state["moments"])
        self.make_optimizers()
        optimizers = (self.search_optimizer, self.eval_optimizer, self.alpha_optimizer)
        for optimizer, stored in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state(stored)

    def _modules(self) -> dict[str, nn.Module]:
        return {
            "relaxation": self.relaxation,
            "search_net": self.search_net,
            "eval_net": self.eval_net,
            "search_embeddings": self.search_embeddings,
            "eval_embeddings": self.eval_embeddings,
        }


def inheritance(network: Network, batchnorm: bool) -> dict[str, Tensor]:
    """The tensors by which a network's weights are inherited; without BatchNorm's statistics and weights unless asked for."""
    norms = tuple(f"{name}." for name, module in network.named_modules() if isinstance(module, nn.BatchNorm2d))
    return {name: tensor for name, tensor in network.state_dict().items() if batchnorm or not name.startswith(norms)}


def l1_weight_at(config: CyclicConfig, joint_epoch: int, joint_epochs: int) -> float:
    """lambda' at a joint epoch: constant, or falling linearly to zero after a fraction of the joint epochs (the authors' code)."""
    if config.l1_decay is None:
        return config.l1_weight
    return max(config.l1_weight * (1.0 - joint_epoch / (joint_epochs * config.l1_decay)), 0.0)


def accuracy(logits: Tensor, labels: Tensor) -> Tensor:
    """Fraction of the batch whose largest logit is the label's."""
    return (logits.detach().argmax(dim=1) == labels).double().mean()


def detached(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {kind: weight.detach() for kind, weight in weights.items()}
