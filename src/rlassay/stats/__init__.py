"""Intervals, tests and plans for results that depend on training seed and evaluation items; numpy and scipy only."""

from rlassay.stats.aggregates import iqm, probability_of_improvement
from rlassay.stats.attribution import effect_weights, shapley, shapley_weights
from rlassay.stats.equivalence import equivalence_p_value, equivalent
from rlassay.stats.intervals import Interval, are_shares, contrast, crossed_interval, paired_difference
from rlassay.stats.multiplicity import holm
from rlassay.stats.power import (
    Deviations,
    PlannedTest,
    deviations_of,
    items_needed,
    minimum_detectable_effect,
    power_of,
    seeds_needed,
)
from rlassay.stats.proportions import pass_at_k, share_interval, wilson
from rlassay.stats.seeds import SeedBand, seed_band
from rlassay.stats.sequential import SequentialTest, local_levels

__all__ = [
    "Deviations",
    "Interval",
    "PlannedTest",
    "SeedBand",
    "SequentialTest",
    "are_shares",
    "contrast",
    "crossed_interval",
    "deviations_of",
    "effect_weights",
    "equivalence_p_value",
    "equivalent",
    "holm",
    "iqm",
    "items_needed",
    "local_levels",
    "minimum_detectable_effect",
    "paired_difference",
    "pass_at_k",
    "power_of",
    "probability_of_improvement",
    "seed_band",
    "seeds_needed",
    "shapley",
    "shapley_weights",
    "share_interval",
    "wilson",
]
