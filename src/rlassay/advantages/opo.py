"""OPO: the reward relative to the length-weighted mean of the group."""

import torch
from jaxtyping import Float, Real
from torch import Tensor

from rlassay.advantages.rewards import in_groups, zero_if_unscored


def opo(
    rewards: Float[Tensor, "batch"], num_generations: int, lengths: Real[Tensor, "batch"]
) -> Float[Tensor, "batch"]:
    """Reward minus the least-variance baseline, `sum_i l_i r_i / sum_i l_i` over the group.

    It is the optimal baseline if the squared norm of a completion's score function is proportional to its length.

    Args:
        rewards: (B,), total reward of each completion; NaN = could not be scored: its advantage is 0, and the baseline
            leaves it out. The only scored completion of a prompt gets 0.
        num_generations: completions per prompt; those of a prompt are neighbours.
        lengths: (B,), tokens of each completion that the loss counts; a group without any gets 0.

    Source: On-Policy RL with Optimal Reward Baseline (arXiv 2505.23585), the practical baseline of section 3; checked
    against verl's `opo` estimator.
    """
    grouped = in_groups(rewards, num_generations)
    weights = in_groups(lengths.to(rewards), num_generations).masked_fill(torch.isnan(grouped), 0.0)
    baseline = (weights * torch.nan_to_num(grouped, nan=0.0)).sum(dim=1) / weights.sum(dim=1)
    return zero_if_unscored(grouped - baseline[:, None]).view_as(rewards)
