"""Bands over seeds for statistics without shared items, such as points of learning curves."""

import warnings
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.special import stdtrit

from rlassay.stats.proportions import share_interval


@dataclass(frozen=True, kw_only=True)
class SeedBand:
    """Mean over seeds at each point, with Student's interval and the number of seeds."""

    mean: Float[np.ndarray, " points"]
    """Mean over the seeds that have the point; NaN where no seed has it."""
    low: Float[np.ndarray, " points"]
    """Lower end; NaN with fewer than two seeds."""
    high: Float[np.ndarray, " points"]
    """Upper end; NaN with fewer than two seeds."""
    num_seeds: Int[np.ndarray, " points"]
    """Seeds that have the point."""


def seed_band(
    values: Float[np.ndarray, "seeds points"], confidence: float = 0.95, limits: tuple[float, float] | None = None
) -> SeedBand:
    """Mean over the seeds at each point, with its t interval.

    The interval is `mean -/+ t_{n-1} s / sqrt(n)`, over the n seeds that are not NaN there.

    Args:
        values: one line per seed; NaN = the seed has no such point.
        confidence: level of the interval.
        limits: smallest and largest possible value, such as 0 and 1 of a share. Where the interval would leave them, it
            has the form of `share_interval`, which does not.
    """
    count = (~np.isnan(values)).sum(axis=0)
    with warnings.catch_warnings():
        # Points with no seed, or with one, are NaN by definition here; numpy would warn about them.
        warnings.simplefilter("ignore", RuntimeWarning)
        mean, spread = np.nanmean(values, axis=0), np.nanstd(values, axis=0, ddof=1)
        quantile = np.asarray(stdtrit(count - 1.0, 0.5 + confidence / 2), dtype=float)
        half_width = np.where(count > 1, quantile * spread / np.sqrt(count), np.nan)
    low, high = mean - half_width, mean + half_width
    if limits is not None:
        bottom, width = limits[0], limits[1] - limits[0]
        leaves = ((low < limits[0]) | (high > limits[1])) & (limits[0] < mean) & (mean < limits[1])
        for point in np.flatnonzero(leaves):
            ends = share_interval((mean[point] - bottom) / width, half_width[point] / width)
            low[point], high[point] = (bottom + width * end for end in ends)
    return SeedBand(mean=mean, low=low, high=high, num_seeds=count)
