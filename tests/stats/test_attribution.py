"""Shapley values, main effects and interactions: by hand, and against all orders of adding the ingredients."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlassay.stats import contrast, effect_weights, paired_difference, shapley, shapley_weights
from rlassay.stats.attribution import subsets

A, B, BOTH, NONE = frozenset("a"), frozenset("b"), frozenset("ab"), frozenset[str]()


def test_shapley_by_hand():
    # a: ((10 - 0) + (16 - 4)) / 2 = 11, b: ((4 - 0) + (16 - 10)) / 2 = 5; together 16.
    assert shapley({NONE: 0.0, A: 10.0, B: 4.0, BOTH: 16.0}) == {"a": 11.0, "b": 5.0}
    assert shapley({NONE: 3.0}) == {}


@given(st.lists(st.floats(-9, 9), min_size=16, max_size=16))
def test_shapley_is_the_mean_over_all_orders(scores: list[float]):
    names = "wxyz"
    values = dict(zip(subsets(names), scores, strict=True))
    gains = {name: [] for name in names}
    for order in permutations(names):
        for place, name in enumerate(order):
            before = frozenset(order[:place])
            gains[name].append(values[before | {name}] - values[before])
    found = shapley(values)
    assert found == pytest.approx({name: sum(each) / 24 for name, each in gains.items()})
    assert sum(found.values()) == pytest.approx(values[frozenset(names)] - values[frozenset()], abs=1e-9)


def test_a_missing_subset_is_named_and_not_imputed():
    with pytest.raises(ValueError, match=r"no score for \{\}, \{b\}; exact Shapley values of 2 ingredients need all 4"):
        shapley({A: 1.0, BOTH: 2.0})


def test_effects_by_hand():
    # Main effect of a: ((10 - 0) + (16 - 4)) / 2 = 11; interaction: (16 - 4) - (10 - 0) = 2.
    values = {NONE: 0.0, A: 10.0, B: 4.0, BOTH: 16.0}
    main, both = effect_weights("ab", "a"), effect_weights("ab", "ab")
    assert sum(main[cell] * values[cell] for cell in values) == 11.0
    assert sum(both[cell] * values[cell] for cell in values) == 2.0
    with pytest.raises(ValueError, match=r"of is \['z'\]; expected some of the ingredients \['a', 'b'\]"):
        effect_weights("ab", "z")


def test_shapley_of_an_additive_score_is_the_main_effect():
    values = {cell: 2.0 * ("a" in cell) - 5.0 * ("b" in cell) + 0.5 * ("c" in cell) for cell in subsets("abc")}
    weights = effect_weights("abc", "b")
    assert shapley(values) == pytest.approx({"a": 2.0, "b": -5.0, "c": 0.5})
    assert sum(weights[cell] * values[cell] for cell in values) == pytest.approx(-5.0)


def test_a_contrast_has_the_interval_of_the_weighted_scores():
    rng = np.random.default_rng(5)
    cells = {cell: rng.normal(len(cell), 1, (3, 7)) for cell in subsets("ab")}
    weights = shapley_weights("ab")["a"]
    found = contrast([cells[cell] for cell in weights], list(weights.values()))
    half = (cells[A] - cells[NONE]) / 2, (cells[B] - cells[BOTH]) / 2
    assert found == paired_difference(half[0], half[1])
    assert found.mean == pytest.approx(shapley({cell: scores.mean() for cell, scores in cells.items()})["a"])


def test_independent_arms_of_a_contrast_vary_by_themselves():
    # Two seeds, two items without item variance. Seed means: (0, 2), (1, 1), (0, 4) with weights 1, -1 and 0.5:
    # V_a = (2 + 0 + 0.25 * 8) / 2 = 2, on (2 - 1) * (1 + 1)^2 / (1 + 1) = 2 degrees of freedom; V_b = 0.
    cells = [[[0.0, 0.0], [2.0, 2.0]], [[1.0, 1.0], [1.0, 1.0]], [[0.0, 0.0], [4.0, 4.0]]]
    found = contrast(cells, [1.0, -1.0, 0.5], matched_seeds=False)
    assert found.mean == pytest.approx(1.0)
    assert found.high - found.mean == pytest.approx(4.302653 * 2**0.5, abs=1e-5)


def test_equal_shares_of_a_contrast_allow_for_unseen_items_within_its_bounds():
    # All scores 1: the contrast is 0 and could lie between -1 and 1.5 times Wilson's rate for 0 of 6 items.
    ones = np.ones((2, 6))
    found = contrast([ones, ones, ones], [1.0, -1.0, 0.5])
    rate = 1.959964**2 / (6 + 1.959964**2)
    assert found.mean == 0.5
    assert (found.low, found.high) == pytest.approx((0.5 + rate * -1.5, 0.5 + rate * 1.0), abs=1e-6)


def test_cells_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"shapes \[\(1, 2\)\] and 1 weights"):
        contrast([[[1.0, 2.0]], [[1.0, 2.0]]], [1.0])
    with pytest.raises(ValueError, match=r"shapes \[\(1, 1\), \(1, 2\)\] and 2 weights"):
        contrast([[[1.0, 2.0]], [[1.0]]], [1.0, 2.0])
