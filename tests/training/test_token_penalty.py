"""What acts on the loss token by token: rules over a batch, a penalty for leaving the old policy, KL weights."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from rlassay.credit import CREDITS
from rlassay.divergence import FixedBeta
from rlassay.training import CreditGRPOTrainer, KLControl
from tests.training.one_step import Step
from tests.training.test_losses import nothing
from tests.training.tiny_lm import make_trainer, weights

COEF, BETA = 0.7, 0.7
REUSED: dict[str, Any] = {"num_iterations": 2}
KL_COV = partial(CREDITS["covariance_penalty"], fraction=0.3, coef=COEF)


def advantages_of(step: Step) -> Tensor:
    """(B,), of completions, from those of their tokens, of which some are 0 where a rule leaves tokens out."""
    of_tokens = step.inputs["advantages"]
    return of_tokens.gather(1, of_tokens.abs().argmax(dim=1, keepdim=True))[:, 0]


def covariances(step: Step, sampled: Tensor) -> Tensor:
    """(B, T), of each token in a loop over the definition; -inf outside completions."""
    places: list[tuple[int, int]] = [tuple(place) for place in step.mask.nonzero().tolist()]
    advantages = advantages_of(step)
    mean_advantage = sum(float(advantages[row]) for row, _ in places) / len(places)
    mean_logp = sum(float(sampled[place]) for place in places) / len(places)
    found = torch.full_like(sampled, -torch.inf)
    for row, token in places:
        found[row, token] = (float(advantages[row]) - mean_advantage) * (float(sampled[row, token]) - mean_logp)
    return found


def moved_off(like: Tensor) -> Tensor:
    """Log-ratios of both signs within the clip range of the test, none of them 0."""
    return 0.1 + 0.4 * torch.sin(5.0 * torch.arange(like.numel(), dtype=torch.float32)).view_as(like)


def test_a_step_pushes_penalised_tokens_back_to_the_policy_that_sampled_them(tmp_path: Path):
    step = Step(tmp_path, log_ratio=moved_off, credit=KL_COV, epsilon=0.9, epsilon_high=9.0, **REUSED)
    with torch.no_grad():
        for name, parameter in step.trainer.model.named_parameters():
            parameter.copy_(step.before[name])
        sampled = step.of_sampled(step.log_probs(step.trainer.model))
    counted = int(0.3 * step.mask.sum())
    largest = covariances(step, sampled).flatten().topk(counted).indices
    penalised = torch.zeros(step.mask.numel()).index_fill(0, largest, 1.0).view_as(step.mask)
    signs = moved_off(step.mask).sign()[penalised.bool()]
    assert 1 < counted == len(signs)
    assert set(signs.tolist()) == {-1.0, 1.0}
    torch.testing.assert_close(step.inputs["xp_old_policy_penalty"], COEF * penalised)

    def loss(log_probs: Tensor) -> Tensor:
        log_ratio = step.of_sampled(log_probs) - step.inputs["old_per_token_logps"]
        values = -log_ratio.exp() * step.inputs["advantages"] + COEF * penalised * (log_ratio**2).sqrt()
        return (values * step.mask).sum() / step.mask.sum()

    step.expect(loss)


def kept_by(rule: str, step: Step) -> Tensor:
    """(B, T), 1 on the tokens that a rule over the batch keeps, from a forward pass of the policy that sampled."""
    with torch.no_grad():
        for name, parameter in step.trainer.model.named_parameters():
            parameter.copy_(step.before[name])
        log_probs = step.log_probs(step.trainer.model)
    tokens = step.mask.bool()
    if rule == "covariance":
        values = covariances(step, step.of_sampled(log_probs))
        highest = values[tokens].sort(descending=True).values[: int(0.3 * tokens.sum())]
        return step.mask * (values < highest[-1])
    entropy = -(log_probs.exp() * log_probs).sum(dim=2)
    return step.mask * (entropy >= np.quantile(entropy[tokens].numpy(), 0.7))


@pytest.mark.parametrize(
    ("rule", "part"),
    [
        ("covariance", partial(CREDITS["covariance_filter"], fraction=0.3, choice="largest")),
        ("entropy", partial(CREDITS["entropy_filter"], fraction=0.3, scope="batch")),
    ],
)
def test_a_step_trains_the_tokens_that_a_rule_over_the_batch_keeps(rule: str, part: Any, tmp_path: Path):
    step = Step(tmp_path, credit=part)
    kept, advantages = kept_by(rule, step), advantages_of(step)
    assert 0 < kept.sum() < step.mask.sum()
    if rule == "covariance":  # it reads the advantages of all completions, which are seen on kept tokens only
        assert bool(((kept.sum(dim=1) > 0) & (advantages != 0)).all())
    step.expect(lambda logps: -(advantages[:, None] * kept * step.of_sampled(logps)).sum() / step.mask.sum())


def test_a_batch_that_trains_one_step_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="the penalty has no gradient; expected num_iterations of 2 or more"):
        make_trainer(CreditGRPOTrainer, tmp_path, credit=KL_COV)


def trained(folder: Path, **settings: Any) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    trainer = make_trainer(CreditGRPOTrainer, folder, max_steps=4, learning_rate=0.05, **REUSED, **settings)
    trainer.train()
    return weights(trainer), [line for line in trainer.state.log_history if "loss" in line]


def test_the_penalty_acts_from_the_second_use_of_a_batch_on(tmp_path: Path):
    part = CREDITS["covariance_penalty"]
    (plain, _), (first, _) = (trained(tmp_path, credit=partial(part, fraction=0.3, coef=coef)) for coef in (0.0, COEF))
    shuffled, lines = trained(tmp_path, credit=[KL_COV, CREDITS["shuffled_weights"]])
    assert any((plain[name] - first[name]).abs().max() > 1e-4 for name in plain)
    assert any((shuffled[name] - first[name]).abs().max() > 1e-4 for name in plain)
    shares = [line["penalised_token_fraction"] for line in lines if "penalised_token_fraction" in line]
    assert len(shares) == 2
    assert all(0.2 < share < 0.301 for share in shares), shares
    untouched, _ = trained(tmp_path)
    for name, value in untouched.items():
        torch.testing.assert_close(plain[name], value, atol=1e-5, rtol=1e-4)


def lowest_half(step: Step) -> Tensor:
    """(B, T), 1 on the half of each completion's tokens of lowest entropy, rounded up."""
    with torch.no_grad():
        log_probs = step.log_probs(step.trainer.model)
    entropy = -(log_probs.exp() * log_probs).sum(dim=2)
    kept = torch.zeros_like(step.mask)
    for row, length in enumerate(step.mask.sum(dim=1).int().tolist()):
        kept[row, entropy[row, :length].argsort()[: -(-length // 2)]] = 1.0
    return kept


@pytest.mark.parametrize("loss_type", ["dapo", "grpo"])
def test_the_kl_penalty_acts_on_the_tokens_that_its_credit_keeps(loss_type: str, tmp_path: Path):
    part = partial(CREDITS["entropy_filter"], fraction=0.5, choice="lowest")
    control = KLControl(FixedBeta(BETA), kind="mse", credit=part)
    step = Step(tmp_path, nudge=0.3, reward_funcs=[nothing], kl=control, loss_type=loss_type)
    with torch.no_grad():
        for name, parameter in step.trainer.model.named_parameters():
            parameter.copy_(step.before[name])
    kept = lowest_half(step)
    assert 0 < kept.sum() < step.mask.sum()
    torch.testing.assert_close(step.inputs["xp_kl_weights"], kept)

    def loss(log_probs: Tensor) -> Tensor:
        reference = step.of_sampled(step.log_probs(step.trainer.ref_model)).detach()
        values = BETA * kept * (step.of_sampled(log_probs) - reference) ** 2 / 2
        if loss_type == "dapo":
            return values.sum() / step.mask.sum()
        return (values.sum(dim=1) / step.mask.sum(dim=1)).mean()

    step.expect(loss)
    logged = next(line for line in step.trainer.state.log_history if "kl" in line)
    assert logged["kl_weight_mean"] == pytest.approx(float(kept.sum() / step.mask.sum()), abs=1e-4)


def test_the_logged_kl_is_unweighted_and_the_control_moves_the_weights(tmp_path: Path):
    def kl(credit: Any) -> Step:
        return Step(tmp_path, nudge=0.3, reward_funcs=[nothing], kl=KLControl(FixedBeta(BETA), credit=credit))

    part = partial(CREDITS["entropy_filter"], fraction=0.5, choice="lowest")
    plain, weighted, shuffled = (kl(credit) for credit in ([], part, [part, "shuffled_weights"]))
    logged = [step.trainer.state.log_history[0]["kl"] for step in (plain, weighted, shuffled)]
    assert logged[0] == logged[1] == logged[2] > 0
    assert "xp_kl_weights" not in plain.inputs
    rows = [step.inputs["xp_kl_weights"].sum(dim=1).tolist() for step in (weighted, shuffled)]
    assert rows[0] == rows[1]
    assert not torch.equal(weighted.inputs["xp_kl_weights"], shuffled.inputs["xp_kl_weights"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"where": "reward", "credit": "entropy_filter"}, "where is 'reward'; expected 'loss'"),
        ({"credit": "covariance_penalty"}, "a penalty of its own"),
        ({"credit": "entropy"}, "entropy_filter"),
    ],
)
def test_credit_that_the_kl_cannot_use_is_refused(settings: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        KLControl(FixedBeta(BETA), **settings)
