import math
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlassay.credit import CREDITS, NEEDS, TokenSignals, needs, top_fraction_mask, uniform
from rlassay.credit.parts import batch_quantile_mask, judged, name_of
from tests.credit.make import MASK, NAN, batches, signals

# MERGED FROM test_parts.py:

ROWS = torch.tensor([[1.0, 2.0, 4.0, 1.0, 1.0, 9.0], [1.0, 3.0, 9.0, 9.0, 9.0, 9.0], [9.0] * 6])


def test_uniform_gives_every_token_a_weight_of_one():
    weights = uniform(signals())
    assert weights.dtype == torch.float32
    assert weights.tolist() == [[1.0] * 6] * 3
    assert CREDITS["uniform"] is uniform


def test_a_part_is_known_by_its_name_with_options_or_without():
    for name, part in CREDITS.items():
        assert name_of(part) == part.__name__ == name
        assert name_of(partial(part, fraction=0.3)) == name
    assert name_of(lambda given: given.completion_mask.float()) is None


def test_what_the_parts_of_an_arm_need():
    assert set(NEEDS) == set(CREDITS)
    parts = [partial(CREDITS["entropy_filter"], fraction=0.3), CREDITS["trajectory_scaling"], uniform]
    assert needs(parts) == {"entropy", "perception"}
    assert needs([]) == needs([lambda given: given.completion_mask.float()]) == frozenset()


@pytest.mark.parametrize("name", CREDITS)
def test_a_part_reads_the_signals_that_it_says_it_needs(name: str):
    every = {need: torch.rand(MASK.shape) for need in ("entropy", "perception", "dominance", "draws")}
    own = {f"{need}_BT": every[need] for need in NEEDS[name]}
    CREDITS[name](signals(**own))
    for need in NEEDS[name]:
        with pytest.raises(ValueError, match=need):
            CREDITS[name](signals(**{f"{other}_BT": every[other] for other in every if other != need}))


def test_attention_weights_with_the_options_of_the_source():
    # 1, 1/2, 1/4, 1, 1 over their mean 3/4: 4/3, 2/3, 1/3, 4/3, 4/3. Their .25 quantile is 2/3.
    negative = signals(dominance_BT=ROWS, advantages_B=torch.tensor([-1.0, 2.0, 0.0]))
    found = CREDITS["attention_weights"](negative, negative_scale=0.5)
    torch.testing.assert_close(found[0, :3], torch.tensor([4.0, 2.0, 1.0]) / 6, atol=1e-4, rtol=0)
    torch.testing.assert_close(found[1, :2], torch.tensor([1.5, 0.5]), atol=1e-4, rtol=0)
    capped = CREDITS["attention_weights"](negative, quantile_cap=0.25)
    torch.testing.assert_close(capped[0], torch.tensor([2.0, 2.0, 1.0, 2.0, 2.0, 0.0]) / 3, atol=1e-4, rtol=0)


def test_completions_without_an_image_have_uniform_attention_weights():
    text = signals(dominance_BT=ROWS, has_image_B=torch.tensor([False, True, False]))
    assert CREDITS["attention_weights"](text)[0].tolist() == [1.0] * 5 + [0.0]


def test_the_entropy_filter_by_completion_and_by_batch():
    entropy = signals(entropy_BT=ROWS)
    assert CREDITS["entropy_filter"](entropy, fraction=0.4).int().tolist()[:2] == [
        [0, 1, 1, 0, 0, 0],
        [0, 1, 0, 0, 0, 0],
    ]
    # Sorted: 1 1 1 1 2 3 4; the .7 quantile lies at place 4.2, between 2 and 3: 2.2.
    assert CREDITS["entropy_filter"](entropy, fraction=0.3, scope="batch").int().tolist()[:2] == [
        [0, 0, 1, 0, 0, 0],
        [0, 1, 0, 0, 0, 0],
    ]


def test_a_filter_keeps_the_whole_of_a_completion_that_it_cannot_judge():
    given = signals(perception_BT=ROWS, entropy_BT=ROWS, has_image_B=torch.tensor([False, True, True]))
    assert CREDITS["perception_filter"](given).int().tolist() == [
        [1, 1, 1, 1, 1, 0],
        [0, 1, 0, 0, 0, 0],
        [0] * 6,
    ]
    lost = ROWS.clone()
    lost[0] = NAN
    for scope in ("completion", "batch"):
        kept = CREDITS["entropy_filter"](signals(entropy_BT=lost), scope=scope)
        assert kept[0].int().tolist() == [1, 1, 1, 1, 1, 0]


def test_trajectory_scaling_leaves_completions_without_an_image_alone():
    mask = torch.tensor([[1, 1, 0], [1, 0, 0], [1, 1, 1], [1, 1, 1]])
    values = torch.tensor([[0.02, 0.08, 9.0], [0.1, 9.0, 9.0], [5.0, 5.0, 5.0], [0.1, 0.2, 0.3]])
    given = signals(mask, perception_BT=values, has_image_B=torch.tensor([True, True, False, True]))
    expected = torch.tensor([0.9, 0.975, 1.0, 1.125])
    torch.testing.assert_close(CREDITS["trajectory_scaling"](given, min_scale=0.9), expected)


def test_the_random_filter_keeps_as_many_as_the_others_and_other_ones():
    mask = torch.ones(2, 200, dtype=torch.int64)
    mask[1, 55:] = 0
    given = signals(mask, draws_BT=torch.rand(mask.shape, generator=torch.Generator().manual_seed(0)))
    kept = CREDITS["random_filter"](given, fraction=0.4)
    assert kept.sum(dim=1).tolist() == [80, 22]
    assert 25 < int(kept[0, :100].sum()) < 55  # no favourite half: 40 expected, deviation 3.5
    again = signals(mask, draws_BT=torch.rand(mask.shape, generator=torch.Generator().manual_seed(1)))
    assert not torch.equal(CREDITS["random_filter"](again, fraction=0.4), kept)


def test_shuffling_is_an_order_of_each_completion():
    draws = torch.tensor([[0.5, 0.1, 0.9, 0.3, 0.2, 0.0], [0.7, 0.6, 0.0, 0.0, 0.0, 0.0], [0.0] * 6])
    # Positions by rising draw: 1, 4, 3, 0, 2; the second completion: 1, 0. Padding stays.
    assert CREDITS["shuffled_weights"](signals(draws_BT=draws)).tolist() == [
        [1, 4, 3, 0, 2, 5],
        [1, 0, 2, 3, 4, 5],
        [0, 1, 2, 3, 4, 5],
    ]
    holes = torch.tensor([[0, 1, 1, 0, 1]])
    draws = torch.tensor([[0.0, 0.9, 0.1, 0.0, 0.5]])
    assert CREDITS["shuffled_weights"](signals(holes, draws_BT=draws)).tolist() == [[0, 2, 4, 3, 1]]


def test_every_place_gets_every_token_about_equally_often():
    mask = torch.ones(6000, 3, dtype=torch.int64)
    draws = torch.rand(mask.shape, generator=torch.Generator().manual_seed(0))
    order = CREDITS["shuffled_weights"](signals(mask, draws_BT=draws))
    shares = torch.stack([(order == token).float().mean(dim=0) for token in range(3)])
    torch.testing.assert_close(shares, torch.full((3, 3), 1 / 3), atol=0.03, rtol=0)  # deviation .006


@given(batches())
def test_an_order_moves_no_token_out_of_its_completion(batch: TokenSignals):
    order = CREDITS["shuffled_weights"](batch)
    assert torch.equal(order.sort(dim=1).values, torch.arange(order.shape[1]).expand_as(order))
    assert torch.equal(batch.completion_mask.gather(1, order), batch.completion_mask)


def test_which_completions_a_part_can_judge():
    lost = ROWS.clone()
    lost[1, :2] = NAN  # what is left is padding
    given = signals(perception_BT=lost, entropy_BT=lost, has_image_B=torch.tensor([False, True, True]))
    assert judged(CREDITS["perception_filter"], given).tolist() == [False, False, False]
    assert judged(CREDITS["entropy_filter"], given).tolist() == [True, False, False]
    assert judged(uniform, given).tolist() == [True, True, True]


# MERGED FROM test_tokens.py:


def test_a_signal_is_found_by_its_name():
    draws = torch.rand(MASK.shape)
    entropy = torch.rand(MASK.shape)
    given = signals(draws_BT=draws, entropy_BT=entropy)
    assert given.named("draws") is draws
    assert given.named("entropy") is entropy


@pytest.mark.parametrize("name", ["entropy", "perception", "dominance", "draws"])
def test_a_signal_that_was_not_measured_is_named(name: str):
    with pytest.raises(ValueError, match=f"'{name}', got None"):
        signals().named(name)


# MERGED FROM test_selection.py:


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
