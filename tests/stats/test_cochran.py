"""Cochran's critical value, against quantiles that have closed forms."""

import math

import pytest
from scipy import stats

from rlassay.stats.cochran import Part, reach, two_sided_p

# t(1) = tan(pi (1 - 2q) / 2) and t(2) = (1 - 2q) sqrt(2 / (1 - (1 - 2q)^2)) at the tail q.
ONE, TWO = Part(variance=1.0, freedom=1.0), Part(variance=3.0, freedom=2.0)


def test_reach_by_hand():
    # q = 0.025: t(1) = 12.706205, t(2) = 4.302653; (1 * 12.706205 + 3 * 4.302653) / 4 * sqrt(4) = 12.807082.
    assert reach([ONE, TWO], 0.025) == pytest.approx(12.807082, abs=1e-6)


@pytest.mark.parametrize("mean", [0.1, 3.0, -3.0, 400.0])
def test_p_value_is_where_the_reach_is_the_mean(mean: float):
    p_value = two_sided_p(mean, [ONE, TWO])
    one = math.tan(math.pi * (1 - p_value) / 2)
    two = (1 - p_value) * math.sqrt(2 / (1 - (1 - p_value) ** 2))
    assert (one + 3 * two) / 4 * 2 == pytest.approx(abs(mean), rel=1e-6)


def test_one_part_is_students_t():
    part = Part(variance=0.25, freedom=7.0)
    assert reach([part], 0.05) == pytest.approx(0.5 * stats.t.ppf(0.95, 7))
    assert two_sided_p(1.0, [part]) == pytest.approx(2 * stats.t.sf(2, 7))


def test_a_part_without_variance_changes_nothing():
    nothing = Part(variance=0.0, freedom=2.0)
    part = Part(variance=0.25, freedom=7.0)
    assert reach([nothing, part], 0.05) == pytest.approx(reach([part], 0.05))
    assert two_sided_p(1.0, [nothing, part]) == pytest.approx(two_sided_p(1.0, [part]))


def test_means_far_out_have_the_smallest_p_value_and_zero_the_largest():
    part = Part(variance=1.0, freedom=400.0)
    assert two_sided_p(1e6, [part, TWO]) >= 2e-100
    assert two_sided_p(1e6, [part]) == 2e-100
    assert two_sided_p(0.0, [ONE, TWO]) == 1.0
