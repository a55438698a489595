"""Sections of `rl` that choose the algorithm: how rewards become advantages, KL control, sampling of groups, guards."""

from typing import Annotated, Literal

from pydantic import Field

from rlassay.config.section import Section


class GRPOAdvantage(Section):
    """Rewards relative to the group, as `scale_rewards` and `multi_objective_aggregation` say: TRL's own advantages."""

    kind: Literal["grpo"]
    """Selects this section."""


AdvantageConfig = GRPOAdvantage
"""One section per key of `rlassay.advantages.ADVANTAGES`, whose other fields are the options of that function.

With a second one it becomes `Annotated[GRPOAdvantage | ..., Field(discriminator="kind")]`, as `CreditConfig` is;
pydantic refuses a union of one.
"""


class FixedBeta(Section):
    """A weight of the KL penalty that stays `rl.beta`."""

    kind: Literal["fixed"]
    """Selects this section."""


class AdaptiveBeta(Section):
    """A weight that starts from `rl.beta`, grows while the KL is above its target and shrinks while it is below."""

    kind: Literal["adaptive"]
    """Selects this section."""
    target: float = Field(gt=0)
    """KL to hold, nats; about 0.1 per token."""
    horizon: float = Field(default=10_000.0, gt=0)
    """Completions over which an error of 20 % or more changes the weight by about 20 %."""
    per: Literal["token", "sequence"] = "token"
    """What the target is compared with: the mean over tokens of a completion, or the sum over its tokens."""


class KLConfig(Section):
    """The penalty for leaving the warm start, in place of TRL's; `rl.beta` is its weight, 0 only measures."""

    kind: Literal["kl", "abs", "mse", "low_var_kl", "exact"] = "low_var_kl"
    """Penalty per token, see `rlassay.divergence`; `exact` sums over the vocabulary, which takes two more passes."""
    where: Literal["loss", "reward"] = "loss"
    """Whether it is part of the loss, or taken from the reward before advantages are computed."""
    controller: Annotated[FixedBeta | AdaptiveBeta, Field(discriminator="kind")] = FixedBeta(kind="fixed")
    """What becomes of its weight during training."""


GUARDED_METRICS = {
    "min_entropy": "entropy",
    "min_reward_std": "reward_std",
    "max_clipped_ratio": "completions/clipped_ratio",
    "max_kl": "kl",
}
"""Rule of the collapse guard -> the logged metric that it limits, from below (`min`) or above (`max`)."""


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
