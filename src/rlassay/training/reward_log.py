"""What is logged of the rewards of a generation batch."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from rlassay.training.group_reward import GroupReward, failure_counts
from rlassay.training.reward_statistics import reward_figures


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
            figures |= reward.reward.figures(values[~torch.isnan(values)].tolist())
            figures |= failure_counts(batch.failed[name])
        metrics |= {f"rewards/{name}/{figure}": value for figure, value in figures.items()}
    return metrics
