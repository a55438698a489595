"""Weights of rewards that change over training, in real runs."""

from pathlib import Path
from typing import Any

import pytest

from rlassay.training import CreditGRPOTrainer
from rlassay.training.rl import run_rl
from rlassay.training.rollouts import Rollout
from tests.training.conftest import copied, run_in_two
from tests.training.short_run import load_short, policy_of, proof, rollouts, timeless_metrics
from tests.training.tiny_lm import brevity, even_digits, make_trainer

NAMES = ("choice_accuracy", "think_answer_format", "soft_overlong")
REWARDS: dict[str, Any] = {
    # Eight steps with a warm-up of three: early until step 4 begins.
    "choice_accuracy": {"weight": 2.5, "early_weight": 1.0},
    "think_answer_format": {"weight": 0.5},
    "soft_overlong": {
        "weight": 1.0,
        "schedule": [[0.25, 0.0], [0.75, 3.0]],
        "options": {"max_completion_length": 10, "cache": 8},
    },
}
WEIGHTS = {
    "choice_accuracy": [1.0] * 3 + [2.5] * 5,
    "think_answer_format": [0.5] * 8,
    "soft_overlong": [1.0] * 2 + [0.0] * 4 + [3.0] * 2,
}


def test_a_run_uses_the_weights_of_each_step_and_resumes_with_them(
    warm_started: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    study = load_short(tmp_path, rewards=REWARDS, rl__warmup_steps=3, arms={"base": {}})
    whole, resumed = copied(warm_started, tmp_path / "whole"), copied(warm_started, tmp_path / "resumed")
    run_rl(study, whole, policy_of(study))
    logged = timeless_metrics(whole)
    assert {name: [line[f"rewards/{name}/weight"] for line in logged] for name in NAMES} == WEIGHTS
    for row in rollouts(whole):
        weights = {name: WEIGHTS[name][row["step"] - 1] for name in NAMES}
        assert all(row[f"weighted.{name}"] == weight * row[f"raw.{name}"] for name, weight in weights.items())
        assert row["reward"] == pytest.approx(sum(weight * row[f"raw.{name}"] for name, weight in weights.items()))
    run_in_two(study, resumed, 4, monkeypatch)
    assert timeless_metrics(resumed) == logged
    assert proof(resumed)["sha256"] == proof(whole)["sha256"]


@pytest.mark.parametrize("aggregation", ["sum_then_normalize", "normalize_then_sum"])
def test_advantages_follow_the_weight_of_the_step(aggregation: str, tmp_path: Path):
    def run(**changes: Any) -> list[Rollout]:
        seen: list[Rollout] = []
        rewards = [even_digits, brevity]
        trainer = make_trainer(
            CreditGRPOTrainer,
            tmp_path,
            reward_funcs=rewards,
            max_steps=2,
            learning_rate=1e-30,  # both steps sample from the same policy, whatever the weights
            multi_objective_aggregation=aggregation,
            **changes,
        )
        trainer.xp_listeners.append(seen.append)
        trainer.train()
        return seen

    first, second = run(weight_phases=[((0.0, 1.0), (0.5, 0.0)), ((0.0, 0.0), (0.5, 2.0))])
    accurate, short = run(reward_weights=[1.0, 0.0]), run(reward_weights=[0.0, 2.0])
    assert first.advantages.tolist() == accurate[0].advantages.tolist()
    assert second.completions == short[1].completions
    assert second.advantages.tolist() == short[1].advantages.tolist()
    assert second.advantages.any()
