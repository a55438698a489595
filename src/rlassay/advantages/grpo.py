"""GRPO's advantage: the reward relative to the other completions of the same prompt."""

from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from rlassay.advantages.rewards import EPSILON, in_groups, nanstd
from rlassay.names import unknown

Scale = Literal["group", "batch", "none"]


def grpo(rewards: Float[Tensor, "batch"], num_generations: int, scale: Scale = "group") -> Float[Tensor, "batch"]:
    """Reward minus the mean of its group, divided by a standard deviation.

    The formula is `(r - mean) / (std + 1e-4)`.

    Args:
        rewards: (B,), total reward of each completion; NaN = could not be scored: its advantage is 0, and the other
            completions' statistics leave it out.
        num_generations: completions per prompt; those of a prompt are neighbours.
        scale: which standard deviation divides: that of the `group`, that of the whole `batch`, or `none`.

    Equal bit for bit to TRL's advantages under `sum_then_normalize` with `scale_rewards=scale`.

    Errors: ValueError for another `scale`.

    Source: DeepSeekMath (arXiv 2402.03300), section 4.1.2, A_i = (r_i - mean(r)) / std(r); `none` is Dr. GRPO (arXiv
    2503.20783, section 3.2), `batch` is Lite PPO (arXiv 2508.08221). The 1e-4 is TRL's.
    """
    if scale not in get_args(Scale):
        raise ValueError(unknown("scale", scale, get_args(Scale)))
    grouped = in_groups(rewards, num_generations)
    advantages = grouped - torch.nanmean(grouped, dim=1, keepdim=True)
    if scale != "none":
        std = nanstd(grouped, dim=1) if scale == "group" else nanstd(rewards, dim=0)
        advantages = advantages / (std + EPSILON)
    return torch.nan_to_num(advantages, nan=0.0).view_as(rewards)
