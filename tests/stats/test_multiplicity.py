"""Holm's correction."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlassay.stats import holm


def test_worked_by_hand():
    # Ascending .01 .03 .04 with m = 3: 3*.01 = .03, 2*.03 = .06, max(.06, 1*.04) = .06.
    assert holm([0.04, 0.01, 0.03]).tolist() == pytest.approx([0.06, 0.03, 0.06])


def test_untested_comparisons_stay_nan_and_do_not_count():
    assert holm([0.04, np.nan, 0.01]) == pytest.approx([0.04, np.nan, 0.02], nan_ok=True)
    assert np.isnan(holm([np.nan])).all()
    assert holm([]).shape == (0,)


def test_never_above_one():
    assert holm([0.6, 0.7]).tolist() == [1.0, 1.0]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_between_the_plain_and_the_bonferroni_p_value_in_the_same_order(p_values: list[float]):
    given_, adjusted = np.array(p_values), holm(p_values)
    assert np.all(adjusted >= given_)
    assert np.all(adjusted <= np.minimum(1, len(p_values) * given_))
    order = np.argsort(given_, kind="stable")
    assert np.all(np.diff(adjusted[order]) >= 0)


@pytest.mark.parametrize("p_values", [[1.2], [-0.1], [[0.1, 0.2]]])
def test_what_is_no_p_value_is_refused(p_values: list):
    with pytest.raises(ValueError, match="numbers between 0 and 1"):
        holm(p_values)
