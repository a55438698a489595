"""GAE against values worked by hand and a brute-force sum."""

import numpy as np
import pytest
import torch

from rlassay.advantages import gae, terminal_rewards, whiten


def test_advantages_and_returns_by_hand():
    # d = .5 * 2 - 1, then 8 - 2; A_2 = 6, A_1 = 0 + .5 * .25 * 6. The third token is not counted.
    rewards = torch.tensor([[0.0, 8.0, 99.0]])
    values = torch.tensor([[1.0, 2.0, 99.0]])
    advantages, returns = gae(rewards, values, torch.tensor([[1, 1, 0]]), gamma=0.5, lam=0.25)
    assert advantages.tolist() == [[0.75, 6.0, 0.0]]
    assert returns.tolist() == [[1.75, 8.0, 0.0]]


@pytest.mark.parametrize(("gamma", "lam"), [(0.9, 0.7), (1.0, 0.95), (1.0, 1.0), (0.8, 0.0)])
def test_a_brute_force_sum_agrees(gamma: float, lam: float):
    rng = np.random.default_rng(0)
    rewards, values = rng.normal(size=(3, 5)), rng.normal(size=(3, 5))
    mask = np.array([[1, 1, 1, 1, 1], [1, 0, 0, 1, 0], [0, 0, 0, 0, 0]])  # the second has two tokens of a tool
    expected = np.zeros((3, 5))
    for row in range(3):
        counted = np.flatnonzero(mask[row])
        value = np.append(values[row, counted], 0.0)
        errors = [rewards[row, t] + gamma * value[i + 1] - value[i] for i, t in enumerate(counted)]
        for i, t in enumerate(counted):
            expected[row, t] = sum((gamma * lam) ** (j - i) * errors[j] for j in range(i, len(errors)))
    advantages, returns = gae(*map(torch.tensor, (rewards, values, mask)), gamma=gamma, lam=lam)
    np.testing.assert_allclose(advantages, expected, atol=1e-12)
    np.testing.assert_allclose(returns, (expected + values) * mask, atol=1e-12)


def test_without_discount_it_is_the_reward_to_come_minus_the_value():
    mask = torch.tensor([[1, 1, 1], [1, 1, 0]])
    rewards = terminal_rewards(torch.tensor([5.0, 3.0]), mask)
    values = torch.tensor([[1.0, 2.0, 4.0], [0.0, 1.0, 7.0]])
    advantages, returns = gae(rewards, values, mask, 1.0, 1.0)
    assert advantages.tolist() == [[4.0, 3.0, 1.0], [3.0, 2.0, 0.0]]
    assert returns.tolist() == [[5.0, 5.0, 5.0], [3.0, 3.0, 0.0]]


def test_the_reward_is_on_the_last_counted_token():
    mask = torch.tensor([[1, 1, 1, 0], [1, 0, 1, 0], [0, 0, 0, 0], [1, 1, 0, 0]])
    rewards = terminal_rewards(torch.tensor([2.0, 3.0, 4.0, float("nan")]), mask)
    assert rewards.tolist() == [[0, 0, 2, 0], [0, 0, 3, 0], [0, 0, 0, 0], [0, 0, 0, 0]]


def test_whitening_leaves_out_what_the_mask_leaves_out():
    values, mask = torch.tensor([[1.0, 3.0], [100.0, 5.0]]), torch.tensor([[True, True], [False, True]])
    # Mean 3, squares 4 + 0 + 4 over 2.
    assert whiten(values, mask).flatten().tolist() == pytest.approx([-1.0, 0.0, 0.0, 1.0])
    assert whiten(values, torch.tensor([[True, False], [False, False]])).tolist() == [[0.0, 0.0], [0.0, 0.0]]


def test_a_mask_may_be_of_any_kind_and_the_options_whole_numbers():
    rewards, values = torch.tensor([[0.0, 8.0, 99.0]]), torch.tensor([[1.0, 2.0, 99.0]])
    for mask in (torch.tensor([[1, 1, 0]]), torch.tensor([[True, True, False]]), torch.tensor([[1.0, 1.0, 0.0]])):
        advantages, returns = gae(rewards, values, mask, gamma=1, lam=1)
        assert advantages.tolist() == [[7.0, 6.0, 0.0]]
        assert returns.tolist() == [[8.0, 8.0, 0.0]]
        assert terminal_rewards(torch.tensor([4.0]), mask).tolist() == [[0.0, 4.0, 0.0]]


def test_values_in_half_precision_are_summed_in_float32():
    # 400 rewards of 1: bfloat16 has no odd number above 256, and would stop there.
    rewards, mask = torch.ones(1, 400), torch.ones(1, 400, dtype=torch.int64)
    advantages, returns = gae(rewards.bfloat16(), torch.zeros(1, 400).bfloat16(), mask, 1.0, 1.0)
    assert advantages.dtype == returns.dtype == torch.float32
    assert advantages[0, 0] == returns[0, 0] == 400


def test_completions_without_a_token_have_no_advantages():
    advantages, returns = gae(torch.zeros(2, 0), torch.zeros(2, 0), torch.zeros(2, 0, dtype=torch.int64), 1.0, 0.9)
    assert advantages.shape == returns.shape == (2, 0)


def test_what_is_outside_the_mask_may_be_anything():
    rewards, values = torch.tensor([[0.0, 8.0, torch.nan]]), torch.tensor([[1.0, 2.0, torch.nan]])
    advantages, returns = gae(rewards, values, torch.tensor([[1, 1, 0]]), 1.0, 1.0)
    assert advantages.tolist() == [[7.0, 6.0, 0.0]]
    assert returns.tolist() == [[8.0, 8.0, 0.0]]
