"""Every choice CDARTS makes, as one frozen dataclass. The paper, the authors' code and NNI's port differ in these fields.

`docs/deviations.md` lists for each field what the three do; `presets.py` holds their values.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal

from tyro.conf import Suppress

from cdarts.engine.optimizers import Adam, Sgd
from cdarts.errors import ConfigurationError
from cdarts.settings import STRICT
from cdarts.spaces import AnySpace, DartsSpace

if TYPE_CHECKING:
    import torch

    from cdarts.algorithms.cyclic import CyclicSearch
    from cdarts.data import ImageData

Half = Literal["train", "val"]


@dataclass(frozen=True, kw_only=True)
class CyclicConfig:
    """Cyclic Differentiable Architecture Search (Yu et al., TPAMI 2022)."""

    __pydantic_config__: ClassVar = STRICT

    name: Suppress[Literal["cdarts"]] = "cdarts"
    space: AnySpace = field(default_factory=DartsSpace)

    # networks
    channels: int = 16
    """Channels of the first stage, in both networks."""
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
    batch_size: int = 64
    """Images a step takes from each half."""

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

    # topology transfer
    random_topology: bool = False
    """E-Net's topology is drawn at random each cycle instead of proposed by S-Net: a comparison, not CDARTS."""
    inherit_weights: bool = True
    """A new E-Net inherits the weights of the operations that were met in earlier cycles."""
    inherit_batchnorm: bool = True
    """... and their BatchNorm statistics and weights too."""
    persistent_optimizers: bool = True
    """Momentum and moments live on over the cycles, by parameter name; otherwise every cycle makes its optimizers anew."""

    # optimizers
    search_weights: Sgd = Sgd(lr=0.08)
    """For S-Net's weights."""
    eval_weights: Sgd = Sgd(lr=0.08)
    """For E-Net's weights and the embedding modules."""
    alpha: Adam = Adam()
    """For the architecture logits."""
    joint_clip: bool = False
    """The joint step clips one norm over E-Net's, alpha's and also S-Net's gradients, to the clip norm of the E-Net's weights."""

    # feedback
    feedback: Literal["kl", "kl_mean", "smooth_l1", "mse", "cosine"] = "kl"
    """Distance between the two networks' fused logits (eq. 4)."""
    feedback_weight: float = 1.0
    """Lambda of eq. 3; 0 switches the feedback and the embedding modules off."""
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
    """E-Net's embedding modules also learn by cross-entropy."""

    # against skip-connections
    l1_weight: float = 5.0
    """Lambda' of eq. 6; 0 switches the term off."""
    l1_operations: tuple[str, ...] = ("skip_connect",)
    """Operations whose logits are regularised."""
    l1_scale: float = 1.0
    """Factor on the sum of the absolute logits: the authors count the term once a stage (3), or take a mean over edges (1/6)."""
    l1_decay: float | None = None
    """Fraction of the joint epochs after which the weight has fallen linearly to zero; None keeps it constant."""

    def check(self, data: "ImageData") -> None:
        """Raise `ConfigurationError` if the settings contradict each other or do not fit the data."""
        for name in ("cycles", "joint_epochs"):
            if getattr(self, name) < 1:
                raise ConfigurationError(f"{name} {getattr(self, name)}: must be at least 1")
        for name in ("pretrain_epochs", "warmup_epochs"):
            if getattr(self, name) < 0:
                raise ConfigurationError(f"{name} {getattr(self, name)}: must not be negative")
        unknown = set(self.l1_operations) - set(self.space.operations)
        if unknown:
            raise ConfigurationError(
                f"l1_operations: {', '.join(sorted(unknown))} not in space {self.space.name}: {', '.join(self.space.operations)}"
            )
        if self.l1_decay is not None and self.l1_decay <= 0:
            raise ConfigurationError(f"l1_decay {self.l1_decay}: must be positive, or None for a constant weight")
        search, evaluation = (
            sum(slot.closes_stage for slot in self.space.layout(cells, self.channels)) for cells in (self.search_cells, self.eval_cells)
        )
        if search != evaluation:
            raise ConfigurationError(
                f"search_cells {self.search_cells} make {search} reductions and eval_cells {self.eval_cells} make {evaluation}; "
                "feedback compares the two networks stage by stage: use at least 2 cells in both"
            )
        if not self.feedback_levels or not set(self.feedback_levels) <= set(range(search + 1)):
            raise ConfigurationError(f"feedback_levels {self.feedback_levels}: choose from 0 to {search}, the last for the final logits")
        if self.detach_teacher and self.train_embeddings and not self.head_supervision and self.feedback_weight:
            raise ConfigurationError(
                "detach_teacher: nothing would teach E-Net's embedding modules; add head_supervision, or freeze them (train_embeddings)"
            )

    def build(self, data: "ImageData", *, seed: int, device: "torch.device", execution: str) -> "CyclicSearch":
        """The search as a task for the engine. Raises `ConfigurationError`, `DataError`."""
        from cdarts.algorithms.cyclic import CyclicSearch

        self.check(data)
        return CyclicSearch(self, data, seed=seed, device=device, execution=execution)
