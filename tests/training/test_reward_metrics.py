import logging
import math

import numpy as np
import pytest
import torch

from rlassay.records import PromptRow
from rlassay.rewards.sandbox.guard import guarded
from rlassay.training.group_reward import GroupReward
from rlassay.training.reward_metrics import (
    MINIMUM,
    ScoredBatch,
    ZeroVarianceRewards,
    added,
    correlation,
    restated,
    reward_figures,
    same_in_group,
    with_imputed,
    without_signal,
)

# MERGED FROM test_reward_log.py:

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


# MERGED FROM test_reward_statistics.py:


def test_a_group_says_the_same_when_its_judged_values_are_equal():
    # Three groups of two, two rewards.
    raw = torch.tensor(
        [
            [1.0, 0.1],
            [1.0, 0.2],
            [NAN, 5.0],
            [2.0, 5.0],
            [NAN, NAN],
            [NAN, 3.0],
        ]
    )
    assert same_in_group(raw, 2).tolist() == [[True, False], [True, True], [True, True]]


def test_a_small_difference_is_a_difference():
    assert same_in_group(torch.tensor([[1e-7], [2e-7], [3e-7]]), 3).tolist() == [[False]]


def test_correlation_by_hand():
    # x = 1, 2, 3 and y = 1, 3, 2: centred products 1, 0, 0 sum to 1; both squares sum to 2: 1 / 2.
    assert correlation(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([1.0, 3.0, 2.0])) == pytest.approx(0.5)
    # A completion that one of the two did not judge is left out of both.
    one, other = (
        torch.tensor([1.0, 2.0, NAN, 3.0, 9.0]),
        torch.tensor([1.0, 3.0, 50.0, 2.0, NAN]),
    )
    assert correlation(one, other) == pytest.approx(0.5)
    assert correlation(one, -2 * other + 1) == pytest.approx(-0.5)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ([1.0, 1.0, 1.0], [1.0, 2.0, 3.0]),
        ([1.0, NAN, 2.0], [NAN, 1.0, 2.0]),
        ([1.0, 1.0, 5.0], [1.0, 2.0, NAN]),
    ],
)
def test_correlation_is_undefined_without_variation_among_what_both_judged(one: list[float], other: list[float]):
    assert math.isnan(correlation(torch.tensor(one), torch.tensor(other)))
    assert math.isnan(correlation(torch.tensor(other), torch.tensor(one)))


def test_correlation_is_numpys():
    generator = np.random.default_rng(0)
    one, other = generator.normal(size=50), generator.normal(size=50)
    expected = np.corrcoef(one, other)[0, 1]
    assert correlation(torch.tensor(one), torch.tensor(other)) == pytest.approx(expected)


def test_the_figures_of_a_batch():
    # Two groups of three.
    raw = torch.tensor(
        [
            [1.0, 2.0],
            [0.0, 2.0],
            [NAN, 2.0],
            [1.0, 2.0],
            [1.0, NAN],
            [1.0, NAN],
        ]
    )
    lengths = torch.tensor([1.0, 2.0, 9.0, 1.0, 1.0, 1.0])
    figures = reward_figures(["first", "second"], raw, lengths, 3)
    assert {name: value for name, value in figures.items() if not math.isnan(value)} == pytest.approx(
        {
            "rewards/first/coverage": 5 / 6,
            "rewards/first/frac_zero_std": 0.5,
            "rewards/first/correlation/length": -1.0,
            "rewards/second/coverage": 4 / 6,
            "rewards/second/frac_zero_std": 1.0,
        }
    )
    undefined = {name for name, value in figures.items() if math.isnan(value)}
    assert undefined == {"rewards/first/correlation/second", "rewards/second/correlation/length"}


# MERGED FROM test_group_statistics.py:


def test_what_cannot_be_judged_gets_the_mean_of_its_group():
    # Two groups of three, two rewards. First reward, first group: mean of 1 and 0 is .5.
    rewards = torch.tensor(
        [
            [1.0, 5.0],
            [NAN, 6.0],
            [0.0, 7.0],
            [2.0, NAN],
            [2.0, NAN],
            [2.0, NAN],
        ]
    )
    # Second reward, second group: nothing could be judged, so 0 for all.
    expected = [[1.0, 5.0], [0.5, 6.0], [0.0, 7.0], [2.0, 0.0], [2.0, 0.0], [2.0, 0.0]]
    assert with_imputed(rewards, 3).tolist() == expected


def test_stand_ins_change_nothing_where_all_is_judged():
    rewards = torch.randn(12, 2, generator=torch.Generator().manual_seed(0))
    assert torch.equal(with_imputed(rewards, 4), rewards)


@pytest.mark.parametrize("normalized_first", [False, True])
def test_a_group_in_which_all_earn_the_same_has_no_signal(normalized_first: bool):
    rewards = torch.tensor([[0.1, 3.0], [0.1, 3.0], [0.1, 3.0], [0.1, 3.0], [0.1, 3.0], [0.2, 3.0]])
    dead = without_signal(rewards, torch.tensor([1.0, 0.5]), 3, normalized_first=normalized_first)
    assert dead.tolist() == [True, False]


@pytest.mark.parametrize("normalized_first", [False, True])
def test_an_observer_gives_no_signal(normalized_first: bool):
    rewards = torch.tensor([[1.0, 0.0], [1.0, 9.0]])
    assert without_signal(rewards, torch.tensor([1.0, 0.0]), 2, normalized_first=normalized_first).tolist() == [True]


def test_the_aggregation_decides_whether_rewards_cancel():
    # Weighted sums: 3 and 3, no signal. Normalised first, to +-1 each: weights 1 and .5 leave +-.5.
    rewards = torch.tensor([[1.0, 4.0], [2.0, 2.0]])
    weights = torch.tensor([1.0, 0.5])
    assert without_signal(rewards, weights, 2, normalized_first=False).tolist() == [True]
    assert without_signal(rewards, weights, 2, normalized_first=True).tolist() == [False]


def test_completions_that_nobody_judged_are_no_signal():
    rewards = torch.tensor([[NAN], [2.0], [2.0], [NAN], [NAN], [NAN]])
    assert without_signal(rewards, torch.tensor([1.0]), 3, normalized_first=False).tolist() == [True, True]


# MERGED FROM test_silent_rewards.py:


def test_it_warns_once_of_each_reward_that_says_nothing_in_most_groups(caplog: pytest.LogCaptureFixture):
    watch = ZeroVarianceRewards()
    with caplog.at_level(logging.WARNING):
        # 7 of 8 groups are 87.5 %; the other reward is silent in 6 of 8.
        for _ in range(MINIMUM // 8 - 1):
            watch({"balance": 0.875, "form": 0.75}, 8)
        assert caplog.messages == []
        for _ in range(3):
            watch({"balance": 0.875, "form": 0.75}, 8)
    (message,) = caplog.messages
    assert message.startswith("reward balance says the same of all completions of a prompt in 88 % of 64 groups so far")
    assert watch.silent == {"balance": 70, "form": 60}


def test_a_reward_that_was_silent_at_first_only_is_not_mentioned(caplog: pytest.LogCaptureFixture):
    watch = ZeroVarianceRewards()
    with caplog.at_level(logging.WARNING):
        watch({"form": 1.0}, MINIMUM - 1)
        watch({"form": 0.0}, MINIMUM)
        watch({}, MINIMUM)
    assert caplog.messages == []
