import torch

from rlassay.credit import penalise_entropy

MASK = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [0, 0, 0, 0]])


def test_the_penalty_is_the_same_on_every_token_of_the_completions():
    advantages = torch.tensor([[2.0, 0.0, -1.0, 0.0], [-0.5, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    expected = [[2.25, 0.25, -0.75, 0.25], [-0.25, 0.25, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]]
    assert penalise_entropy(advantages, MASK, 0.25).tolist() == expected
