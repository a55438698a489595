import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlassay.credit import TokenSignals, top_fraction_mask
from rlassay.credit.selection import batch_quantile_mask
from tests.credit.make import MASK, NAN, batches


def kept(mask: torch.Tensor) -> list[list[int]]:
    """The selected positions of each completion."""
    return [row.nonzero().flatten().tolist() for row in mask]


def test_the_largest_of_each_completion_rounded_up():
    signal = torch.tensor([[0.1, 0.9, 0.3, 0.5, 0.2, 9.0], [2.0, 1.0, 9.0, 9.0, 9.0, 9.0], [9.0] * 6])
    # ceil(.4 x 5) = 2, ceil(.4 x 2) = 1, nothing of nothing; padding of 9 plays no part.
    assert kept(top_fraction_mask(signal, MASK, 0.4)) == [[1, 3], [0], []]
    assert kept(top_fraction_mask(signal, MASK, 0.41)) == [[1, 2, 3], [0], []]
    assert kept(top_fraction_mask(signal, MASK, 1.0)) == [[0, 1, 2, 3, 4], [0, 1], []]


def test_of_equal_signals_the_earliest_is_taken():
    assert kept(top_fraction_mask(torch.zeros(3, 6), MASK, 0.5)) == [[0, 1, 2], [0], []]
    signal = torch.tensor([[1.0, 2.0, 1.0, 2.0, 1.0, 0.0], [-math.inf, -math.inf, 0.0, 0.0, 0.0, 0.0], [0.0] * 6])
    assert kept(top_fraction_mask(signal, MASK, 0.6)) == [[0, 1, 3], [0, 1], []]


def test_nan_is_never_selected_and_shrinks_the_selection_when_little_else_is_there():
    signal = torch.tensor([[NAN, 0.1, NAN, 0.2, NAN, 1.0], [NAN, -math.inf, 1.0, 1.0, 1.0, 1.0], [1.0] * 6])
    assert kept(top_fraction_mask(signal, MASK, 0.2)) == [[3], [1], []]
    assert kept(top_fraction_mask(signal, MASK, 1.0)) == [[1, 3], [1], []]
    assert kept(top_fraction_mask(torch.full((3, 6), NAN), MASK, 1.0)) == [[], [], []]


def test_rounding_up_is_not_fooled_by_floats():
    hundred = torch.ones(1, 100, dtype=torch.int64)
    assert 0.55 * 100 > 55  # as floats
    assert top_fraction_mask(torch.rand(1, 100), hundred, 0.55).sum() == 55
    assert top_fraction_mask(torch.rand(1, 100), hundred, 1e-6).sum() == 1


@pytest.mark.parametrize("fraction", [0.0, -0.1, 1.1, NAN])
@pytest.mark.parametrize("select", [top_fraction_mask, batch_quantile_mask])
def test_a_share_is_above_zero_and_at_most_one(select, fraction: float):
    with pytest.raises(ValueError, match="fraction"):
        select(torch.zeros(3, 6), MASK, fraction)


def test_masks_with_holes_count_valid_tokens_only():
    mask = torch.tensor([[0, 1, 0, 1, 1, 0, 1]])
    assert kept(top_fraction_mask(torch.tensor([[9.0, 1.0, 9.0, 3.0, 2.0, 9.0, 4.0]]), mask, 0.5)) == [[3, 6]]


def test_the_quantile_of_the_batch_may_leave_a_completion_nothing():
    entropy = torch.tensor([[0.1, 0.9, 0.3, 0.5, 0.9, 9.0], [0.2, 0.05, 9.0, 9.0, 9.0, 9.0], [9.0] * 6])
    # Sorted: .05 .1 .2 .3 .5 .9 .9; the .6 quantile lies at place 3.6, between .3 and .5: .42.
    assert kept(batch_quantile_mask(entropy, MASK, 0.4)) == [[1, 3, 4], [], []]
    assert kept(batch_quantile_mask(entropy, MASK, 1.0)) == [[0, 1, 2, 3, 4], [0, 1], []]
    assert kept(batch_quantile_mask(torch.full((3, 6), NAN), MASK, 0.4)) == [[], [], []]
    assert kept(batch_quantile_mask(entropy, torch.zeros_like(MASK), 0.4)) == [[], [], []]


@given(batches(), st.floats(0.01, 1.0))
def test_the_quantile_is_that_of_torch(batch: TokenSignals, fraction: float):
    entropy, valid = batch.named("entropy").double(), batch.completion_mask.bool()
    measured = valid & ~torch.isnan(entropy)
    found = batch_quantile_mask(entropy, batch.completion_mask, fraction)
    if measured.any():
        threshold = torch.quantile(entropy[measured], 1 - fraction)
        far = (entropy - threshold).abs() > 1e-9
        assert torch.equal(found & far, measured & (entropy >= threshold) & far)
        assert found.any()


@given(batches(), st.floats(0.01, 1.0))
def test_what_is_selected_is_as_much_as_asked_and_no_smaller_than_the_rest(batch: TokenSignals, fraction: float):
    signal, valid = batch.named("entropy"), batch.completion_mask.bool()
    measured = valid & ~torch.isnan(signal)
    selected = top_fraction_mask(signal, batch.completion_mask, fraction)
    for row in range(len(valid)):
        wanted = math.ceil(fraction * int(valid[row].sum()) - 1e-9)
        assert int(selected[row].sum()) == min(wanted, int(measured[row].sum()))
        inside, outside = signal[row][selected[row]], signal[row][measured[row] & ~selected[row]]
        assert not len(inside) or not len(outside) or inside.min() >= outside.max()
    assert not bool((selected & ~measured).any())
