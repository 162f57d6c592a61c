"""Named configurations, as Python values derived from one another. `docs/deviations.md` gives each value's source.

Where the paper is silent the value of the authors' launch scripts is used and marked "authors".
"""

from dataclasses import replace

from cdarts.algorithms import AnyAlgorithm, CyclicConfig, Protocol
from cdarts.algorithms.beta_darts import BetaDartsConfig
from cdarts.algorithms.darts import DartsConfig
from cdarts.algorithms.darts_minus import DartsMinusConfig
from cdarts.algorithms.drnas import DrnasConfig
from cdarts.algorithms.enas import EnasConfig
from cdarts.algorithms.fair_darts import FairDartsConfig
from cdarts.algorithms.gdas import GdasConfig
from cdarts.algorithms.p_darts import PDartsConfig
from cdarts.algorithms.pc_darts import PcDartsConfig
from cdarts.algorithms.random_search import RandomConfig
from cdarts.algorithms.rsps import RspsConfig
from cdarts.algorithms.setn import SetnConfig
from cdarts.algorithms.single_path import SinglePathConfig
from cdarts.algorithms.snas import SnasConfig
from cdarts.engine.optimizers import Adam, Sgd
from cdarts.spaces import DartsSpace, NasBench201Space

PAPER = CyclicConfig(
    space=DartsSpace(),  # pools as the authors', without BatchNorm; the paper does not say
    channels=16,  # authors
    search_cells=8,  # paper
    eval_cells=20,  # paper
    batch_size=64,  # authors
    pretrain_epochs=2,  # eq. 1; the number: authors
    cycles=30,  # paper: results saturate near 30 search epochs
    warmup_epochs=1,  # eq. 2; the number: authors
    joint_epochs=1,  # authors
    warmup_unchanged=False,  # our reading of eq. 2: E-Net is pretrained when its topology is new
    warmup_half="val",  # eq. 2
    search_weights=Sgd(lr=0.08, momentum=0.9, weight_decay=3e-4, clip_norm=5.0),  # authors, 1 GPU
    eval_weights=Sgd(lr=0.08, momentum=0.9, weight_decay=3e-4, clip_norm=5.0),  # authors, 1 GPU
    alpha=Adam(lr=3e-4, betas=(0.5, 0.999), weight_decay=0.0),  # authors
    feedback="kl",  # eq. 4
    feedback_weight=1.0,  # authors; the paper's lambda is not known
    temperature=2.0,  # paper
    fusion="sum",  # figure
    l1_weight=5.0,  # authors; the paper's lambda' is not known
    l1_operations=("skip_connect",),  # eq. 6
    l1_decay=0.667,  # authors
)

OFFICIAL = replace(
    PAPER,
    mean_nodes=True,
    shared_stem=True,
    warmup_unchanged=True,
    inherit_batchnorm=False,
    persistent_optimizers=False,
    joint_clip=True,
    feedback="smooth_l1",
    fusion="batch",
    level_weights=True,
    shared_embeddings=True,
    train_embeddings=False,
    l1_operations=("max_pool_3x3", "avg_pool_3x3", "skip_connect"),
    l1_scale=3.0,  # the term is added once for each of three stages that share one alpha
)

PAPER_NASBENCH201 = replace(
    PAPER,
    space=NasBench201Space(),
    search_cells=15,  # the benchmark's
    eval_cells=15,  # the benchmark's
    eval_affine=True,  # authors
    pretrain_epochs=2,  # eq. 1; the authors skip it in this space
    cycles=50,  # authors
)

OFFICIAL_NASBENCH201 = replace(
    OFFICIAL,
    space=NasBench201Space(),
    search_cells=15,
    eval_cells=15,
    eval_affine=True,
    mean_nodes=False,
    train_embeddings=True,
    pretrain_epochs=0,
    cycles=50,
    l1_operations=("none",),  # the authors' code takes column 0, which is none here
    l1_scale=1 / 6,  # a mean over the cell's six edges
)


IMAGENET_STEM = DartsSpace(stem_name="imagenet")

PAPER_IMAGENET = replace(
    PAPER,
    space=IMAGENET_STEM,  # authors
    eval_cells=14,  # authors
    batch_size=128,  # authors, on each of 8 GPUs
    pretrain_epochs=10,  # authors
    warmup_epochs=3,  # authors
    epoch_fraction=0.2,  # authors
    least_area=0.08,  # authors: torchvision's default
    colour_jitter=(0.4, 0.4, 0.4, 0.2),  # authors
    # authors: 0.8 for 8 x 128 images, here in proportion
    search_weights=Sgd(lr=0.1, momentum=0.9, weight_decay=1e-5, clip_norm=5.0),
    eval_weights=Sgd(lr=0.1, momentum=0.9, weight_decay=1e-5, clip_norm=5.0),
    alpha=Adam(lr=3e-4, betas=(0.5, 0.999), weight_decay=1e-5),  # authors
    l1_decay=0.5,  # authors
)

OFFICIAL_IMAGENET = replace(
    OFFICIAL,
    space=PAPER_IMAGENET.space,
    eval_cells=PAPER_IMAGENET.eval_cells,
    batch_size=PAPER_IMAGENET.batch_size,
    pretrain_epochs=PAPER_IMAGENET.pretrain_epochs,
    warmup_epochs=PAPER_IMAGENET.warmup_epochs,
    epoch_fraction=PAPER_IMAGENET.epoch_fraction,
    least_area=PAPER_IMAGENET.least_area,
    colour_jitter=PAPER_IMAGENET.colour_jitter,
    search_weights=PAPER_IMAGENET.search_weights,
    eval_weights=PAPER_IMAGENET.eval_weights,
    alpha=PAPER_IMAGENET.alpha,
    l1_decay=PAPER_IMAGENET.l1_decay,
    feedback="kl_mean",
    train_embeddings=True,
)


def measured(paper: CyclicConfig) -> CyclicConfig:
    """The default: the paper's cycle with what measured best on NAS-Bench-201 (docs/log.md).

    E-Net learns on the train half and teaches S-Net's weights instead of alpha, alpha is kept from running away by the
    log-sum-exp penalty instead of the L1 norm, and S-Net's mixtures grow sharp, so that it ends near what E-Net is.
    """
    return replace(
        paper,
        warmup_half="train",
        joint_half="train",
        search_weights=replace(paper.search_weights, lr_end=0.0),
        eval_weights=replace(paper.eval_weights, lr_end=0.0),
        alpha=replace(paper.alpha, lr_end=0.1),
        feedback_weight=0.0,
        teaching_weight=1.0,
        l1_weight=0.0,
        alpha_decay=5.0,
        sharpness=20.0,
    )


DEFAULT = measured(PAPER)
DEFAULT_NASBENCH201 = measured(PAPER_NASBENCH201)
DEFAULT_IMAGENET = measured(PAPER_IMAGENET)

SMOKE = replace(
    DEFAULT,
    channels=4,
    search_cells=3,
    eval_cells=5,
    pretrain_epochs=1,
    cycles=3,
)

# -- what CDARTS is compared with; the algorithms' own files hold defaults and sources --------------------------------

DARTS_POOLS = DartsSpace(pool_batchnorm=True)
"""The DARTS space with BatchNorm after pools, as most of these methods' own code has it."""
BENCHMARK = NasBench201Space()

OTHERS: dict[str, AnyAlgorithm] = {
    "darts": DartsConfig(space=DARTS_POOLS),
    "darts-nasbench201": DartsConfig(space=BENCHMARK, cells=15),
    "darts-second-order": DartsConfig(space=DARTS_POOLS, second_order=True),
    "darts-second-order-nasbench201": DartsConfig(space=BENCHMARK, cells=15, second_order=True),
    "p-darts": PDartsConfig(space=DARTS_POOLS),
    "p-darts-nasbench201": PDartsConfig(space=BENCHMARK, cells=15, added_cells=(0, 0, 0)),
    "pc-darts": PcDartsConfig(space=DARTS_POOLS),
    "pc-darts-nasbench201": PcDartsConfig(space=BENCHMARK, cells=15),
    "gdas": GdasConfig(space=DARTS_POOLS),
    "gdas-nasbench201": GdasConfig(space=BENCHMARK, cells=15, batch_size=64),
    "snas": SnasConfig(space=DARTS_POOLS),
    "snas-nasbench201": SnasConfig(space=BENCHMARK, cells=15),
    "drnas": DrnasConfig(),
    "drnas-nasbench201": DrnasConfig(
        space=BENCHMARK,
        cells=15,
        epochs=100,
        still_epochs=0,
        weights=Sgd(lr=0.025, lr_end=0.04, weight_decay=3e-4, clip_norm=5.0),
        alpha=Adam(lr=3e-4, betas=(0.5, 0.999), weight_decay=1e-3),
    ),
    "beta-darts": BetaDartsConfig(space=DARTS_POOLS),
    "beta-darts-nasbench201": BetaDartsConfig(space=BENCHMARK, cells=15, epochs=100),
    "fair-darts": FairDartsConfig(space=DARTS_POOLS),
    "fair-darts-nasbench201": FairDartsConfig(space=BENCHMARK, cells=15),
    "darts-minus": DartsMinusConfig(space=DARTS_POOLS),
    "darts-minus-nasbench201": DartsMinusConfig(space=BENCHMARK, cells=15),
    "enas": EnasConfig(),
    "enas-nasbench201": EnasConfig(space=BENCHMARK, cells=15),
    "rsps": RspsConfig(),
    "rsps-nasbench201": RspsConfig(space=BENCHMARK, cells=15),
    "setn": SetnConfig(),
    "setn-nasbench201": SetnConfig(space=BENCHMARK, cells=15),
    "single-path": SinglePathConfig(),
    "single-path-nasbench201": SinglePathConfig(space=BENCHMARK, cells=15),
    "random": RandomConfig(),
    "random-nasbench201": RandomConfig(space=BENCHMARK),
}

PRESETS: dict[str, AnyAlgorithm] = {
    "cdarts": DEFAULT,
    "cdarts-nasbench201": DEFAULT_NASBENCH201,
    "cdarts-paper": PAPER,
    "cdarts-paper-nasbench201": PAPER_NASBENCH201,
    "cdarts-official": OFFICIAL,
    "cdarts-official-nasbench201": OFFICIAL_NASBENCH201,
    "cdarts-imagenet": DEFAULT_IMAGENET,
    "cdarts-paper-imagenet": PAPER_IMAGENET,
    "cdarts-official-imagenet": OFFICIAL_IMAGENET,
    "smoke": SMOKE,
    **OTHERS,
}

SUMMARIES: dict[str, str] = {
    "cdarts": "the default: the paper's cycle with what measured best on NAS-Bench-201 (DARTS space)",
    "cdarts-nasbench201": "the default in the NAS-Bench-201 space",
    "cdarts-paper": "the paper's equations to the letter; the authors' values where it is silent",
    "cdarts-paper-nasbench201": "the same in the NAS-Bench-201 space",
    "cdarts-official": "the authors' code under its launch scripts, without its defects",
    "cdarts-official-nasbench201": "the same for NAS-Bench-201",
    "cdarts-imagenet": "the default in the ImageNet sizes and schedule, for images of 64 to 224 pixels",
    "cdarts-paper-imagenet": "the paper's equations for ImageNet",
    "cdarts-official-imagenet": "the authors' code under its launch script for ImageNet",
    "smoke": "the whole algorithm, small: about a minute on digits with 2 cores",
    "darts": "DARTS, first order",
    "darts-second-order": "DARTS, second order: alpha's gradient looks one step of the weights ahead",
    "p-darts": "P-DARTS: three stages, each deeper and with fewer operations",
    "pc-darts": "PC-DARTS: operations on a quarter of the channels, edges with weights of their own",
    "gdas": "GDAS: one drawn operation an edge is computed, a Gumbel-softmax carries alpha's gradient",
    "snas": "SNAS: draws from a concrete distribution mix all operations",
    "drnas": "DrNAS: mixing weights drawn from Dirichlet distributions that learn",
    "beta-darts": "beta-DARTS: DARTS with a growing penalty on the log-sum-exp of alpha",
    "fair-darts": "FairDARTS: a sigmoid for each operation, and a zero-one loss",
    "darts-minus": "DARTS-: DARTS with an auxiliary skip connection that fades",
    "enas": "ENAS: a controller draws paths and learns from their scores",
    "rsps": "RSPS: weights of random paths are trained, then random cells are scored with them",
    "setn": "SETN: weights of random paths are trained, while alpha learns where good ones are",
    "single-path": "single-path one-shot: weights of random paths are trained, then evolution finds the best cell",
    "random": "a random cell, without any training",
}
SUMMARIES |= {name: "the same in the NAS-Bench-201 space" for name in OTHERS if name.endswith("-nasbench201")}


def preset_under(name: str, protocol: Protocol) -> AnyAlgorithm:
    """A preset named without its space, such as ``cdarts``, in the space and with the sizes of a protocol."""
    in_space = f"{name}-{protocol.space.name}"
    return PRESETS[in_space if in_space in PRESETS else name].under(protocol)
