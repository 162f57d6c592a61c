"""Statistics against SciPy, brute force and closed forms."""

import itertools
import math
import statistics
import subprocess
import sys

import numpy as np
import pytest
from scipy import stats

from cdarts.statistics import (
    EXACT_PAIRS,
    SAMPLED_FLIPS,
    PairedTest,
    Spread,
    _kendall_of_samples,
    _spearman_of_samples,
    best_of,
    binomial_interval,
    class_accuracy,
    paired_permutation_test,
    rank_correlation,
    spread,
)


def draw(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_no_torch() -> None:
    program = "import sys, cdarts.statistics, cdarts.benchmarks.published; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_spread_is_mean_and_sample_standard_deviation() -> None:
    values = [94.36, 93.9, 93.4, 93.3]
    result = spread(values)
    assert result.mean == pytest.approx(statistics.mean(values))
    assert result.std == pytest.approx(statistics.stdev(values))
    assert spread([7.5]) == Spread(7.5, None)


@pytest.mark.parametrize("num_pairs", [1, 2, 4, 8])
@pytest.mark.parametrize("shift", [0.0, 0.5, 5.0])
def test_permutation_test_equals_scipy(num_pairs: int, shift: float) -> None:
    first, second = draw(num_pairs).normal(size=(2, num_pairs))
    first += shift
    result = paired_permutation_test(first.tolist(), second.tolist())
    if num_pairs > 1:
        expected = stats.permutation_test(
            (first, second),
            lambda x, y: abs(np.mean(x - y)),
            permutation_type="samples",
            n_resamples=np.inf,
            alternative="greater",
        )
        assert result.p_value == pytest.approx(expected.pvalue)
    assert result.floor == 2 / 2**num_pairs
    assert result.num_pairs == num_pairs
    assert result.p_value >= result.floor


def test_permutation_test_floor_is_reached_and_ties_count() -> None:
    assert paired_permutation_test([2.0, 3.0, 4.0, 5.0], [1.0] * 4) == PairedTest(2 / 16, 2 / 16, 4)
    # equal pairs keep their sum under either sign
    assert paired_permutation_test([1.0] * 4, [1.0] * 4).p_value == 1.0
    assert paired_permutation_test([1.3, 1.0, 1.0], [1.0] * 3).p_value == 1.0
    # sums that differ in their last bits alone are equal: 0.1 + 0.2 - 0.3 and its like
    assert paired_permutation_test([0.1, 0.2, 0.3], [0.0] * 3).p_value == 0.25
    assert paired_permutation_test([0.1, 0.2, -0.3], [0.0] * 3).p_value == 1.0


def test_permutation_test_of_many_pairs_is_sampled() -> None:
    num_pairs = EXACT_PAIRS + 4
    differences = draw(1).normal(0.4, 1.0, num_pairs)
    result = paired_permutation_test(differences.tolist(), [0.0] * num_pairs, draw(2))
    halves = [
        np.array(list(itertools.product((1.0, -1.0), repeat=10))) @ differences[part]
        for part in (slice(10), slice(10, 20))
    ]
    exact = np.mean(np.abs(np.add.outer(*halves)) >= abs(differences.sum()) - 1e-9)
    assert result.p_value == pytest.approx(exact, abs=5 * math.sqrt(exact / SAMPLED_FLIPS))
    assert result.floor == 1 / (SAMPLED_FLIPS + 1)
    assert paired_permutation_test(differences.tolist(), [0.0] * num_pairs, draw(2)) == result


@pytest.mark.parametrize("number", [1, 2, 3])
def test_best_of_equals_every_draw(number: int) -> None:
    """Five things with ties: all 5^n draws, ties broken evenly."""
    chosen_by = np.array([1.0, 3.0, 3.0, 2.0, 1.0])
    values = np.array([10.0, 20.0, 50.0, 90.0, 40.0])
    outcomes = []
    for drawn in itertools.product(range(5), repeat=number):
        best = max(chosen_by[index] for index in drawn)
        # a tie is broken towards the thing drawn first: over all orders that is even
        outcomes.append(next(values[index] for index in drawn if chosen_by[index] == best))
    result = best_of(chosen_by, values, number)
    assert result.mean == pytest.approx(np.mean(outcomes))
    assert result.std == pytest.approx(np.std(outcomes))


def test_best_of_many_is_the_best() -> None:
    values = draw(3).normal(size=50)
    assert best_of(values, values, 10_000).mean == pytest.approx(values.max(), abs=1e-6)


def test_rank_correlation_equals_scipy_with_ties() -> None:
    x = np.round(draw(4).normal(size=80), 1)
    y = np.round(x + draw(5).normal(size=80), 1)
    result = rank_correlation(x.tolist(), y.tolist(), draw())
    assert result is not None
    assert result.num_things == 80
    assert result.kendall.value == pytest.approx(stats.kendalltau(x, y).statistic)
    assert result.spearman.value == pytest.approx(stats.spearmanr(x, y).statistic)
    for estimate in (result.kendall, result.spearman):
        assert -1 <= estimate.low < estimate.value < estimate.high <= 1
    assert rank_correlation(x.tolist(), y.tolist(), draw()) == result


def test_bootstrap_samples_equal_scipy_one_by_one() -> None:
    x = np.round(draw(6).normal(size=25), 1)
    y = np.round(x + draw(7).normal(size=25), 1)
    chosen = draw(8).integers(25, size=(20, 25))
    kendall, spearman = _kendall_of_samples(x, y, chosen), _spearman_of_samples(x, y, chosen)
    for sample, tau, rho in zip(chosen, kendall, spearman, strict=True):
        assert tau == pytest.approx(stats.kendalltau(x[sample], y[sample]).statistic)
        assert rho == pytest.approx(stats.spearmanr(x[sample], y[sample]).statistic)


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    """Independent numbers have a coefficient of 0; 95 % of 100 intervals, give or take."""
    covered = 0
    for seed in range(100):
        x, y = draw(seed).normal(size=(2, 40))
        result = rank_correlation(x.tolist(), y.tolist(), draw(seed + 1000))
        assert result is not None
        covered += result.kendall.low <= 0 <= result.kendall.high
    assert 86 <= covered <= 100


@pytest.mark.parametrize("x", [[], [1.0, 2.0], [3.0, 3.0, 3.0, 3.0]])
def test_where_nothing_can_be_said(x: list[float]) -> None:
    y = [float(value) for value in range(len(x))]
    assert rank_correlation(x, y, draw()) is None
    assert rank_correlation(y, x, draw()) is None


def test_three_things_with_ties_still_have_an_interval() -> None:
    result = rank_correlation([1.0, 1.0, 2.0], [1.0, 2.0, 3.0], draw())
    assert result is not None
    assert math.isfinite(result.kendall.low) and math.isfinite(result.spearman.high)


# -- accuracies --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_images", [1, 5, 60, 1000])
def test_the_binomial_interval_is_wilsons(num_images: int) -> None:
    for correct in sorted({0, 1, num_images // 3, num_images - 1, num_images}):
        low, high = binomial_interval(correct / num_images, num_images)
        theirs = stats.binomtest(correct, num_images).proportion_ci(0.95, method="wilson")
        assert (low, high) == pytest.approx((theirs.low, theirs.high), abs=1e-12)
        assert 0 <= low <= correct / num_images <= high <= 1


def test_class_accuracy_counts_every_class_the_same() -> None:
    labels = np.array([0] * 90 + [1] * 10)
    assert class_accuracy(np.zeros(100, dtype=np.int64), labels) == 0.5
    assert class_accuracy(labels, labels) == 1.0
    assert class_accuracy(np.array([1, 1, 1, 2]), np.array([1, 1, 2, 2])) == 0.75, "class 0 has no image"
