"""The effect of our credit in TRL's own losses."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from rlassay.credit import CREDITS, TokenSignals, compose, penalise_entropy, spread
from rlassay.credit.compose import MEAN_OVER
from rlassay.credit.formulas import batch_quantile_mask
from rlassay.training import CreditGRPOTrainer
from tests.training.tiny_lm import make_trainer


def generation_batch(trainer: Any) -> tuple[dict[str, Any], TokenSignals]:
    """Two groups of four completions of up to seven tokens, and random signals on them."""
    batch = trainer._generate_and_score_completions([trainer.train_dataset[index // 4] for index in range(8)])
    batch["advantages"] = torch.linspace(-1.0, 2.0, 8)
    mask = batch["completion_mask"]
    mask[1, 3:] = mask[6, 1:] = mask[7] = 0  # whatever was sampled: several lengths, and one masked as a whole
    batch["num_items_in_batch"] = mask.sum()
    entropy_BT = torch.rand(mask.shape, generator=torch.Generator().manual_seed(0))
    has_image_B = torch.zeros(8, dtype=torch.bool)
    signals = TokenSignals(
        completion_mask=mask, advantages_B=batch["advantages"], has_image_B=has_image_B, entropy_BT=entropy_BT
    )
    return batch, signals


def loss_and_gradient(trainer: Any, batch: dict[str, Any]) -> tuple[float, torch.Tensor]:
    trainer.current_gradient_accumulation_steps = 1
    trainer.model.zero_grad()
    loss = trainer._compute_loss(trainer.model, batch)
    loss.backward()
    return loss.item(), torch.cat([each.grad.flatten() for each in trainer.model.parameters() if each.grad is not None])


@pytest.mark.parametrize("loss_type", MEAN_OVER)
def test_a_selected_denominator_makes_the_loss_a_mean_over_the_selected_tokens(loss_type: str, tmp_path: Path):
    trainer = make_trainer(CreditGRPOTrainer, tmp_path, loss_type=loss_type)
    batch, signals = generation_batch(trainer)
    credit = compose([CREDITS["entropy_filter"]], signals, "selected", loss_type)
    advantages_BT = spread(signals.advantages_B, credit.weights_BT, signals.completion_mask)
    # TRL leaves tool tokens out of the loss and of its denominator; unselected tokens should be left out likewise.
    kept = credit.selected_BT.int()
    as_tools = batch | {"tool_mask": kept, "num_items_in_batch": kept.sum()}

    loss, gradient = loss_and_gradient(trainer, batch | {"advantages": advantages_BT})
    expected_loss, expected_gradient = loss_and_gradient(trainer, as_tools)

    assert 0 < int(kept.sum()) < int(signals.completion_mask.sum())
    assert loss == pytest.approx(expected_loss, abs=1e-6)
    torch.testing.assert_close(gradient, expected_gradient, atol=1e-6, rtol=1e-4)


def test_the_entropy_filter_of_a_batch_selects_the_tokens_that_trl_selects(tmp_path: Path):
    trainer = make_trainer(CreditGRPOTrainer, tmp_path)
    _, signals = generation_batch(trainer)
    for fraction in (0.05, 0.2, 0.5, 1.0):
        theirs = trainer.get_high_entropy_mask(signals.entropy_BT, signals.completion_mask, 1 - fraction)
        assert torch.equal(batch_quantile_mask(signals.named("entropy"), signals.completion_mask, fraction), theirs)


@pytest.mark.parametrize("loss_type", ["dapo", "bnpo"])
def test_the_penalty_adds_the_mean_negative_log_probability_of_the_sampled_tokens(loss_type: str, tmp_path: Path):
    trainer = make_trainer(CreditGRPOTrainer, tmp_path, loss_type=loss_type)
    batch, signals = generation_batch(trainer)
    mask = signals.completion_mask
    plain_BT = spread(signals.advantages_B, mask.float(), mask)

    _, without = loss_and_gradient(trainer, batch | {"advantages": plain_BT})
    _, penalised = loss_and_gradient(trainer, batch | {"advantages": penalise_entropy(plain_BT, mask, 0.06)})
    trainer.model.zero_grad()
    mean_nll(trainer, batch).backward()
    added = torch.cat([each.grad.flatten() for each in trainer.model.parameters()])

    torch.testing.assert_close(penalised - without, 0.06 * added, atol=1e-6, rtol=1e-4)
    assert added.abs().max() > 1e-3


@pytest.mark.parametrize("credit", [None, CREDITS["uniform"]])
def test_the_trainer_adds_the_penalty_to_the_advantages_after_credit(credit: Any, tmp_path: Path):
    def advantages(penalty: float) -> tuple[torch.Tensor, torch.Tensor]:
        ours = partial(CreditGRPOTrainer, entropy_penalty=penalty)
        trainer = make_trainer(ours, tmp_path, credit=credit)
        batch = trainer._generate_and_score_completions([trainer.train_dataset[index // 4] for index in range(8)])
        values, mask = batch["advantages"], batch["completion_mask"]
        return values if values.ndim == 2 else values[:, None] * mask, mask

    (plain_BT, mask), (penalised_BT, _) = advantages(0.0), advantages(0.06)
    torch.testing.assert_close(penalised_BT, plain_BT + 0.06 * mask)


def mean_nll(trainer: Any, batch: dict[str, Any]) -> torch.Tensor:
    """Mean of -log p over the completion tokens, at the trainer's temperature of 1."""
    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1)
    seen = torch.cat([batch["prompt_mask"], batch["completion_mask"]], dim=1)
    positions = (seen.cumsum(dim=1) - 1).clamp(min=0)
    length = batch["completion_ids"].shape[1]
    logits = trainer.model(input_ids=ids, attention_mask=seen, position_ids=positions).logits[:, -length - 1 : -1]
    logps = logits.log_softmax(dim=-1).gather(2, batch["completion_ids"][..., None])[..., 0]
    return -(logps * batch["completion_mask"]).sum() / batch["completion_mask"].sum()
