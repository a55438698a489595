import pytest
import torch

from rlassay.credit import spread

MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [1, 0, 0, 0, 0]])  # B=3, T=5


def test_spread_multiplies_and_leaves_nothing_outside_the_completion():
    advantages = torch.tensor([2.0, -1.0, 0.5])
    weights = torch.tensor([[1.0, 0.5, 2.0, 0.0, 1.5], [3.0, 1.0, 7.0, 7.0, 7.0], [2.0, 7.0, 7.0, 7.0, 7.0]])
    # Row 1: 2 x (1, .5, 2, 0, 1.5). Row 2: -1 x (3, 1), padding 0. Row 3: .5 x 2, padding 0.
    expected = [[2.0, 1.0, 4.0, 0.0, 3.0], [-3.0, -1.0, 0.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0, 0.0]]
    assert spread(advantages, weights, MASK).tolist() == expected


def test_spread_of_weights_of_one_changes_no_advantage():
    advantages = torch.tensor([0.1, -0.7, 1e-7])
    assert torch.equal(spread(advantages, torch.ones(3, 5), MASK), advantages[:, None] * MASK)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -0.5])
def test_spread_refuses_weights_that_are_no_weights(bad: float):
    weights = torch.ones(3, 5)
    weights[1, 1] = bad
    with pytest.raises(ValueError, match="finite and not negative"):
        spread(torch.ones(3), weights, MASK)


def test_what_a_weight_is_outside_the_completion_does_not_matter():
    weights = torch.ones(3, 5)
    weights[2, 4] = float("nan")
    assert torch.equal(spread(torch.ones(3), weights, MASK), MASK.float())
