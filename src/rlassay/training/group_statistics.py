"""What a batch of rewards says group by group. Pure."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def with_stand_ins(
    rewards_per_func: Float[Tensor, "batch rewards"], num_generations: int
) -> Float[Tensor, "batch rewards"]:
    """Replace NaN, "cannot be judged", by the mean of what the same reward gave to the rest of the group.

    The completion is then neither paid nor fined by that reward, and the group's mean stays what the judged
    completions made it; a 0 in its place would be the best value of a penalty and the worst of a bonus. Where a
    reward could judge nothing in a group, all of it gets 0, which no advantage sees.
    """
    grouped = rewards_per_func.view(-1, num_generations, rewards_per_func.shape[1])
    means = torch.nan_to_num(torch.nanmean(grouped, dim=1, keepdim=True), nan=0.0)
    return torch.where(torch.isnan(grouped), means, grouped).view_as(rewards_per_func)


def without_signal(
    rewards_per_func: Float[Tensor, "batch rewards"],
    weights: Float[Tensor, "rewards"],
    num_generations: int,
    *,
    normalized_first: bool,
) -> Bool[Tensor, "groups"]:
    """Which groups teach nothing, because all their completions earn the same.

    What they earn is the weighted sum; with `normalized_first` (TRL's `normalize_then_sum`) each reward is divided by
    its deviation within the group before it is summed, `(r - mean) / (std + 1e-4)`. TRL itself reports the deviation of
    the whole batch in that case, and with `scale_rewards="batch"` in both, which is hardly ever 0.
    """
    grouped = rewards_per_func.view(-1, num_generations, rewards_per_func.shape[1])
    if normalized_first:
        centred = grouped - torch.nanmean(grouped, dim=1, keepdim=True)
        grouped = centred / (torch.nanmean(centred**2, dim=1, keepdim=True).sqrt() + 1e-4)
    earned = (grouped * weights).nansum(dim=2)
    unjudged = torch.isnan(grouped).all(dim=2)  # no reward could judge it: TRL leaves it out of the group
    highest = earned.masked_fill(unjudged, -torch.inf).amax(dim=1)
    lowest = earned.masked_fill(unjudged, torch.inf).amin(dim=1)
    return highest - lowest <= 1e-6
