import pytest
import torch

from rlassay.credit.denominator import selected_denominator
from tests.credit.make import MASK

SELECTED = torch.tensor([[1, 0, 1, 0, 0, 1], [1, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0]], dtype=torch.bool)


@pytest.mark.parametrize("loss_type", ["dapo", "bnpo", "cispo", "vespo"])
def test_a_mean_over_the_tokens_of_the_batch_has_one_factor(loss_type: str):
    # 7 tokens, 3 of them selected; the selected padding does not count.
    assert selected_denominator(SELECTED, MASK, loss_type).tolist() == pytest.approx([7 / 3] * 3)


@pytest.mark.parametrize("loss_type", ["grpo", "sapo"])
def test_a_mean_over_each_completion_has_a_factor_for_each(loss_type: str):
    assert selected_denominator(SELECTED, MASK, loss_type).tolist() == pytest.approx([5 / 2, 2.0, 1.0])


@pytest.mark.parametrize("loss_type", ["dapo", "grpo"])
def test_nothing_selected_is_not_divided_by(loss_type: str):
    assert selected_denominator(torch.zeros_like(SELECTED), MASK, loss_type).tolist() == [1.0] * 3
    assert selected_denominator(SELECTED, torch.zeros_like(MASK), loss_type).tolist() == [1.0] * 3


@pytest.mark.parametrize("loss_type", ["dr_grpo", "luspo", "unknown"])
def test_losses_that_count_no_tokens_are_refused(loss_type: str):
    with pytest.raises(ValueError, match="counts no tokens"):
        selected_denominator(SELECTED, MASK, loss_type)


def test_the_loss_becomes_the_mean_over_selected_tokens():
    """With the factor, TRL's formulas give what they would give with only the selected tokens in the mask."""
    losses = torch.tensor([[1.0, 2.0, 3.0, 4.0, 5.0, 9.0], [6.0, 7.0, 9.0, 9.0, 9.0, 9.0], [9.0] * 6])
    kept = losses * (SELECTED & MASK.bool())
    token_mean = (kept * selected_denominator(SELECTED, MASK, "dapo")[:, None]).sum() / MASK.sum()
    assert token_mean.item() == pytest.approx((1.0 + 3.0 + 6.0) / 3)
    per_completion = (kept * selected_denominator(SELECTED, MASK, "grpo")[:, None]).sum(1) / MASK.sum(1).clamp(min=1)
    assert per_completion.tolist() == pytest.approx([(1.0 + 3.0) / 2, 6.0, 0.0])
