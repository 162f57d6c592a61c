"""What is said about numbers that seeds have scattered. Nothing here needs torch."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

EXACT_PAIRS = 16
"""Up to so many pairs the permutation test counts all sign flips, 65,536 of them."""

SAMPLED_FLIPS = 100_000
RESAMPLES = 2_000

TIE = 1e-9
"""Relative difference below which two sums are taken for equal: they were added up in different orders."""


@dataclass(frozen=True)
class Spread:
    """A mean over seeds and their sample standard deviation, None where there is one seed alone."""

    mean: float
    std: float | None


def spread(values: Sequence[float]) -> Spread:
    """Mean and sample standard deviation (n - 1 below) of at least one value."""
    mean = math.fsum(values) / len(values)
    if len(values) == 1:
        return Spread(mean, None)
    return Spread(mean, math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)))


@dataclass(frozen=True)
class PairedTest:
    """Two-sided paired permutation test for a difference of means."""

    p_value: float
    floor: float
    """The smallest p-value that this many pairs can give."""
    num_pairs: int


def paired_permutation_test(
    first: Sequence[float], second: Sequence[float], draw: np.random.Generator | None = None
) -> PairedTest:
    """Whether two methods differ, from their values on the same seeds (Fisher 1935; Pitman 1937).

    If they do not, each pair's difference is as likely with the other sign. The p-value is the share of all sign flips
    whose sum is at least as far from zero as the observed one. All of them are counted up to `EXACT_PAIRS` pairs;
    beyond that `draw` samples `SAMPLED_FLIPS` of them, and the observed one counts among them.
    """
    differences = np.subtract(first, second, dtype=np.float64)
    num_pairs = len(differences)
    observed = abs(math.fsum(differences))
    least = observed - TIE * float(np.abs(differences).sum())
    if num_pairs <= EXACT_PAIRS:
        signs = np.array(list(itertools.product((1.0, -1.0), repeat=num_pairs)))
        p_value = float(np.mean(np.abs(signs @ differences) >= least))
        return PairedTest(p_value, 2 / 2**num_pairs, num_pairs)
    assert draw is not None, "more pairs than are counted exactly need a generator"
    extreme = 0
    for _ in range(SAMPLED_FLIPS // 1000):
        signs = draw.choice((1.0, -1.0), size=(1000, num_pairs))
        extreme += int(np.count_nonzero(np.abs(signs @ differences) >= least))
    return PairedTest((extreme + 1) / (SAMPLED_FLIPS + 1), 1 / (SAMPLED_FLIPS + 1), num_pairs)


def best_of(chosen_by: Floats, values: Floats, number: int) -> Spread:
    """Mean and standard deviation, exact, of the value of the best of `number` things drawn with replacement.

    The best is the one with the largest `chosen_by`, (N,); what it scores is its `values`, (N,). Among equals each
    is as likely. Every thing is as likely to be drawn.
    """
    _, group, counts = np.unique(chosen_by, return_inverse=True, return_counts=True)
    below = np.concatenate([[0.0], np.cumsum(counts) / len(chosen_by)])
    each = np.diff(below**number) / counts
    chances = each[group]
    mean = float(chances @ values)
    return Spread(mean, math.sqrt(max(float(chances @ (values - mean) ** 2), 0.0)))


def binomial_interval(accuracy: float, num_images: int) -> tuple[float, float]:
    """95 % confidence interval of a fraction correct, 0 to 1, from `num_images` independent images (Wilson 1927).

    It says what the images at hand leave open about images like them; it knows nothing of other seeds.
    """
    z = NormalDist().inv_cdf(0.975)
    shrink = 1 + z**2 / num_images
    centre = (accuracy + z**2 / (2 * num_images)) / shrink
    half = z / shrink * math.sqrt(accuracy * (1 - accuracy) / num_images + z**2 / (4 * num_images**2))
    # at the ends rounding may leave the range, or leave the value itself out by a bit
    return max(0.0, min(centre - half, accuracy)), min(1.0, max(centre + half, accuracy))


def class_accuracy(predictions: npt.NDArray[np.int64], labels: npt.NDArray[np.int64]) -> float:
    """Mean over classes of the fraction of their images that is told right, 0 to 1: every class counts the same.

    Both (N,). Classes without an image count for nothing.
    """
    return float(np.mean([np.mean(predictions[labels == label] == label) for label in np.unique(labels)]))


# -- rank correlation --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Estimate:
    """A coefficient with its 95 % confidence interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Correlation:
    """How alike two orders of the same things are, -1 to 1."""

    num_things: int
    kendall: Estimate
    spearman: Estimate


def rank_correlation(first: Sequence[float], second: Sequence[float], draw: np.random.Generator) -> Correlation | None:
    """Kendall's tau-b and Spearman's rho; the intervals are percentiles of `RESAMPLES` bootstrap samples (Efron 1979).

    Ties share the mean rank. None where nothing can be said: fewer than 3 things, or all of one side equal.
    """
    from scipy import stats

    x, y = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if len(x) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return None
    chosen = draw.integers(len(x), size=(RESAMPLES, len(x)))
    return Correlation(
        len(x),
        _estimate(float(stats.kendalltau(x, y).statistic), _kendall_of_samples(x, y, chosen)),
        _estimate(float(stats.spearmanr(x, y).statistic), _spearman_of_samples(x, y, chosen)),
    )


def _estimate(value: float, samples: Floats) -> Estimate:
    # a sample in which all of one side are equal has no coefficient
    low, high = np.quantile(samples[np.isfinite(samples)], (0.025, 0.975))
    return Estimate(value, float(low), float(high))


def _kendall_of_samples(x: Floats, y: Floats, chosen: npt.NDArray[np.int64]) -> Floats:
    """tau-b of each sample, from how often it holds each thing. A thing and itself are a tie on both sides."""
    times = np.zeros((len(chosen), len(x)))
    np.add.at(times, (np.arange(len(chosen))[:, None], chosen), 1.0)
    x_signs, y_signs = (np.sign(values[:, None] - values[None, :]) for values in (x, y))

    def pairs(of: Floats) -> Floats:
        counted: Floats = np.einsum("si,si->s", times @ of, times)
        return counted

    with np.errstate(invalid="ignore"):
        tau: Floats = pairs(x_signs * y_signs) / np.sqrt(pairs(np.abs(x_signs)) * pairs(np.abs(y_signs)))
    return tau


def _spearman_of_samples(x: Floats, y: Floats, chosen: npt.NDArray[np.int64]) -> Floats:
    """rho of each sample: the linear correlation of its ranks."""
    from scipy import stats

    x_ranks, y_ranks = (stats.rankdata(values[chosen], axis=1) for values in (x, y))
    x_ranks, y_ranks = (ranks - ranks.mean(axis=1, keepdims=True) for ranks in (x_ranks, y_ranks))
    with np.errstate(invalid="ignore"):
        rho: Floats = (x_ranks * y_ranks).sum(axis=1) / np.sqrt((x_ranks**2).sum(axis=1) * (y_ranks**2).sum(axis=1))
    return rho
