import math

import pytest
import torch

from rlassay.advantages.rewards import in_groups, nanstd, total_rewards

NAN = float("nan")


def test_the_total_is_the_weighted_sum_of_the_rewards_that_could_score():
    rewards = torch.tensor([[1.0, 2.0], [NAN, 4.0], [NAN, NAN]])
    totals = total_rewards(rewards, torch.tensor([1.0, 0.5]), 3, normalize_first=False).tolist()
    assert totals[:2] == [2.0, 2.0]
    assert math.isnan(totals[2])


def test_normalised_rewards_count_by_their_weights_alone():
    # Within the group both rewards become -+1 / sqrt(2) (deviation sqrt(2) x half the distance), whatever their size.
    rewards = torch.tensor([[1.0, 600.0], [2.0, 200.0]], dtype=torch.float64)
    weights = torch.tensor([1.0, 0.5], dtype=torch.float64)
    totals = total_rewards(rewards, weights, 2, normalize_first=True)
    assert totals.tolist() == pytest.approx([-0.5 / 2**0.5, 0.5 / 2**0.5], abs=2e-4)


def test_a_group_that_a_reward_scored_once_gets_nothing_from_it():
    rewards = torch.tensor([[5.0, 1.0], [NAN, 3.0]])
    totals = total_rewards(rewards, torch.tensor([1.0, 0.0]), 2, normalize_first=True)
    assert totals.tolist() == [0.0, 0.0]


def test_groups_are_rows_and_must_be_whole():
    assert in_groups(torch.arange(6.0), 2).tolist() == [[0, 1], [2, 3], [4, 5]]
    assert in_groups(torch.zeros(6, 5), 3).shape == (2, 3, 5)
    with pytest.raises(ValueError, match="got 5 completions, expected whole groups of 2"):
        in_groups(torch.zeros(5), 2)
    with pytest.raises(ValueError, match="got 4 completions, expected whole groups of 0"):
        in_groups(torch.zeros(4), 0)


def test_the_deviation_leaves_nan_out_and_needs_two_values():
    values = torch.tensor([[1.0, 3.0, NAN], [NAN, 4.0, NAN]])
    first, second = nanstd(values, dim=1)[:, 0].tolist()
    assert first == pytest.approx(2**0.5)
    assert math.isnan(second)
