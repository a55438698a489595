"""Composed credit: filters join by OR, weights multiply; properties that hold for any batch; the advantages."""

import math
from dataclasses import fields, replace
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rlassay.credit import CREDITS, TokenSignals, compose, penalise_entropy, spread
from rlassay.credit.compose import selected_denominator
from tests.credit.make import MASK, batches, signals

ENTROPY = torch.tensor([[1.0, 5.0, 2.0, 3.0, 4.0, 9.0], [2.0, 1.0, 9.0, 9.0, 9.0, 9.0], [9.0] * 6])
PERCEPTION = torch.tensor([[0.5, 0.1, 0.4, 0.3, 0.2, 9.0], [0.1, 0.3, 9.0, 9.0, 9.0, 9.0], [9.0] * 6])
DRAWS = torch.tensor([[0.5, 0.1, 0.9, 0.3, 0.2, 0.0], [0.7, 0.6, 0.0, 0.0, 0.0, 0.0], [0.0] * 6])
ALONE = [[name] for name in CREDITS if name != "shuffled_weights"]
LISTS = [
    *ALONE,
    ["entropy_filter", "perception_filter"],
    ["attention_weights", "perception_filter", "trajectory_scaling"],
    ["entropy_filter", "perception_filter", "shuffled_weights"],
    ["attention_weights", "shuffled_weights", "trajectory_scaling"],
]
OVER_BATCH = {"trajectory_scaling", "covariance_filter"}
WITHIN = [names for names in LISTS if OVER_BATCH.isdisjoint(names)]
"""Lists that use each completion alone, so that splitting the batch changes nothing."""


FEW = settings(max_examples=30)


def parts(*names: str) -> list[Any]:
    return [CREDITS[name] for name in names]


def top(name: str, fraction: float) -> Any:
    return partial(CREDITS[name], fraction=fraction)


def test_no_part_and_uniform_are_all_ones_on_the_completions():
    for credit in (compose([], signals()), compose(parts("uniform"), signals())):
        assert torch.equal(credit.weights_BT, MASK.float())
        assert torch.equal(credit.selected_BT, MASK.bool())
        assert credit.scale_B is None
        assert credit.metrics == {"credit_weight_mean": 1.0, "combined_token_fraction": 1.0}


def test_weights_and_scales_multiply():
    given = signals(dominance_BT=torch.ones(3, 6), perception_BT=PERCEPTION)

    def double_the_first(batch: TokenSignals) -> torch.Tensor:
        weights = torch.ones(batch.completion_mask.shape)
        weights[:, 0] = 2.0
        return weights

    credit = compose([double_the_first, double_the_first, *parts("trajectory_scaling")], given)
    # Mean perceptions .3 and .2: scales min .8 for the second; n = 1, 0 with mean .5 -> top .8 + .2 / .5 = 1.2.
    torch.testing.assert_close(credit.scale_B, torch.tensor([1.2, 0.8, 1.0]))
    expected = torch.tensor([[4.8, 1.2, 1.2, 1.2, 1.2, 0.0], [3.2, 0.8, 0.0, 0.0, 0.0, 0.0], [0.0] * 6])
    torch.testing.assert_close(credit.weights_BT, expected)
    assert credit.metrics["scaling_factor_mean"] == pytest.approx(1.0)
    assert credit.metrics["dynamic_scaling_max"] == pytest.approx(1.2)
    assert credit.metrics["sensitivity_score_mean"] == pytest.approx(0.25)


def test_filters_join_by_or():
    given = signals(entropy_BT=ENTROPY, perception_BT=PERCEPTION)
    credit = compose([top("entropy_filter", 0.4), top("perception_filter", 0.2)], given)
    # Entropy keeps 1, 4 and 0; perception 0 and 1.
    assert credit.selected_BT.int().tolist() == [[1, 1, 0, 0, 1, 0], [1, 1, 0, 0, 0, 0], [0] * 6]
    assert torch.equal(credit.weights_BT, credit.selected_BT.float())
    assert credit.metrics["entropy_token_fraction"] == pytest.approx(3 / 7)
    assert credit.metrics["perception_token_fraction"] == pytest.approx(2 / 7)
    assert credit.metrics["combined_token_fraction"] == pytest.approx(5 / 7)
    # Selected by perception: .5 and .3; rejected: .1 .4 .3 .2 and .1.
    assert credit.metrics["low_var_kl_threshold"] == pytest.approx(0.3)
    assert credit.metrics["low_var_kl_mean_selected"] == pytest.approx(0.4)
    assert credit.metrics["low_var_kl_mean_rejected"] == pytest.approx(1.1 / 5)
    assert credit.metrics["no_image_fraction"] == credit.metrics["unmeasured_token_fraction"] == 0.0


def test_perception_does_not_filter_a_completion_without_an_image():
    given = signals(entropy_BT=ENTROPY, perception_BT=PERCEPTION, has_image_B=torch.tensor([False, True, True]))
    alone = compose([top("perception_filter", 0.2)], given)
    assert alone.selected_BT.int().tolist() == [[1, 1, 1, 1, 1, 0], [0, 1, 0, 0, 0, 0], [0] * 6]
    both = compose([top("entropy_filter", 0.2), top("perception_filter", 0.2)], given)
    assert both.selected_BT.int().tolist() == [[0, 1, 0, 0, 0, 0], [1, 1, 0, 0, 0, 0], [0] * 6]
    assert both.metrics["no_image_fraction"] == pytest.approx(1 / 3)
    assert both.metrics["perception_token_fraction"] == 0.5  # of the completion it applies to
    assert both.metrics["entropy_token_fraction"] == pytest.approx(2 / 7)


def test_shuffling_affects_the_parts_before_it_only():
    given = signals(entropy_BT=ENTROPY, perception_BT=PERCEPTION, draws_BT=DRAWS)
    first, second = top("entropy_filter", 0.4), top("perception_filter", 0.2)
    # Entropy keeps 1 and 4 of the first completion, 0 of the second; the order is 1, 4, 3, 0, 2 and 1, 0.
    shuffled = compose([first, *parts("shuffled_weights")], given)
    assert shuffled.selected_BT.int().tolist() == [[1, 1, 0, 0, 0, 0], [0, 1, 0, 0, 0, 0], [0] * 6]
    joined = compose([first, *parts("shuffled_weights"), second], given)
    assert joined.selected_BT.int().tolist() == [[1, 1, 0, 0, 0, 0], [0, 1, 0, 0, 0, 0], [0] * 6]
    assert torch.equal(
        compose([first, second, *parts("shuffled_weights")], given).selected_BT.sum(dim=1),
        compose([first, second], given).selected_BT.sum(dim=1),
    )


def test_a_selected_denominator_restores_the_size_of_the_loss():
    given = signals(entropy_BT=ENTROPY)
    filtered = [top("entropy_filter", 0.4)]
    # 3 of 7 tokens; 2 of 5 and 1 of 2.
    of_batch = compose(filtered, given, "selected", "dapo")
    assert of_batch.weights_BT[of_batch.selected_BT].tolist() == pytest.approx([7 / 3] * 3)
    assert of_batch.metrics["credit_weight_mean"] == pytest.approx(1.0)
    of_completion = compose(filtered, given, "selected", "grpo")
    assert of_completion.weights_BT[of_completion.selected_BT].tolist() == pytest.approx([2.5, 2.5, 2.0])
    assert compose(filtered, given, "all", "grpo").metrics["credit_weight_mean"] == pytest.approx(3 / 7)
    assert torch.equal(compose(parts("uniform"), given, "selected").weights_BT, MASK.float())
    with pytest.raises(ValueError, match="dr_grpo"):
        compose(filtered, given, "selected", "dr_grpo")


@pytest.mark.parametrize("denominator", ["all", "selected"])
@pytest.mark.parametrize("loss_type", ["dapo", "grpo"])
def test_a_filter_that_selects_nothing_gives_weights_of_zero(denominator: Any, loss_type: str):
    credit = compose([lambda batch: torch.zeros_like(batch.completion_mask).bool()], signals(), denominator, loss_type)
    assert not credit.weights_BT.any()
    assert credit.metrics == {"credit_weight_mean": 0.0, "combined_token_fraction": 0.0}


def test_a_batch_without_tokens_has_only_the_share_without_images():
    empty = torch.zeros_like(MASK)
    every = signals(
        empty,
        entropy_BT=ENTROPY,
        perception_BT=PERCEPTION,
        dominance_BT=ENTROPY,
        logps_BT=-ENTROPY,
        draws_BT=DRAWS,
    )
    credit = compose(list(CREDITS.values()), every, "selected")
    assert not credit.weights_BT.any()
    assert credit.metrics == {"no_image_fraction": 0.0}


@pytest.mark.parametrize(
    "wrong",
    [torch.ones(6), torch.ones(2, 6), torch.ones(3, 6, dtype=torch.int32), torch.ones(3, dtype=torch.bool)],
)
def test_a_part_with_another_result_is_refused(wrong: torch.Tensor):
    with pytest.raises(ValueError, match="expected \\(3, 6\\): bool for a filter"):
        compose([lambda batch: wrong], signals())


@pytest.mark.parametrize("names", LISTS, ids="+".join)
@FEW
@given(batches(), st.sampled_from([("all", "dapo"), ("selected", "dapo"), ("selected", "grpo")]))
def test_every_batch_gives_valid_weights(names: list[str], batch: TokenSignals, over: Any):
    credit = compose(parts(*names), batch, *over)
    advantages = spread(batch.advantages_B, credit.weights_BT, batch.completion_mask)  # refuses NaN
    assert bool(torch.isfinite(advantages).all())
    assert not bool((credit.selected_BT & ~batch.completion_mask.bool()).any())
    assert not any(math.isnan(value) for value in credit.metrics.values())
    has_tokens = batch.completion_mask.any(dim=1)
    assert torch.equal(credit.selected_BT.any(dim=1), has_tokens)  # no completion loses all its tokens


@pytest.mark.parametrize("names", LISTS, ids="+".join)
@FEW
@given(batches(), st.randoms(use_true_random=False))
def test_the_order_of_the_batch_changes_nothing(names: list[str], batch: TokenSignals, random: Any):
    order = list(range(len(batch.completion_mask)))
    random.shuffle(order)
    credit, moved = compose(parts(*names), batch), compose(parts(*names), changed(batch, lambda each: each[order]))
    torch.testing.assert_close(moved.weights_BT, credit.weights_BT[order], atol=1e-5, rtol=0)


@pytest.mark.parametrize("names", LISTS, ids="+".join)
@FEW
@given(batches(), st.integers(1, 4))
def test_padding_changes_nothing(names: list[str], batch: TokenSignals, more: int):
    def pad(each: torch.Tensor) -> torch.Tensor:
        if each.ndim == 1:
            return each
        filler = torch.zeros(len(each), more, dtype=each.dtype)
        return torch.cat([each, filler + (0 if each.dtype == torch.int32 else 99)], dim=1)

    credit, padded = compose(parts(*names), batch), compose(parts(*names), changed(batch, pad))
    torch.testing.assert_close(padded.weights_BT[:, :-more], credit.weights_BT, atol=1e-5, rtol=0)
    assert not padded.weights_BT[:, -more:].any()


@pytest.mark.parametrize("names", WITHIN, ids="+".join)
@FEW
@given(batches())
def test_parts_that_use_each_completion_alone_ignore_how_the_batch_is_split(names: list[str], batch: TokenSignals):
    whole = compose(parts(*names), batch).weights_BT
    for row in range(len(whole)):
        alone = compose(parts(*names), changed(batch, lambda each, row=row: each[row : row + 1]))
        torch.testing.assert_close(alone.weights_BT[0], whole[row], atol=1e-5, rtol=0)


def changed(batch: TokenSignals, change: Any) -> TokenSignals:
    """The batch with `change` applied to each of its tensors."""
    return replace(batch, **{field.name: change(getattr(batch, field.name)) for field in fields(batch)})


SPREAD_MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [1, 0, 0, 0, 0]])  # B=3, T=5


def test_spread_multiplies_and_leaves_nothing_outside_the_completion():
    advantages = torch.tensor([2.0, -1.0, 0.5])
    weights = torch.tensor([[1.0, 0.5, 2.0, 0.0, 1.5], [3.0, 1.0, 7.0, 7.0, 7.0], [2.0, 7.0, 7.0, 7.0, 7.0]])
    # Row 1: 2 x (1, .5, 2, 0, 1.5). Row 2: -1 x (3, 1), padding 0. Row 3: .5 x 2, padding 0.
    expected = [[2.0, 1.0, 4.0, 0.0, 3.0], [-3.0, -1.0, 0.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0, 0.0]]
    assert spread(advantages, weights, SPREAD_MASK).tolist() == expected


def test_spread_of_weights_of_one_changes_no_advantage():
    advantages = torch.tensor([0.1, -0.7, 1e-7])
    assert torch.equal(spread(advantages, torch.ones(3, 5), SPREAD_MASK), advantages[:, None] * SPREAD_MASK)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -0.5])
def test_spread_refuses_invalid_weights(bad: float):
    weights = torch.ones(3, 5)
    weights[1, 1] = bad
    with pytest.raises(ValueError, match="finite and not negative"):
        spread(torch.ones(3), weights, SPREAD_MASK)


def test_weights_outside_the_completion_are_ignored():
    weights = torch.ones(3, 5)
    weights[2, 4] = float("nan")
    assert torch.equal(spread(torch.ones(3), weights, SPREAD_MASK), SPREAD_MASK.float())


SELECTED = torch.tensor([[1, 0, 1, 0, 0, 1], [1, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0]], dtype=torch.bool)


@pytest.mark.parametrize("loss_type", ["dapo", "bnpo", "cispo", "vespo"])
def test_a_mean_over_the_tokens_of_the_batch_has_one_factor(loss_type: str):
    # 7 tokens, 3 of them selected; the selected padding does not count.
    assert selected_denominator(SELECTED, MASK, loss_type).tolist() == pytest.approx([7 / 3] * 3)


@pytest.mark.parametrize("loss_type", ["grpo", "sapo"])
def test_a_mean_over_each_completion_has_a_factor_for_each(loss_type: str):
    assert selected_denominator(SELECTED, MASK, loss_type).tolist() == pytest.approx([5 / 2, 2.0, 1.0])


@pytest.mark.parametrize("loss_type", ["dapo", "grpo"])
def test_the_factor_is_one_where_nothing_is_selected(loss_type: str):
    assert selected_denominator(torch.zeros_like(SELECTED), MASK, loss_type).tolist() == [1.0] * 3
    assert selected_denominator(SELECTED, torch.zeros_like(MASK), loss_type).tolist() == [1.0] * 3


@pytest.mark.parametrize("loss_type", ["dr_grpo", "luspo", "unknown"])
def test_losses_that_do_not_divide_by_tokens_are_refused(loss_type: str):
    with pytest.raises(ValueError, match="does not divide by a token count"):
        selected_denominator(SELECTED, MASK, loss_type)


def test_the_loss_becomes_the_mean_over_selected_tokens():
    """With the factor, TRL's formulas give what they would give with only the selected tokens in the mask."""
    losses = torch.tensor([[1.0, 2.0, 3.0, 4.0, 5.0, 9.0], [6.0, 7.0, 9.0, 9.0, 9.0, 9.0], [9.0] * 6])
    kept = losses * (SELECTED & MASK.bool())
    token_mean = (kept * selected_denominator(SELECTED, MASK, "dapo")[:, None]).sum() / MASK.sum()
    assert token_mean.item() == pytest.approx((1.0 + 3.0 + 6.0) / 3)
    per_completion = (kept * selected_denominator(SELECTED, MASK, "grpo")[:, None]).sum(1) / MASK.sum(1).clamp(min=1)
    assert per_completion.tolist() == pytest.approx([(1.0 + 3.0) / 2, 6.0, 0.0])


def test_the_penalty_is_the_same_on_every_token_of_the_completions():
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [0, 0, 0, 0]])
    advantages = torch.tensor([[2.0, 0.0, -1.0, 0.0], [-0.5, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    expected = [[2.25, 0.25, -0.75, 0.25], [-0.25, 0.25, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]]
    assert penalise_entropy(advantages, mask, 0.25).tolist() == expected
