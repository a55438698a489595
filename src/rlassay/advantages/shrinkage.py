"""Shrinkage baselines: the prompt's mean, shrunk towards the mean of the other prompts.

The prompt's mean is that of its other completions.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from rlassay.advantages.rewards import in_groups, mean_of_others, zero_if_unscored


def shrinkage(rewards: Float[Tensor, "batch"], num_generations: int) -> Float[Tensor, "batch"]:
    """Reward minus the mean of its prompt's others, shrunk towards the other prompts' means.

    The baseline is `(1 - lambda) * mean of the prompt's others + lambda * mean of the other prompts' means`. For each
    of P prompts, `lambda = (P - 1) / P * v / (v + s)`, both over the other prompts: v is the mean sampling variance of
    a prompt's mean, `var / n`, and s the variance of their means (divisor P - 1). Noisy means that are alike are shrunk
    most. No baseline depends on the reward that it is for: the gradient is unbiased.

    Args:
        rewards: (B,), total reward of each completion; NaN = could not be scored: its advantage is 0, and all
            statistics leave it out. The only scored completion of a prompt has the other prompts' mean as its baseline.
            With one prompt, or if no other prompt has two scored completions, the baseline is that of `rloo`.
        num_generations: completions per prompt; those of a prompt are neighbours.

    Source: Shrinking the Variance (arXiv 2511.03710), section 3.3, equations 10 to 16.
    """
    grouped = in_groups(rewards, num_generations)
    count = (~torch.isnan(grouped)).sum(dim=1, keepdim=True)
    means = torch.nanmean(grouped, dim=1, keepdim=True)
    variances = torch.nanmean((grouped - means) ** 2, dim=1, keepdim=True) / (count - 1)  # of the means; NaN for n < 2
    variances = variances.masked_fill(count < 2, torch.nan)
    others = mean_of_others(means.T).T
    spread = torch.nanmean(((means.T - others) ** 2).fill_diagonal_(torch.nan), dim=1, keepdim=True)
    noise = mean_of_others(variances.T).T
    prompts = (count > 0).sum()
    shrunk = torch.nan_to_num((prompts - 1) / prompts * noise / (noise + spread), nan=0.0)
    own = mean_of_others(grouped)
    baseline = torch.where(torch.isnan(own), others, (1 - shrunk) * own + shrunk * torch.nan_to_num(others, nan=0.0))
    return zero_if_unscored(grouped - baseline).view_as(rewards)
