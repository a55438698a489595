"""Advantage estimators: the rewards of a generation batch become one advantage per completion. Pure functions.

An estimator is `f(rewards, num_generations, **options)`: rewards `(B,)` of the whole generation batch over all
processes, the completions of a prompt side by side; NaN = no reward could score the completion. It returns advantages
`(B,)`, finite wherever the reward is. Credit multiplies them token by token afterwards, see `rlassay.credit`.

The key in `ADVANTAGES`, `rl.advantage.kind` in a study and the function's name are the same word.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from rlassay.advantages.grpo import grpo
from rlassay.advantages.rewards import in_groups, total_rewards
from rlassay.names import unknown

__all__ = ["ADVANTAGES", "AdvantageEstimator", "as_estimator", "estimate", "grpo", "in_groups", "total_rewards"]

AdvantageEstimator = Callable[..., Tensor]
"""`f(rewards, num_generations)`, or a `functools.partial` that also sets the options."""

ADVANTAGES: dict[str, AdvantageEstimator] = {
    "grpo": grpo,
}


def as_estimator(advantage: AdvantageEstimator | str | None) -> AdvantageEstimator | None:
    """The estimator to use in place of TRL's; None for None and `grpo`, which TRL computes itself.

    Errors: ValueError for an unknown name, listing the known ones; TypeError for anything that cannot be called.
    """
    if advantage is None or advantage == "grpo":
        return None
    if isinstance(advantage, str):
        if advantage not in ADVANTAGES:
            raise ValueError(unknown("advantage", advantage, ADVANTAGES))
        return ADVANTAGES[advantage]
    if not callable(advantage):
        raise TypeError(f"advantage: got {advantage!r}, expected a function or one of {', '.join(ADVANTAGES)}")
    return advantage


def estimate(
    estimator: AdvantageEstimator, rewards: Float[Tensor, "batch"], num_generations: int
) -> Float[Tensor, "batch"]:
    """Advantages of the estimator, checked; 0 where the reward is NaN, since nothing was learned there.

    Args:
        estimator: the function.
        rewards: (B,), total rewards of the whole generation batch, see `total_rewards`.
        num_generations: completions per prompt; those of a prompt are neighbours.

    Errors: ValueError for another shape, or for a NaN or infinite advantage of a completion that has a reward.
    """
    advantages = estimator(rewards, num_generations)
    if advantages.shape != rewards.shape:
        got, expected = tuple(advantages.shape), tuple(rewards.shape)
        raise ValueError(f"advantage {estimator!r}: got shape {got}, expected one advantage per completion, {expected}")
    scored = ~torch.isnan(rewards)
    if not bool(torch.isfinite(advantages[scored]).all()):
        raise ValueError(f"advantage {estimator!r}: got a NaN or infinite advantage, expected finite ones")
    return torch.where(scored, advantages, 0.0)
