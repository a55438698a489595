"""Which groups the replay buffer holds, and which it draws."""

import math
from collections import Counter
from dataclasses import replace
from itertools import permutations
from typing import Any

import numpy as np
import pytest
import torch

from rlassay.training.algorithms.groups import ChosenGroups
from rlassay.training.algorithms.replay import Replay, ReplayBuffer, admits, draw, replay_score
from rlassay.training.algorithms.sampling import generated
from tests.training.algorithms.make import group


def test_the_score_is_the_sum_of_absolute_advantages_times_the_deviation():
    # Rewards 1, 0, 0, 0: mean .25, deviation sqrt(.75 / 3) = .5; advantages 1.5 and three times -.5: sum 3.
    totals, advantages = torch.tensor([1.0, 0.0, 0.0, 0.0]), torch.tensor([1.5, -0.5, -0.5, -0.5])
    assert replay_score(totals, advantages) == pytest.approx(3 * 0.5)


@pytest.mark.parametrize(
    ("rewards", "options", "admitted"),
    [
        ([1.0, 1.0, 1.0], {}, False),
        ([1.0, 0.0, 0.0], {}, True),
        ([1.0, math.nan, math.nan], {}, False),  # no deviation of one value
        ([3.0, 1.0, 2.0], {"min_mean": 2.0}, False),  # the mean is the bound, which is excluded
        ([3.0, 1.0, 2.1], {"min_mean": 2.0}, True),
        ([2.0, 0.0], {"min_std": math.sqrt(2)}, False),  # the deviation, not the variance of 2, is compared, strictly
        ([2.0, 0.0], {"min_std": 1.4}, True),
    ],
)
def test_a_group_enters_above_both_bounds(rewards: list[float], options: dict[str, Any], admitted: bool):
    assert admits(Replay(**options), torch.tensor(rewards)) is admitted


def push(buffer: ReplayBuffer, name: str, scale: float) -> None:
    """A group with score 2 * scale * sqrt(2) * scale."""
    totals = torch.tensor([scale, -scale])
    buffer.push(group(name, totals.tolist()), totals, totals)


def names(buffer: ReplayBuffer) -> list[str]:
    return [each.prompt_id for _, each in buffer.entries]


def test_a_full_buffer_drops_the_lowest_score_for_a_higher_one_only():
    buffer = ReplayBuffer(Replay(size=2), seed=0)
    for name, scale in [("a", 1.0), ("b", 3.0), ("c", 0.5), ("d", 1.0)]:
        push(buffer, name, scale)
    assert names(buffer) == ["a", "b"]  # lower and equal scores do not enter
    push(buffer, "e", 2.0)
    assert names(buffer) == ["b", "e"]
    own = buffer.entries[1][1].advantages_G
    assert own is not None
    assert own.tolist() == [2.0, -2.0]


def test_draws_are_proportional_to_the_scores_and_without_replacement():
    rng = np.random.default_rng(0)
    counts = Counter(draw([1.0, 2.0, 5.0], 1, rng)[0] for _ in range(4000))
    assert [counts[index] / 4000 for index in range(3)] == pytest.approx([1 / 8, 2 / 8, 5 / 8], abs=0.025)
    # Two draws without replacement, by brute force: P(i, j) = p_i p_j / (1 - p_i).
    pairs = Counter(tuple(draw([1.0, 2.0, 5.0], 2, rng)) for _ in range(4000))
    chance = [1 / 8, 2 / 8, 5 / 8]
    for i, j in permutations(range(3), 2):
        assert pairs[i, j] / 4000 == pytest.approx(chance[i] * chance[j] / (1 - chance[i]), abs=0.03)
    assert sorted(draw([1.0, 2.0, 5.0], 3, rng)) == [0, 1, 2]


def test_more_draws_than_groups_repeat_them():
    drawn = draw([1.0, 3.0], 50, np.random.default_rng(0))
    assert len(drawn) == 50
    assert set(drawn) == {0, 1}


def drawn(buffer: ReplayBuffer, times: int) -> list[list[str]]:
    return [[each.prompt_id for each in buffer.replacements(3)] for _ in range(times)]


def test_each_draw_has_its_own_random_numbers_and_a_buffer_goes_on_from_its_state():
    buffer = ReplayBuffer(Replay(size=8), seed=5)
    assert buffer.replacements(2) == []
    for index in range(6):
        push(buffer, f"g{index}", 1.0 + index)
    other, resumed = (ReplayBuffer(Replay(size=8), seed=seed) for seed in (6, 5))
    other.restore(buffer.state())
    first = drawn(buffer, 4)
    assert any(each != first[0] for each in first)  # two generation batches of one step do not draw the same
    resumed.restore(buffer.state())
    assert drawn(resumed, 4) == drawn(buffer, 4) != first
    assert drawn(other, 4) != first


def test_options_out_of_range_are_errors():
    with pytest.raises(ValueError, match=r"replay.size: got 0, expected at least 1 group"):
        Replay(size=0)
    with pytest.raises(ValueError, match=r"replay.min_std: got -1.0, expected at least 0"):
        Replay(min_std=-1.0)


def test_replayed_completions_bring_no_log_probs_of_their_sampler():
    """TRL takes NaN for a ratio of 1 and for no gap between engines; an earlier policy is no other engine."""
    fresh, old = (replace(group(name, [1.0, 0.0], length=2), sampling_logps=[[-1.0, -2.0]] * 2) for name in "ab")
    rest: dict[str, Any] = {"dropped": [], "names": ["reward"], "weights": torch.ones(1), "metrics": {}}
    chosen = ChosenGroups(groups=[fresh, old, fresh], replayed=[False, True, False], own=slice(1, 3), **rest)
    logps = generated(chosen, ["b", "b", "a", "a"])[4]
    assert [[math.isnan(each) for each in row] for row in logps[:2]] == [[True, True]] * 2
    assert logps[2:] == [[-1.0, -2.0]] * 2
