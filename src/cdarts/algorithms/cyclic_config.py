"""Every choice CDARTS makes, as one frozen dataclass. The paper, the authors' code and NNI's port differ in them.

`docs/deviations.md` lists for each field what the three do; `presets.py` holds their values.
"""

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from tyro.conf import Suppress

from cdarts.algorithms.config import Protocol, SearchConfig
from cdarts.engine.optimizers import Adam, Sgd
from cdarts.errors import ConfigurationError

if TYPE_CHECKING:
    import torch

    from cdarts.algorithms.cyclic import CyclicSearch
    from cdarts.data import ImageData

Half = Literal["train", "val"]


@dataclass(frozen=True, kw_only=True)
class CyclicConfig(SearchConfig):
    """Cyclic Differentiable Architecture Search (Yu et al., TPAMI 2023)."""

    name: Suppress[Literal["cdarts"]] = "cdarts"

    # networks
    search_cells: int = 8
    """Cells of the search network (S-Net)."""
    eval_cells: int = 20
    """Cells of the evaluation network (E-Net)."""
    search_affine: bool = False
    """BatchNorm inside S-Net's cells has weights of its own."""
    eval_affine: bool = False
    """BatchNorm inside E-Net's cells has weights of its own."""
    mean_nodes: bool = False
    """A node of S-Net is the mean of its edges instead of their sum."""
    shared_stem: bool = False
    """Both networks use the same stem module."""

    # the plan
    pretrain_epochs: int = 2
    """Epochs of S-Net alone before the first cycle (eq. 1)."""
    cycles: int = 30
    """Times a topology is proposed."""
    warmup_epochs: int = 1
    """Epochs of E-Net alone at the beginning of a cycle (eq. 2)."""
    joint_epochs: int = 1
    """Epochs of joint optimisation in a cycle (eq. 3): how long a topology stays."""
    warmup_unchanged: bool = True
    """E-Net is warmed up also in a cycle whose topology is that of the cycle before."""
    warmup_half: Half = "val"
    """The half of the training images that E-Net warms up on."""
    joint_half: Half = "val"
    """The half that E-Net learns from in joint optimisation; with ``val`` in one step with alpha, as eq. 3 has it."""

    eval_training: bool = True
    """E-Net learns. Without, S-Net searches alone, as DARTS does: a comparison, not CDARTS."""

    # topology transfer
    random_topology: bool = False
    """E-Net's topology is drawn at random each cycle instead of proposed by S-Net: a comparison, not CDARTS."""
    inherit_weights: bool = True
    """A new E-Net inherits the weights of the operations that were met in earlier cycles."""
    inherit_batchnorm: bool = True
    """... and their BatchNorm statistics and weights too."""
    persistent_optimizers: bool = True
    """Momentum and moments live on over the cycles, by parameter name; otherwise every cycle makes optimizers anew."""

    # optimizers
    search_weights: Sgd = field(default_factory=lambda: Sgd(lr=0.08))
    """For S-Net's weights."""
    eval_weights: Sgd = field(default_factory=lambda: Sgd(lr=0.08))
    """For E-Net's weights and the embedding modules."""
    alpha: Adam = field(default_factory=Adam)
    """For the architecture logits."""
    joint_clip: bool = False
    """The joint step clips one norm over E-Net's, alpha's and also S-Net's gradients, to E-Net's clip norm."""

    # feedback
    feedback: Literal["kl", "kl_mean", "smooth_l1", "mse", "cosine"] = "kl"
    """Distance between the two networks' fused logits (eq. 4)."""
    feedback_weight: float = 1.0
    """Lambda of eq. 3; 0 switches the feedback and the embedding modules off."""
    teaching_weight: float = 0.0
    """Weight of the same distance between final logits in the loss of S-Net's weights: E-Net teaches them too, on the
    train half."""
    temperature: float = 2.0
    """T of eq. 4 and 5."""
    fusion: Literal["sum", "batch", "levels"] = "sum"
    """How the levels' logits are compared: added up, one after another along the batch axis, or each by itself."""
    feedback_levels: tuple[int, ...] = (0, 1, 2)
    """Levels that take part: one for each stage's embedding, the last for the final logits."""
    level_weights: bool = False
    """The levels are weighted by the softmax of learned scalars that both networks share."""
    shared_embeddings: bool = False
    """Both networks use the same embedding modules."""
    train_embeddings: bool = True
    """Embedding modules learn; otherwise they stay the random projections they began as."""
    detach_teacher: bool = False
    """The feedback teaches S-Net only; otherwise E-Net is drawn towards S-Net too, as eq. 3 has it."""
    head_supervision: bool = False
    """E-Net's embedding modules also learn by cross-entropy; with `detach_teacher` that does not reach E-Net itself."""

    # against skip-connections
    l1_weight: float = 5.0
    """Lambda' of eq. 6; 0 switches the term off."""
    l1_operations: tuple[str, ...] = ("skip_connect",)
    """Operations whose logits are regularised."""
    l1_scale: float = 1.0
    """Factor on the sum of absolute logits: the authors count it once a stage (3), or average over edges (1/6)."""
    l1_decay: float | None = None
    """Fraction of the joint epochs after which the weight has fallen linearly to zero; None keeps it constant."""

    # against alpha running away
    alpha_decay: float = 0.0
    """Weight of the mean of log sum exp(alpha), the penalty of beta-DARTS, here constant; 0 switches it off."""
    sharpness: float = 1.0
    """What alpha is multiplied by before the softmax at the end of the search, to which it rises from one: S-Net's
    mixtures draw near to the single operations that E-Net will have."""
    prior_only: bool = False
    """Alpha follows its regularisers alone, not the images: a control, not CDARTS."""

    def check(self, data: "ImageData") -> None:
        """Raise `ConfigurationError` if the settings contradict each other or do not fit the data."""
        super().check(data)
        self._check_numbers()
        self._check_feedback()
        if not self.eval_training and (self.feedback_weight or self.teaching_weight):
            raise ConfigurationError(
                "--no-eval-training: an E-Net that has learnt nothing can teach nothing; "
                "add --feedback-weight 0 --teaching-weight 0"
            )
        if self.prior_only and not (self.l1_weight or self.alpha_decay):
            raise ConfigurationError(
                "--prior-only: alpha has no regulariser to follow; set --alpha-decay or --l1-weight"
            )
        unknown = set(self.l1_operations) - set(self.space.operations)
        if unknown:
            raise ConfigurationError(
                f"--l1-operations {' '.join(sorted(unknown))}: not in space {self.space.name}, "
                f"which has {', '.join(self.space.operations)}"
            )

    def _check_numbers(self) -> None:
        for name, least in (("cycles", 1), ("joint_epochs", 1), ("pretrain_epochs", 0), ("warmup_epochs", 0)):
            self.at_least(name, least)
        for name in ("feedback_weight", "teaching_weight", "l1_weight", "l1_scale", "alpha_decay"):
            self.finite(name)
        self.at_least("sharpness", 1)
        self.finite("sharpness")
        if not 0 < self.temperature < math.inf:
            raise ConfigurationError(f"--temperature {self.temperature}: must be positive and finite")
        if self.l1_decay is not None and not 0 < self.l1_decay < math.inf:
            raise ConfigurationError(
                f"--l1-decay {self.l1_decay}: must be positive and finite, or None for a constant weight"
            )
        self.search_weights.check("search-weights")
        self.eval_weights.check("eval-weights")
        self.alpha.check("alpha")

    def _check_feedback(self) -> None:
        if not self.feedback_weight:
            return
        search, evaluation = (
            sum(slot.closes_stage for slot in self.space.layout(cells, self.channels))
            for cells in (self.search_cells, self.eval_cells)
        )
        if search != evaluation:
            raise ConfigurationError(
                f"--search-cells {self.search_cells} makes {search} reductions, --eval-cells {self.eval_cells} makes "
                f"{evaluation}; feedback compares the two networks stage by stage: use at least 2 cells in both"
            )
        levels = " ".join(str(level) for level in self.feedback_levels)
        if not self.feedback_levels or not set(self.feedback_levels) <= set(range(search + 1)):
            raise ConfigurationError(
                f"--feedback-levels {levels}: choose from 0 to {search}, the last for the final logits"
            )
        if len(set(self.feedback_levels)) < len(self.feedback_levels):
            raise ConfigurationError(f"--feedback-levels {levels}: name each level once")
        if self.head_supervision and not self.train_embeddings:
            raise ConfigurationError("--head-supervision needs --train-embeddings: frozen modules cannot learn")
        untaught = self.detach_teacher and not self.head_supervision and not self.shared_embeddings
        if untaught and self.train_embeddings and min(self.feedback_levels) < search:
            raise ConfigurationError(
                "--detach-teacher: nothing would teach E-Net's embedding modules; "
                "add --head-supervision, or freeze them (--no-train-embeddings)"
            )

    def build(self, data: "ImageData", *, seed: int, device: "torch.device", execution: str) -> "CyclicSearch":
        """The search as a task for the engine. Raises `ConfigurationError`, `DataError`."""
        from cdarts.algorithms.cyclic import CyclicSearch

        self.check(data)
        return CyclicSearch(self, data, seed=seed, device=device, execution=execution)

    def under(self, protocol: Protocol) -> "CyclicConfig":
        """Both networks take the protocol's depth; every epoch of S-Net counts, E-Net's come on top."""
        return replace(
            self,
            space=protocol.space,
            channels=protocol.channels,
            search_cells=protocol.cells,
            eval_cells=protocol.cells,
            batch_size=protocol.batch_size,
            pretrain_epochs=protocol.still_epochs,
            cycles=(protocol.epochs - protocol.still_epochs) // self.joint_epochs,
            search_weights=protocol.weights,
            eval_weights=protocol.weights,
            alpha=replace(self.alpha, lr=protocol.alpha_rate * self.alpha.lr),
        )
