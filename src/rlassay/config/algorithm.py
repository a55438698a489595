"""Sections of `rl` that choose the algorithm: advantages, KL control, sampling of groups, guards."""

from typing import Annotated, Literal

from pydantic import Field

from rlassay.config.credit import TokenWeightConfig
from rlassay.config.section import Section, is_empty, is_none


class GRPOAdvantage(Section):
    """TRL's own advantages: rewards relative to the group, by `scale_rewards` and `multi_objective_aggregation`.

    The other estimators do not read `scale_rewards`.
    """

    kind: Literal["grpo"]
    """Selects this section."""


class RLOOAdvantage(Section):
    """Rewards minus the mean of the prompt's other completions."""

    kind: Literal["rloo"]
    """Selects this section."""


class ReMaxAdvantage(Section):
    """Rewards minus the reward of the prompt's greedy completion, which is sampled in addition.

    The greedy completion is scored by the same rewards.
    """

    kind: Literal["remax"]
    """Selects this section."""


class ReinforcePPAdvantage(Section):
    """REINFORCE++: rewards whitened over the generation batch."""

    kind: Literal["reinforce_pp"]
    """Selects this section."""
    baseline: Literal["batch", "group"] = "batch"
    """`group` first subtracts the mean of the prompt's completions (REINFORCE++-Baseline)."""


class OPOAdvantage(Section):
    """Rewards minus the length-weighted mean of the group."""

    kind: Literal["opo"]
    """Selects this section."""


class MaxRLAdvantage(Section):
    """Rewards minus the group's mean, divided by that mean; for rewards of at least 0."""

    kind: Literal["max_rl"]
    """Selects this section."""


class PassAtKAdvantage(Section):
    """GRPO's advantages of sets of `k` completions, whose reward is their best one."""

    kind: Literal["pass_at_k"]
    """Selects this section."""
    k: int = Field(default=2, ge=1)
    """Completions of a set, fewer than those of a group."""


class ShrinkageAdvantage(Section):
    """Rewards minus the prompt's mean, shrunk towards the mean of the other prompts.

    The prompt's mean is that of its other completions.
    """

    kind: Literal["shrinkage"]
    """Selects this section."""


class GAEAdvantage(Section):
    """PPO's advantages per token, from a critic that is trained with the policy."""

    kind: Literal["gae"]
    """Selects this section."""
    gamma: float = Field(default=1.0, ge=0, le=1)
    """Discount per token."""
    lam: float = Field(default=0.95, ge=0, le=1)
    """Weight of later estimates; 1 = reward to come minus value, 0 = one-step errors."""
    value_model: Literal["separate", "head"] = "separate"
    """`separate` trains a copy of the starting policy as the critic. `head` trains a value head on the policy's hidden
    states, which needs no memory for a second model."""
    value_learning_rate: float = Field(default=1e-5, gt=0)
    """Learning rate of the critic's AdamW, constant."""
    value_clip: float = Field(default=0.2, gt=0)
    """The value loss sees values at most this far from those that made the advantages."""
    value_epochs: int = Field(default=1, ge=1)
    """Optimiser steps of the critic on each generation batch; clipping begins to act in the second."""


AdvantageConfig = Annotated[
    GRPOAdvantage
    | RLOOAdvantage
    | ReMaxAdvantage
    | ReinforcePPAdvantage
    | OPOAdvantage
    | MaxRLAdvantage
    | PassAtKAdvantage
    | ShrinkageAdvantage
    | GAEAdvantage,
    Field(discriminator="kind"),
]
"""One section per key of `rlassay.advantages.ADVANTAGES`, whose other fields are the options of that function."""


class DynamicSamplingConfig(Section):
    """Replace groups whose rewards are all equal, or whose mean is out of bounds.

    Groups of other prompts replace them. After `max_resample` rounds the free places are filled with the groups that
    were sampled first.
    """

    filter_reward: str | None = None
    """Reward whose mean over a group must lie between the bounds; null asks for variance alone."""
    filter_low: float = 0.01
    """Smallest mean, itself excluded."""
    filter_high: float = 0.99
    """Largest mean, itself excluded."""
    max_resample: int = Field(default=8, ge=1)
    """Largest number of rounds of other prompts per generation batch."""
    revisit: float = Field(default=1.0, gt=0, le=1)
    """Probability of sampling a prompt again after its last group was replaced; after k in a row, its k-th power."""


class ReplayConfig(Section):
    """Groups with varying rewards are stored, and take the places of groups without variation."""

    size: int = Field(default=64, ge=1)
    """Most groups that the buffer holds."""
    min_std: float = Field(default=1e-6, ge=0)
    """Smallest standard deviation of the total rewards of a stored group, itself excluded."""
    min_mean: float | None = None
    """Smallest mean total reward of a stored group, itself excluded; null sets no bound. It counts in the units of the
    weighted sum, so that it has to follow the rewards' weights."""


class GroupChoice(Section):
    """Which of the sampled completions train; null leaves TRL's choice, all of them."""

    dynamic_sampling: DynamicSamplingConfig | None = Field(default=None, exclude_if=is_none)
    """Replace groups that teach nothing by groups of other prompts."""
    replay: ReplayConfig | None = Field(default=None, exclude_if=is_none)
    """Replace groups that teach nothing by earlier groups."""
    train_on: int | None = Field(default=None, ge=2, exclude_if=is_none)
    """Completions of each group that train, those whose total rewards vary most; null trains on all."""


class FixedController(Section):
    """A weight of the KL penalty that stays `rl.beta`."""

    kind: Literal["fixed"]
    """Selects this section."""


class AdaptiveController(Section):
    """A KL weight that holds the KL at a target.

    It starts from `rl.beta`, grows while the KL is above the target and shrinks while it is below.
    """

    kind: Literal["adaptive"]
    """Selects this section."""
    target: float = Field(gt=0)
    """KL to hold, nats; about 0.1 per token."""
    horizon: float = Field(default=10_000.0, gt=0)
    """Completions over which the weight changes by about 20 %. The error is then 20 % or more."""
    per: Literal["token", "sequence"] = "token"
    """KL that is compared with the target: a completion's mean over tokens, or its sum."""


class KLConfig(Section):
    """The penalty for leaving the warm start, in place of TRL's; `rl.beta` is its weight, 0 only measures."""

    kind: Literal["kl", "abs", "mse", "low_var_kl", "exact"] = "low_var_kl"
    """Penalty per token, see `rlassay.divergence`; `exact` sums over the vocabulary, which takes two more passes."""
    where: Literal["loss", "reward"] = "loss"
    """Whether it is part of the loss, or taken from the reward before the advantages."""
    controller: Annotated[FixedController | AdaptiveController, Field(discriminator="kind")] = FixedController(
        kind="fixed"
    )
    """Whether its weight stays or follows a target during training."""
    credit: tuple[TokenWeightConfig, ...] = Field(default=(), exclude_if=is_empty)
    """Weights of the penalty per token, by the parts that `credit` knows and their controls; for `where: loss`. The
    `kl` that is logged, and that a controller follows, stays unweighted."""


GUARDED_METRICS = {
    "min_entropy": "entropy",
    "min_reward_std": "reward_std",
    "max_clipped_ratio": "completions/clipped_ratio",
    "max_kl": "kl",
}
"""Rule of the collapse guard -> the logged metric that it limits. `min` limits it from below, `max` from above."""


class GuardConfig(Section):
    """Ends a run early whose policy has collapsed; it is then marked so, evaluated and reported as it is.

    A gradient or loss that is not finite ends it in any case.
    """

    min_entropy: float | None = Field(default=None, ge=0)
    """Lowest entropy, nats per token; null sets no rule."""
    min_reward_std: float | None = Field(default=None, ge=0)
    """Lowest standard deviation of the total rewards of a generation batch; null sets no rule."""
    max_clipped_ratio: float | None = Field(default=None, ge=0, lt=1)
    """Highest share of completions that were cut off at `max_completion_length`; null sets no rule."""
    max_kl: float | None = Field(default=None, gt=0)
    """Highest KL from the reference policy as the run logs it, nats per token; null sets no rule."""
    patience: int = Field(default=5, ge=1)
    """Steps in a row that have to break the same rule."""

    @property
    def limits(self) -> dict[str, float]:
        """Rule -> limit, of the rules that are set."""
        limits: dict[str, float | None] = self.model_dump(include=set(GUARDED_METRICS))
        return {rule: limit for rule, limit in limits.items() if limit is not None}
