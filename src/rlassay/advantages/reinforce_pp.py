"""REINFORCE++: rewards whitened over the batch, with or without the group's mean as baseline."""

from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from rlassay.advantages.rewards import in_groups, whiten
from rlassay.names import unknown

Baseline = Literal["batch", "group"]


def reinforce_pp(
    rewards: Float[Tensor, "batch"], num_generations: int, baseline: Baseline = "batch"
) -> Float[Tensor, "batch"]:
    """Rewards whitened over the batch, on request after subtracting group means.

    Whitening is `(r - mean) / sqrt(var + 1e-8)`.

    Args:
        rewards: (B,), total reward of each completion; NaN = could not be scored: its advantage is 0, and the
            statistics leave it out. All are 0 where the batch has no variance or one scored completion.
        num_generations: completions per prompt; those of a prompt are neighbours.
        baseline: `batch` whitens the rewards; `group` first subtracts the mean of the prompt's completions.

    Errors: ValueError for another `baseline`.

    Source: REINFORCE++ (arXiv 2501.03262), the advantage normalised over the global batch; `group` is its variant
    REINFORCE++-Baseline. The return is the reward itself, as with a discount of 1. verl whitens the copies of the
    return on the tokens, which counts long completions more often.
    """
    if baseline not in get_args(Baseline):
        raise ValueError(unknown("baseline", baseline, get_args(Baseline)))
    values = rewards
    if baseline == "group":
        grouped = in_groups(rewards, num_generations)
        values = (grouped - torch.nanmean(grouped, dim=1, keepdim=True)).view_as(rewards)
    return whiten(values, ~torch.isnan(values))
