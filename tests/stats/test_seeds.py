"""Bands over seeds, worked by hand."""

import numpy as np
import pytest

from rlassay.stats import seed_band


def test_band_by_hand_with_seeds_of_different_length():
    # First point 1, 2, 3: s = 1, t(2) = 4.30265, reach 4.30265 / sqrt(3) = 2.48414. Second: one seed. Third: none.
    band = seed_band(np.array([[1.0, 5.0, np.nan], [2.0, np.nan, np.nan], [3.0, np.nan, np.nan]]))
    assert band.mean == pytest.approx([2.0, 5.0, np.nan], nan_ok=True)
    assert band.low == pytest.approx([2 - 2.48414, np.nan, np.nan], nan_ok=True, abs=1e-5)
    assert band.high == pytest.approx([2 + 2.48414, np.nan, np.nan], nan_ok=True, abs=1e-5)
    assert band.num_seeds.tolist() == [3, 1, 0]


def test_equal_seeds_have_a_band_of_no_width():
    band = seed_band(np.full((3, 2), 4.0))
    assert band.low.tolist() == band.high.tolist() == [4.0, 4.0]


def test_a_band_between_limits_has_wilsons_form_where_it_would_leave_them():
    # Seeds .2 and .6: mean .4, s = .282843, t(1) = 12.7062, half-width 12.7062 x .2 = 2.54124, which leaves [0, 1].
    # c = 2.54124^2 / .24 = 26.9080; the ends solve (.4 - x)^2 = 26.9080 x (1 - x).
    values = np.array([[0.2, 0.5, 0.0], [0.6, 0.51, 0.0]])
    band = seed_band(values, 0.95, (0.0, 1.0))
    linear = seed_band(values)
    assert linear.low[0] < 0
    assert linear.high[0] > 1
    for end in (band.low[0], band.high[0]):
        assert (0.4 - end) ** 2 == pytest.approx(26.9080 * end * (1 - end), rel=1e-4)
    assert 0 < band.low[0] < 0.2
    assert 0.6 < band.high[0] < 1
    assert (band.low[1], band.high[1]) == (linear.low[1], linear.high[1])  # it stays inside by itself
    assert (band.low[2], band.high[2]) == (0.0, 0.0)


def test_other_limits_rescale_the_band():
    shares = np.array([[0.2], [0.6], [0.9]])
    of_shares = seed_band(shares, 0.95, (0.0, 1.0))
    stretched = seed_band(3 * shares - 2, 0.95, (-2.0, 1.0))
    assert stretched.low == pytest.approx(3 * of_shares.low - 2)
    assert stretched.high == pytest.approx(3 * of_shares.high - 2)


def test_a_mean_beyond_the_limits_keeps_the_linear_band():
    values = np.array([[0.9], [1.5]])
    assert seed_band(values, 0.95, (0.0, 1.0)).low == seed_band(values).low
