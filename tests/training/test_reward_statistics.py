import math

import numpy as np
import pytest
import torch

from rlassay.training.reward_statistics import correlation, reward_figures, same_in_group

NAN = float("nan")


def test_a_group_says_the_same_when_its_judged_values_are_equal():
    # Three groups of two, two rewards.
    raw = torch.tensor([[1.0, 0.1], [1.0, 0.2], [NAN, 5.0], [2.0, 5.0], [NAN, NAN], [NAN, 3.0]])
    assert same_in_group(raw, 2).tolist() == [[True, False], [True, True], [True, True]]


def test_a_small_difference_is_a_difference():
    assert same_in_group(torch.tensor([[1e-7], [2e-7], [3e-7]]), 3).tolist() == [[False]]


def test_correlation_by_hand():
    # x = 1, 2, 3 and y = 1, 3, 2: centred products 1, 0, 0 sum to 1; both squares sum to 2: 1 / 2.
    assert correlation(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([1.0, 3.0, 2.0])) == pytest.approx(0.5)
    # A completion that one of the two did not judge is left out of both.
    one, other = torch.tensor([1.0, 2.0, NAN, 3.0, 9.0]), torch.tensor([1.0, 3.0, 50.0, 2.0, NAN])
    assert correlation(one, other) == pytest.approx(0.5)
    assert correlation(one, -2 * other + 1) == pytest.approx(-0.5)


@pytest.mark.parametrize(
    ("one", "other"),
    [([1.0, 1.0, 1.0], [1.0, 2.0, 3.0]), ([1.0, NAN, 2.0], [NAN, 1.0, 2.0]), ([1.0, 1.0, 5.0], [1.0, 2.0, NAN])],
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
    raw = torch.tensor([[1.0, 2.0], [0.0, 2.0], [NAN, 2.0], [1.0, 2.0], [1.0, NAN], [1.0, NAN]])
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
