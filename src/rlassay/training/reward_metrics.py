"""What is logged of the rewards of a generation batch."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from rlassay.rewards import MOSTLY_ZERO_VARIANCE
from rlassay.training.group_reward import GroupReward, failure_counts

# MERGED FROM training.reward_statistics: What a batch of rewards says about each of them: how much it judges,
# tells apart, and goes along with. Pure.


def same_in_group(raw: Float[Tensor, "batch rewards"], num_generations: int) -> Bool[Tensor, "groups rewards"]:
    """In which groups a reward says the same of all completions that it judged, or judged none (NaN).

    This does not depend on how rewards are summed and normalised: such a group adds nothing to the advantages either
    way.
    """
    grouped = raw.view(-1, num_generations, raw.shape[1])
    unjudged = torch.isnan(grouped)
    highest = grouped.masked_fill(unjudged, -torch.inf).amax(dim=1)
    lowest = grouped.masked_fill(unjudged, torch.inf).amin(dim=1)
    return highest <= lowest


def correlation(one: Float[Tensor, "batch"], other: Float[Tensor, "batch"]) -> float:
    """Pearson's correlation over the completions for which both are known (not NaN).

    NaN where fewer than two are, or where one of the two does not vary among them.
    """
    both = ~(torch.isnan(one) | torch.isnan(other))
    if both.sum() < 2:
        return torch.nan
    pair = torch.stack([one[both], other[both]]).double()
    if (pair.amax(dim=1) == pair.amin(dim=1)).any():
        return torch.nan
    centred = pair - pair.mean(dim=1, keepdim=True)
    products = centred @ centred.T
    return float((products[0, 1] / (products[0, 0] * products[1, 1]).sqrt()).clamp(-1, 1))


def reward_figures(
    names: list[str], raw: Float[Tensor, "batch rewards"], lengths: Float[Tensor, "batch"], num_generations: int
) -> dict[str, float]:
    """The metrics `rewards/<name>/...` of a batch.

    `coverage`, the share of completions that were judged; `frac_zero_std`, the share of groups in which the reward says
    the same of all; `correlation/<name of a later reward>` and `correlation/length`.

    Args:
        names: of the rewards.
        raw: values as the rewards gave them; NaN = cannot be judged.
        lengths: tokens of each completion.
        num_generations: completions per prompt; a group's are neighbours.
    """
    raw, lengths = raw.cpu(), lengths.cpu()
    judged = (~torch.isnan(raw)).float().mean(dim=0)
    same = same_in_group(raw, num_generations).float().mean(dim=0)
    figures: dict[str, float] = {}
    for index, name in enumerate(names):
        figures[f"rewards/{name}/coverage"] = judged[index].item()
        figures[f"rewards/{name}/frac_zero_std"] = same[index].item()
        for later in range(index + 1, len(names)):
            key = f"rewards/{name}/correlation/{names[later]}"
            figures[key] = correlation(raw[:, index], raw[:, later])
        figures[f"rewards/{name}/correlation/length"] = correlation(raw[:, index], lengths)
    return figures


# MERGED FROM training.reward_log: What is logged of the rewards of a generation batch.


@dataclass(frozen=True, kw_only=True)
class ScoredBatch:
    """A generation batch over all processes: B completions in groups of `num_generations`, R rewards."""

    names: list[str]
    """Names of the R rewards."""
    rewards: Sequence[Any]
    """The rewards, ours and others."""
    raw: Float[Tensor, "batch rewards"]
    """Values as the rewards gave them; NaN = cannot be judged."""
    lengths: Float[Tensor, "batch"]
    """Tokens of each completion."""
    weights: Float[Tensor, "rewards"]
    """Weights in the sum."""
    failed: dict[str, list[Any]]
    """For each of our rewards, how judging each completion failed; None where it did not."""
    num_generations: int
    """Completions per prompt; a group's are neighbours."""


def restated(batch: ScoredBatch) -> dict[str, float]:
    """Mean and deviation over the judged completions, of rewards that could not judge all; TRL's include stand-ins."""
    metrics: dict[str, float] = {}
    for name, values in zip(batch.names, batch.raw.T, strict=True):
        judged = values[~torch.isnan(values)]
        if len(judged) < len(values):
            metrics[f"rewards/{name}/mean"] = judged.mean().item()
            metrics[f"rewards/{name}/std"] = judged.std().item() if len(judged) > 1 else torch.nan
    return metrics


def added(batch: ScoredBatch) -> dict[str, float]:
    """What TRL does not log: weights, failures, and the figures of `reward_figures` and of single rewards."""
    metrics = reward_figures(batch.names, batch.raw, batch.lengths, batch.num_generations)
    for index, (name, reward) in enumerate(zip(batch.names, batch.rewards, strict=True)):
        figures: dict[str, float] = {"weight": batch.weights[index].item()}
        if isinstance(reward, GroupReward):
            values = batch.raw[:, index]
            figures |= reward.reward.extra_metrics(values[~torch.isnan(values)].tolist())
            figures |= failure_counts(batch.failed[name])
        metrics |= {f"rewards/{name}/{figure}": value for figure, value in figures.items()}
    return metrics


# MERGED FROM training.group_statistics: What a batch of rewards says group by group. Pure.


def with_imputed(
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


# MERGED FROM training.silent_rewards: A warning about rewards that are paid and say nothing.

MINIMUM = 64
"""Groups that must have been judged before."""
logger = logging.getLogger(__name__)


class ZeroVarianceRewards:
    """Warns, once for each, of weighted rewards that tell no completions apart in most groups since the job started."""

    def __init__(self) -> None:
        self.silent: Counter[str] = Counter()
        self.groups: Counter[str] = Counter()
        self.warned: set[str] = set()

    def __call__(self, silent: Mapping[str, float], num_groups: int) -> None:
        """Count a batch.

        Args:
            silent: for each reward whose weight is not 0, the share of groups in which it says the same of all.
            num_groups: groups of the batch.
        """
        for name, share in silent.items():
            self.silent[name] += round(share * num_groups)
            self.groups[name] += num_groups
            rate = self.silent[name] / self.groups[name]
            if self.groups[name] >= MINIMUM and rate > MOSTLY_ZERO_VARIANCE and name not in self.warned:
                self.warned.add(name)
                logger.warning(
                    "reward %s says the same of all completions of a prompt in %.0f %% of %d groups so far: it has a "
                    "weight, and teaches next to nothing. Look at its options, or at rewards/%s/frac_zero_std.",
                    name,
                    100 * rate,
                    self.groups[name],
                    name,
                )
