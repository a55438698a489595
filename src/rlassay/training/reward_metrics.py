"""Reward metrics of a generation batch, in addition to TRL's or in their place."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from rlassay.advantages import in_groups
from rlassay.rewards import MOSTLY_ZERO_VARIANCE
from rlassay.signals.measuring import floats
from rlassay.training.batch import BatchRewards
from rlassay.training.group_reward import GroupReward, failure_counts, mean_metrics

MIN_GROUPS = 64
"""Groups that `ZeroVarianceRewards` waits for before it warns."""
logger = logging.getLogger(__name__)


def scored_mean_and_std(rewards: BatchRewards) -> dict[str, float]:
    """`rewards/<name>/mean` and `/std` over the completions that the reward could score.

    Only for rewards that could not score all completions, since TRL's own numbers include the imputed values. The
    deviation of fewer than two is NaN.
    """
    metrics: dict[str, float] = {}
    for name, values in zip(rewards.names, rewards.raw.T, strict=True):
        scored = values[~torch.isnan(values)]
        if len(scored) < len(values):
            metrics[f"rewards/{name}/mean"] = scored.mean().item()
            metrics[f"rewards/{name}/std"] = scored.std().item() if len(scored) > 1 else torch.nan
    return metrics


def added_metrics(
    rewards: BatchRewards, reward_funcs: Sequence[Any], lengths: Float[Tensor, "batch"]
) -> dict[str, float]:
    """Reward metrics that TRL lacks: those of `reward_statistics`, weights, failures, and each reward's own.

    Args:
        rewards: of the whole batch.
        reward_funcs: the reward functions, ours and others, in the order of `rewards.names`.
        lengths: (N,), tokens of each completion.
    """
    metrics = reward_statistics(rewards.names, rewards.raw, lengths, rewards.num_generations)
    for index, (name, reward) in enumerate(zip(rewards.names, reward_funcs, strict=True)):
        own: dict[str, float] = {"weight": rewards.weights[index].item()}
        if isinstance(reward, GroupReward):
            values = rewards.raw[:, index]
            own |= reward.reward.extra_metrics(floats(values[~torch.isnan(values)]))
            own |= failure_counts(rewards.failed[name]) | mean_metrics(rewards.metrics[name])
        metrics |= {f"rewards/{name}/{metric}": value for metric, value in own.items()}
    return metrics


def reward_statistics(
    names: list[str], raw: Float[Tensor, "batch rewards"], lengths: Float[Tensor, "batch"], num_generations: int
) -> dict[str, float]:
    """`rewards/<name>/...` of a batch: coverage, zero-variance groups, correlations.

    `coverage` is the share of completions that the reward could score, `frac_zero_std` the share of groups in which it
    gives all completions the same value; `correlation/<name of a later reward>` and `correlation/length`.

    Args:
        names: names of the R rewards.
        raw: (B, R), values as the rewards returned them; NaN = could not score.
        lengths: (B,), tokens of each completion.
        num_generations: completions per prompt; those of a prompt are neighbours.
    """
    raw, lengths = raw.cpu(), lengths.cpu()
    coverage = (~torch.isnan(raw)).float().mean(dim=0)
    zero_std = zero_variance(raw, num_generations).float().mean(dim=0)
    metrics: dict[str, float] = {}
    for index, name in enumerate(names):
        metrics[f"rewards/{name}/coverage"] = coverage[index].item()
        metrics[f"rewards/{name}/frac_zero_std"] = zero_std[index].item()
        for later in range(index + 1, len(names)):
            key = f"rewards/{name}/correlation/{names[later]}"
            metrics[key] = correlation(raw[:, index], raw[:, later])
        metrics[f"rewards/{name}/correlation/length"] = correlation(raw[:, index], lengths)
    return metrics


def frac_distinct(completions: Sequence[Sequence[int]], num_generations: int) -> float:
    """Mean share of distinct completions in a group, from 1/G (all equal) to 1.

    Args:
        completions: token ids; those of a prompt are neighbours.
        num_generations: completions per prompt, G.
    """
    rows = [tuple(ids) for ids in completions]
    groups = [rows[first : first + num_generations] for first in range(0, len(rows), num_generations)]
    return sum(len(set(group)) / len(group) for group in groups) / len(groups)


def zero_variance(raw: Float[Tensor, "batch rewards"], num_generations: int) -> Bool[Tensor, "groups rewards"]:
    """Groups in which a reward has one value for all scored completions, or none.

    Such a group adds nothing to the advantages, however rewards are aggregated.
    """
    highest, lowest = _extremes(in_groups(raw, num_generations))
    return highest <= lowest


def zero_advantage(totals: Float[Tensor, "batch"], num_generations: int) -> Bool[Tensor, "groups"]:
    """Groups whose scored completions all have the same total reward, up to 1e-6.

    All their advantages are 0. TRL's `frac_reward_zero_std` looks at the deviation of the whole batch under
    `normalize_then_sum` and under `scale_rewards="batch"`, which is almost never 0.

    Args:
        totals: (B,), see `total_rewards`; NaN = no reward could score the completion, which TRL leaves out.
        num_generations: completions per prompt; those of a prompt are neighbours.
    """
    highest, lowest = _extremes(in_groups(totals, num_generations))
    return highest - lowest <= 1e-6


def _extremes(grouped: Float[Tensor, "groups size *rest"]) -> tuple[Tensor, Tensor]:
    """Largest and smallest value of each group without NaN; minus and plus infinity where all are NaN."""
    missing = torch.isnan(grouped)
    return grouped.masked_fill(missing, -torch.inf).amax(dim=1), grouped.masked_fill(missing, torch.inf).amin(dim=1)


def correlation(one: Float[Tensor, "batch"], other: Float[Tensor, "batch"]) -> float:
    """Pearson's correlation over the completions for which both values are known (not NaN).

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


def impute_group_mean(raw: Float[Tensor, "batch rewards"], num_generations: int) -> Float[Tensor, "batch rewards"]:
    """Replace NaN ("could not score") by the reward's mean over the rest of the group.

    That reward then neither raises nor lowers the completion's advantage, and the group's mean stays that of the scored
    completions; a 0 would be the best value of a penalty and the worst of a bonus. Where a reward could score nothing
    in a group, all its completions get 0, which cancels in the advantages.
    """
    grouped = in_groups(raw, num_generations)
    means = torch.nan_to_num(torch.nanmean(grouped, dim=1, keepdim=True), nan=0.0)
    return torch.where(torch.isnan(grouped), means, grouped).view_as(raw)


class ZeroVarianceRewards:
    """Warns once of each weighted reward that has zero variance in most groups."""

    def __init__(self) -> None:
        self.zero_variance: Counter[str] = Counter()
        """Groups without variance since the job started, by reward."""
        self.groups: Counter[str] = Counter()
        """Groups since the job started, by reward."""
        self.warned: set[str] = set()

    def __call__(self, shares: Mapping[str, float], num_groups: int) -> None:
        """Count a batch.

        Args:
            shares: for each reward whose weight is not 0, its share of groups without variance.
            num_groups: groups of the batch.
        """
        for name, share in shares.items():
            self.zero_variance[name] += round(share * num_groups)
            self.groups[name] += num_groups
            rate = self.zero_variance[name] / self.groups[name]
            if self.groups[name] >= MIN_GROUPS and rate > MOSTLY_ZERO_VARIANCE and name not in self.warned:
                self.warned.add(name)
                logger.warning(
                    "reward %s gives all completions of a prompt the same value in %.0f %% of %d groups so far: it has "
                    "a weight, but teaches next to nothing. Look at its options, or at rewards/%s/frac_zero_std.",
                    name,
                    100 * rate,
                    self.groups[name],
                    name,
                )
