"""MaxRL: the centred reward divided by the group's mean, so that hard prompts count more."""

import torch
from jaxtyping import Float
from torch import Tensor

from rlassay.advantages.rewards import in_groups, zero_if_unscored


def max_rl(rewards: Float[Tensor, "batch"], num_generations: int) -> Float[Tensor, "batch"]:
    """`(r - mean) / mean` of the group; 0 where the mean is 0.

    With rewards of 0 and 1 the mean is the success rate, and the expected gradient is that of a truncated series of
    `log p(success)`. Positive rescaling of the rewards changes nothing; adding a constant does.

    Args:
        rewards: (B,), total reward of each completion, at least 0; NaN = could not be scored: its advantage is 0, and
            the mean leaves it out.
        num_generations: completions per prompt; those of a prompt are neighbours.

    Errors: ValueError for a reward below 0, which has no likelihood.

    Source: Maximum Likelihood Reinforcement Learning (arXiv 2602.02710), algorithm 1, which also drops groups without
    success.
    """
    if bool((rewards < 0).any()):
        raise ValueError(
            f"advantage max_rl: got a total reward of {float(rewards[rewards < 0].min()):g}, expected none below 0, "
            "since it divides by the mean reward of a group; drop penalties, or choose another estimator"
        )
    grouped = in_groups(rewards, num_generations)
    mean = torch.nanmean(grouped, dim=1, keepdim=True)
    return zero_if_unscored((grouped - mean) / mean).view_as(rewards)
