"""What the cyclic search is made of: its data, networks, alpha and optimizers, their record and their state.

The algorithm itself is in `cyclic.py`.
"""

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Set
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from cdarts.algorithms.base import SearchAlgorithm, architecture_record
from cdarts.algorithms.cyclic_config import CyclicConfig
from cdarts.data import ImageData
from cdarts.distillation import Embedding, StagePool
from cdarts.engine.checkpoint import State
from cdarts.engine.descent import Optimizer
from cdarts.engine.task import Records
from cdarts.networks import Network, frozen, num_parameters
from cdarts.randomness import generator, seeded
from cdarts.relaxations import Softmax
from cdarts.topology import Genotype, genotype_from_json


class CyclicParts(SearchAlgorithm):
    """S-Net, E-Net, alpha, the embedding modules between the networks, and the optimizers."""

    search_optimizer: Optimizer
    """w_S."""
    eval_optimizer: Optimizer
    """w_E, and what the feedback passes through."""
    alpha_optimizer: Optimizer

    config: CyclicConfig

    def __init__(
        self, config: CyclicConfig, data: ImageData, *, seed: int, device: torch.device, execution: str
    ) -> None:
        super().__init__(config, data, seed=seed, device=device, execution=execution)
        supernet = config.space.supernet()
        self.relaxation = Softmax(supernet, generator(seed, "alpha"), mean_nodes=config.mean_nodes).to(device)
        with seeded(seed, "search_net"):
            self.search_net = self.make_network(supernet, cells=config.search_cells, affine=config.search_affine)
        self.topology = self.propose(cycle=0)
        self.eval_net = self.make_eval_net(self.topology, cycle=0)
        with seeded(seed, "embeddings"):
            self.search_embeddings = self._embeddings()
            self.eval_embeddings = self.search_embeddings if config.shared_embeddings else self._embeddings()
            # uniform below a third, as the authors begin
            self.level_scalars = nn.Parameter((0.333 * torch.rand(len(config.feedback_levels))).to(device))

        self.cycle = -1
        """Of the E-Net that there is; before the first, none."""
        self.eval_net_is_new = True
        self.bank: dict[str, Tensor] = {}
        """Weights of every operation that an E-Net has had, by name."""
        self.moments: dict[str, dict[str, Any]] = {}
        """Their momentum, by name."""
        self.make_optimizers()

    @abstractmethod
    def propose(self, cycle: int) -> Genotype:
        """The topology of the next E-Net."""

    # -- networks ----------------------------------------------------------------------------------------------------

    def make_eval_net(self, genotype: Genotype, cycle: int) -> Network:
        """A fresh E-Net of this architecture."""
        config = self.config
        stem = self.search_net.stem if config.shared_stem else None
        with seeded(self.seed, "eval_net", cycle):
            topology = config.space.topology(genotype)
            return self.make_network(topology, cells=config.eval_cells, affine=config.eval_affine, stem=stem)

    def _embeddings(self) -> nn.ModuleList:
        """One embedding module for each stage that is compared besides the final logits; none without feedback."""
        if not self.config.feedback_weight:
            return nn.ModuleList()
        embeddings = nn.ModuleList(
            Embedding(channels, self.num_classes, pool=StagePool(), affine=False)
            for channels in self.search_net.feature_channels
        )
        return embeddings.requires_grad_(self.config.train_embeddings).to(self.device)

    # -- optimizers --------------------------------------------------------------------------------------------------

    def make_optimizers(self) -> None:
        """All three, without momentum."""
        self.search_optimizer = self.config.search_weights.build(self.search_net.named_parameters())
        self.eval_optimizer = self.make_eval_optimizer()
        self.alpha_optimizer = self.config.alpha.build(self.relaxation.named_parameters())

    def make_eval_optimizer(self) -> Optimizer:
        """Of E-Net and of what the feedback passes through: both networks' embedding modules, the levels' scalars."""
        config = self.config
        modules: dict[str, nn.Module] = {"eval_net": self.eval_net}
        if config.train_embeddings:
            modules["eval_embeddings"] = self.eval_embeddings
            if not config.shared_embeddings:
                modules["search_embeddings"] = self.search_embeddings
        parameters = {
            f"{prefix}.{name}": parameter
            for prefix, module in modules.items()
            for name, parameter in module.named_parameters()
        }
        if config.level_weights and config.feedback_weight:
            parameters["level_scalars"] = self.level_scalars
        return config.eval_weights.build(parameters.items())

    def succeed_eval_optimizer(self, inherited: Set[str]) -> None:
        """The optimizer of a new E-Net; momentum goes with the weights inherited and with what both E-Nets share."""
        previous = self.eval_optimizer
        self.moments |= previous.state()
        self.eval_optimizer = self.make_eval_optimizer()
        kept = {
            name
            for name, parameter in self.eval_optimizer.named.items()
            if name.removeprefix("eval_net.") in inherited or parameter is previous.named.get(name)
        }
        self.eval_optimizer.load_state({name: self.moments[name] for name in kept & self.moments.keys()})

    def joint_clip(self) -> tuple[float, list[nn.Parameter]] | None:
        """The authors' clip: one norm that also counts S-Net's gradients, which the step then throws away."""
        norm = self.config.eval_weights.clip_norm
        if not self.config.joint_clip or norm is None:
            return None
        stepped = {id(parameter) for parameter in self.eval_optimizer.parameters}
        return norm, [parameter for parameter in self.search_net.parameters() if id(parameter) not in stepped]

    def held_search_net(self, learners: Iterable[Optimizer]) -> AbstractContextManager[None]:
        """Within it, S-Net's weights get no gradient that nobody asks for: those that `learners` step, and all if the
        authors' clip counts them, do."""
        if self.joint_clip() is not None:
            return nullcontext()
        return frozen(self.search_net, except_for=[p for optimizer in learners for p in optimizer.parameters])

    # -- the record and the state ------------------------------------------------------------------------------------

    def num_parameters(self) -> dict[str, int]:
        networks = {"search_net": self.search_net, "eval_net": self.eval_net}
        return {name: num_parameters(network) for name, network in networks.items()}

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
            "cycle": self.cycle,
            "eval_net_is_new": self.eval_net_is_new,
            "bank": self.bank,
            "moments": self.moments,
            "optimizers": [optimizer.state() for optimizer in self._optimizers()],
        }

    def load_state(self, state: State) -> None:
        self.topology = genotype_from_json(state["topology"])
        self.cycle, self.eval_net_is_new = state["cycle"], state["eval_net_is_new"]
        # the shape of E-Net follows from the topology; what it is initialised with is replaced below
        self.eval_net = self.make_eval_net(self.topology, cycle=0)
        for name, module in self._modules().items():
            module.load_state_dict(state["modules"][name])
        self.level_scalars.data.copy_(state["level_scalars"])
        self.bank = {name: tensor.to(self.device) for name, tensor in state["bank"].items()}
        self.moments = dict(state["moments"])
        self.make_optimizers()
        for optimizer, stored in zip(self._optimizers(), state["optimizers"], strict=True):
            optimizer.load_state(stored)

    def _modules(self) -> dict[str, nn.Module]:
        return {
            "relaxation": self.relaxation,
            "search_net": self.search_net,
            "eval_net": self.eval_net,
            "search_embeddings": self.search_embeddings,
            "eval_embeddings": self.eval_embeddings,
        }

    def _optimizers(self) -> tuple[Optimizer, Optimizer, Optimizer]:
        return self.search_optimizer, self.eval_optimizer, self.alpha_optimizer


def inheritance(network: Network, batchnorm: bool) -> dict[str, Tensor]:
    """The tensors that the next E-Net inherits, by name.

    `batchnorm`: whether BatchNorm's are among them. Without, no statistics are inherited, nor the weights of BatchNorm
    in searched cells: the authors' pool of operations has none. Those of fixed blocks are inherited either way.
    """
    tensors = network.state_dict()
    if batchnorm:
        return tensors
    norms = [name for name, module in network.named_modules() if isinstance(module, nn.BatchNorm2d)]
    statistics = {f"{name}.{buffer}" for name in norms for buffer, _ in network.get_submodule(name).named_buffers()}
    searched = tuple(f"{name}." for name in norms if name.startswith("cells."))
    return {
        name: tensor for name, tensor in tensors.items() if name not in statistics and not name.startswith(searched)
    }
