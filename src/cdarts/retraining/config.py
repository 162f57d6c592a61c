"""How a genotype is trained: plain data, without torch."""

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar, Literal

from cdarts.engine.optimizers import Sgd
from cdarts.errors import ConfigurationError
from cdarts.settings import STRICT, differences
from cdarts.spaces import SPACES, AnySpace, DartsSpace
from cdarts.topology import Genotype

if TYPE_CHECKING:
    import torch

    from cdarts.data import Augmentation, ImageData
    from cdarts.data.images import Policy
    from cdarts.retraining.task import RetrainTask


FLOAT32_EXECUTIONS = ("fused", "recompute")
"""Whose kernels know no other precision."""


@dataclass(frozen=True, kw_only=True)
class Retraining:
    """How a genotype is trained; the defaults are the recipe of the CDARTS authors' code for CIFAR."""

    __pydantic_config__: ClassVar = STRICT

    space: AnySpace = field(default_factory=DartsSpace)
    cells: int | None = None
    """None: the space's usual number, 20 in the DARTS space, 15 in NAS-Bench-201."""
    channels: int | None = None
    """Channels of the first stage. None: the space's usual number, 36 in the DARTS space, 16 in NAS-Bench-201."""
    epochs: int = 600
    batch_size: int = 128
    lr: float = 0.025
    warmup_epochs: int = 0
    """Epochs in which the learning rate rises linearly, (epoch + 1) / warmup_epochs, before its half cosine to zero."""
    momentum: float = 0.9
    weight_decay: float | None = None
    """None: by the authors' size rule, 3e-4 below 3.5 M parameters, else 5e-4."""
    clip_norm: float | None = 5.0
    drop_path: float | None = None
    """Probability at the end, rising linearly from 0. None: by the size rule, 0.2 below 3.0 M parameters, else 0.3."""
    auxiliary_weight: float = 0.4
    """Weight of the auxiliary head's loss; it stands after the second stage and is no part of the model. 0: no head."""
    label_smoothing: float = 0.0
    cutout: int = 16
    """Side of the square cut out of each training image, at most half of the image's side; 0: none."""
    least_area: float | None = None
    """Least part of an image's area that a random training crop shows, e.g. 0.08; None: what suits the data, as in a
    search."""
    colour_jitter: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    """Largest random changes of training images' brightness, contrast, saturation and hue, e.g. 0.4 0.4 0.4 0.2."""
    rand_augment: tuple[int, int] | None = None
    """RandAugment (Cubuk et al. 2020): transforms an image goes through and their level, 0 to 30, e.g. `2 9`."""
    trivial_augment: bool = False
    """TrivialAugment (Mueller and Hutter 2021): one random transform of random strength for each image."""
    mixup: float = 0.0
    """mixup (Zhang et al. 2018): batches are mixed with themselves, in shares from Beta(mixup, mixup); 0: none."""
    cutmix: float = 0.0
    """CutMix (Yun et al. 2019): rectangles are exchanged within a batch, their area from Beta(cutmix, cutmix); 0: none.
    With `mixup` too, each batch gets one of the two, as likely."""
    ema_decay: float = 0.0
    """Decay, a step, of an exponential moving average of the weights, which is then what is tested, saved and exported,
    e.g. 0.9999; smaller in the first steps, (1 + steps) / (10 + steps). 0: no average."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """What training computes in; with `bfloat16` (autocast) weights, loss and tests stay float32."""
    accumulation: int = 1
    """Parts that a batch is computed in, one after another, their gradients added up (gradient accumulation): needs the
    memory of batch_size / accumulation images. BatchNorm normalises each part by itself."""
    test_flip: bool = False
    """After the last epoch, test once more with the mean of an image's and its mirror image's probabilities; recorded
    beside the plain accuracy."""
    evaluate_every: int = 1
    """Epochs between evaluations on the test images; the last epoch is always evaluated. They select nothing."""

    def check(self) -> None:
        """Raise `ConfigurationError` for values that cannot work."""
        for name in ("epochs", "evaluate_every", "accumulation"):
            if getattr(self, name) < 1:
                raise ConfigurationError(f"{_flag(name)} {getattr(self, name)}: must be at least 1")
        if not 0 <= self.warmup_epochs <= self.epochs:
            raise ConfigurationError(
                f"--warmup-epochs {self.warmup_epochs}: must lie between 0 and the {self.epochs} epochs of --epochs "
                f"(a preset's value stands where none is named)"
            )
        self.weights().check()
        for name in ("auxiliary_weight", "cutout", "mixup", "cutmix"):
            value = getattr(self, name)
            if not 0 <= value < math.inf:
                raise ConfigurationError(f"{_flag(name)} {value}: must not be negative, and finite")
        for name in ("drop_path", "label_smoothing", "ema_decay"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < 1:
                raise ConfigurationError(f"{_flag(name)} {value}: must be at least 0 and below 1")
        if 2 * self.accumulation > self.batch_size >= 2:
            raise ConfigurationError(
                f"--accumulation {self.accumulation}: must be at most {self.batch_size // 2}, half of --batch-size "
                f"{self.batch_size}: BatchNorm needs two images in each part"
            )
        if self.rand_augment is not None and self.trivial_augment:
            raise ConfigurationError("--trivial-augment: one policy or the other; leave out --rand-augment")
        self.policies()

    def check_execution(self, execution: str) -> None:
        """Raise `ConfigurationError` if cells executed so cannot train in the precision asked for."""
        if self.precision != "float32" and execution in FLOAT32_EXECUTIONS:
            raise ConfigurationError(
                f"--precision {self.precision}: the kernels of --execution {execution} compute in float32; use "
                "--execution share, or auto"
            )

    def augmentation(self, usual: "Augmentation", side: int) -> "Augmentation":
        """What happens to training images of so many pixels, given what is usual for the data.

        Raises `ConfigurationError`.
        """
        if self.least_area is not None:
            usual = replace(usual, crop_padding=0, least_area=self.least_area)
        return replace(usual, jitter=self.colour_jitter, cutout=min(self.cutout, side // 2))

    def policies(self) -> "list[Policy]":
        """What becomes of training images beyond crop, flip and cutout. Raises `ConfigurationError`."""
        if self.rand_augment is None and not self.trivial_augment:
            return []
        # torchvision takes a second to be imported
        from cdarts.data.policies import RandAugment, TrivialAugment

        return [
            *([] if self.rand_augment is None else [RandAugment(*self.rand_augment)]),
            *([TrivialAugment()] if self.trivial_augment else []),
        ]

    def size(self) -> tuple[int, int]:
        """(cells, channels), those of the space where none are given."""
        return (
            self.space.usual_cells if self.cells is None else self.cells,
            self.space.usual_channels if self.channels is None else self.channels,
        )

    def for_genotype(self, genotype: Genotype) -> "Retraining":
        """The same in the genotype's space, its usual size filled in.

        Raises `ConfigurationError` if that is another space than the one that settings were made for.
        """
        if genotype.space not in SPACES:
            raise ConfigurationError(
                f"the genotype's space {genotype.space!r} is unknown; there are {', '.join(SPACES)}"
            )
        if genotype.space == self.space.name:
            moved = self
        elif self.space == DartsSpace():
            moved = replace(self, space=SPACES[genotype.space]())  # type: ignore[call-arg,arg-type]
        else:
            raise ConfigurationError(
                f"{_space_flags(self.space)}: the genotype belongs to space {genotype.space}, which has no such "
                f"setting of space {self.space.name}; leave it out"
            )
        cells, channels = moved.size()
        return replace(moved, cells=cells, channels=channels)

    def weights(self) -> Sgd:
        """The optimizer of the weights; a weight decay that the size rule is to give counts as none here."""
        return Sgd(
            lr=self.lr,
            lr_end=0.0,
            momentum=self.momentum,
            weight_decay=self.weight_decay or 0.0,
            clip_norm=self.clip_norm,
        )

    def lr_at(self, epoch: int) -> float:
        """The learning rate of an epoch: linear warm-up, else half a cosine over all epochs."""
        if epoch < self.warmup_epochs:
            return self.lr * (epoch + 1) / self.warmup_epochs
        return self.weights().lr_at(epoch / self.epochs)

    def drop_path_at(self, epoch: int) -> float:
        """The probability of an epoch, rising linearly from 0; a value that the size rule is to give counts as none."""
        return (self.drop_path or 0.0) * epoch / self.epochs

    def build(
        self, genotype: Genotype, data: "ImageData", *, seed: int, device: "torch.device", execution: str
    ) -> "RetrainTask":
        """The training as a task. Raises `ConfigurationError`, `GenotypeError`."""
        from cdarts.retraining.task import RetrainTask

        self.check()
        self.check_execution(execution)
        return RetrainTask(self, genotype, data, seed=seed, device=device, execution=execution)


def _flag(name: str) -> str:
    """A field as the user writes it."""
    return f"--{name.replace('_', '-')}"


def _space_flags(space: AnySpace) -> str:
    """What differs from the space as it is by default, as the user writes it."""
    changed = differences(space, type(space)())
    return " ".join(f"--space.{name.replace('_', '-')} {value}" for name, (value, _) in changed.items()) or "--space"


def size_rule(parameters: int) -> tuple[float, float]:
    """(weight decay, drop-path) by the number of parameters, auxiliary head apart (CDARTS authors' retraining code)."""
    return (3e-4 if parameters < 3_500_000 else 5e-4, 0.2 if parameters < 3_000_000 else 0.3)
