"""Two one-sided tests: by hand, and the share of false "equivalent" by simulation."""

import numpy as np
import pytest
from scipy import stats

from rlassay.stats import equivalence_p_value, equivalent, paired_difference

# Differences (1, 3) of two seeds, alike on both items: mean 2, V_a = var(1, 3) / 2 = 1, V_b = 0, one degree of freedom.
# At confidence 0.95 the one-sided quantile is t_0.95(1) = 6.313752, so the 90 % interval is 2 -/+ 6.313752.
A = np.array([[1.0, 1.0], [3.0, 3.0]])
ZERO = np.zeros((2, 2))


@pytest.mark.parametrize(("margin", "shown"), [(8.3138, True), (8.3137, False)])
def test_both_one_sided_tests_by_hand(margin: float, shown: bool):
    assert equivalent(A, ZERO, margin) is shown
    assert equivalent(ZERO, A, margin) is shown


def test_the_tests_are_students_over_items_when_seeds_agree():
    scores = np.random.default_rng(2).normal(0.1, 1, 40)
    a, b = np.stack([scores, scores]), np.zeros((2, 40))
    for margin in (0.2, 0.3, 0.4, 0.5):
        above = stats.ttest_1samp(scores, margin, alternative="less").pvalue < 0.05
        below = stats.ttest_1samp(scores, -margin, alternative="greater").pvalue < 0.05
        assert equivalent(a, b, margin) == (above and below)


def test_one_seed_shows_nothing_and_equal_shares_show_what_their_number_allows():
    assert equivalent(A[:1], ZERO[:1], 100.0) is False
    ones = np.ones((3, 100))
    # Wilson's bound for 0 of 100 at 90 % is 2.6 %.
    assert equivalent(ones, ones, 0.03)
    assert not equivalent(ones, ones, 0.02)


def test_the_p_value_by_hand():
    # A tail of 5 % of t(1) lies beyond 6.313752, so that the interval reaches a margin of 8.313752 at p = .05.
    assert equivalence_p_value(A, ZERO, 8.313752) == pytest.approx(0.05, rel=1e-6)
    assert equivalence_p_value(ZERO, A, 8.313752) == pytest.approx(0.05, rel=1e-6)


@pytest.mark.parametrize("matched", [True, False])
def test_the_p_value_inverts_the_interval(matched: bool):
    rng = np.random.default_rng(0)
    a, b = (level + 0.1 * rng.uniform(-1, 1, (3, 60)) for level in (0.52, 0.5))
    p_value = equivalence_p_value(a, b, 0.05, matched_seeds=matched)
    assert 1e-6 < p_value < 0.05
    # At that level one end of the 1 - 2p interval touches the margin.
    found = paired_difference(a, b, 1 - 2 * p_value, matched_seeds=matched)
    assert max(abs(found.low), abs(found.high)) == pytest.approx(0.05, abs=1e-9)
    assert equivalent(a, b, 0.05, 1 - 1.01 * p_value, matched_seeds=matched)
    assert not equivalent(a, b, 0.05, 1 - 0.99 * p_value, matched_seeds=matched)


def test_the_p_value_of_shares_that_all_differ_alike_inverts_wilsons_bound():
    ones, halves = np.ones((3, 100)), np.full((3, 100), 0.5)
    for a, b, margin in ((ones, ones, 0.03), (ones, halves, 0.52), (halves, ones, 0.52)):
        p_value = equivalence_p_value(a, b, margin)
        found = paired_difference(a, b, 1 - 2 * p_value)
        assert max(abs(found.low), abs(found.high)) == pytest.approx(margin, abs=1e-9)
    assert equivalence_p_value(ones, 0 * ones, 1.5) == 0.0
    assert equivalence_p_value(9 * ones, 9 * ones, 0.1) == 0.0


def test_the_p_value_beyond_the_margin_is_1_and_one_seed_has_none():
    assert equivalence_p_value(A, ZERO, 2.0) == 1.0
    assert equivalence_p_value(ZERO, A, 1.0) == 1.0
    assert np.isnan(equivalence_p_value(A[:1], ZERO[:1], 9.0))
    assert equivalence_p_value(A[:, :1], ZERO[:, :1], 9.0) == 1.0


@pytest.mark.parametrize("matched", [True, False])
def test_a_difference_of_the_margin_is_called_equivalent_in_at_most_5_percent(matched: bool):
    rng = np.random.default_rng(4)
    called = 0
    for _ in range(1000):
        chance = rng.uniform(0.2, 0.7, 200)
        a, b = (rng.binomial(4, chance + rng.normal(0, 0.01, (3, 1)) + shift) / 4 for shift in (0.06, 0.0))
        called += equivalent(a, b, 0.06, matched_seeds=matched)
    assert called / 1000 <= 0.05


@pytest.mark.parametrize(
    ("margin", "confidence", "message"),
    [(0.0, 0.95, "margin is 0; expected"), (0.1, 0.5, "confidence is 0.5; expected a level between 0.5 and 1")],
)
def test_unusable_numbers_are_refused(margin: float, confidence: float, message: str):
    with pytest.raises(ValueError, match="margin is 0; expected"):
        equivalence_p_value(A, ZERO, 0.0)
    with pytest.raises(ValueError, match=message):
        equivalent(A, ZERO, margin, confidence)
