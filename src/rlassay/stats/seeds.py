"""Bands over seeds for statistics without shared items, such as the points of a learning curve."""

import warnings
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.special import stdtrit


@dataclass(frozen=True, kw_only=True)
class SeedBand:
    """Mean over seeds at each point of a curve, with Student's interval and the number of seeds."""

    mean: Float[np.ndarray, " points"]
    """Mean over the seeds that have the point; NaN where no seed has it."""
    low: Float[np.ndarray, " points"]
    """Lower end; NaN with fewer than two seeds."""
    high: Float[np.ndarray, " points"]
    """Upper end; NaN with fewer than two seeds."""
    num_seeds: Int[np.ndarray, " points"]
    """Seeds that have the point."""


def seed_band(values: Float[np.ndarray, "seeds points"], confidence: float = 0.95) -> SeedBand:
    """`mean -/+ t_{n-1} s / sqrt(n)` at each point, over the n seeds that are not NaN there."""
    count = (~np.isnan(values)).sum(axis=0)
    with warnings.catch_warnings():
        # Points with no seed, or with one, are NaN by definition here; numpy would warn about them.
        warnings.simplefilter("ignore", RuntimeWarning)
        mean, spread = np.nanmean(values, axis=0), np.nanstd(values, axis=0, ddof=1)
        quantile = np.asarray(stdtrit(count - 1.0, 0.5 + confidence / 2), dtype=float)
        half_width = np.where(count > 1, quantile * spread / np.sqrt(count), np.nan)
    return SeedBand(mean=mean, low=mean - half_width, high=mean + half_width, num_seeds=count)
