"""Cells and comparisons."""

import numpy as np
import pytest

from rlassay.report.estimates import difference, estimate, over_seeds, scores_of, tidy
from rlassay.report.tables import primary_column
from rlassay.stats import crossed_interval, paired_difference
from tests.report.by_hand import hand_results


@pytest.mark.parametrize(("value", "held"), [(float("nan"), None), (1 / 3, 0.333333), (-1e-9, 0.0)])
def test_numbers_are_rounded_and_never_nan_or_minus_zero(value: float, held: float | None):
    assert tidy(value) == held
    assert str(tidy(value)) != "-0.0"


def test_scores_come_seed_by_seed():
    values = np.array([[0.0, 0.5, 1.0], [0.25, 0.5, 0.75]])
    results = hand_results({"base": values, "sft": values[:1]})
    assert scores_of(results, results.rows["base"], primary_column(results)).tolist() == values.tolist()


def test_pass_at_k_uses_the_samples_that_were_judged():
    # 4 samples, 0, 1 and 2 of them right: pass@2 = 0, 1 - C(3,2)/C(4,2) = 0.5 and 1 - C(2,2)/C(4,2) = 5/6.
    results = hand_results({"base": np.array([[0.0, 0.25, 0.5, np.nan]]), "sft": np.array([[1.0, 1.0, 1.0, 1.0]])})
    column = primary_column(results).model_copy(update={"metric": "pass_at_2"})
    found = scores_of(results, results.rows["base"], column)
    assert found[0] == pytest.approx([0, 0.5, 5 / 6, np.nan], nan_ok=True)


def test_a_metric_that_a_policy_lacks_cannot_be_judged():
    results = hand_results({"base": np.array([[0.0, 1.0]]), "sft": np.array([[0.0, 1.0]])})
    column = primary_column(results).model_copy(update={"metric": "unheard_of"})
    cell = estimate(scores_of(results, results.rows["base"], column), "share", 0.95)
    assert (cell.mean, cell.low, cell.num_items, cell.covers) == (None, None, 0, "nothing")


def test_an_estimate_is_the_crossed_interval_cut_at_what_a_share_can_be():
    scores = np.array([[0.0, 0.0, 0.3], [0.1, 0.0, 0.0]])
    plain = crossed_interval(scores)
    assert plain.low < 0
    cell = estimate(scores, "share", 0.95)
    assert (cell.low, cell.high) == (0.0, pytest.approx(plain.high, abs=1e-6))
    assert (cell.mean, cell.num_seeds, cell.num_items) == (pytest.approx(0.4 / 6, abs=1e-6), 2, 3)
    assert cell.covers == "seeds and items"
    assert estimate(scores, "value", 0.95).low == pytest.approx(plain.low, abs=1e-6)


@pytest.mark.parametrize("matched", [True, False])
def test_a_difference_is_the_paired_one_cut_at_what_a_share_can_be(matched: bool):
    arm, reference = np.array([[1.0, 1.0, 0.8], [0.9, 1.0, 1.0]]), np.array([[0.0, 0.1, 0.0], [0.0, 0.0, 0.1]])
    expected = paired_difference(arm, reference, matched_seeds=matched)
    assert expected.high > 1
    found = difference(arm, reference, "share", 0.95, matched)
    assert (found.effect, found.low) == pytest.approx((expected.mean, expected.low), abs=1e-6)
    assert found.high == 1.0
    assert found.p_value == pytest.approx(expected.p_value, rel=1e-5)
    assert found.covers == "seeds and items"


def test_one_seed_covers_items_only():
    found = difference(np.array([[1.0, 0.5, 0.2]]), np.array([[0.5, 0.5, 0.5]]), "share", 0.95, True)
    assert (found.num_seeds, found.covers, found.p_value) == (1, "items", None)


def test_training_statistics_cover_seeds():
    # 1, 2, 3: mean 2, s = 1, t(2) = 4.302653, reach 4.302653 / sqrt(3) = 2.484138.
    found = over_seeds(np.array([1.0, 2.0, 3.0]), 64, 0.95)
    assert (found.mean, found.low, found.high) == pytest.approx((2, -0.484138, 4.484138), abs=1e-6)
    assert (found.num_seeds, found.num_items, found.covers) == (3, 64, "seeds")
    assert over_seeds(np.array([1.0]), 64, 0.95).covers == "nothing"
