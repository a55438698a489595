import pytest
import torch

from rlassay.training.group_statistics import with_stand_ins, without_signal

NAN = float("nan")


def test_what_cannot_be_judged_gets_the_mean_of_its_group():
    # Two groups of three, two rewards. First reward, first group: mean of 1 and 0 is .5.
    rewards = torch.tensor([[1.0, 5.0], [NAN, 6.0], [0.0, 7.0], [2.0, NAN], [2.0, NAN], [2.0, NAN]])
    # Second reward, second group: nothing could be judged, so 0 for all.
    expected = [[1.0, 5.0], [0.5, 6.0], [0.0, 7.0], [2.0, 0.0], [2.0, 0.0], [2.0, 0.0]]
    assert with_stand_ins(rewards, 3).tolist() == expected


def test_stand_ins_change_nothing_where_all_is_judged():
    rewards = torch.randn(12, 2, generator=torch.Generator().manual_seed(0))
    assert torch.equal(with_stand_ins(rewards, 4), rewards)


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
