"""One step under each option of the loss, against a formula of its own; and the samples of an older policy."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from rlassay.training import CreditGRPOTrainer
from tests.training.one_step import Step
from tests.training.tiny_lm import make_trainer

Formula = Callable[[Tensor, Tensor], Tensor]


def spread_out(like: Tensor) -> Tensor:
    """Log-ratios from -1.6 to 1.6, in another order than the rewards."""
    return 1.6 * torch.sin(7.0 * torch.arange(like.numel(), dtype=torch.float32)).view_as(like)


def nothing(completions: list[str], **columns: Any) -> list[float]:
    """The same reward for everything: only the terms added to the loss move the weights."""
    return [0.0] * len(completions)


def dual_clip(ratio: Tensor, advantages: Tensor) -> Tensor:
    """Token losses as the published system writes them: min(max(-rA, -clip(r)A), -3A) for A < 0."""
    clipped = torch.maximum(-ratio * advantages, -ratio.clamp(0.8, 1.3) * advantages)
    return torch.where(advantages < 0, torch.minimum(clipped, -3 * advantages), clipped)


def sapo(ratio: Tensor, advantages: Tensor) -> Tensor:
    """Token losses of SAPO: a gate (4 / tau) sigmoid(tau (r - 1)), with tau 2 or, for A <= 0, 3."""
    tau = torch.where(advantages > 0, 2.0, 3.0)
    return -advantages * 4 / tau / (1 + torch.exp(-tau * (ratio - 1)))


def clip(ratio: Tensor, advantages: Tensor) -> Tensor:
    """Token losses of PPO: -min(rA, clip(r, .8, 1.3)A)."""
    return -torch.minimum(ratio * advantages, ratio.clamp(0.8, 1.3) * advantages)


def of_tokens(losses: Tensor, mask: Tensor) -> Tensor:
    """A mean over the tokens of the batch."""
    return losses.sum() / mask.sum()


def of_completions(losses: Tensor, mask: Tensor) -> Tensor:
    """A mean over the tokens of each completion, then over completions."""
    return (losses.sum(dim=1) / mask.sum(dim=1)).mean()


def of_constant(losses: Tensor, mask: Tensor) -> Tensor:
    """A sum, over the number of completions and the longest length that they may have, 7."""
    return losses.sum() / (8 * 7)


CLIP: dict[str, Any] = {"epsilon": 0.2, "epsilon_high": 0.3}
SAPO: dict[str, Any] = {"loss_type": "sapo", "sapo_temperature_pos": 2.0, "sapo_temperature_neg": 3.0}
FORMULAS: dict[str, tuple[dict[str, Any], Formula, Formula]] = {
    "dual clip": (CLIP | {"delta": 3.0}, dual_clip, of_tokens),
    "sapo": (SAPO, sapo, of_completions),
    "grpo": (CLIP | {"loss_type": "grpo"}, clip, of_completions),
    "bnpo": (CLIP | {"loss_type": "bnpo"}, clip, of_tokens),
    "dr_grpo": (CLIP | {"loss_type": "dr_grpo"}, clip, of_constant),
}


@pytest.mark.parametrize("case", FORMULAS)
def test_a_step_goes_down_the_gradient_of_the_published_loss(case: str, tmp_path: Path):
    settings, formula, aggregate = FORMULAS[case]
    step = Step(tmp_path, log_ratio=spread_out, **settings)
    ratios = spread_out(step.mask).exp()
    assert ratios.max() > 3
    assert ratios.min() < 0.5

    def loss(log_probs: Tensor) -> Tensor:
        ratio = torch.exp(step.of_sampled(log_probs) - step.inputs["old_per_token_logps"])
        return aggregate(formula(ratio, step.inputs["advantages"].unsqueeze(1)) * step.mask, step.mask)

    step.expect(loss)


def test_cispo_clips_the_weight_and_keeps_the_gradient_of_every_token(tmp_path: Path):
    step = Step(tmp_path, log_ratio=spread_out, loss_type="cispo", epsilon_high=1.5)
    assert (spread_out(step.mask).exp() > 1.5).any()

    def loss(log_probs: Tensor) -> Tensor:
        own = step.of_sampled(log_probs)
        weight = torch.exp(own - step.inputs["old_per_token_logps"]).detach().clamp(max=1.5)
        return -(weight * step.inputs["advantages"].unsqueeze(1) * own * step.mask).sum() / step.mask.sum()

    step.expect(loss)


@pytest.mark.parametrize("loss_type", ["grpo", "luspo"])
def test_a_sequence_has_one_ratio_the_geometric_mean_of_its_tokens(loss_type: str, tmp_path: Path):
    """GSPO takes the clipped term of a completion once, LUSPO times its length."""
    settings: dict[str, Any] = {"importance_sampling_level": "sequence", "epsilon": 0.05, "epsilon_high": 0.1}
    step = Step(tmp_path, log_ratio=lambda like: 0.5 * spread_out(like), loss_type=loss_type, **settings)
    lengths, advantages = step.mask.sum(dim=1), step.inputs["advantages"]
    seen: list[Tensor] = []

    def loss(log_probs: Tensor) -> Tensor:
        log_ratio = (step.of_sampled(log_probs) - step.inputs["old_per_token_logps"]) * step.mask
        ratio = (log_ratio.sum(dim=1) / lengths).exp()
        seen.append(ratio.detach())
        clipped = ratio.clamp(0.95, 1.1)
        terms = torch.minimum(ratio * advantages, clipped * advantages)
        return -(terms * (lengths if loss_type == "luspo" else 1.0)).mean()

    step.expect(loss)
    outside = ((seen[0] < 0.95) & (advantages < 0)) | ((seen[0] > 1.1) & (advantages > 0))
    assert 0 < outside.sum() < 8
    assert len(set(lengths.tolist())) > 1


def test_vespo_weighs_a_completion_by_its_whole_ratio(tmp_path: Path):
    constants = {"vespo_k_pos": 1.0, "vespo_lambda_pos": 1.5, "vespo_k_neg": 2.5, "vespo_lambda_neg": 0.5}
    step = Step(tmp_path, log_ratio=lambda like: 0.2 * spread_out(like), loss_type="vespo", **constants)

    def loss(log_probs: Tensor) -> Tensor:
        own, advantages = step.of_sampled(log_probs), step.inputs["advantages"]
        ratio = torch.exp(((own - step.inputs["old_per_token_logps"]) * step.mask).sum(dim=1)).detach()
        k, decay = (torch.where(advantages >= 0, *pair) for pair in ((1.0, 2.5), (1.5, 0.5)))
        weight = ratio**k * torch.exp(decay * (1 - ratio))
        return -((weight * advantages).unsqueeze(1) * own * step.mask).sum() / step.mask.sum()

    step.expect(loss)


def test_the_entropy_bonus_raises_the_entropy_over_the_vocabulary(tmp_path: Path):
    step = Step(tmp_path, reward_funcs=[nothing], entropy_coef=0.7)

    def loss(log_probs: Tensor) -> Tensor:
        entropy = -(log_probs.exp() * log_probs).sum(dim=2)
        return -0.7 * (entropy * step.mask).sum() / step.mask.sum()

    step.expect(loss)


def test_the_entropy_penalty_makes_sampled_tokens_likelier(tmp_path: Path):
    step = Step(tmp_path, reward_funcs=[nothing], entropy_penalty=0.7)
    step.expect(lambda log_probs: 0.7 * -(step.of_sampled(log_probs) * step.mask).sum() / step.mask.sum())


@pytest.mark.parametrize("loss_type", ["dapo", "grpo"])
def test_masked_completions_leave_the_denominator_of_tokens_but_not_that_of_completions(loss_type: str, tmp_path: Path):
    step = Step(tmp_path, loss_type=loss_type, mask_truncated_completions=True)
    kept = step.mask.sum(dim=1) > 0
    assert 0 < kept.sum() < 8

    def loss(log_probs: Tensor) -> Tensor:
        values = -step.inputs["advantages"].unsqueeze(1) * step.of_sampled(log_probs) * step.mask
        if loss_type == "dapo":
            return values[kept].sum() / step.mask[kept].sum()
        return (values[kept].sum(dim=1) / step.mask[kept].sum(dim=1)).sum() / 8

    step.expect(loss)


@pytest.mark.parametrize(
    "settings",
    [{"num_iterations": 2}, {"per_device_train_batch_size": 4, "steps_per_generation": 2}],
    ids=["twice the same samples", "two batches from one policy"],
)
def test_the_ratio_is_one_until_the_first_update_and_the_next_generation_resets_it(
    settings: dict[str, Any], tmp_path: Path
):
    trainer = make_trainer(CreditGRPOTrainer, tmp_path, **settings, max_steps=4, learning_rate=0.05)
    loss, ratios = trainer._compute_loss, []

    def kept(model: Any, inputs: dict[str, Any]) -> Tensor:
        value = loss(model, inputs)
        ratio = torch.exp(trainer.xp_per_token_logps.detach() - inputs["old_per_token_logps"])
        ratios.append(ratio[inputs["completion_mask"].bool()])
        return value

    trainer._compute_loss = kept
    trainer.train()
    for ratio in ratios[::2]:
        torch.testing.assert_close(ratio, torch.ones_like(ratio), atol=1e-5, rtol=0)
    for ratio in ratios[1::2]:
        assert (ratio - 1).abs().max() > 0.1
    clipped = [line["clip_ratio/region_mean"] for line in trainer.state.log_history if "loss" in line]
    assert clipped[0] == clipped[2] == 0
    assert min(clipped[1], clipped[3]) > 0
