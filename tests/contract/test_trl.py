"""Behaviour of TRL that we rely on, and behaviour that our trainer leaves unchanged."""

import inspect
from pathlib import Path
from typing import Any

import pytest
import torch
from trl import GRPOTrainer

from rlassay.credit import uniform
from rlassay.training import CreditGRPOTrainer
from rlassay.training.algorithms.kl_trainer import KLTrainer
from tests.training.tiny_lm import make_trainer, model, weights

OVERRIDDEN = ("_generate_and_score_completions", "_generate", "_calculate_rewards")
OF_KL = ("_compute_loss", "_save_checkpoint", "_load_optimizer_and_scheduler")
# Its arguments change from release to release: all are passed through, and only the first of the results is read.
ANY_ARGUMENTS = {
    *("__init__", "__module__", "__doc__", "__firstlineno__", "__static_attributes__"),
    "_get_per_token_logps_and_entropies",
}
# Each generation is used twice, so that ratios differ from 1 and every loss clips, soft-clips or reweights.
REUSED = {"num_iterations": 2, "max_steps": 4}
LOSSES: dict[str, dict[str, Any]] = {
    "grpo": {},
    "dr_grpo": {"scale_rewards": "none"},
    "dapo": {"epsilon_high": 0.28, "mask_truncated_completions": True},
    "bnpo": {"delta": 1.5},
    "cispo": {"epsilon_high": 5.0},
    "sapo": {},
    "luspo": {},
    "vespo": {},
}


@pytest.mark.parametrize("loss_type", LOSSES)
def test_without_credit_and_with_uniform_credit_the_weights_are_those_of_trl(loss_type: str, tmp_path: Path):
    settings = {"loss_type": loss_type, **LOSSES[loss_type], **REUSED}
    expected = trained(GRPOTrainer, tmp_path, **settings)
    unchanged = trained(CreditGRPOTrainer, tmp_path, **settings)
    spread_out = trained(CreditGRPOTrainer, tmp_path, credit=uniform, **settings)
    for name, value in expected.items():
        assert torch.equal(unchanged[name], value), name
        assert torch.equal(spread_out[name], value), name
    untrained = dict(model().named_parameters())
    assert any(not torch.equal(untrained[name], value) for name, value in expected.items())


def test_luspo_at_sequence_level_sums_in_another_order(tmp_path: Path):
    settings = {"loss_type": "luspo", "importance_sampling_level": "sequence", **REUSED}
    expected = trained(GRPOTrainer, tmp_path, **settings)
    unchanged = trained(CreditGRPOTrainer, tmp_path, **settings)
    spread_out = trained(CreditGRPOTrainer, tmp_path, credit=[uniform, uniform], **settings)
    for name, value in expected.items():
        assert torch.equal(unchanged[name], value), name
        torch.testing.assert_close(spread_out[name], value, rtol=0, atol=1e-5)


def trained(trainer_class: Any, folder: Path, **settings: Any) -> dict[str, torch.Tensor]:
    trainer = make_trainer(trainer_class, folder, **settings)  # seeds the global RNG, so training follows immediately
    trainer.train()
    return weights(trainer)


@pytest.mark.parametrize(("ours", "expected"), [(CreditGRPOTrainer, OVERRIDDEN), (KLTrainer, OF_KL)])
def test_overridden_methods_take_what_trl_passes(ours: type, expected: tuple[str, ...]):
    assert {*expected, *ANY_ARGUMENTS} >= {name for name in vars(ours) if name in dir(GRPOTrainer)} >= set(expected)
    for name in expected:
        parameters = [list(inspect.signature(getattr(each, name)).parameters) for each in (ours, GRPOTrainer)]
        assert parameters[0] == parameters[1], name


def test_our_names_differ_from_those_of_trl(tmp_path: Path):
    theirs = make_trainer(GRPOTrainer, tmp_path)
    assert not [name for name in dir(theirs) if name.lstrip("_").startswith("xp_")]
    added = set(dir(make_trainer(CreditGRPOTrainer, tmp_path))) - set(dir(theirs))
    assert {name for name in added if not name.lstrip("_").startswith("xp_")} == set()


def test_a_generation_batch_has_the_keys_and_shapes_that_credit_needs(tmp_path: Path):
    trainer = make_trainer(CreditGRPOTrainer, tmp_path, credit=uniform)
    rows = [trainer.train_dataset[index // 4] for index in range(8)]
    output = trainer._generate_and_score_completions(rows)
    assert set(output) == {
        "prompt_ids",
        "prompt_mask",
        "completion_ids",
        "completion_mask",
        "advantages",
        "num_items_in_batch",
    }
    assert output["advantages"].shape == output["completion_mask"].shape == output["completion_ids"].shape
    assert len(output["advantages"]) == 8


def test_trl_counts_an_unscored_completion_as_zero(tmp_path: Path):
    """Why we impute the values of our own rewards: TRL takes None for 0."""
    seen: list[float] = []

    def sometimes(completions: list[str], **columns: Any) -> list[float | None]:
        return [None if index % 4 else 1.0 for index in range(len(completions))]

    def nothing(completions: list[str], **columns: Any) -> list[float]:
        return [0.0] * len(completions)

    trainer = make_trainer(CreditGRPOTrainer, tmp_path, reward_funcs=[sometimes, nothing], max_steps=1)
    trainer.xp_listeners.append(lambda rollout: seen.extend(rollout.advantages[:4].tolist()))
    trainer.train()
    # Mean 1/4, deviation .5: (1 - .25) / .5001 and (0 - .25) / .5001.
    assert seen == pytest.approx([1.49970, -0.49990, -0.49990, -0.49990], abs=1e-5)
