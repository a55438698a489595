"""Wilson's interval and pass@k."""

from itertools import combinations
from math import comb

import numpy as np
import pytest
from scipy import stats

from rlassay.stats import pass_at_k, share_interval, wilson


@pytest.mark.parametrize(("successes", "trials"), [(0, 10), (3, 10), (10, 10), (57, 400)])
def test_wilson_matches_scipy(successes: int, trials: int):
    expected = stats.binomtest(successes, trials).proportion_ci(0.9, method="wilson")
    assert wilson(successes, trials, 0.9) == pytest.approx((expected.low, expected.high))


def test_wilson_by_hand():
    # 0 of 10: the upper end is z^2 / (n + z^2) = 3.8415 / 13.8415.
    assert wilson(0, 10) == pytest.approx((0.0, 0.277533), abs=1e-6)


@pytest.mark.parametrize(("successes", "trials"), [(0, 0), (-1, 5), (6, 5)])
def test_wilson_refuses_impossible_counts(successes: int, trials: int):
    with pytest.raises(ValueError, match="expected 0 <= successes <= trials"):
        wilson(successes, trials)


def test_pass_at_k_counts_the_draws_that_hold_a_right_sample():
    # Five samples, two right: of the ten pairs, three hold none of them, so pass@2 = 7/10.
    pairs = list(combinations([1, 1, 0, 0, 0], 2))
    assert sum(any(pair) for pair in pairs) / len(pairs) == 0.7
    assert pass_at_k(5, 2, 2) == pytest.approx(0.7)


def test_pass_at_k_is_the_formula_for_every_count():
    n = 8
    right = np.arange(n + 1)
    for k in range(1, n + 1):
        expected = [1 - comb(n - c, k) / comb(n, k) for c in right]
        assert pass_at_k(n, right, k) == pytest.approx(expected)


def test_pass_at_one_is_the_share_and_all_right_is_one():
    assert pass_at_k(8, [0, 2, 8], 1).tolist() == [0.0, 0.25, 1.0]


def test_pass_at_k_is_unbiased():
    # Over binomial counts its mean is 1 - (1 - p)^k.
    counts = np.arange(11)
    weights = stats.binom.pmf(counts, 10, 0.3)
    assert weights @ pass_at_k(10, counts, 4) == pytest.approx(1 - 0.7**4)


def test_fewer_samples_than_draws_is_nan():
    assert pass_at_k([2, 4], [1, 1], 4) == pytest.approx([np.nan, 1.0], nan_ok=True)


def test_many_samples_do_not_overflow():
    assert pass_at_k(4000, 1, 2000) == pytest.approx(0.5)


@pytest.mark.parametrize(("n", "c", "k"), [(4, 5, 1), (4, -1, 1), (4, 2, 0)])
def test_impossible_counts_are_refused(n: int, c: int, k: int):
    with pytest.raises(ValueError, match="expected k >= 1 and 0 <= num_correct <= num_samples"):
        pass_at_k(n, c, k)


@pytest.mark.parametrize(("share", "half"), [(0.02, 0.03), (0.97, 0.05), (0.5, 0.1), (0.3, 0.0)])
def test_an_interval_of_a_share_stays_inside_and_its_ends_solve_its_equation(share, half):
    low, high = share_interval(share, half)
    assert 0 < low <= share <= high < 1
    for end in (low, high):
        # the distance to each end is the half-width, shrunk as the standard error at that end is
        shrunk = half * np.sqrt(end * (1 - end) / (share * (1 - share)))
        assert abs(end - share) == pytest.approx(shrunk, abs=1e-12)
    # mirrored for the share of failures
    assert share_interval(1 - share, half) == pytest.approx((1 - high, 1 - low))


def test_an_interval_of_a_binomial_share_is_wilsons():
    half = stats.norm.ppf(0.975) * np.sqrt(0.1 * 0.9 / 40)
    assert share_interval(0.1, half) == pytest.approx(wilson(4, 40))


def test_an_interval_of_a_share_needs_a_share_inside():
    with pytest.raises(ValueError, match="0 < share < 1"):
        share_interval(0.0, 0.1)
    with pytest.raises(ValueError, match="half-width >= 0"):
        share_interval(0.5, -0.1)
