"""Records of the findings in `report.json`."""

from rlassay.records import Record


class Equivalence(Record):
    """Two one-sided tests that a difference is smaller than the declared `primary.smallest_effect`."""

    margin: float
    """The declared effect, in the metric's unit."""
    p_value: float | None
    """p-value of a difference of at least the margin; null with one seed."""
    p_holm: float | None
    """`p_value` after Holm's correction over the declared family; null outside it and with one seed."""


class Needed(Record):
    """What it takes to find an effect of the declared size, all else as in this study."""

    effect: float
    """The declared `primary.smallest_effect`."""
    power: float
    """Chance of finding such an effect."""
    detectable: float | None
    """Smallest effect that this study finds with that chance; null = none."""
    seeds: int | None
    """Seeds per arm with this study's prompts; null = no number of seeds is enough."""
    items: int | None
    """Prompts with this study's seeds; null = no number of prompts is enough."""


class Flips(Record):
    """Prompts that change between right and wrong; right means at least half of the completions of all seeds."""

    won: int
    """Prompts right in the arm and wrong in the reference."""
    lost: int
    """Prompts wrong in the arm and right in the reference."""
    both: int
    """Prompts right in both."""
    neither: int
    """Prompts wrong in both."""
    p_value: float | None
    """McNemar's exact two-sided p-value, for these trained policies; null without a flip."""
    won_prompts: tuple[str, ...]
    """Ids of a few won prompts, the largest change first."""
    lost_prompts: tuple[str, ...]
    """Ids of a few lost prompts, the largest change first."""
