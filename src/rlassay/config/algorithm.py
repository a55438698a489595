"""Sections of `rl` that choose the algorithm: how rewards become advantages, KL control, sampling of groups, guards."""

from typing import Literal

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
