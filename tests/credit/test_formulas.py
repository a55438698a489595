"""Formulas of credit against values worked by hand: selection, weights from dominance, scales from perception."""

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlassay.credit import TokenSignals, inverse_dominance_weights, perception_scale, top_fraction_mask
from rlassay.credit.formulas import batch_quantile_mask, cap_at_quantile
from rlassay.signals.formulas import mean_perception
from tests.credit.make import MASK, NAN, batches

FOUR = torch.tensor([[1, 1, 0], [1, 0, 0], [1, 1, 1], [1, 1, 0]])
WIDE = (0.0, 1e9)


def kept(mask: torch.Tensor) -> list[list[int]]:
    """The selected positions of each completion."""
    return [row.nonzero().flatten().tolist() for row in mask]


def test_the_largest_signals_of_each_completion_are_selected_rounded_up():
    signal = torch.tensor([[0.1, 0.9, 0.3, 0.5, 0.2, 9.0], [2.0, 1.0, 9.0, 9.0, 9.0, 9.0], [9.0] * 6])
    # ceil(.4 x 5) = 2, ceil(.4 x 2) = 1, nothing of nothing; padding of 9 is ignored.
    assert kept(top_fraction_mask(signal, MASK, 0.4)) == [[1, 3], [0], []]
    assert kept(top_fraction_mask(signal, MASK, 0.41)) == [[1, 2, 3], [0], []]
    assert kept(top_fraction_mask(signal, MASK, 1.0)) == [[0, 1, 2, 3, 4], [0, 1], []]


def test_of_equal_signals_the_earliest_is_taken():
    assert kept(top_fraction_mask(torch.zeros(3, 6), MASK, 0.5)) == [[0, 1, 2], [0], []]
    signal = torch.tensor([[1.0, 2.0, 1.0, 2.0, 1.0, 0.0], [-math.inf, -math.inf, 0.0, 0.0, 0.0, 0.0], [0.0] * 6])
    assert kept(top_fraction_mask(signal, MASK, 0.6)) == [[0, 1, 3], [0, 1], []]


def test_nan_is_never_selected_even_if_fewer_tokens_remain():
    signal = torch.tensor([[NAN, 0.1, NAN, 0.2, NAN, 1.0], [NAN, -math.inf, 1.0, 1.0, 1.0, 1.0], [1.0] * 6])
    assert kept(top_fraction_mask(signal, MASK, 0.2)) == [[3], [1], []]
    assert kept(top_fraction_mask(signal, MASK, 1.0)) == [[1, 3], [1], []]
    assert kept(top_fraction_mask(torch.full((3, 6), NAN), MASK, 1.0)) == [[], [], []]


def test_rounding_up_tolerates_float_errors():
    hundred = torch.ones(1, 100, dtype=torch.int64)
    assert 0.55 * 100 > 55  # as floats
    assert top_fraction_mask(torch.rand(1, 100), hundred, 0.55).sum() == 55
    assert top_fraction_mask(torch.rand(1, 100), hundred, 1e-6).sum() == 1


@pytest.mark.parametrize("fraction", [0.0, -0.1, 1.1, NAN])
@pytest.mark.parametrize("select", [top_fraction_mask, batch_quantile_mask])
def test_a_fraction_is_above_zero_and_at_most_one(select: Callable[..., torch.Tensor], fraction: float):
    with pytest.raises(ValueError, match="fraction"):
        select(torch.zeros(3, 6), MASK, fraction)


def test_masks_with_holes_count_valid_tokens_only():
    mask = torch.tensor([[0, 1, 0, 1, 1, 0, 1]])
    assert kept(top_fraction_mask(torch.tensor([[9.0, 1.0, 9.0, 3.0, 2.0, 9.0, 4.0]]), mask, 0.5)) == [[3, 6]]


def test_the_batch_quantile_may_select_no_token_of_a_completion():
    entropy = torch.tensor([[0.1, 0.9, 0.3, 0.5, 0.9, 9.0], [0.2, 0.05, 9.0, 9.0, 9.0, 9.0], [9.0] * 6])
    # Sorted: .05 .1 .2 .3 .5 .9 .9; the .6 quantile lies at position 3.6, between .3 and .5: .42.
    assert kept(batch_quantile_mask(entropy, MASK, 0.4)) == [[1, 3, 4], [], []]
    assert kept(batch_quantile_mask(entropy, MASK, 1.0)) == [[0, 1, 2, 3, 4], [0, 1], []]
    assert kept(batch_quantile_mask(torch.full((3, 6), NAN), MASK, 0.4)) == [[], [], []]
    assert kept(batch_quantile_mask(entropy, torch.zeros_like(MASK), 0.4)) == [[], [], []]


@given(batches(), st.floats(0.01, 1.0))
def test_the_quantile_equals_torchs(batch: TokenSignals, fraction: float):
    entropy, valid = batch.named("entropy").double(), batch.completion_mask.bool()
    measured = valid & ~torch.isnan(entropy)
    found = batch_quantile_mask(entropy, batch.completion_mask, fraction)
    if measured.any():
        threshold = torch.quantile(entropy[measured], 1 - fraction)
        far = (entropy - threshold).abs() > 1e-9
        assert torch.equal(found & far, measured & (entropy >= threshold) & far)
        assert found.any()


@given(batches(), st.floats(0.01, 1.0))
def test_the_selection_has_the_requested_size_and_the_largest_signals(batch: TokenSignals, fraction: float):
    signal, valid = batch.named("entropy"), batch.completion_mask.bool()
    measured = valid & ~torch.isnan(signal)
    selected = top_fraction_mask(signal, batch.completion_mask, fraction)
    for row in range(len(valid)):
        wanted = math.ceil(fraction * int(valid[row].sum()) - 1e-9)
        assert int(selected[row].sum()) == min(wanted, int(measured[row].sum()))
        inside, outside = signal[row][selected[row]], signal[row][measured[row] & ~selected[row]]
        assert not len(inside) or not len(outside) or inside.min() >= outside.max()
    assert not bool((selected & ~measured).any())


def row(*dominances: float, padding: float = NAN) -> tuple[torch.Tensor, torch.Tensor]:
    """One completion with two positions of padding, and its mask."""
    return torch.tensor([[*dominances, padding, padding]]), torch.tensor([[1] * len(dominances) + [0, 0]])


def test_weights_are_the_inverse_of_dominance_over_their_mean():
    # 1, 1/2, 1/4, mean 7/12: 12/7, 6/7, 3/7.
    expected = torch.tensor([[12 / 7, 6 / 7, 3 / 7, 0.0, 0.0]])
    torch.testing.assert_close(inverse_dominance_weights(*row(1.0, 2.0, 4.0)), expected, atol=2e-6, rtol=0)
    torch.testing.assert_close(
        inverse_dominance_weights(*row(1.0, 2.0, 4.0), smooth_first=True), expected, atol=2e-6, rtol=0
    )


def test_clipping_comes_before_the_second_division_by_the_mean():
    # 1, 1/100, 1/100, 1/100: over their mean .2575: 3.8835, .038835 three times; clipped: 3, .2 three times.
    clipped = torch.tensor([[3.0, 0.2, 0.2, 0.2, 0.0, 0.0]])
    torch.testing.assert_close(
        inverse_dominance_weights(*row(1.0, 100.0, 100.0, 100.0)), clipped / 0.9, atol=1e-5, rtol=0
    )
    found = inverse_dominance_weights(*row(1.0, 100.0, 100.0, 100.0), smooth_first=True)  # mean .9, not divided again
    torch.testing.assert_close(found, clipped, atol=1e-5, rtol=0)


def test_smoothing_repeats_the_ends_and_ignores_padding():
    # sigma .5: half width 1, kernel e^-2, 1, e^-2 over 1 + 2 e^-2.
    side = math.exp(-2) / (1 + 2 * math.exp(-2))
    weights = [12 / 7, 6 / 7, 3 / 7]
    smooth = [
        (1 - side) * weights[0] + side * weights[1],
        side * weights[0] + (1 - 2 * side) * weights[1] + side * weights[2],
        side * weights[1] + (1 - side) * weights[2],
    ]
    # Repeating the ends keeps the sum here: what the first gives away it gets back from its own copy.
    expected = torch.tensor([[*smooth, 0.0, 0.0]])
    assert sum(smooth) == pytest.approx(3.0)
    found = inverse_dominance_weights(*row(1.0, 2.0, 4.0), WIDE, sigma=0.5)
    torch.testing.assert_close(found, expected, atol=2e-6, rtol=0)


def test_masked_tokens_are_not_neighbours():
    gapped, mask = torch.tensor([[9.0, 1.0, 0.1, 2.0, 4.0]]), torch.tensor([[0, 1, 0, 1, 1]])
    found = inverse_dominance_weights(gapped, mask, WIDE, sigma=0.8)
    assert found[mask.bool()].tolist() == pytest.approx(
        inverse_dominance_weights(*row(1.0, 2.0, 4.0), WIDE, 0.8)[0, :3].tolist()
    )
    assert not found[~mask.bool()].any()


def test_the_kernel_is_three_sigma_wide():
    dominance, mask = torch.full((1, 13), 50.0), torch.ones(1, 13, dtype=torch.int64)
    dominance[0, 6] = 1.0  # its half width is int(3 x 1.5) = 4
    weights = inverse_dominance_weights(dominance, mask, WIDE, sigma=1.5)[0]
    assert (weights > 1.01 * weights[0]).nonzero().flatten().tolist() == [2, 3, 4, 5, 6, 7, 8, 9, 10]


def test_two_tokens_are_not_smoothed():
    assert torch.equal(inverse_dominance_weights(*row(1.0, 3.0), sigma=2.0), inverse_dominance_weights(*row(1.0, 3.0)))
    assert not torch.equal(
        inverse_dominance_weights(*row(1.0, 3.0, 3.0), sigma=2.0), inverse_dominance_weights(*row(1.0, 3.0, 3.0))
    )


def test_the_order_matters_where_clipping_acts():
    ours = inverse_dominance_weights(*row(1.0, 100.0, 100.0, 100.0), sigma=1.0)
    source = inverse_dominance_weights(*row(1.0, 100.0, 100.0, 100.0), sigma=1.0, smooth_first=True)
    assert (ours - source).abs().max() > 0.1
    assert ours[ours > 0].mean().item() == pytest.approx(1.0)


def test_undefined_dominances_give_average_weights():
    found = inverse_dominance_weights(*row(1.0, NAN, 2.0, -3.0, 4.0))
    torch.testing.assert_close(found, torch.tensor([[12 / 7, 1.0, 6 / 7, 1.0, 3 / 7, 0.0, 0.0]]), atol=2e-6, rtol=0)


def test_extreme_dominances():
    # Infinite: no attention on the image, the least weight; over the mean of 1 and 0: 2 and 0, clipped to .2.
    torch.testing.assert_close(inverse_dominance_weights(*row(1.0, math.inf))[0, :2], torch.tensor([2.0, 0.2]) / 1.1)
    assert inverse_dominance_weights(*row(math.inf, math.inf)).tolist() == [[1.0, 1.0, 0.0, 0.0]]
    # Exactly 0 counts as 1: weights 1 and .2 over their mean of .6.
    torch.testing.assert_close(inverse_dominance_weights(*row(0.0, 5.0))[0, :2], torch.tensor([5.0, 1.0]) / 3)


@pytest.mark.parametrize("smooth_first", [False, True])
@pytest.mark.parametrize("sigma", [0.0, 1.0])
def test_equal_single_and_missing_signals_give_uniform_credit(sigma: float, smooth_first: bool):
    for dominance in (torch.full((3, 6), 7.0), torch.full((3, 6), NAN)):
        found = inverse_dominance_weights(dominance, MASK, sigma=sigma, smooth_first=smooth_first)
        torch.testing.assert_close(found, MASK.float())
    assert inverse_dominance_weights(*row(0.3)).tolist() == [[1.0, 0.0, 0.0]]


@pytest.mark.parametrize("clip", [(-0.1, 3.0), (1.1, 3.0), (0.2, 0.9)])
def test_a_clip_range_must_include_one(clip: tuple[float, float]):
    with pytest.raises(ValueError, match="clip"):
        inverse_dominance_weights(*row(1.0), clip)


def test_a_cap_is_a_quantile_of_the_completion_without_its_padding():
    weights = torch.tensor([[1.0, 2.0, 3.0, 4.0, 5.0, 0.0], [1.0, 3.0, 0.0, 0.0, 0.0, 0.0], [0.0] * 6])
    # Quantile .5: 3 of the first completion, 2 of the second; quantile 1 caps nothing.
    expected = [[1.0, 2.0, 3.0, 3.0, 3.0, 0.0], [1.0, 2.0, 0.0, 0.0, 0.0, 0.0], [0.0] * 6]
    assert cap_at_quantile(weights, MASK, 0.5).tolist() == expected
    assert torch.equal(cap_at_quantile(weights, MASK, 1.0), weights)


@given(batches(), st.sampled_from([0.0, 0.7, 2.0]), st.sampled_from([0.125, 4.0, 1024.0]))
def test_weights_have_mean_one_and_ignore_a_constant_factor(batch: TokenSignals, sigma: float, factor: float):
    dominance, valid = batch.named("dominance") + 1.0, batch.completion_mask.bool()
    weights = inverse_dominance_weights(dominance, batch.completion_mask, sigma=sigma)
    assert bool((weights[valid] > 0).all())
    assert not weights[~valid].any()
    for row_weights, row_valid in zip(weights, valid, strict=True):
        if row_valid.any():
            assert row_weights[row_valid].mean().item() == pytest.approx(1.0, abs=1e-5)
    scaled = inverse_dominance_weights(factor * dominance, batch.completion_mask, sigma=sigma)
    torch.testing.assert_close(scaled, weights, atol=1e-4, rtol=0)


def test_scales_rise_with_mean_perception_and_have_mean_one():
    # Means .05, .1, .2 -> n = 0, 1/3, 1 with mean 4/9 -> top .9 + .1 x 9/4 = 1.125 -> .9, .975, 1.125.
    values = torch.tensor([[0.02, 0.08, 9.0], [0.1, 9.0, 9.0], [0.1, 0.2, 0.3]])
    mask = torch.tensor([[1, 1, 0], [1, 0, 0], [1, 1, 1]])
    torch.testing.assert_close(perception_scale(values, mask, 0.9), torch.tensor([0.9, 0.975, 1.125]))


def test_max_scale_caps_the_largest_scale_and_lowers_the_mean():
    values = torch.tensor([[0.02, 0.08, 9.0], [0.1, 9.0, 9.0], [0.1, 0.2, 0.3]])
    mask = torch.tensor([[1, 1, 0], [1, 0, 0], [1, 1, 1]])
    # top = 1.05 in place of 1.125: .9, .9 + .15 / 3, 1.05; a cap above 1.125 changes nothing.
    torch.testing.assert_close(perception_scale(values, mask, 0.9, 1.05), torch.tensor([0.9, 0.95, 1.05]))
    assert torch.equal(perception_scale(values, mask, 0.9, 1.2), perception_scale(values, mask, 0.9))


def test_an_unmeasured_completion_gets_one_and_does_not_enter_the_statistics():
    values = torch.tensor([[0.02, 0.08, 9.0], [0.1, 9.0, 9.0], [NAN, NAN, NAN], [0.1, 0.3, 0.3]])
    torch.testing.assert_close(perception_scale(values, FOUR, 0.9), torch.tensor([0.9, 0.975, 1.0, 1.125]))
    emptied = FOUR.clone()
    emptied[2] = 0
    assert torch.equal(perception_scale(values.nan_to_num(7.0), emptied, 0.9), perception_scale(values, FOUR, 0.9))


@pytest.mark.parametrize(
    "means",
    [[0.1, 0.1, 0.1, 0.1], [0.1, 0.1 + 1e-7, 0.1, 0.1], [0.3, NAN, NAN, NAN], [NAN] * 4],
)
def test_equal_mean_perceptions_are_not_scaled(means: list[float]):
    values = torch.tensor(means)[:, None].expand(4, 3)
    assert perception_scale(values, FOUR, 0.8).tolist() == [1.0] * 4


@pytest.mark.parametrize(("low", "high"), [(-0.1, None), (1.1, None), (0.9, 0.99)])
def test_scales_out_of_range_are_refused(low: float, high: float | None):
    with pytest.raises(ValueError, match="min_scale"):
        perception_scale(torch.zeros(4, 3), FOUR, low, high)


@given(batches(), st.floats(0.0, 1.0))
def test_the_mean_scale_is_one_and_the_smallest_is_the_minimum(batch: TokenSignals, low: float):
    values = batch.named("perception")
    scale = perception_scale(values, batch.completion_mask, low)
    measured = ~torch.isnan(mean_perception(values, batch.completion_mask))
    assert scale[~measured].tolist() == [1.0] * int((~measured).sum())
    if measured.any() and not bool((scale == 1).all()):
        assert scale[measured].mean().item() == pytest.approx(1.0, abs=1e-5)
        assert scale[measured].min().item() == pytest.approx(low, abs=1e-6)
