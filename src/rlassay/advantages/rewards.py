"""Rewards of a generation batch: totals per completion, and statistics of groups, like TRL's.

Every estimator starts from `total_rewards`. NaN = could not be scored; all statistics leave NaN out.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

EPSILON = 1e-4
"""Added to each standard deviation before it divides, as in TRL."""


def total_rewards(
    rewards_per_func: Float[Tensor, "batch rewards"],
    weights: Float[Tensor, "rewards"],
    num_generations: int,
    *,
    normalize_first: bool,
) -> Float[Tensor, "batch"]:
    """Weighted sum of the rewards of each completion; NaN where no reward could score it.

    Args:
        rewards_per_func: (B, R), NaN = this reward could not score the completion; it then adds nothing.
        weights: (R,), weight of each reward.
        num_generations: completions per prompt; those of a prompt are neighbours.
        normalize_first: TRL's `normalize_then_sum`: each reward first becomes `(r - mean) / (std + 1e-4)` within its
            group.

    Source: `multi_objective_aggregation` of TRL; normalising first is GDPO (arXiv 2601.05242).
    """
    unscored = torch.isnan(rewards_per_func).all(dim=1)
    if normalize_first:
        grouped = in_groups(rewards_per_func, num_generations)
        mean = torch.nanmean(grouped, dim=1, keepdim=True)
        rewards_per_func = ((grouped - mean) / (nanstd(grouped, dim=1) + EPSILON)).view_as(rewards_per_func)
    return (rewards_per_func * weights).nansum(dim=1).masked_fill(unscored, torch.nan)


def in_groups(rewards: Float[Tensor, "batch *rest"], num_generations: int) -> Float[Tensor, "groups size *rest"]:
    """One row of rewards per prompt: `(B, ...)` becomes `(B / G, G, ...)`.

    Errors: ValueError if the batch is not made of whole groups.
    """
    if num_generations < 1 or len(rewards) % num_generations:
        raise ValueError(f"got {len(rewards)} completions, expected whole groups of {num_generations}")
    return rewards.reshape(-1, num_generations, *rewards.shape[1:])


def zero_if_unscored(advantages: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Replace NaN by 0. Advantages of an infinite reward stay infinite, and `estimate` refuses them."""
    return torch.nan_to_num(advantages, nan=0.0, posinf=torch.inf, neginf=-torch.inf)


def mean_of_others(grouped: Float[Tensor, "groups size"]) -> Float[Tensor, "groups size"]:
    """For each value the mean of its row's other values that are not NaN; NaN where it is NaN or alone."""
    count = (~torch.isnan(grouped)).sum(dim=1, keepdim=True)
    return (grouped.nansum(dim=1, keepdim=True) - grouped) / (count - 1)


def whiten(values: Float[Tensor, "*shape"], mask: Bool[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Whiten the values under the mask: `(value - mean) / sqrt(variance + 1e-8)`.

    The variance has the divisor n - 1. 0 outside the mask, and if n < 2.

    Source: `masked_whiten` of verl.
    """
    kept = values[mask]
    if len(kept) < 2:
        return torch.zeros_like(values)
    return torch.where(mask, (values - kept.mean()) / torch.sqrt(kept.var() + 1e-8), 0.0)


def nanstd(values: Float[Tensor, "*shape"], dim: int) -> Float[Tensor, "*kept"]:
    """Standard deviation of the values that are not NaN, along `dim`.

    `dim` is kept with size 1. The divisor is n - 1, for n values that are not NaN. NaN for n < 2. The same operations
    in the same order as TRL's `nanstd`, so that results are equal bit for bit.
    """
    variance = torch.nanmean((values - torch.nanmean(values, dim=dim, keepdim=True)) ** 2, dim=dim, keepdim=True)
    count = torch.sum(~torch.isnan(values), dim=dim, keepdim=True)
    return torch.sqrt(variance * torch.where(count > 1, count / (count - 1), torch.nan))
