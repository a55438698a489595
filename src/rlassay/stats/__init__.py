"""Intervals and tests for results that depend on training seed and evaluation items; numpy and scipy only."""

from rlassay.stats.intervals import Interval, crossed_interval, paired_difference
from rlassay.stats.multiplicity import holm
from rlassay.stats.proportions import pass_at_k, wilson
from rlassay.stats.seeds import SeedBand, seed_band

__all__ = [
    "Interval",
    "SeedBand",
    "crossed_interval",
    "holm",
    "paired_difference",
    "pass_at_k",
    "seed_band",
    "wilson",
]
