"""Advantage estimators: the rewards of a generation batch become one advantage per completion. Pure functions.

An estimator is `f(rewards, **inputs, **options)`: rewards `(B,)` of the whole generation batch over all processes, the
completions of a prompt side by side; NaN = no reward could score the completion. Its other parameters are the entries
of `INPUTS` that it reads. It returns advantages `(B,)`, finite wherever the reward is; `gae` alone returns one per
token and needs a critic. Credit then weights them token by token, see `rlassay.credit`.

The key in `ADVANTAGES`, `rl.advantage.kind` in a study and the function's name are the same word.
"""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from rlassay.advantages.gae import gae, terminal_rewards
from rlassay.advantages.grpo import grpo
from rlassay.advantages.max_rl import max_rl
from rlassay.advantages.opo import opo
from rlassay.advantages.pass_at_k import pass_at_k
from rlassay.advantages.reinforce_pp import reinforce_pp
from rlassay.advantages.remax import remax
from rlassay.advantages.rewards import in_groups, total_rewards, whiten
from rlassay.advantages.rloo import rloo
from rlassay.advantages.shrinkage import shrinkage
from rlassay.names import unknown

__all__ = [
    "ADVANTAGES",
    "AdvantageEstimator",
    "as_estimator",
    "check_estimator",
    "estimate",
    "gae",
    "grpo",
    "in_groups",
    "max_rl",
    "opo",
    "pass_at_k",
    "reads",
    "reinforce_pp",
    "remax",
    "rloo",
    "shrinkage",
    "terminal_rewards",
    "total_rewards",
    "whiten",
]

AdvantageEstimator = Callable[..., Tensor]
"""`f(rewards, num_generations)`, or with others of `INPUTS`; a `functools.partial` sets its options."""

INPUTS = {
    "num_generations": "completions per prompt; those of a prompt are neighbours",
    "lengths": "(B,), tokens of each completion that the loss counts",
    "greedy_rewards": "(B,), total reward of the greedy completion of each completion's prompt; NaN = no score",
}
"""Inputs that an estimator may read beside the rewards: parameter name -> description."""

ADVANTAGES: dict[str, Callable[..., Any]] = {
    "grpo": grpo,
    "rloo": rloo,
    "remax": remax,
    "reinforce_pp": reinforce_pp,
    "opo": opo,
    "max_rl": max_rl,
    "pass_at_k": pass_at_k,
    "shrinkage": shrinkage,
    "gae": gae,
}


def as_estimator(advantage: AdvantageEstimator | str | None) -> AdvantageEstimator | None:
    """The estimator to use in place of TRL's; None for None and `grpo`, which TRL computes itself.

    Errors: ValueError for an unknown name, listing the known ones, for `gae`, and for a function that requires an input
    outside of `INPUTS`; TypeError for anything that cannot be called.
    """
    if advantage is None or advantage == "grpo":
        return None
    if isinstance(advantage, str):
        if advantage not in ADVANTAGES:
            raise ValueError(unknown("advantage", advantage, ADVANTAGES))
        return as_estimator(ADVANTAGES[advantage])
    if not callable(advantage):
        raise TypeError(f"advantage: got {advantage!r}, expected a function or one of {', '.join(ADVANTAGES)}")
    if advantage is gae:
        raise ValueError("advantage: gae needs a critic; pass critic=CriticOptions(...) in place of advantage='gae'")
    options = list(inspect.signature(advantage).parameters.values())[1:]
    missing = [each.name for each in options if each.default is each.empty and each.name not in INPUTS]
    if missing:
        raise ValueError(f"advantage {advantage!r}: got parameter {missing[0]!r}, expected ones of {', '.join(INPUTS)}")
    return advantage


def reads(estimator: AdvantageEstimator | None) -> frozenset[str]:
    """The names of `INPUTS` that an estimator reads."""
    return frozenset(INPUTS).intersection([] if estimator is None else inspect.signature(estimator).parameters)


def check_estimator(estimator: AdvantageEstimator, num_generations: int) -> None:
    """Raise ValueError for options of an `ADVANTAGES` estimator that do not fit the group size.

    It is called once with made-up rewards; a custom function is not called.
    """
    given: Any = estimator
    if (given.func if isinstance(given, partial) else given) in ADVANTAGES.values():
        inputs = torch.zeros(2, num_generations)
        estimate(estimator, inputs[0], num_generations, lengths=1 + inputs[0], greedy_rewards=inputs[1])


def estimate(
    estimator: AdvantageEstimator, rewards: Float[Tensor, "batch"], num_generations: int, **inputs: Tensor
) -> Float[Tensor, "batch"]:
    """Call the estimator and check its advantages; they are 0 where the reward is NaN.

    Args:
        estimator: the function; it gets float64, in which equal rewards of a group have exactly no deviation.
        rewards: (B,), total rewards of the whole generation batch, see `total_rewards`.
        num_generations: completions per prompt; those of a prompt are neighbours.
        inputs: the other entries of `INPUTS` that it reads.

    Errors: ValueError for another shape, or for a NaN or infinite advantage of a completion that has a reward.
    """
    given: dict[str, Any] = {name: value.cpu().double() for name, value in inputs.items()}
    given["num_generations"] = num_generations
    advantages = estimator(rewards.cpu().double(), **{name: given[name] for name in reads(estimator)})
    if advantages.shape != rewards.shape:
        got, expected = tuple(advantages.shape), tuple(rewards.shape)
        raise ValueError(f"advantage {estimator!r}: got shape {got}, expected one advantage per completion, {expected}")
    advantages = advantages.to(rewards)
    scored = ~torch.isnan(rewards)
    if not bool(torch.isfinite(advantages[scored]).all()):
        raise ValueError(f"advantage {estimator!r}: got a NaN or infinite advantage, expected finite ones")
    return torch.where(scored, advantages, 0.0)
