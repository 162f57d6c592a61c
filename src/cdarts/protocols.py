"""Protocols by name: what all methods share when they are compared. Their numbers stand here and nowhere else."""

from cdarts.algorithms import Protocol
from cdarts.engine.optimizers import Sgd
from cdarts.retraining import Retraining
from cdarts.spaces import DartsSpace, NasBench201Space

NASBENCH201_SMALL = Protocol(
    data="cifar10-5k",
    image_size=16,
    space=NasBench201Space(),
    channels=8,
    cells=3,
    batch_size=32,
    epochs=24,
    still_epochs=2,
    weights=Sgd(lr=0.05, lr_end=0.0),
    alpha_rate=10.0,  # from 3e-4 to 3e-3, where that is a method's own: 1,740 steps instead of 19,500
)

NASBENCH201_FULL = Protocol(
    data="cifar10",
    image_size=None,
    space=NasBench201Space(),
    channels=16,
    cells=15,
    batch_size=64,
    epochs=50,
    still_epochs=0,
    weights=Sgd(lr=0.025, lr_end=0.04),
    alpha_rate=1.0,
)

DARTS_SMALL = Protocol(
    data="cifar10-5k",
    image_size=16,
    space=DartsSpace(),
    channels=4,
    cells=5,
    batch_size=32,
    epochs=12,
    still_epochs=2,
    weights=Sgd(lr=0.05, lr_end=0.0),
    alpha_rate=20.0,  # from 3e-4 to 6e-3: 790 steps instead of 11,700
)

PROTOCOLS: dict[str, Protocol] = {
    "nasbench201-small": NASBENCH201_SMALL,
    "nasbench201-full": NASBENCH201_FULL,
    "darts-small": DARTS_SMALL,
}

RETRAININGS: dict[str, Retraining] = {
    "darts-small": Retraining(
        cells=5,
        channels=8,
        epochs=20,
        batch_size=64,
        lr=0.05,
        weight_decay=3e-4,
        drop_path=0.0,
        auxiliary_weight=0.0,
        cutout=0,
        evaluate_every=20,
    ),
}
"""How what is found under a protocol is trained and tested where no table knows its accuracy."""

SUMMARIES: dict[str, str] = {
    "nasbench201-small": "a tenth of CIFAR-10 at 16x16, 3 cells of 8 channels, 24 epochs: minutes on one core a search",
    "nasbench201-full": "CIFAR-10 and the benchmark's own network, 15 cells of 16 channels, 50 epochs: for a GPU",
    "darts-small": "the same tenth at 16x16, DARTS space, 5 cells of 4 channels, 12 epochs, then short retraining",
}
