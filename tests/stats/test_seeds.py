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
