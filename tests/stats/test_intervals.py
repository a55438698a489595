"""Crossed intervals: against analyses of variance by hand and by least squares, simulation and symmetries."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from rlassay.stats import contrast, crossed_interval, paired_difference, wilson
from rlassay.stats.intervals import MeanVariance, VarianceComponent, cochran_half_width

# Two seeds x three items. Seed means 2 and 4, item means 1.5, 2.5 and 5, grand mean 3.
#   MS_seeds = 3 (1 + 1) / 1 = 6,  MS_items = 2 (2.25 + 0.25 + 4) / 2 = 6.5,  residuals 0.5, 0.5, -1 and their
#   opposites: MS_e = 3 / 2 = 1.5;  V_a = 6 / 6 = 1,  V_b = 6.5 / 6 = 1.083333,  V_e = 1.5 / 6 = 0.25
#   V = V_a + V_b - V_e = 1.833333;  the kurtosis of three items is 1.5, so d_b is 2: t(1) = 12.706205, t(2) = 4.302653
#   reach = t' sqrt(V) = (1 * 12.706205 + 0.833333 * 4.302653) / sqrt(1.833333) = 12.032254
#   (V_a + V_b counts the pairs twice: (1 * 12.706205 + 1.083333 * 4.302653) / sqrt(2.083333) = 12.032497)
HAND = np.array([[1.0, 2.0, 3.0], [2.0, 3.0, 7.0]])


def test_analysis_of_variance_worked_by_hand():
    interval = crossed_interval(HAND)
    assert interval.mean == 3.0
    assert interval.low == pytest.approx(3 - 12.032254, abs=2e-6)
    assert interval.high == pytest.approx(3 + 12.032254, abs=2e-6)
    assert (interval.num_seeds, interval.num_items) == (2, 3)


def test_p_value_worked_by_hand():
    # t(1) and t(2) have closed forms, so the p-value can be checked without inverting anything: with tail p/2,
    # t(1) = tan(pi (1 - p) / 2) and t(2) = (1 - p) sqrt(2 / (1 - (1 - p)^2)); their weighted mean times sqrt(V) is 3.
    p_value = crossed_interval(HAND).p_value
    one = math.tan(math.pi * (1 - p_value) / 2)
    two = (1 - p_value) * math.sqrt(2 / (1 - (1 - p_value) ** 2))
    assert (one + 5 / 6 * two) / math.sqrt(11 / 6) == pytest.approx(3.0, rel=1e-9)


def test_difference_worked_by_hand():
    # The same numbers as a difference: a shared item effect of 100 cancels.
    shared = np.array([[100.0, -50.0, 7.0]] * 2)
    got, expected = paired_difference(HAND + shared, shared), crossed_interval(HAND)
    for name in ("mean", "low", "high", "p_value"):
        assert getattr(got, name) == pytest.approx(getattr(expected, name), rel=1e-12)


# Two seeds x three items whose means are 1, 3 and 5. Seed means 2.5 and 3.5, grand mean 3.
#   MS_seeds = 3 (0.25 + 0.25) / 1 = 1.5,  MS_items = 2 (4 + 0 + 4) / 2 = 8,  residuals -0.5, 1, -0.5 and their
#   opposites: MS_e = 3 / 2 = 1.5;  V_a = 1.5 / 6 = 0.25,  V_b = 8 / 6 = 1.333333,  V_e = 0.25,  V_b - V_e = 1.083333
#   t' sqrt(V): (0.25 * 12.706205 + 1.083333 * 4.302653) / sqrt(1.333333) = 6.787698, below that of V_a + V_b:
#   (0.25 * 12.706205 + 1.333333 * 4.302653) / sqrt(1.583333) = 7.083668
EVEN = np.array([[0.0, 3.5, 4.0], [2.0, 2.5, 6.0]])


def test_the_pair_variance_counts_once_worked_by_hand():
    interval = crossed_interval(EVEN)
    assert interval.mean == 3.0
    assert interval.high - 3 == pytest.approx(6.787698, abs=2e-6)
    one = math.tan(math.pi * (1 - interval.p_value) / 2)
    two = (1 - interval.p_value) * math.sqrt(2 / (1 - (1 - interval.p_value) ** 2))
    assert (0.25 * one + 13 / 12 * two) / math.sqrt(4 / 3) == pytest.approx(3.0, rel=1e-9)


@given(st.integers(2, 6), st.integers(2, 30), st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_agrees_with_analysis_of_variance_by_least_squares(num_seeds: int, num_items: int, entropy: int):
    # An independent route: V_a and V_b from scipy's t tests, V_e from the residuals of a regression on seeds and items.
    scores = np.random.default_rng(entropy).normal(0.5, 1, (num_seeds, num_items))
    v_a = stats.ttest_1samp(scores.mean(axis=1), 0)._standard_error ** 2
    v_b = stats.ttest_1samp(scores.mean(axis=0), 0)._standard_error ** 2
    v_e = residual_mean_square(scores) / scores.size
    critical = stats.t.ppf(0.95, num_seeds - 1), stats.t.ppf(0.95, df_of_items(scores))

    def reach(of_items: float) -> float:
        return (v_a * critical[0] + of_items * critical[1]) / (v_a + of_items) ** 0.5

    floor = critical[1] * max(v_b / 2, v_b - v_e / 2) ** 0.5
    expected = min(max(reach(max(0.0, v_b - v_e)), floor), reach(v_b))
    interval = crossed_interval(scores, confidence=0.9)
    assert (interval.high - interval.low) / 2 == pytest.approx(expected, rel=1e-6)
    assert (interval.p_value < 0.1) == (abs(scores.mean()) > expected)


def df_of_items(scores: np.ndarray) -> float:
    """Shoemaker's degrees of freedom of the variance between item means, at most I - 1."""
    num_items = scores.shape[1]
    k = stats.kurtosis(scores.mean(axis=0), fisher=False)
    return min(num_items - 1, 2 * num_items / (k - (num_items - 3) / (num_items - 1)))


def residual_mean_square(scores: np.ndarray) -> float:
    """Of a least-squares fit of seeds and items, on (S - 1) (I - 1) degrees of freedom."""
    seeds, items = (index.ravel() for index in np.indices(scores.shape))
    design = np.hstack([np.eye(len(scores))[seeds], np.eye(scores.shape[1])[items]])
    fit = design @ np.linalg.lstsq(design, scores.ravel(), rcond=None)[0]
    return float(((scores.ravel() - fit) ** 2).sum()) / np.prod(np.array(scores.shape) - 1)


def test_items_of_which_a_few_decide_have_fewer_degrees_of_freedom_by_hand():
    # One item in ten is 1, the others 0, for all seeds alike: V_b = 0.1 / 10. The item means have the variance
    # pq = 0.09 and a kurtosis of 1 / pq - 3 = 8.1111, so d_b = 2 * 10 / (8.1111 - 7 / 9) = 2.727273.
    scores = np.tile(np.arange(10) == 0, (4, 1)).astype(float)
    interval = crossed_interval(scores)
    assert interval.high - 0.1 == pytest.approx(0.1 * stats.t.ppf(0.975, 2.727273), rel=1e-6)
    # With one seed it is Student's interval over the items.
    interval = crossed_interval(scores[:1])
    assert interval.high - 0.1 == pytest.approx(0.1 * stats.t.ppf(0.975, 9), rel=1e-9)


def test_variance_is_the_true_one():
    # V_a + V_b would be the variance of the mean and var_e / (S I) more: here 1.4 times as much.
    rng = np.random.default_rng(7)
    num_seeds, num_items, draws = 60, 70, 300
    scores = rng.normal(0, 0.1, (draws, num_seeds, 1)) + rng.normal(0, 0.1, (draws, 1, num_items))
    scores = scores + rng.normal(0, 1, (draws, num_seeds, num_items))
    true = 0.1**2 / num_seeds + 0.1**2 / num_items + 1 / num_seeds / num_items
    assert scores.mean(axis=(1, 2)).var() == pytest.approx(true, rel=0.2)
    half = [interval.high - interval.mean for interval in map(crossed_interval, scores)]
    assert np.mean(np.square(half)) / stats.t.ppf(0.975, 64) ** 2 == pytest.approx(true, rel=0.05)


@pytest.mark.parametrize("num_seeds", [2, 3, 5])
def test_never_wider_than_with_the_pairs_counted_twice(num_seeds: int):
    rng = np.random.default_rng(10)
    for num_items, of_seeds, of_pairs in itertools.product((40, 90), (0, 0.05, 1), (0.01, 1, 9)):
        scores = rng.normal(0, 1, num_items) + rng.normal(0, of_seeds, (num_seeds, 1))
        scores = scores + rng.normal(0, of_pairs, (num_seeds, num_items))
        v_a, v_b = (scores.mean(axis=1 - axis).var(ddof=1) / scores.shape[axis] for axis in (0, 1))
        critical = stats.t.ppf(0.975, [num_seeds - 1, df_of_items(scores)])
        interval = crossed_interval(scores)
        twice = (v_a * critical[0] + v_b * critical[1]) / (v_a + v_b) ** 0.5
        assert interval.high - interval.mean <= twice * (1 + 1e-9)


def test_item_means_that_differ_by_rounding_alone_are_alike():
    # 0.1 and 0.3 - 0.2 differ in the last bit: nothing to measure a kurtosis by, and nothing but seeds varies.
    scores = np.tile([[0.1], [0.4]], (1, 40))
    scores[:, ::2] = [[0.3 - 0.2], [0.6 - 0.2]]
    assert np.ptp(scores.mean(axis=0)) > 0
    interval = crossed_interval(scores)
    assert interval.high - interval.mean == pytest.approx(stats.t.ppf(0.975, 1) * 0.15, rel=1e-9)


def test_without_seed_variance_it_is_students_interval_over_items_and_vice_versa():
    values = np.array([0.1, 0.5, 0.7, 0.2])
    expected = stats.ttest_1samp(values, 0)
    ends = expected.confidence_interval(0.95)
    for scores in (np.tile(values, (3, 1)), np.tile(values[:, None], (1, 6))):
        interval = crossed_interval(scores)
        assert (interval.low, interval.high) == pytest.approx((ends.low, ends.high), rel=1e-9)
        assert interval.p_value == pytest.approx(expected.pvalue, rel=1e-9)


def test_independent_seeds_worked_by_hand():
    # a's seed means 1 and 3, b's 0 and 0.5: variances 2 and 0.125, so V_a = (2 + 0.125) / 2 = 1.0625 on Welch's
    # 1.0625^2 / (1^2 + 0.0625^2) = 1.124514 degrees of freedom. Items of a - b: means 0.5, 2, 2.75 (sum 5.25, mean
    # 1.75), squares 1.5625 + 0.0625 + 1 = 2.625, V_b = 2.625 / 2 / 3 = 0.4375 on 2. Residuals of a: 0.5, -0.25, -0.25,
    # of b: 0.25, 0.5, -0.75, and their opposites, so V_e = (0.75 + 1.75) / 2 / 6 = 0.208333 and V_b - V_e = 0.229167.
    a = np.array([[0.0, 1.0, 2.0], [1.0, 3.5, 4.5]])
    b = np.array([[0.0, 0.5, -0.5], [0.0, 0.0, 1.5]])
    assert (a - b).mean(axis=0).tolist() == [0.5, 2.0, 2.75]
    weighted = 1.0625 * stats.t.ppf(0.975, 1.124514) + 0.229167 * stats.t.ppf(0.975, 2)
    interval = paired_difference(a, b, matched_seeds=False)
    assert interval.mean == 1.75
    assert interval.high - 1.75 == pytest.approx(weighted / math.sqrt(1.291667), rel=1e-6)


def test_independent_seeds_keep_variance_that_matched_seeds_cancel():
    rng = np.random.default_rng(8)
    seeds, items = rng.normal(0, 0.2, (3, 1)), rng.random((1, 40))
    b = items + seeds
    a = b + 0.05 + rng.normal(0, 0.01, b.shape)
    matched, independent = paired_difference(a, b), paired_difference(a, b, matched_seeds=False)
    assert matched.low > 0 > independent.low
    # Where seeds have nothing in common, three of them count for more when taken as independent.
    a, b = (items + rng.normal(0, 0.1, (3, 1)) + rng.normal(0, 0.01, (3, 40)) for _ in range(2))
    assert paired_difference(a, b, matched_seeds=False).mean == paired_difference(a, b).mean


def test_order_shift_and_scale():
    rng = np.random.default_rng(3)
    scores = rng.normal(size=(3, 17))
    plain = crossed_interval(scores)
    shuffled = crossed_interval(scores[[2, 0, 1]][:, rng.permutation(17)])
    moved = crossed_interval(-2 * scores + 5)
    assert shuffled.low == pytest.approx(plain.low, rel=1e-12)
    assert shuffled.p_value == pytest.approx(plain.p_value, rel=1e-12)
    assert (moved.low, moved.high) == pytest.approx((5 - 2 * plain.high, 5 - 2 * plain.low), rel=1e-9)


def test_exchanging_the_arms_flips_the_sign():
    rng = np.random.default_rng(4)
    a, b = rng.random((3, 11)), rng.random((3, 11))
    forward, back = paired_difference(a, b), paired_difference(b, a)
    assert (forward.mean, forward.low, forward.high) == pytest.approx((-back.mean, -back.high, -back.low))
    assert forward.p_value == pytest.approx(back.p_value)


def test_interval_and_p_value_agree():
    # The interval at confidence 1 - p ends exactly at 0.
    scores = np.random.default_rng(5).normal(0.4, 1, (4, 25))
    p_value = crossed_interval(scores).p_value
    edge = crossed_interval(scores, confidence=1 - p_value)
    assert min(abs(edge.low), abs(edge.high)) == pytest.approx(0, abs=1e-9)


def test_one_seed_covers_items_only_and_has_no_p_value():
    scores = np.array([[0.0, 1.0, 1.0, 0.5]])
    interval = crossed_interval(scores)
    expected = stats.ttest_1samp(scores[0], 0).confidence_interval(0.95)
    assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high))
    assert math.isnan(interval.p_value)
    assert (interval.num_seeds, interval.num_items) == (1, 4)


def test_missing_scores_leave_the_same_items_for_every_seed():
    scores = np.array([[1.0, np.nan, 3.0, 4.0], [2.0, 9.0, 7.0, np.nan], [np.nan] * 4])
    # The third seed has nothing; of the rest only the first and the third item are complete.
    assert crossed_interval(scores) == crossed_interval([[1.0, 3.0], [2.0, 7.0]])
    # In a difference, an item that either side misses is missing in both.
    other = np.array([[0.0, 0.0, np.nan, 0.0], [0.0] * 4, [0.0] * 4])
    assert paired_difference(scores, other).num_items == 1


def test_without_complete_items_the_interval_is_nan_and_counts_seeds():
    interval = crossed_interval([[np.nan, 1.0], [1.0, np.nan]])
    assert math.isnan(interval.mean)
    assert math.isnan(interval.low)
    assert (interval.num_seeds, interval.num_items) == (2, 0)
    assert crossed_interval(np.empty((3, 0))).num_items == 0
    unscored = crossed_interval(np.full((2, 4), np.nan))
    assert (unscored.num_seeds, unscored.num_items) == (0, 0)


def test_one_item_has_a_mean_and_no_interval():
    interval = crossed_interval([[1.0], [3.0]])
    assert interval.mean == 2.0
    assert math.isnan(interval.low)
    assert math.isnan(interval.p_value)


@pytest.mark.parametrize(("value", "right"), [(0.0, 0), (1.0, 24)])
def test_all_wrong_or_all_right_is_wilsons_interval_over_items(value: float, right: int):
    interval = crossed_interval(np.full((3, 24), value))
    assert (interval.low, interval.high) == pytest.approx(wilson(right, 24))
    assert interval.mean == value


def test_arms_that_never_differ():
    scores = np.random.default_rng(6).integers(0, 2, (3, 24)).astype(float)
    interval = paired_difference(scores, scores)
    rate = wilson(0, 24)[1]
    assert (interval.mean, interval.p_value) == (0.0, 1.0)
    assert (interval.low, interval.high) == pytest.approx((-rate, rate))


def test_a_constant_difference_has_the_p_value_of_its_own_interval():
    a, b = np.ones((3, 24)), np.full((3, 24), 0.25)
    p_value = paired_difference(a, b).p_value
    assert 0 < p_value < 1e-3
    assert paired_difference(a, b, confidence=1 - p_value).low == pytest.approx(0, abs=1e-6)
    assert paired_difference(b, a).p_value == pytest.approx(p_value)


def test_constant_scores_outside_the_unit_range_have_zero_width():
    interval = crossed_interval(np.full((3, 5), 16.0))
    assert (interval.low, interval.mean, interval.high) == (16.0, 16.0, 16.0)
    assert paired_difference(np.full((2, 4), 9.0), np.full((2, 4), 9.0)).p_value == 1.0


def test_equal_margins_fall_back_on_the_pair_variance():
    # Seed means and item means are all 0.5; the residuals are +-0.5: MS_pairs = 4 * 0.25 / 1 = 1, V = 1 / 4, df = 1.
    interval = crossed_interval([[0.0, 1.0], [1.0, 0.0]])
    assert interval.high - 0.5 == pytest.approx(stats.t.ppf(0.975, 1) * 0.5)


@pytest.mark.parametrize(
    ("scores", "confidence", "message"),
    [
        ([1.0, 2.0], 0.95, r"shape \(2,\); expected \(num_seeds, num_items\)"),
        ([[1.0, np.inf]], 0.95, "infinite"),
        ([[1.0, 2.0]], 95.0, "confidence is 95.0; expected a level between 0 and 1"),
    ],
)
def test_unusable_input_is_refused(scores: list, confidence: float, message: str):
    with pytest.raises(ValueError, match=message):
        crossed_interval(scores, confidence)


def test_unpaired_arms_are_refused():
    with pytest.raises(ValueError, match=r"a has shape \(2, 3\), b has \(1, 3\)"):
        paired_difference(HAND, HAND[:1])


@pytest.mark.parametrize("matched", [True, False])
def test_coverage_with_variance_between_seeds(matched: bool):
    # Two arms, three seeds, a seed-to-seed SD of 1.5 points, 300 shared items, eight samples each: here intervals over
    # items alone fall far short of their level (benchmarks/coverage.py); these must hold it.
    rng = np.random.default_rng(11)
    covered = 0
    for _ in range(400):
        chance = rng.uniform(0.2, 0.8, 300)
        a, b = (rng.binomial(8, chance + rng.normal(0, 0.015, (3, 1)) + shift) / 8 for shift in (0.03, 0.0))
        interval = paired_difference(a, b, matched_seeds=matched)
        covered += interval.low <= 0.03 <= interval.high
    assert covered / 400 >= 0.95


# t(1) = tan(pi (1 - 2q) / 2) and t(2) = (1 - 2q) sqrt(2 / (1 - (1 - 2q)^2)) at the tail q.
ONE, TWO = VarianceComponent(variance=1.0, df=1.0), VarianceComponent(variance=3.0, df=2.0)
NOTHING = VarianceComponent(variance=0.0, df=2.0)
BOTH = MeanVariance(items=TWO, seeds=ONE)


def test_half_width_by_hand():
    # q = 0.025: t(1) = 12.706205, t(2) = 4.302653; (1 * 12.706205 + 3 * 4.302653) / 4 * sqrt(4) = 12.807082.
    assert BOTH.half_width(0.025) == pytest.approx(12.807082, abs=1e-6)
    assert cochran_half_width((1.0, ONE.quantile(0.025)), (3.0, TWO.quantile(0.025))) == BOTH.half_width(0.025)


@pytest.mark.parametrize("mean", [0.1, 3.0, -3.0, 400.0])
def test_the_p_value_is_where_the_half_width_equals_the_mean(mean: float):
    p_value = BOTH.p_value(mean)
    one = math.tan(math.pi * (1 - p_value) / 2)
    two = (1 - p_value) * math.sqrt(2 / (1 - (1 - p_value) ** 2))
    assert (one + 3 * two) / 4 * 2 == pytest.approx(abs(mean), rel=1e-6)


@pytest.mark.parametrize("seeds", [None, NOTHING])
def test_one_component_is_students_t(seeds: VarianceComponent | None):
    variance = MeanVariance(items=VarianceComponent(variance=0.25, df=7.0), seeds=seeds)
    assert variance.half_width(0.05) == pytest.approx(0.5 * stats.t.ppf(0.95, 7))
    assert variance.p_value(1.0) == pytest.approx(2 * stats.t.sf(2, 7))


def test_seeds_that_decide_alone_are_students_t_too():
    variance = MeanVariance(items=NOTHING, seeds=VarianceComponent(variance=0.25, df=7.0), pairs=0.1)
    assert variance.half_width(0.05) == pytest.approx(0.5 * stats.t.ppf(0.95, 7))
    assert MeanVariance(items=NOTHING, seeds=NOTHING).half_width(0.05) == 0


def test_extreme_means_have_the_smallest_p_value_and_zero_the_largest():
    part = VarianceComponent(variance=1.0, df=400.0)
    assert MeanVariance(items=part, seeds=TWO).p_value(1e6) >= 2e-100
    assert MeanVariance(items=part, seeds=None).p_value(1e6) == 2e-100
    assert BOTH.p_value(0.0) == 1.0


@pytest.mark.parametrize("of_seeds", [0.0, 1e-300, 1e-40, 1e-12, 1e-3])
@pytest.mark.parametrize("mean", [1e-300, 1e-17, 1e-9, 0.01, 0.5, 1.0, 50.0])
def test_a_variance_of_nearly_nothing_leaves_a_p_value(of_seeds: float, mean: float):
    # An arm that scores 0 on every prompt with every seed: items decide, whose tail is below the smallest one.
    items = VarianceComponent(variance=4e-4, df=399.0)
    variance = MeanVariance(items=items, seeds=VarianceComponent(variance=of_seeds, df=2.0))
    p_value = variance.p_value(mean)
    assert 2e-100 <= p_value <= 1
    if 1e-99 < p_value < 0.999:
        assert variance.half_width(p_value / 2) == pytest.approx(mean, rel=1e-6)


def test_an_arm_that_never_scores_is_worse_beyond_doubt():
    rng = np.random.default_rng(3)
    start = (rng.random((1, 400)) < 0.78).astype(float)
    found = contrast([np.zeros((3, 400)), np.repeat(start, 3, axis=0)], [1.0, -1.0], matched_seeds=False)
    assert found.p_value < 1e-50
    assert found.high < -0.7
