"""Credit metrics: over which tokens and completions they average."""

import pytest
import torch

from rlassay.credit import CREDITS
from rlassay.credit.metrics import TOKEN_FRACTIONS, filter_metrics, scale_metrics, signal_metrics, weight_metrics
from tests.credit.make import MASK, NAN, signals

PERCEPTION = torch.tensor([[0.5, 0.1, 0.4, 0.3, 0.2, 9.0], [0.1, 0.3, 9.0, 9.0, 9.0, 9.0], [9.0] * 6])
KEPT = torch.tensor([[1, 0, 1, 0, 0, 1], [1, 1, 0, 0, 0, 0], [0] * 6], dtype=torch.bool)
ALL = torch.ones(3, dtype=torch.bool)


def test_every_filter_has_a_metric():
    assert set(TOKEN_FRACTIONS) == {name for name in CREDITS if name.endswith("_filter")}


def test_means_are_over_completion_tokens():
    weights = torch.tensor([[2.0, 0.0, 1.0, 0.0, 0.0, 9.0], [0.5, 0.0, 9.0, 9.0, 9.0, 9.0], [9.0] * 6])
    # 3.5 over 7 tokens; 4 of 7 selected, the padding left out.
    assert weight_metrics(weights, KEPT, signals()) == pytest.approx(
        {"credit_weight_mean": 0.5, "combined_token_fraction": 4 / 7}
    )


def test_a_filter_is_measured_on_the_completions_it_applies_to():
    only_first = torch.tensor([True, False, False])
    found = filter_metrics("perception_filter", KEPT, only_first, signals(perception_BT=PERCEPTION))
    assert found == pytest.approx(
        {
            "perception_token_fraction": 2 / 5,
            "low_var_kl_mean_selected": 0.45,
            "low_var_kl_mean_rejected": 0.2,
            "low_var_kl_threshold": 0.4,
        }
    )
    assert filter_metrics("entropy_filter", KEPT, only_first, signals()) == pytest.approx(
        {"entropy_token_fraction": 0.4}
    )


def test_a_mean_over_nothing_is_left_out():
    given = signals(perception_BT=PERCEPTION)
    everything = filter_metrics("perception_filter", MASK.bool(), ALL, given)
    assert "low_var_kl_mean_rejected" not in everything
    assert filter_metrics("perception_filter", KEPT, ~ALL, given) == {}
    assert scale_metrics(torch.ones(3), ~ALL) == {}


def test_an_unmeasured_token_is_neither_selected_nor_rejected():
    lost = PERCEPTION.clone()
    lost[0, 0] = lost[0, 1] = NAN
    found = filter_metrics("perception_filter", KEPT, ALL, signals(perception_BT=lost))
    # Selected .4, .1, .3; rejected .3, .2.
    assert found["low_var_kl_mean_selected"] == pytest.approx(0.8 / 3)
    assert found["low_var_kl_mean_rejected"] == pytest.approx(0.25)
    assert found["low_var_kl_threshold"] == pytest.approx(0.1)


def test_scale_metrics_are_over_completions_the_part_applies_to():
    found = scale_metrics(torch.tensor([0.8, 1.0, 1.1]), torch.tensor([True, False, True]))
    assert found == pytest.approx({"scaling_factor_mean": 0.95, "dynamic_scaling_max": 1.1})


def test_unmeasured_tokens_are_counted_where_a_signal_is_expected():
    lost = PERCEPTION.clone()
    lost[0, 0] = lost[1, 0] = lost[2, 0] = lost[0, 5] = NAN
    given = signals(perception_BT=lost, has_image_B=torch.tensor([True, False, True]))
    found = signal_metrics(given, frozenset({"perception"}))
    # Of 7 tokens one: the second completion needs no perception, the others are padding.
    assert found == pytest.approx(
        {"unmeasured_token_fraction": 1 / 7, "no_image_fraction": 1 / 3, "sensitivity_score_mean": 0.25}
    )


def test_signals_that_no_part_needs_are_not_logged():
    assert signal_metrics(signals(), frozenset()) == {}
    draws = signals(draws_BT=torch.rand(MASK.shape))
    assert signal_metrics(draws, frozenset({"draws"})) == {"unmeasured_token_fraction": 0.0}
