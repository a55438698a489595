import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlassay.credit import TokenSignals, perception, trajectory_scaling
from rlassay.credit.sensitivity import mean_perception
from tests.credit.make import MASK, NAN, batches

LN2 = math.log(2)
FOUR = torch.tensor([[1, 1, 0], [1, 0, 0], [1, 1, 1], [1, 1, 0]])


def test_perception_of_a_log_ratio():
    x = torch.tensor([[0.0, LN2, -LN2, 3.0, 50.0], [-50.0, -20.0, NAN, 0.1, 0.0]])
    original = torch.tensor([[-1.0, -2.0, -0.5, -4.0, -60.0], [-1.0, -1.0, -1.0, -1.0, -0.25]])
    # e^x - x - 1: 0; 2 - .6931 - 1; .5 + .6931 - 1; capped at 10 for 3 (16.09) and 50; x held at -20: 19, capped.
    expected = [[0.0, 0.306853, 0.193147, 10.0, 10.0], [10.0, 10.0, NAN, 0.005171, 0.0]]
    torch.testing.assert_close(
        perception(original, original + x), torch.tensor(expected), equal_nan=True, atol=2e-6, rtol=0
    )


def test_perception_estimates_the_divergence_from_the_sampled_tokens():
    p, q = torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.2, 0.3, 0.5])
    # Weighted with p, the probability of being sampled: sum p ln(p / q).
    estimate = (p * perception(p.log()[None], q.log()[None])[0]).sum()
    assert estimate.item() == pytest.approx((p * (p / q).log()).sum().item(), abs=1e-6)


def test_the_mean_is_over_measured_tokens():
    values = torch.tensor([[1.0, NAN, 3.0, NAN, 2.0, 99.0], [NAN, NAN, 99.0, 99.0, 99.0, 99.0], [99.0] * 6])
    found = mean_perception(values, MASK)
    assert found[0].item() == 2.0
    assert torch.isnan(found[1:]).all()


def test_scales_rise_with_mean_perception_and_have_mean_one():
    # Means .05, .1, .2 -> n = 0, 1/3, 1 with mean 4/9 -> top .9 + .1 x 9/4 = 1.125 -> .9, .975, 1.125.
    values = torch.tensor([[0.02, 0.08, 9.0], [0.1, 9.0, 9.0], [0.1, 0.2, 0.3]])
    mask = torch.tensor([[1, 1, 0], [1, 0, 0], [1, 1, 1]])
    torch.testing.assert_close(trajectory_scaling(values, mask, 0.9), torch.tensor([0.9, 0.975, 1.125]))


def test_a_limit_holds_the_largest_scale_and_lets_the_mean_fall():
    values = torch.tensor([[0.02, 0.08, 9.0], [0.1, 9.0, 9.0], [0.1, 0.2, 0.3]])
    mask = torch.tensor([[1, 1, 0], [1, 0, 0], [1, 1, 1]])
    # top = 1.05 in place of 1.125: .9, .9 + .15 / 3, 1.05; a limit above 1.125 changes nothing.
    torch.testing.assert_close(trajectory_scaling(values, mask, 0.9, 1.05), torch.tensor([0.9, 0.95, 1.05]))
    assert torch.equal(trajectory_scaling(values, mask, 0.9, 1.2), trajectory_scaling(values, mask, 0.9))


def test_a_completion_that_was_not_measured_gets_one_and_plays_no_part():
    values = torch.tensor([[0.02, 0.08, 9.0], [0.1, 9.0, 9.0], [NAN, NAN, NAN], [0.1, 0.3, 0.3]])
    torch.testing.assert_close(trajectory_scaling(values, FOUR, 0.9), torch.tensor([0.9, 0.975, 1.0, 1.125]))
    emptied = FOUR.clone()
    emptied[2] = 0
    assert torch.equal(trajectory_scaling(values.nan_to_num(7.0), emptied, 0.9), trajectory_scaling(values, FOUR, 0.9))


@pytest.mark.parametrize(
    "means",
    [[0.1, 0.1, 0.1, 0.1], [0.1, 0.1 + 1e-7, 0.1, 0.1], [0.3, NAN, NAN, NAN], [NAN] * 4],
)
def test_completions_that_cannot_be_told_apart_are_not_scaled(means: list[float]):
    values = torch.tensor(means)[:, None].expand(4, 3)
    assert trajectory_scaling(values, FOUR, 0.8).tolist() == [1.0] * 4


@pytest.mark.parametrize(("low", "high"), [(-0.1, None), (1.1, None), (0.9, 0.99)])
def test_scales_out_of_range_are_refused(low: float, high: float | None):
    with pytest.raises(ValueError, match="min_scale"):
        trajectory_scaling(torch.zeros(4, 3), FOUR, low, high)


@given(batches(), st.floats(0.0, 1.0))
def test_the_mean_scale_is_one_and_the_smallest_is_the_minimum(batch: TokenSignals, low: float):
    values = batch.named("perception")
    scale = trajectory_scaling(values, batch.completion_mask, low)
    measured = ~torch.isnan(mean_perception(values, batch.completion_mask))
    assert scale[~measured].tolist() == [1.0] * int((~measured).sum())
    if measured.any() and not bool((scale == 1).all()):
        assert scale[measured].mean().item() == pytest.approx(1.0, abs=1e-5)
        assert scale[measured].min().item() == pytest.approx(low, abs=1e-6)
