import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlassay.credit import TokenSignals, attention_weights
from rlassay.credit.attention import cap_at_quantile
from tests.credit.make import MASK, NAN, batches

WIDE = (0.0, 1e9)


def row(*dominances: float, padding: float = NAN) -> tuple[torch.Tensor, torch.Tensor]:
    """One completion with two positions of padding, and its mask."""
    return torch.tensor([[*dominances, padding, padding]]), torch.tensor([[1] * len(dominances) + [0, 0]])


def test_weights_are_the_inverse_of_dominance_over_their_mean():
    # 1, 1/2, 1/4, mean 7/12: 12/7, 6/7, 3/7.
    expected = torch.tensor([[12 / 7, 6 / 7, 3 / 7, 0.0, 0.0]])
    torch.testing.assert_close(attention_weights(*row(1.0, 2.0, 4.0)), expected, atol=2e-6, rtol=0)
    torch.testing.assert_close(attention_weights(*row(1.0, 2.0, 4.0), smooth_first=True), expected, atol=2e-6, rtol=0)


def test_clipping_comes_before_the_mean_is_made_one_again():
    # 1, 1/100, 1/100, 1/100: over their mean .2575: 3.8835, .038835 three times; clipped: 3, .2 three times.
    clipped = torch.tensor([[3.0, 0.2, 0.2, 0.2, 0.0, 0.0]])
    torch.testing.assert_close(attention_weights(*row(1.0, 100.0, 100.0, 100.0)), clipped / 0.9, atol=1e-5, rtol=0)
    found = attention_weights(*row(1.0, 100.0, 100.0, 100.0), smooth_first=True)  # mean .9, and left there
    torch.testing.assert_close(found, clipped, atol=1e-5, rtol=0)


def test_smoothing_repeats_the_ends_and_sees_no_padding():
    # sigma .5: half width 1, kernel e^-2, 1, e^-2 over 1 + 2 e^-2.
    side = math.exp(-2) / (1 + 2 * math.exp(-2))
    weights = [12 / 7, 6 / 7, 3 / 7]
    smooth = [
        (1 - side) * weights[0] + side * weights[1],
        side * weights[0] + (1 - 2 * side) * weights[1] + side * weights[2],
        side * weights[1] + (1 - side) * weights[2],
    ]
    # Repeating the ends keeps the sum here: what the first gives away it gets from its own copy.
    expected = torch.tensor([[*smooth, 0.0, 0.0]])
    assert sum(smooth) == pytest.approx(3.0)
    found = attention_weights(*row(1.0, 2.0, 4.0), WIDE, sigma=0.5)
    torch.testing.assert_close(found, expected, atol=2e-6, rtol=0)


def test_tokens_that_the_loss_leaves_out_are_nobodys_neighbours():
    gapped, mask = torch.tensor([[9.0, 1.0, 0.1, 2.0, 4.0]]), torch.tensor([[0, 1, 0, 1, 1]])
    found = attention_weights(gapped, mask, WIDE, sigma=0.8)
    assert found[mask.bool()].tolist() == pytest.approx(
        attention_weights(*row(1.0, 2.0, 4.0), WIDE, 0.8)[0, :3].tolist()
    )
    assert not found[~mask.bool()].any()


def test_the_kernel_is_three_sigma_wide():
    dominance, mask = torch.full((1, 13), 50.0), torch.ones(1, 13, dtype=torch.int64)
    dominance[0, 6] = 1.0  # its half width is int(3 x 1.5) = 4
    weights = attention_weights(dominance, mask, WIDE, sigma=1.5)[0]
    assert (weights > 1.01 * weights[0]).nonzero().flatten().tolist() == [2, 3, 4, 5, 6, 7, 8, 9, 10]


def test_two_tokens_are_not_smoothed():
    assert torch.equal(attention_weights(*row(1.0, 3.0), sigma=2.0), attention_weights(*row(1.0, 3.0)))
    assert not torch.equal(attention_weights(*row(1.0, 3.0, 3.0), sigma=2.0), attention_weights(*row(1.0, 3.0, 3.0)))


def test_the_order_matters_where_a_clip_binds():
    ours = attention_weights(*row(1.0, 100.0, 100.0, 100.0), sigma=1.0)
    source = attention_weights(*row(1.0, 100.0, 100.0, 100.0), sigma=1.0, smooth_first=True)
    assert (ours - source).abs().max() > 0.1
    assert ours[ours > 0].mean().item() == pytest.approx(1.0)


def test_tokens_that_cannot_be_judged_count_as_average():
    found = attention_weights(*row(1.0, NAN, 2.0, -3.0, 4.0))
    torch.testing.assert_close(found, torch.tensor([[12 / 7, 1.0, 6 / 7, 1.0, 3 / 7, 0.0, 0.0]]), atol=2e-6, rtol=0)


def test_extreme_dominances():
    # Infinite: no attention on the image, the least weight; over the mean of 1 and 0: 2 and 0, clipped to .2.
    torch.testing.assert_close(attention_weights(*row(1.0, math.inf))[0, :2], torch.tensor([2.0, 0.2]) / 1.1)
    assert attention_weights(*row(math.inf, math.inf)).tolist() == [[1.0, 1.0, 0.0, 0.0]]
    torch.testing.assert_close(attention_weights(*row(0.0, 5.0))[0, :2], torch.tensor([2.0, 0.2]) / 1.1)


@pytest.mark.parametrize("smooth_first", [False, True])
@pytest.mark.parametrize("sigma", [0.0, 1.0])
def test_equal_single_and_missing_signals_give_uniform_credit(sigma: float, smooth_first: bool):
    for dominance in (torch.full((3, 6), 7.0), torch.full((3, 6), NAN)):
        found = attention_weights(dominance, MASK, sigma=sigma, smooth_first=smooth_first)
        torch.testing.assert_close(found, MASK.float())
    assert attention_weights(*row(0.3)).tolist() == [[1.0, 0.0, 0.0]]


@pytest.mark.parametrize("clip", [(-0.1, 3.0), (1.1, 3.0), (0.2, 0.9)])
def test_a_clip_range_holds_one(clip: tuple[float, float]):
    with pytest.raises(ValueError, match="clip"):
        attention_weights(*row(1.0), clip)


def test_a_cap_is_a_quantile_of_the_completion_without_its_padding():
    weights = torch.tensor([[1.0, 2.0, 3.0, 4.0, 5.0, 0.0], [1.0, 3.0, 0.0, 0.0, 0.0, 0.0], [0.0] * 6])
    # Quantile .5: 3 of the first completion, 2 of the second; quantile 1 caps nothing.
    expected = [[1.0, 2.0, 3.0, 3.0, 3.0, 0.0], [1.0, 2.0, 0.0, 0.0, 0.0, 0.0], [0.0] * 6]
    assert cap_at_quantile(weights, MASK, 0.5).tolist() == expected
    assert torch.equal(cap_at_quantile(weights, MASK, 1.0), weights)


@given(batches(), st.sampled_from([0.0, 0.7, 2.0]), st.sampled_from([0.125, 4.0, 1024.0]))
def test_weights_have_mean_one_and_a_constant_factor_changes_nothing(batch: TokenSignals, sigma: float, factor: float):
    dominance, valid = batch.named("dominance") + 1.0, batch.completion_mask.bool()
    weights = attention_weights(dominance, batch.completion_mask, sigma=sigma)
    assert bool((weights[valid] > 0).all())
    assert not weights[~valid].any()
    for row_weights, row_valid in zip(weights, valid, strict=True):
        if row_valid.any():
            assert row_weights[row_valid].mean().item() == pytest.approx(1.0, abs=1e-5)
    scaled = attention_weights(factor * dominance, batch.completion_mask, sigma=sigma)
    torch.testing.assert_close(scaled, weights, atol=1e-4, rtol=0)
