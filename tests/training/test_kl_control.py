"""A KL penalty in the loss and in the reward, its controller, and its reference, inside the trainer."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig
from torch import Tensor
from trl import GRPOTrainer

from rlassay.divergence import AdaptiveBeta, FixedBeta
from rlassay.training import CreditGRPOTrainer, KLControl
from rlassay.training.algorithms import kl_control
from rlassay.training.algorithms.kl_trainer import FILE
from tests.contract.test_trl import LOSSES, REUSED
from tests.training.one_step import Step
from tests.training.tiny_lm import make_trainer, weights

BETA = 0.7
KINDS: dict[str, Callable[[Tensor], Tensor]] = {
    "kl": lambda d: d,
    "abs": lambda d: torch.sqrt(d**2),
    "mse": lambda d: d * d / 2,
    "low_var_kl": lambda d: torch.exp(-d) - 1 + d,
}


def nothing(completions: list[str], **columns: Any) -> list[float]:
    """The same reward for everything, so that only the KL term can move the weights."""
    return [0.0] * len(completions)


@pytest.mark.parametrize("kind", [*KINDS, "exact"])
def test_in_the_loss_a_step_goes_down_the_gradient_of_the_penalty(kind: str, tmp_path: Path):
    step = Step(tmp_path, nudge=0.3, reward_funcs=[nothing], kl=KLControl(FixedBeta(BETA), kind=kind))

    def loss(log_probs: Tensor) -> Tensor:
        reference = step.log_probs(step.trainer.ref_model).detach()
        if kind == "exact":
            values = (log_probs.exp() * (log_probs - reference)).sum(dim=2)
        else:
            values = KINDS[kind](step.of_sampled(log_probs) - step.of_sampled(reference))
        return BETA * (values * step.mask).sum() / step.mask.sum()

    step.expect(loss)


def test_the_penalty_joins_the_loss_of_the_advantages(tmp_path: Path):
    step = Step(tmp_path, nudge=0.3, kl=KLControl(FixedBeta(BETA), kind="mse"))

    def loss(log_probs: Tensor) -> Tensor:
        own, reference = (step.of_sampled(each) for each in (log_probs, step.log_probs(step.trainer.ref_model)))
        ratio = torch.exp(own - own.detach())
        values = -ratio * step.inputs["advantages"].unsqueeze(1) + BETA * (own - reference.detach()) ** 2 / 2
        return (values * step.mask).sum() / step.mask.sum()

    step.expect(loss)


@pytest.mark.parametrize("loss_type", LOSSES)
def test_low_var_kl_in_the_loss_is_the_beta_of_trl_without_its_correction(loss_type: str, tmp_path: Path):
    settings: dict[str, Any] = {"loss_type": loss_type, **LOSSES[loss_type], **REUSED, "optim": "sgd"}
    settings |= {"learning_rate": 0.1, "per_device_train_batch_size": 4, "gradient_accumulation_steps": 2}
    settings |= {"steps_per_generation": 4}
    theirs = make_trainer(GRPOTrainer, tmp_path, beta=0.5, use_bias_correction_kl=False, **settings)
    theirs.train()
    ours = make_trainer(CreditGRPOTrainer, tmp_path, kl=KLControl(FixedBeta(0.5)), **settings)
    ours.train()
    without = make_trainer(GRPOTrainer, tmp_path, **settings)
    without.train()
    for name, value in weights(theirs).items():
        torch.testing.assert_close(weights(ours)[name], value, rtol=1e-4, atol=1e-6)
    assert any((weights(without)[name] - value).abs().max() > 1e-4 for name, value in weights(theirs).items())
    logged = [[line["kl"] for line in each.state.log_history if "kl" in line] for each in (ours, theirs)]
    assert logged[0] == pytest.approx(logged[1], abs=1e-6)


@pytest.mark.parametrize("kind", [*KINDS, "exact"])
def test_in_the_reward_a_completion_pays_for_the_sum_of_its_tokens(kind: str, tmp_path: Path):
    advantages: list[float] = []

    def listen(trainer: Any) -> None:
        trainer.xp_listeners.append(lambda rollout: advantages.extend(rollout.advantages.tolist()))

    control = KLControl(FixedBeta(BETA), kind=kind, where="reward")
    step = Step(tmp_path, nudge=0.3, prepare=listen, reward_funcs=[nothing], scale_rewards="none", kl=control)
    with torch.no_grad():
        for name, parameter in step.trainer.model.named_parameters():
            parameter.copy_(step.before[name])
        own, reference = step.log_probs(step.trainer.model), step.log_probs(step.trainer.ref_model)
        if kind == "exact":
            values = (own.exp() * (own - reference)).sum(dim=2)
        else:
            values = KINDS[kind](step.of_sampled(own) - step.of_sampled(reference))
    totals = -BETA * (values * step.mask).sum(dim=1)
    # The two prompts, whose completions TRL has shuffled: the mean of each group is taken off.
    of_first = (step.inputs["prompt_ids"] == step.inputs["prompt_ids"][0]).all(dim=1)
    assert of_first.sum() == 4
    means = torch.where(of_first, totals[of_first].mean(), totals[~of_first].mean())
    torch.testing.assert_close(step.inputs["advantages"], totals - means, atol=1e-4, rtol=1e-4)
    assert (totals - means).abs().max() > 0.05
    assert sorted(step.inputs["advantages"].tolist()) == pytest.approx(sorted(advantages))

    def loss(log_probs: Tensor) -> Tensor:
        return -((totals - means).unsqueeze(1) * step.of_sampled(log_probs) * step.mask).sum() / step.mask.sum()

    step.expect(loss)


def test_a_controller_takes_one_step_per_optimiser_step_in_the_loss(tmp_path: Path):
    control = KLControl(AdaptiveBeta(0.5, target=0.001, horizon=40.0), kind="mse", per="token")
    trainer = make_trainer(CreditGRPOTrainer, tmp_path, kl=control, max_steps=4)
    trainer.train()
    lines = [line for line in trainer.state.log_history if "kl" in line]
    # The policy is its reference in the first step: error -1, clipped to -.2. 8 completions: .5 (1 - .2 * 8 / 40).
    assert [line["beta"] for line in lines[:2]] == pytest.approx([0.5, 0.48])
    assert [line["kl"] > 0.0012 for line in lines] == [False, True, True, True]
    # Above 1.2 times the target from then on: the error is .2 each time.
    assert [line["beta"] for line in lines[2:]] == pytest.approx([0.48 * 1.04, 0.48 * 1.04**2])
    assert control.controller.beta == pytest.approx(0.48 * 1.04**3)


def test_a_controller_takes_one_step_per_generation_batch_in_the_reward(tmp_path: Path):
    settings: dict[str, Any] = {"num_iterations": 2, "max_steps": 4}
    control = KLControl(AdaptiveBeta(0.5, target=1e9, horizon=40.0), kind="kl", where="reward", per="sequence")
    trainer = make_trainer(CreditGRPOTrainer, tmp_path, kl=control, **settings)
    trainer.train()
    assert control.controller.beta == pytest.approx(0.5 * 0.96**2)


def test_a_target_per_sequence_is_compared_with_the_sum_over_a_completion(tmp_path: Path):
    given: list[tuple[float, int]] = []

    class Told(FixedBeta):
        def update(self, current_kl: float, num_samples: int) -> float:
            given.append((current_kl, num_samples))
            return self.beta

    for per in ("token", "sequence"):
        Step(tmp_path, nudge=0.3, kl=KLControl(Told(0.5), kind="abs", per=per))
    step = Step(tmp_path, nudge=0.3, kl=KLControl(Told(0.5), kind="abs", per="token"))
    model = step.trainer.model
    for name, parameter in model.named_parameters():
        parameter.data.copy_(step.before[name])
    d = (step.of_sampled(step.log_probs(model)) - step.of_sampled(step.log_probs(step.trainer.ref_model))).abs()
    sums = (d * step.mask).sum(dim=1)
    assert given[0] == pytest.approx(((sums / step.mask.sum(dim=1)).mean().item(), 8), rel=1e-4)
    assert given[1] == pytest.approx((sums.mean().item(), 8), rel=1e-4)


def test_a_beta_of_zero_measures_without_a_trace_in_the_weights(tmp_path: Path):
    theirs = make_trainer(GRPOTrainer, tmp_path)
    theirs.train()
    ours = make_trainer(CreditGRPOTrainer, tmp_path, kl=KLControl(FixedBeta(0.0)))
    ours.train()
    assert all(torch.equal(weights(ours)[name], value) for name, value in weights(theirs).items())
    measured = [line["kl"] for line in ours.state.log_history if "kl" in line]
    assert measured[0] == pytest.approx(0, abs=1e-9)
    assert min(measured[1:]) > 1e-4
    assert ours.args.beta == 0


@pytest.mark.parametrize("where", ["loss", "reward"])
def test_a_resumed_run_continues_beta_and_reference_exactly(where: Any, tmp_path: Path):
    def trainer(folder: Path, steps: int) -> Any:
        folder.mkdir(exist_ok=True)
        control = KLControl(AdaptiveBeta(0.5, target=0.01, horizon=50.0), kind="mse", where=where)
        settings: dict[str, Any] = {"save_strategy": "steps", "save_steps": 2, "lr_scheduler_type": "constant"}
        settings |= {"sync_ref_model": True, "ref_model_sync_steps": 1, "ref_model_mixup_alpha": 0.25}
        made = make_trainer(CreditGRPOTrainer, folder, kl=control, max_steps=steps, **settings)
        if steps == 4:
            made.train(resume_from_checkpoint=None if folder.name == "whole" else str(folder / "checkpoint-2"))
        else:
            made.train()
        return made

    whole = trainer(tmp_path / "whole", 4)
    trainer(tmp_path / "parts", 2)
    resumed = trainer(tmp_path / "parts", 4)
    assert resumed.xp_kl.controller.beta == whole.xp_kl.controller.beta != 0.5
    for name, value in whole.ref_model.state_dict().items():
        assert torch.equal(resumed.ref_model.state_dict()[name], value), name
    for name, value in weights(whole).items():
        assert torch.equal(weights(resumed)[name], value), name
    assert any(not torch.equal(value, weights(whole)[name]) for name, value in whole.ref_model.named_parameters())
    (tmp_path / "parts" / "checkpoint-2" / FILE).unlink()
    with pytest.raises(ValueError, match="no state of beta, reference"):
        trainer(tmp_path / "parts", 4)


def test_a_reference_moves_by_the_share_alpha_of_the_way(tmp_path: Path):
    settings: dict[str, Any] = {"sync_ref_model": True, "ref_model_sync_steps": 1, "ref_model_mixup_alpha": 0.25}
    step = Step(tmp_path, kl=KLControl(FixedBeta(0.0)), **settings)
    for name, value in step.trainer.ref_model.named_parameters():
        torch.testing.assert_close(value, 0.25 * step.after[name] + 0.75 * step.before[name])


@pytest.mark.parametrize(("kind", "where"), [("mse", "loss"), ("exact", "loss"), ("kl", "reward")])
def test_with_adapters_the_reference_is_the_model_without_them(kind: str, where: Any, tmp_path: Path):
    lora = LoraConfig(r=2, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    control = KLControl(FixedBeta(0.5), kind=kind, where=where)
    trainer = make_trainer(CreditGRPOTrainer, tmp_path, kl=control, peft_config=lora, learning_rate=0.1)
    trainer.train()
    measured = [line["kl"] for line in trainer.state.log_history if "kl" in line]
    assert measured[0] == pytest.approx(0, abs=1e-6)
    assert all(abs(value) > 1e-5 for value in measured[1:])


def test_settings_that_are_rarely_meant_are_warned_of(monkeypatch: pytest.MonkeyPatch):
    warned: list[str] = []
    monkeypatch.setattr(kl_control.logger, "warning", warned.append)
    KLControl(AdaptiveBeta(0.01, target=6.0, horizon=10_000.0), kind="kl", where="reward")
    KLControl(FixedBeta(0.01), kind="kl")
    assert len(warned) == 2
    assert "needs per: sequence" in warned[0]
    assert "expected gradient is 0" in warned[1]
    KLControl(AdaptiveBeta(0.01, target=6.0, horizon=10_000.0), kind="kl", where="reward", per="sequence")
    KLControl(AdaptiveBeta(0.01, target=0.1, horizon=10_000.0), kind="low_var_kl")
    KLControl(FixedBeta(0.0), kind="kl")
    assert len(warned) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "k3"}, "kind: got 'k3', expected one of kl, abs, mse, low_var_kl, exact"),
        ({"where": "advantage"}, "where: got 'advantage', expected one of loss, reward"),
        ({"per": "batch"}, "per: got 'batch', expected one of token, sequence"),
    ],
)
def test_an_unknown_choice_is_an_error(arguments: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=re.escape(message)):
        KLControl(FixedBeta(0.1), **arguments)


@pytest.mark.parametrize(
    ("settings", "where", "message"),
    [
        ({"beta": 0.2}, "loss", "beta: got 0.2 beside kl, whose controller starts from 0.1"),
        ({"multi_objective_aggregation": "normalize_then_sum"}, "reward", "normalize_then_sum"),
    ],
)
def test_settings_that_contradict_the_penalty_are_refused(
    settings: dict[str, Any], where: Any, message: str, tmp_path: Path
):
    with pytest.raises(ValueError, match=re.escape(message)):
        make_trainer(CreditGRPOTrainer, tmp_path, kl=KLControl(FixedBeta(0.1), where=where), **settings)
