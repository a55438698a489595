import logging
import math
from typing import Any

import numpy as np
import pytest
import torch

from rlassay.advantages import total_rewards
from rlassay.records import PromptRow
from rlassay.rewards.sandbox.guard import guarded
from rlassay.training.batch import BatchRewards
from rlassay.training.group_reward import GroupReward
from rlassay.training.reward_metrics import (
    MIN_GROUPS,
    ZeroVarianceRewards,
    added_metrics,
    correlation,
    frac_distinct,
    impute_group_mean,
    reward_statistics,
    scored_mean_and_std,
    zero_advantage,
    zero_variance,
)

NAN = float("nan")
ROWS = {"a": PromptRow(prompt_id="a", question="?", answer="B")}


def theirs(completions: list[Any], **columns: Any) -> list[float]:
    return [0.0 for _ in completions]


def rewards() -> BatchRewards:
    """Two groups of two; our reward scored three of four completions, the other all."""
    raw = torch.tensor([[-1.0, 1.0], [0.5, 2.0], [NAN, 3.0], [-1.0, 3.0]])
    return BatchRewards(
        names=["modality_balance", "theirs"],
        raw=raw,
        rewards_per_func=impute_group_mean(raw, 2),
        weights=torch.tensor([0.5, 0.0]),
        failed={"modality_balance": [None, None, "timeout", None]},
        metrics={"modality_balance": [{"words": 3.0}, {}, {}, {"words": 4.0}]},
        num_generations=2,
    )


def test_mean_and_deviation_leave_out_completions_that_a_reward_could_not_score():
    # -1, .5, -1: mean -.5; squares .25 + 1 + .25 over 2. The other reward scored all: TRL's numbers stay.
    assert scored_mean_and_std(rewards()) == pytest.approx(
        {"rewards/modality_balance/mean": -0.5, "rewards/modality_balance/std": 0.75**0.5}
    )


def test_the_metrics_beside_those_of_trl():
    balance = guarded("modality_balance", {}, timeout=1.0, max_failures=0.5)
    ours = GroupReward(balance, rows=ROWS, num_generations=2, end_token_ids=[1])
    metrics = added_metrics(rewards(), [ours, theirs], torch.tensor([4.0, 3.0, 2.0, 1.0]))
    assert {name: value for name, value in metrics.items() if "correlation" not in name} == pytest.approx(
        {
            "rewards/modality_balance/coverage": 0.75,
            "rewards/modality_balance/metrics/words": 3.5,
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


def test_a_group_has_no_variance_when_its_scored_values_are_equal():
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
    assert zero_variance(raw, 2).tolist() == [[True, False], [True, True], [True, True]]


def test_distinct_completions_are_counted_within_each_group():
    # Groups of three: 2 of 3 are distinct, then 3 of 3; the repetition across groups does not count.
    assert frac_distinct([[1, 2], [1, 2], [1], [1], [2], [1, 2]], 3) == pytest.approx((2 / 3 + 1) / 2)


def test_a_small_difference_is_variance():
    assert zero_variance(torch.tensor([[1e-7], [2e-7], [3e-7]]), 3).tolist() == [[False]]


def test_correlation_by_hand():
    # x = 1, 2, 3 and y = 1, 3, 2: centred products 1, 0, 0 sum to 1; both squares sum to 2: 1 / 2.
    assert correlation(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([1.0, 3.0, 2.0])) == pytest.approx(0.5)
    # A completion that one of the two did not score is left out of both.
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
def test_correlation_is_undefined_where_one_does_not_vary_among_the_completions_that_both_scored(
    one: list[float], other: list[float]
):
    assert math.isnan(correlation(torch.tensor(one), torch.tensor(other)))
    assert math.isnan(correlation(torch.tensor(other), torch.tensor(one)))


def test_correlation_equals_numpys():
    generator = np.random.default_rng(0)
    one, other = generator.normal(size=50), generator.normal(size=50)
    expected = np.corrcoef(one, other)[0, 1]
    assert correlation(torch.tensor(one), torch.tensor(other)) == pytest.approx(expected)


def test_the_statistics_of_a_batch():
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
    metrics = reward_statistics(["first", "second"], raw, lengths, 3)
    assert {name: value for name, value in metrics.items() if not math.isnan(value)} == pytest.approx(
        {
            "rewards/first/coverage": 5 / 6,
            "rewards/first/frac_zero_std": 0.5,
            "rewards/first/correlation/length": -1.0,
            "rewards/second/coverage": 4 / 6,
            "rewards/second/frac_zero_std": 1.0,
        }
    )
    undefined = {name for name, value in metrics.items() if math.isnan(value)}
    assert undefined == {"rewards/first/correlation/second", "rewards/second/correlation/length"}


def test_an_unscored_completion_gets_the_mean_of_its_group():
    # Two groups of three, two rewards. First reward, first group: mean of 1 and 0 is .5.
    values = torch.tensor(
        [
            [1.0, 5.0],
            [NAN, 6.0],
            [0.0, 7.0],
            [2.0, NAN],
            [2.0, NAN],
            [2.0, NAN],
        ]
    )
    # Second reward, second group: nothing could be scored, so 0 for all.
    expected = [[1.0, 5.0], [0.5, 6.0], [0.0, 7.0], [2.0, 0.0], [2.0, 0.0], [2.0, 0.0]]
    assert impute_group_mean(values, 3).tolist() == expected


def test_nothing_is_imputed_where_all_are_scored():
    values = torch.randn(12, 2, generator=torch.Generator().manual_seed(0))
    assert torch.equal(impute_group_mean(values, 4), values)


@pytest.mark.parametrize("normalize_first", [False, True])
def test_a_group_with_equal_totals_has_no_advantage(normalize_first: bool):
    values = torch.tensor([[0.1, 3.0], [0.1, 3.0], [0.1, 3.0], [0.1, 3.0], [0.1, 3.0], [0.2, 3.0]])
    totals = total_rewards(values, torch.tensor([1.0, 0.5]), 3, normalize_first=normalize_first)
    assert zero_advantage(totals, 3).tolist() == [True, False]


@pytest.mark.parametrize("normalize_first", [False, True])
def test_a_logged_only_reward_gives_no_advantage(normalize_first: bool):
    values = torch.tensor([[1.0, 0.0], [1.0, 9.0]])
    totals = total_rewards(values, torch.tensor([1.0, 0.0]), 2, normalize_first=normalize_first)
    assert zero_advantage(totals, 2).tolist() == [True]


def test_the_aggregation_decides_whether_rewards_cancel():
    # Weighted sums: 3 and 3, equal. Normalised first, to +-.71 each: weights 1 and .5 leave +-.35.
    values = torch.tensor([[1.0, 4.0], [2.0, 2.0]])
    weights = torch.tensor([1.0, 0.5])
    summed, normalized = (total_rewards(values, weights, 2, normalize_first=first) for first in (False, True))
    assert zero_advantage(summed, 2).tolist() == [True]
    assert zero_advantage(normalized, 2).tolist() == [False]


def test_unscored_completions_are_left_out_of_their_group():
    assert zero_advantage(torch.tensor([NAN, 2.0, 2.0, NAN, NAN, NAN]), 3).tolist() == [True, True]


def test_a_warning_comes_once_for_a_reward_without_variance_in_most_groups(caplog: pytest.LogCaptureFixture):
    rewards_seen = ZeroVarianceRewards()
    with caplog.at_level(logging.WARNING):
        # 7 of 8 groups are 87.5 %; the other reward has none in 6 of 8.
        for _ in range(MIN_GROUPS // 8 - 1):
            rewards_seen({"balance": 0.875, "form": 0.75}, 8)
        assert caplog.messages == []
        for _ in range(3):
            rewards_seen({"balance": 0.875, "form": 0.75}, 8)
    (message,) = caplog.messages
    assert message.startswith(
        "reward balance gives all completions of a prompt the same value in 88 % of 64 groups so far"
    )
    assert rewards_seen.zero_variance == {"balance": 70, "form": 60}


def test_no_warning_for_a_reward_that_lacked_variance_at_first_only(caplog: pytest.LogCaptureFixture):
    rewards_seen = ZeroVarianceRewards()
    with caplog.at_level(logging.WARNING):
        rewards_seen({"form": 1.0}, MIN_GROUPS - 1)
        rewards_seen({"form": 0.0}, MIN_GROUPS)
        rewards_seen({}, MIN_GROUPS)
    assert caplog.messages == []
