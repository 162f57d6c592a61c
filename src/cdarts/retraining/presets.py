"""Recipes by name. Every number has its source beside it; docs/retraining.md has them in a table."""

from cdarts.retraining.config import Retraining
from cdarts.spaces import DartsSpace

AUTHORS_CIFAR = Retraining(
    # `retrain.py` of the CDARTS authors under their launch script for CIFAR on one GPU
    cells=None,  # the space's: 20 in DARTS's
    channels=None,  # the space's: 36 in DARTS's
    epochs=600,
    batch_size=128,
    lr=0.025,  # one GPU; their script for four takes 0.1
    warmup_epochs=0,  # they warm up where the batch is above 256
    momentum=0.9,
    weight_decay=None,  # by size, `size_rule`
    clip_norm=5.0,
    drop_path=None,  # by size, `size_rule`
    auxiliary_weight=0.4,
    label_smoothing=0.0,
    cutout=16,
)
"""The same for CIFAR-10 and CIFAR-100, as in the authors' code."""

AUTHORS_IMAGENET = Retraining(
    # `retrain.py` of the CDARTS authors under their launch script for ImageNet on eight GPUs
    space=DartsSpace(stem_name="imagenet"),
    cells=14,
    channels=48,
    epochs=250,
    batch_size=1024,  # 8 times 128, with BatchNorm over all of them
    lr=0.5,
    warmup_epochs=5,  # meant, but undone by their scheduler on today's torch; here it works
    momentum=0.9,
    weight_decay=3e-5,
    clip_norm=5.0,
    drop_path=0.0,
    auxiliary_weight=0.4,
    label_smoothing=0.1,
    cutout=0,
    least_area=0.08,  # torchvision's RandomResizedCrop, which they take as it is
    colour_jitter=(0.4, 0.4, 0.4, 0.2),
)

QUICK = Retraining(
    # ours, chosen so that a CPU of two cores is done with 5,000 images of 32x32 within minutes; see docs/retraining.md
    cells=5,
    channels=16,
    epochs=20,
    batch_size=64,
    lr=0.05,
    warmup_epochs=2,
    weight_decay=3e-4,  # the size rule's for small networks
    drop_path=0.0,  # regularisation made for hundreds of epochs harms short trainings
    auxiliary_weight=0.0,
    label_smoothing=0.1,
    cutout=0,
    evaluate_every=5,
)

RETRAINING_PRESETS: dict[str, Retraining] = {
    "cifar10": AUTHORS_CIFAR,
    "cifar100": AUTHORS_CIFAR,
    "imagenet": AUTHORS_IMAGENET,
    "quick": QUICK,
}

RETRAINING_SUMMARIES: dict[str, str] = {
    "cifar10": "the default: the CDARTS authors' recipe for CIFAR-10, 20 cells, 600 epochs; days on a CPU",
    "cifar100": "the same: the authors train on CIFAR-100 as on CIFAR-10",
    "imagenet": "the CDARTS authors' recipe for ImageNet, 14 cells behind an ImageNet stem, 250 epochs; for GPUs",
    "quick": "a small network for few epochs: minutes on a CPU",
}

DEFAULT_PRESET = "cifar10"

NO_PRESET = ""
"""Of trainings whose recipe another command has made: `cdarts run`, `cdarts ablate`."""
