"""Sections of `rl` that choose the algorithm: how rewards become advantages, KL control, sampling of groups, guards."""

from typing import Literal

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


class DynamicSamplingConfig(Section):
    """Groups whose rewards do not vary, or whose mean is out of bounds, give way to groups of other prompts.

    After `max_resample` rounds the free places are filled with the groups that were sampled first.
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
    """Probability of sampling a prompt again after its last group gave way; after k in a row, its k-th power."""


class ReplayConfig(Section):
    """Groups whose rewards vary are stored, and take the places of groups whose rewards do not."""

    size: int = Field(default=64, ge=1)
    """Most groups that the buffer holds."""
    min_std: float = Field(default=1e-6, ge=0)
    """Smallest standard deviation of the total rewards of a stored group, itself excluded."""
    min_mean: float | None = None
    """Smallest mean total reward of a stored group, itself excluded; null sets no bound. It counts in the units of the
    weighted sum, so that it has to follow the rewards' weights."""


def _is_none(value: object) -> bool:
    return value is None


class GroupChoice(Section):
    """Which of the sampled completions train; null leaves TRL's choice, all of them."""

    dynamic_sampling: DynamicSamplingConfig | None = Field(default=None, exclude_if=_is_none)
    """Replace groups that teach nothing by groups of other prompts."""
    replay: ReplayConfig | None = Field(default=None, exclude_if=_is_none)
    """Replace groups that teach nothing by earlier groups."""
    train_on: int | None = Field(default=None, ge=2, exclude_if=_is_none)
    """Completions of each group that train, those whose total rewards vary most; null trains on all."""
