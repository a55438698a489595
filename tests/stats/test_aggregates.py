"""IQM and probability of improvement: by hand, and against scipy's trimmed mean and Mann-Whitney U."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from rlassay.stats import iqm, probability_of_improvement


def test_iqm_by_hand():
    # Seven scores: floor(7 / 4) = 1 off each end leaves 2, 3, 5, 7, 11, whose mean is 28 / 5.
    assert iqm([[100.0, 2.0, 3.0, 5.0], [7.0, 11.0, -50.0, np.nan]]) == pytest.approx(5.6)
    assert iqm([1.0, 2.0, 4.0]) == pytest.approx(7 / 3)
    assert math.isnan(iqm([np.nan]))


@given(st.lists(st.floats(-9, 9), min_size=1, max_size=30))
def test_iqm_is_scipys_trimmed_mean(scores: list[float]):
    assert iqm(scores) == pytest.approx(stats.trim_mean(scores, 0.25), abs=1e-12)


def test_probability_of_improvement_by_hand():
    # Item 1: 3 beats 1, equals 3; 2 beats 1, loses to 3: (1 + 0.5 + 1 + 0) / 4. Item 2: both lose to both: 0.
    # Item 3: only the pair 5 > 4 is there: 1. Item 4 has no score of b.
    a = [[3.0, 0.0, 5.0, 1.0], [2.0, 0.0, np.nan, 1.0]]
    b = [[1.0, 1.0, 4.0, np.nan], [3.0, 1.0, np.nan, np.nan]]
    assert probability_of_improvement(a, b) == pytest.approx((0.625 + 0 + 1) / 3)
    assert probability_of_improvement(b, a) == pytest.approx(1 - (0.625 + 0 + 1) / 3)
    assert math.isnan(probability_of_improvement([[np.nan]], [[1.0]]))


def test_probability_of_improvement_is_mann_whitneys_u_over_the_number_of_pairs():
    rng = np.random.default_rng(3)
    a, b = rng.integers(0, 4, (3, 7)).astype(float), rng.integers(0, 4, (5, 7)).astype(float)
    counts = [stats.mannwhitneyu(a[:, i], b[:, i]).statistic / 15 for i in range(7)]
    assert probability_of_improvement(a, b) == pytest.approx(np.mean(counts))


def test_unusable_scores_are_refused():
    with pytest.raises(ValueError, match="infinite"):
        iqm([1.0, np.inf])
    with pytest.raises(ValueError, match=r"a has shape \(1, 2\), b has \(1, 3\)"):
        probability_of_improvement([[1.0, 2.0]], [[1.0, 2.0, 3.0]])
