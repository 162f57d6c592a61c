"""Named configurations, as Python values derived from one another. `docs/deviations.md` gives each value's source.

Where the paper is silent the value of the authors' launch scripts is used and marked "authors".
"""

from dataclasses import replace

from cdarts.algorithms import AnyAlgorithm, CyclicConfig
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
    warmup_unchanged=False,  # eq. 2: E-Net is pretrained when the topology changes
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


def one_way(paper: CyclicConfig) -> CyclicConfig:
    """The default: the paper's equations, a teacher that is not taught back, learning rates that fall to zero."""
    return replace(
        paper,
        detach_teacher=True,
        head_supervision=True,
        search_weights=replace(paper.search_weights, lr_end=0.0),
        eval_weights=replace(paper.eval_weights, lr_end=0.0),
    )


DEFAULT = one_way(PAPER)

SMOKE = replace(
    DEFAULT,
    channels=4,
    search_cells=3,
    eval_cells=5,
    pretrain_epochs=1,
    cycles=3,
)

PRESETS: dict[str, AnyAlgorithm] = {
    "cdarts": DEFAULT,
    "cdarts-nasbench201": one_way(PAPER_NASBENCH201),
    "cdarts-paper": PAPER,
    "cdarts-paper-nasbench201": PAPER_NASBENCH201,
    "cdarts-official": OFFICIAL,
    "cdarts-official-nasbench201": OFFICIAL_NASBENCH201,
    "smoke": SMOKE,
}

SUMMARIES: dict[str, str] = {
    "cdarts": "the default: the paper's equations with a one-way teacher and cosine learning rates (DARTS space)",
    "cdarts-nasbench201": "the default in the NAS-Bench-201 space",
    "cdarts-paper": "the paper's equations to the letter; the authors' values where it is silent",
    "cdarts-paper-nasbench201": "the same in the NAS-Bench-201 space",
    "cdarts-official": "the authors' code under its launch scripts, to the letter",
    "cdarts-official-nasbench201": "the same for NAS-Bench-201",
    "smoke": "the whole algorithm, small: about a minute on digits with 2 cores",
}
