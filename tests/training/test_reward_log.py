import pytest
import torch

from rlassay.records import PromptRow
from rlassay.rewards.guard import guarded
from rlassay.training.group_reward import GroupReward
from rlassay.training.reward_log import ScoredBatch, added, restated

NAN = float("nan")
ROWS = {"a": PromptRow(prompt_id="a", question="?", answer="B")}


def theirs(completions, **columns):
    return [0.0 for _ in completions]


def batch() -> ScoredBatch:
    """Two groups of two; our reward judged three of four, the other all."""
    balance = guarded("modality_balance", {}, timeout=1.0, max_failures=0.5)
    return ScoredBatch(
        names=["modality_balance", "theirs"],
        rewards=[GroupReward(balance, rows=ROWS, num_generations=2, end_token_ids=[1]), theirs],
        raw=torch.tensor([[-1.0, 1.0], [0.5, 2.0], [NAN, 3.0], [-1.0, 3.0]]),
        lengths=torch.tensor([4.0, 3.0, 2.0, 1.0]),
        weights=torch.tensor([0.5, 0.0]),
        failed={"modality_balance": [None, None, "timeout", None]},
        num_generations=2,
    )


def test_mean_and_deviation_are_restated_over_what_was_judged_where_something_was_not():
    # -1, .5, -1: mean -.5; squares .25 + 1 + .25 over 2.
    assert restated(batch()) == pytest.approx(
        {"rewards/modality_balance/mean": -0.5, "rewards/modality_balance/std": 0.75**0.5}
    )


def test_what_is_added_to_trls_own():
    metrics = added(batch())
    assert {name: value for name, value in metrics.items() if "correlation" not in name} == pytest.approx(
        {
            "rewards/modality_balance/coverage": 0.75,
            "rewards/modality_balance/frac_zero_std": 0.5,
            "rewards/modality_balance/weight": 0.5,
            "rewards/modality_balance/saturated": 2 / 3,
            "rewards/modality_balance/failed/timeout": 1,
            "rewards/theirs/coverage": 1.0,
            "rewards/theirs/frac_zero_std": 0.5,
            "rewards/theirs/weight": 0.0,
        }
    )
    assert {name for name in metrics if "correlation" in name} == {
        "rewards/modality_balance/correlation/theirs",
        "rewards/modality_balance/correlation/length",
        "rewards/theirs/correlation/length",
    }
