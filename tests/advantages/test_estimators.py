"""Each estimator against values worked by hand, an independent NumPy formula, and its invariances."""

import itertools
import math
import re
from collections.abc import Callable
from functools import partial
from inspect import unwrap

import numpy as np
import pytest
import torch
from torch import Tensor

from rlassay.advantages import (
    ADVANTAGES,
    INPUTS,
    as_estimator,
    estimate,
    grpo,
    max_rl,
    opo,
    pass_at_k,
    reads,
    reinforce_pp,
    remax,
    rloo,
    shrinkage,
)

NAN = float("nan")
GROUPS, SIZE = 5, 4
GROUP_BASELINE = partial(reinforce_pp, baseline="group")
PASS_AT_3 = partial(pass_at_k, k=3)
ESTIMATORS: dict[str, Callable[..., Tensor]] = {
    "grpo": grpo,
    "grpo over the batch": partial(grpo, scale="batch"),
    "grpo unscaled": partial(grpo, scale="none"),
    "rloo": rloo,
    "remax": remax,
    "reinforce_pp": reinforce_pp,
    "reinforce_pp with the group's mean": GROUP_BASELINE,
    "opo": opo,
    "max_rl": max_rl,
    "pass_at_2": pass_at_k,
    "pass_at_3": PASS_AT_3,
    "shrinkage": shrinkage,
}


def advantages(name: str, rewards: list[float], size: int, **inputs: list[float]) -> list[float]:
    given = {key: torch.tensor(value, dtype=torch.float64) for key, value in inputs.items()}
    return estimate(ESTIMATORS[name], torch.tensor(rewards, dtype=torch.float64), size, **given).tolist()


BY_HAND = [
    # Others of 1: mean 0; of a 0: 1/3.
    ("rloo", [1, 0, 0, 0], 4, {}, [1, -1 / 3, -1 / 3, -1 / 3]),
    ("rloo", [4, NAN, 1, 7, NAN, NAN], 3, {}, [3, 0, -3, 0, 0, 0]),
    ("remax", [1, 0, 3, 2], 2, {"greedy_rewards": [0.5, 0.5, 2, 2]}, [0.5, -0.5, 1, 0]),
    ("remax", [1, NAN, 3, 2], 2, {"greedy_rewards": [0.5, 0.5, NAN, NAN]}, [0.5, 0, 0, 0]),
    # Mean 3, squares 4 + 1 + 1 + 4 = 10, over 3.
    ("reinforce_pp", [1, 2, 4, 5], 2, {}, [value / (10 / 3) ** 0.5 for value in (-2, -1, 1, 2)]),
    # Minus the groups' means 1.5 and 4.5: -+.5, squares sum to 1, over 3.
    ("reinforce_pp with the group's mean", [1, 2, 4, 5], 2, {}, [value * 3**0.5 for value in (-0.5, 0.5, -0.5, 0.5)]),
    # Baseline (1 * 3 + 0 * 1) / 4; the third is not scored.
    ("opo", [1, 0, NAN], 3, {"lengths": [3, 1, 9]}, [0.25, -0.75, 0]),
    ("opo", [1, 0, 5], 3, {"lengths": [0, 0, 0]}, [0, 0, 0]),
    # Means 1/4 and 0.
    ("max_rl", [1, 0, 0, 0, 0, 0, 0, 0], 4, {}, [3, -1, -1, -1, 0, 0, 0, 0]),
    # Of 6 pairs 3 hold the 1: R = 1/2, s = 1/2. A 0 is in three pairs, one of them with the 1: 1/3 - 1/2.
    ("pass_at_2", [1, 0, 0, 0], 4, {}, [0.5 / 0.5001, -1 / 6 / 0.5001, -1 / 6 / 0.5001, -1 / 6 / 0.5001]),
    # Too few scored ones for a set of three.
    ("pass_at_3", [1, 0, NAN, NAN], 4, {}, [0, 0, 0, 0]),
]


@pytest.mark.parametrize(("name", "rewards", "size", "inputs", "expected"), BY_HAND)
def test_advantages_by_hand(
    name: str, rewards: list[float], size: int, inputs: dict[str, list[float]], expected: list[float]
):
    assert advantages(name, rewards, size, **inputs) == pytest.approx(expected, abs=1e-6)


def test_shrinkage_by_hand():
    # Three prompts of two: means 1, 2, 6; variances of the means ((r - mean)^2 summed, over 2 * 1): 1, 4, 1.
    # Prompt 1: v = (4 + 1) / 2, other means 2 and 6 have mean 4, s = 4: lambda = 2/3 * 2.5 / 6.5.
    # Prompt 2: v = 1, mean 3.5, s = 6.25: 2/3 / 7.25. Prompt 3: v = 2.5, mean 1.5, s = .25: 2/3 * 2.5 / 2.75.
    rewards = [0.0, 2.0, 0.0, 4.0, 5.0, 7.0]
    first, second, third = 2 / 3 * 2.5 / 6.5, 2 / 3 / 7.25, 2 / 3 * 2.5 / 2.75
    baselines = [
        *((1 - first) * 2 + first * 4, first * 4),
        *((1 - second) * 4 + second * 3.5, second * 3.5),
        *((1 - third) * 7 + third * 1.5, (1 - third) * 5 + third * 1.5),
    ]
    expected = [reward - baseline for reward, baseline in zip(rewards, baselines, strict=True)]
    assert advantages("shrinkage", rewards, 2) == pytest.approx(expected)
    # The only scored completion of a prompt is compared with the other prompts; one prompt alone is RLOO's.
    assert advantages("shrinkage", [3.0, NAN, 0.0, 4.0], 2)[0] == pytest.approx(3 - 2)
    assert advantages("shrinkage", [1.0, 0.0, 0.0, 0.0], 4) == pytest.approx([1, -1 / 3, -1 / 3, -1 / 3])


def test_pass_at_k_is_the_published_formula_for_right_and_wrong():
    for wrong, k in itertools.product((1, 3, 4), (1, 2, 3, 5)):
        mean = 1 - math.comb(wrong, k) / math.comb(5, k)
        std = math.sqrt(mean * (1 - mean)) + 1e-4
        offset = math.comb(wrong - 1, k - 1) / math.comb(4, k - 1)
        expected = [(1 - mean) / std] * (5 - wrong) + [(1 - mean - offset) / std] * wrong
        values = pass_at_k(torch.tensor([1.0] * (5 - wrong) + [0.0] * wrong, dtype=torch.float64), 5, k)
        assert values.tolist() == pytest.approx(expected, abs=1e-9)


def numpy_group(name: str, values: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """The estimator of one group's scored completions, written out one by one."""
    count = len(values)
    if name == "rloo":
        return np.array([r - np.delete(values, i).mean() if count > 1 else 0 for i, r in enumerate(values)])
    if name == "grpo":
        return (values - values.mean()) / (values.std(ddof=1) + 1e-4) if count > 1 else np.zeros(1)
    if name == "opo":
        return values - np.average(values, weights=lengths)
    if name == "max_rl":
        return values / values.mean() - 1
    k = int(name[-1])
    if count < k:
        return np.zeros(count)
    sets = list(itertools.combinations(range(count), k))
    best = np.array([values[list(members)].max() for members in sets])
    with_it = [best[[i in members for members in sets]].mean() for i in range(count)]
    return (with_it - best.mean()) / (best.std() + 1e-4)


def numpy_shrinkage(groups: list[np.ndarray]) -> list[np.ndarray]:
    """The two-level leave-one-out baseline by loops over prompts."""
    found: list[np.ndarray] = []
    for index, group in enumerate(groups):
        others = [other for number, other in enumerate(groups) if number != index and len(other)]
        means = np.array([other.mean() for other in others])
        noise = np.mean([other.var(ddof=1) / len(other) for other in others if len(other) > 1])
        share = len(others) / (len(others) + 1) * noise / (noise + means.var())
        left = [np.delete(group, i).mean() if len(group) > 1 else means.mean() for i in range(len(group))]
        found.append(group - (1 - share) * np.array(left) - share * means.mean())
    return found


def ragged(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Random rewards of whole groups with gaps, among them a group of one and an unscored one; lengths; greedy ones."""
    rng = np.random.default_rng(seed)
    rewards = rng.uniform(0.1, 3.0, (GROUPS, SIZE))
    rewards[rng.random((GROUPS, SIZE)) < 0.2] = NAN
    rewards[1, 1:], rewards[3] = NAN, NAN
    rewards[1, 0], rewards[4, :2] = 2.0, (0.5, 1.5)
    return rewards, rng.integers(1, 9, (GROUPS, SIZE)), np.repeat(rng.uniform(0, 2, (GROUPS, 1)), SIZE, axis=1)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", ESTIMATORS)
def test_an_independent_formula_agrees_on_ragged_groups(name: str, seed: int):
    rewards, lengths, greedy = ragged(seed)
    scored = ~np.isnan(rewards)
    expected = np.zeros_like(rewards)
    groups = [row[kept] for row, kept in zip(rewards, scored, strict=True)]
    if name == "remax":
        expected[scored] = (rewards - greedy)[scored]
    elif name.startswith("reinforce_pp"):
        flat = np.concatenate([group - group.mean() if "mean" in name else group for group in groups if len(group)])
        expected[scored] = (flat - flat.mean()) / np.sqrt(flat.var(ddof=1) + 1e-8)
    elif name.startswith("grpo "):
        centred = np.concatenate([group - group.mean() for group in groups if len(group)])
        deviation = np.concatenate(groups).std(ddof=1) + 1e-4 if "batch" in name else 1.0
        expected[scored] = centred / deviation
    elif name == "shrinkage":
        expected[scored] = np.concatenate(numpy_shrinkage(groups))
    else:
        for row, (kept, group) in enumerate(zip(scored, groups, strict=True)):
            if len(group):
                expected[row, kept] = numpy_group(name, group, lengths[row, kept])
    found = estimated(name, rewards, lengths, greedy)
    np.testing.assert_allclose(found, expected, atol=1e-9)
    assert np.abs(found).max() > 0.1


def estimated(name: str, rewards: np.ndarray, lengths: np.ndarray, greedy: np.ndarray) -> np.ndarray:
    given = {"lengths": torch.tensor(lengths.ravel()), "greedy_rewards": torch.tensor(greedy.ravel())}
    return estimate(ESTIMATORS[name], torch.tensor(rewards.ravel()), SIZE, **given).view(GROUPS, SIZE).numpy()


@pytest.mark.parametrize("name", ESTIMATORS)
def test_a_constant_and_a_positive_factor_change_what_they_should(name: str):
    rewards, lengths, greedy = ragged(7)
    before = estimated(name, rewards, lengths, greedy)
    shifted = estimated(name, rewards + 5, lengths, greedy + 5)
    rescaled = estimated(name, 1000 * rewards, lengths, 1000 * greedy)
    if name == "max_rl":
        assert np.abs(shifted).max() < np.abs(before).max() / 2
    else:
        np.testing.assert_allclose(shifted, before, atol=1e-9)
    is_scaled = name.startswith(("grpo", "reinforce_pp", "max_rl", "pass_at")) and "unscaled" not in name
    np.testing.assert_allclose(rescaled, before if is_scaled else 1000 * before, rtol=2e-3, atol=1e-9)


@pytest.mark.parametrize("size", [2, 3, 7])
def test_rloo_is_the_centred_reward_times_g_over_g_minus_1(size: int):
    rewards = torch.randn(4 * size, generator=torch.Generator().manual_seed(size), dtype=torch.float64)
    centred = rewards.view(4, size) - rewards.view(4, size).mean(dim=1, keepdim=True)
    torch.testing.assert_close(rloo(rewards, size).view(4, size), size / (size - 1) * centred)


@pytest.mark.parametrize("name", [name for name in ESTIMATORS if name not in ("grpo unscaled", "remax", "pass_at_3")])
def test_equal_and_unscored_rewards_give_exactly_nothing(name: str):
    for values in ([0.1] * 6, [NAN] * 6, [NAN, 0.7, *[NAN] * 4]):
        rewards = torch.tensor(values)
        assert estimate(ESTIMATORS[name], rewards, 3, lengths=torch.full((6,), 3)).tolist() == [0.0] * 6


def test_max_rl_refuses_penalties():
    with pytest.raises(ValueError, match=r"max_rl: got a total reward of -0\.5, expected none below 0"):
        max_rl(torch.tensor([1.0, -0.5]), 2)


@pytest.mark.parametrize("k", [0, 4])
def test_pass_at_k_needs_k_completions(k: int):
    with pytest.raises(ValueError, match=rf"pass_at_k: got k = {k}, expected 1 to num_generations, 3"):
        pass_at_k(torch.zeros(3), 3, k)


def test_an_estimator_names_what_it_reads():
    assert {name: reads(estimator) for name, estimator in ESTIMATORS.items()}["remax"] == {"greedy_rewards"}
    assert reads(opo) == {"num_generations", "lengths"}
    assert reads(PASS_AT_3) == {"num_generations"}
    assert {name for name in ADVANTAGES if name != "gae"} <= {*ESTIMATORS, "pass_at_k"}
    message = f"got parameter 'values', expected ones of {', '.join(INPUTS)}"
    with pytest.raises(ValueError, match=re.escape(message)):
        as_estimator(lambda rewards, values: rewards - values)
    with pytest.raises(ValueError, match="gae needs a critic"):
        as_estimator("gae")


def test_an_unknown_baseline_is_an_error():
    with pytest.raises(ValueError, match="baseline: got 'prompt', expected one of batch, group"):
        unwrap(reinforce_pp)(torch.zeros(4), 2, "prompt")


def test_remax_needs_a_greedy_reward_per_completion():
    with pytest.raises(ValueError, match=r"greedy_rewards: got shape \(1,\), expected \(4,\), one per completion"):
        unwrap(remax)(torch.zeros(4), torch.zeros(1))


@pytest.mark.parametrize("name", ["rloo", "remax", "opo", "shrinkage"])
def test_an_infinite_reward_is_an_error_and_no_huge_advantage(name: str):
    given = {"lengths": torch.ones(4), "greedy_rewards": torch.zeros(4)}
    with pytest.raises(ValueError, match="got a NaN or infinite advantage"):
        estimate(ESTIMATORS[name], torch.tensor([math.inf, 0.0, 1.0, 0.0], dtype=torch.float64), 4, **given)


def test_opo_takes_lengths_as_they_are_counted():
    # Baselines (3 * 1 + 1 * 0) / 4 and 2: the lengths are those of the test by hand.
    assert opo(torch.tensor([1.0, 0.0, 2.0, 2.0]), 2, torch.tensor([3, 1, 5, 2])).tolist() == [0.25, -0.75, 0.0, 0.0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_sets_that_are_all_worth_the_same_teach_exactly_nothing(dtype: torch.dtype):
    for size in range(2, 17):
        for k in range(1, size + 1):
            # k right ones among them, but fewer than k wrong ones: every set of k holds a right one.
            wrong = min(k - 1, size - 1)
            rewards = torch.tensor([0.1] * wrong + [0.7] * (size - wrong), dtype=dtype)
            assert not pass_at_k(rewards, size, k).any()
