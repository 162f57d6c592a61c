"""Accuracies on NAS-Bench-201 as others have published them: none of these searches was run here.

Searched on CIFAR-10, percent, mean and standard deviation over the authors' own runs.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from cdarts.statistics import Spread

TPAMI = "Yu et al., TPAMI 2023 (CDARTS), table for NAS-Bench-201 with the values of NATS-Bench"
CDARTS = f"{TPAMI}; mean and population standard deviation of three released cells"
GENIUS = "as listed by Zheng et al. 2023 (GENIUS), arXiv 2304.10970"
DARTS_MINUS = "Chu et al., ICLR 2021 (DARTS-), as listed by surveys"


@dataclass(frozen=True)
class Published:
    """One row of somebody's table: by data set, validation where it is given, and test."""

    name: str
    source: str
    validation: Mapping[str, Spread]
    test: Mapping[str, Spread]


def _row(name: str, source: str, *figures: tuple[float, float]) -> Published:
    """Figures as (mean, standard deviation): test on the three data sets, or validation and test on each in turn."""
    spreads = [Spread(mean, std) for mean, std in figures]
    names = ("cifar10", "cifar100", "imagenet16-120")
    if len(spreads) == 3:
        return Published(name, source, {}, dict(zip(names, spreads, strict=True)))
    return Published(
        name,
        source,
        dict(zip(names, spreads[0::2], strict=True)),
        dict(zip(names, spreads[1::2], strict=True)),
    )


# fmt: off
PUBLISHED: tuple[Published, ...] = (
    _row("CDARTS", CDARTS, (91.12, 0.44), (94.02, 0.31), (72.12, 1.23), (71.92, 1.30), (45.09, 0.61), (45.51, 0.72)),
    _row("REA", TPAMI, (91.25, 0.31), (94.02, 0.31), (72.28, 0.95), (72.23, 0.84), (45.71, 0.77), (45.77, 0.80)),
    _row("REINFORCE", TPAMI, (91.12, 0.25), (93.90, 0.26), (71.80, 0.94), (71.86, 0.89), (45.37, 0.74), (45.64, 0.78)),
    _row("RANDOM", TPAMI, (91.07, 0.26), (93.86, 0.23), (71.46, 0.97), (71.55, 0.97), (45.03, 0.91), (45.28, 0.97)),
    _row("BOHB", TPAMI, (91.17, 0.27), (93.94, 0.28), (72.04, 0.93), (72.00, 0.86), (45.55, 0.79), (45.70, 0.86)),
    _row("ENAS", TPAMI, (90.20, 0.00), (93.76, 0.00), (70.21, 0.71), (70.67, 0.62), (40.78, 0.00), (41.44, 0.00)),
    _row("RSPS", TPAMI, (87.60, 0.61), (91.05, 0.66), (68.27, 0.72), (68.26, 0.96), (39.37, 0.34), (40.69, 0.36)),
    _row("SETN", TPAMI, (90.02, 0.97), (92.72, 0.73), (69.19, 1.42), (69.36, 1.72), (39.77, 0.33), (39.51, 0.33)),
    _row("DARTS-V1", TPAMI, (49.27, 13.44), (59.84, 7.84), (61.08, 4.37), (61.26, 4.43), (38.07, 2.90), (37.88, 2.91)),
    _row("DARTS-V2", TPAMI, (58.78, 13.44), (65.38, 7.84), (59.48, 5.13), (60.49, 4.95), (37.56, 7.10), (36.79, 7.59)),
    _row("GDAS", TPAMI, (89.69, 0.72), (93.23, 0.58), (68.35, 2.71), (68.17, 2.50), (39.55, 0.00), (39.40, 0.00)),
    _row("DARTS-", DARTS_MINUS, (93.80, 0.40), (71.53, 1.51), (45.12, 0.82)),
    _row("DrNAS", GENIUS, (94.36, 0.00), (73.51, 0.00), (46.34, 0.00)),
    _row("beta-DARTS", GENIUS, (94.36, 0.00), (73.51, 0.00), (46.34, 0.00)),
)
# fmt: on
"""CDARTS's own table, then what came after it."""
