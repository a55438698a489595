from inspect import unwrap
from pathlib import Path
from typing import Any, Literal

import pytest
import torch

from rlassay.advantages import grpo, total_rewards
from rlassay.training import CreditGRPOTrainer
from rlassay.training.rollouts import Rollout
from tests.training.tiny_lm import brevity, even_digits, make_trainer

NAN = float("nan")


@pytest.mark.parametrize(
    ("scale", "expected"),
    [
        # Means 2 and 5; deviations within the groups sqrt((1 + 0 + 1) / 2) = 1 and sqrt((9 + 0 + 9) / 2) = 3.
        ("group", [-1 / 1.0001, 0.0, 1 / 1.0001, -3 / 3.0001, 0.0, 3 / 3.0001]),
        # All six: mean 3.5, squares 6.25 + 2.25 + .25 + 2.25 + 2.25 + 20.25 = 33.5 over 5.
        ("batch", [value / (6.7**0.5 + 1e-4) for value in (-1.0, 0.0, 1.0, -3.0, 0.0, 3.0)]),
        ("none", [-1.0, 0.0, 1.0, -3.0, 0.0, 3.0]),
    ],
)
def test_advantages_by_hand(scale: Literal["group", "batch", "none"], expected: list[float]):
    advantages = grpo(torch.tensor([1.0, 2.0, 3.0, 2.0, 5.0, 8.0]), 3, scale)
    assert advantages.tolist() == pytest.approx(expected, abs=1e-6)


def test_one_right_answer_of_four():
    # Mean 1/4, deviation sqrt((9 + 1 + 1 + 1) / 16 / 3) = 1/2, not the population's sqrt(3) / 4: 1.5, -.5, -.5, -.5.
    advantages = grpo(rewards=torch.tensor([1.0, 0.0, 0.0, 0.0]), num_generations=4)
    assert advantages.tolist() == pytest.approx([1.5, -0.5, -0.5, -0.5], abs=5e-4)


def test_an_unscored_completion_gets_no_advantage_and_is_left_out_of_the_statistics():
    # Mean of 1 and 3 is 2, deviation sqrt(2). A group with one scored completion has no deviation.
    advantages = grpo(torch.tensor([1.0, NAN, 3.0, NAN, 7.0, NAN]), 3)
    assert advantages.tolist() == pytest.approx([-1 / (2**0.5 + 1e-4), 0, 1 / (2**0.5 + 1e-4), 0, 0, 0], abs=1e-6)


def test_a_constant_added_to_a_group_changes_nothing_and_a_factor_almost_nothing():
    rewards = torch.randn(12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    shifts = torch.tensor([5.0, -2.0, 100.0], dtype=torch.float64).repeat_interleave(4)
    torch.testing.assert_close(grpo(rewards + shifts, 4), grpo(rewards, 4))
    torch.testing.assert_close(grpo(1000 * rewards, 4), grpo(rewards, 4), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("scale", ["group", "batch", "none"])
def test_it_equals_what_trl_puts_into_the_batch_bit_for_bit(scale: Literal["group", "batch", "none"], tmp_path: Path):
    for rollout in rollouts(tmp_path, scale_rewards=scale):
        rewards = total_rewards(rollout.raw, torch.tensor([1.0, 0.3]), 4, normalize_first=False)
        assert torch.equal(grpo(rewards, 4, scale), rollout.advantages)
        assert rollout.advantages.any()


def test_totals_of_normalised_rewards_are_those_that_trl_whitens(tmp_path: Path):
    for rollout in rollouts(tmp_path, multi_objective_aggregation="normalize_then_sum"):
        rewards = total_rewards(rollout.raw, torch.tensor([1.0, 0.3]), 4, normalize_first=True)
        # Whitening over the batch is GRPO with the whole batch as one group.
        torch.testing.assert_close(grpo(rewards, len(rewards)), rollout.advantages)


def rollouts(folder: Path, **changes: Any) -> list[Rollout]:
    """Three steps of two groups of four; one completion of the first group cannot be scored by any reward."""

    def gaps(reward: Any) -> Any:
        def with_gaps(completions: list[str], **columns: Any) -> list[float | None]:
            return [None, *reward(completions)[1:]]

        return with_gaps

    seen: list[Rollout] = []
    rewards = [gaps(even_digits), gaps(brevity)]
    trainer = make_trainer(CreditGRPOTrainer, folder, reward_funcs=rewards, reward_weights=[1.0, 0.3], **changes)
    trainer.xp_listeners.append(seen.append)
    trainer.train()
    return seen


def test_an_unknown_scale_is_an_error():
    # Unwrapped: tests check arguments against the annotations first, which scripts do not.
    with pytest.raises(ValueError, match="scale: got 'std', expected one of group, batch, none"):
        unwrap(grpo)(torch.zeros(4), 2, "std")
