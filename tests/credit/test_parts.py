"""Parts by name: what each selects, weights or scales, and on which completions it applies."""

from functools import partial

import pytest
import torch
from hypothesis import given

import rlassay.credit
from rlassay.credit import CREDITS, NEEDS, TokenSignals, inverse_dominance_weights, needs, perception_scale, uniform
from rlassay.credit.parts import applicable, registered_name
from tests.credit.make import MASK, NAN, batches, signals

ROWS = torch.tensor([[1.0, 2.0, 4.0, 1.0, 1.0, 9.0], [1.0, 3.0, 9.0, 9.0, 9.0, 9.0], [9.0] * 6])


def test_uniform_gives_every_token_a_weight_of_one():
    weights = uniform(signals())
    assert weights.dtype == torch.float32
    assert weights.tolist() == [[1.0] * 6] * 3
    assert CREDITS["uniform"] is uniform


def test_a_part_is_known_by_its_name_with_options_or_without():
    for name, part in CREDITS.items():
        assert registered_name(part) == part.__name__ == name
        assert registered_name(partial(part, fraction=0.3)) == name
    assert registered_name(lambda given: given.completion_mask.float()) is None


def test_needs_of_an_arm_are_those_of_its_parts():
    assert set(NEEDS) == set(CREDITS)
    parts = [partial(CREDITS["entropy_filter"], fraction=0.3), CREDITS["trajectory_scaling"], uniform]
    assert needs(parts) == {"entropy", "perception"}
    assert needs([]) == needs([lambda given: given.completion_mask.float()]) == frozenset()


@pytest.mark.parametrize("name", CREDITS)
def test_a_part_reads_exactly_the_signals_it_needs(name: str):
    every = {need: torch.rand(MASK.shape) for need in ("entropy", "logps", "perception", "dominance", "draws")}
    own = {f"{need}_BT": every[need] for need in NEEDS[name]}
    CREDITS[name](signals(**own))
    for need in NEEDS[name]:
        with pytest.raises(ValueError, match=need):
            CREDITS[name](signals(**{f"{other}_BT": every[other] for other in every if other != need}))


def test_attention_weights_with_the_published_options():
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
    # Sorted: 1 1 1 1 2 3 4; the .7 quantile lies at position 4.2, between 2 and 3: 2.2.
    assert CREDITS["entropy_filter"](entropy, fraction=0.3, scope="batch").int().tolist()[:2] == [
        [0, 0, 1, 0, 0, 0],
        [0, 1, 0, 0, 0, 0],
    ]


def test_a_filter_keeps_all_tokens_of_a_completion_it_does_not_apply_to():
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


def test_trajectory_scaling_is_one_without_an_image():
    mask = torch.tensor([[1, 1, 0], [1, 0, 0], [1, 1, 1], [1, 1, 1]])
    values = torch.tensor([[0.02, 0.08, 9.0], [0.1, 9.0, 9.0], [5.0, 5.0, 5.0], [0.1, 0.2, 0.3]])
    given = signals(mask, perception_BT=values, has_image_B=torch.tensor([True, True, False, True]))
    expected = torch.tensor([0.9, 0.975, 1.0, 1.125])
    torch.testing.assert_close(CREDITS["trajectory_scaling"](given, min_scale=0.9), expected)


def test_the_random_filter_keeps_as_many_tokens_as_the_others_at_random():
    mask = torch.ones(2, 200, dtype=torch.int64)
    mask[1, 55:] = 0
    given = signals(mask, draws_BT=torch.rand(mask.shape, generator=torch.Generator().manual_seed(0)))
    kept = CREDITS["random_filter"](given, fraction=0.4)
    assert kept.sum(dim=1).tolist() == [80, 22]
    assert 25 < int(kept[0, :100].sum()) < 55  # neither half is preferred: 40 expected, deviation 3.5
    again = signals(mask, draws_BT=torch.rand(mask.shape, generator=torch.Generator().manual_seed(1)))
    assert not torch.equal(CREDITS["random_filter"](again, fraction=0.4), kept)


def test_shuffling_is_an_order_of_each_completion():
    draws = torch.tensor([[0.5, 0.1, 0.9, 0.3, 0.2, 0.0], [0.7, 0.6, 0.0, 0.0, 0.0, 0.0], [0.0] * 6])
    # Positions by rising draw: 1, 4, 3, 0, 2; the second completion: 1, 0. Padding stays in place.
    assert CREDITS["shuffled_weights"](signals(draws_BT=draws)).tolist() == [
        [1, 4, 3, 0, 2, 5],
        [1, 0, 2, 3, 4, 5],
        [0, 1, 2, 3, 4, 5],
    ]
    holes = torch.tensor([[0, 1, 1, 0, 1]])
    draws = torch.tensor([[0.0, 0.9, 0.1, 0.0, 0.5]])
    assert CREDITS["shuffled_weights"](signals(holes, draws_BT=draws)).tolist() == [[0, 2, 4, 3, 1]]


def test_every_position_gets_every_token_about_equally_often():
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


def test_a_part_applies_where_its_signals_were_measured():
    lost = ROWS.clone()
    lost[1, :2] = NAN  # the rest is padding
    given = signals(perception_BT=lost, entropy_BT=lost, has_image_B=torch.tensor([False, True, True]))
    assert applicable(CREDITS["perception_filter"], given).tolist() == [False, False, False]
    assert applicable(CREDITS["entropy_filter"], given).tolist() == [True, False, False]
    assert applicable(uniform, given).tolist() == [True, True, True]


def test_a_signal_is_found_by_its_name():
    draws = torch.rand(MASK.shape)
    entropy = torch.rand(MASK.shape)
    given = signals(draws_BT=draws, entropy_BT=entropy)
    assert given.named("draws") is draws
    assert given.named("entropy") is entropy


@pytest.mark.parametrize("name", ["entropy", "logps", "perception", "dominance", "draws"])
def test_a_missing_signal_is_named(name: str):
    with pytest.raises(ValueError, match=f"'{name}', got None"):
        signals().named(name)


def test_parts_are_public_under_the_names_of_a_study():
    for name, part in CREDITS.items():
        assert getattr(rlassay.credit, name) is part


def test_parts_still_take_the_tensors_of_their_formulas():
    weights = rlassay.credit.attention_weights(ROWS, MASK, sigma=1.0)  # pyright: ignore
    assert torch.equal(weights, inverse_dominance_weights(ROWS, MASK, sigma=1.0))
    scales = rlassay.credit.trajectory_scaling(perception_BT=ROWS, completion_mask=MASK, min_scale=0.9)  # pyright: ignore
    assert torch.equal(scales, perception_scale(ROWS, MASK, 0.9))
    given = signals(perception_BT=ROWS)
    assert torch.equal(rlassay.credit.trajectory_scaling(signals=given, min_scale=0.9), scales)
