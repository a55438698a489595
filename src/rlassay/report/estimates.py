"""From scores to numbers with intervals: one cell of a table, one comparison."""

from math import isnan

import numpy as np
from jaxtyping import Float

from rlassay.report.gather import Results, Row
from rlassay.report.numbers import Column, Covers, Difference, Estimate, Unit
from rlassay.stats import Interval, crossed_interval, paired_difference, pass_at_k, seed_band

DECIMALS = 6
"""Places kept in report.json; sums over seeds and prompts may differ in the last bits between machines."""
PASS_AT = "pass_at_"

Scores = Float[np.ndarray, "seeds items"]


def tidy(value: float) -> float | None:
    """A number as report.json holds it: rounded, null when undefined, never minus zero."""
    return None if isnan(value) else round(float(value), DECIMALS) + 0.0


def tidy_p(p_value: float) -> float | None:
    """A p-value as report.json holds it: to six significant digits, since small ones are read by their size."""
    return None if isnan(p_value) else float(f"{p_value:.6g}")


def scores_of(results: Results, row: Row, column: Column) -> Scores:
    """The scores of a row's policies, one row each, prompts sorted by id; NaN = could not be judged."""
    return np.array([_scores_of(results, folder, column) for folder in row.folders.values()]).reshape(
        len(row.folders), len(results.prompts[column.set])
    )


def _scores_of(results: Results, folder: str, column: Column) -> Float[np.ndarray, " items"]:
    scores = results.scores[folder, column.set]
    counted = results.study.primary.metric if column.metric.startswith(PASS_AT) else column.metric
    if (column.mode, counted) not in scores.means:
        return np.full(len(scores.means), np.nan)
    means = scores.means[column.mode, counted].to_numpy(dtype=float)
    if not column.metric.startswith(PASS_AT):
        return means
    samples = scores.counts[column.mode, counted].to_numpy(dtype=float)
    right = np.nan_to_num(np.round(means * samples))
    return pass_at_k(samples, right, int(column.metric.removeprefix(PASS_AT)))


def estimate(scores: Scores, unit: Unit, confidence: float) -> Estimate:
    """The mean of a cell, with its crossed interval."""
    interval = crossed_interval(scores, confidence)
    low, high = _ends(interval, (0.0, 1.0) if unit == "share" else None)
    return Estimate(
        mean=tidy(interval.mean),
        low=low,
        high=high,
        num_seeds=interval.num_seeds,
        num_items=interval.num_items,
        covers=_covers(interval),
    )


def difference(arm: Scores, reference: Scores, unit: Unit, confidence: float, matched_seeds: bool) -> Difference:
    """Arm minus reference over the same prompts; `matched_seeds` as in `rlassay.stats.paired_difference`."""
    interval = paired_difference(arm, reference, confidence, matched_seeds=matched_seeds)
    low, high = _ends(interval, (-1.0, 1.0) if unit == "share" else None)
    return Difference(
        effect=tidy(interval.mean),
        low=low,
        high=high,
        p_value=tidy_p(interval.p_value),
        p_holm=None,
        family_size=0,
        num_seeds=interval.num_seeds,
        num_items=interval.num_items,
        covers=_covers(interval),
    )


def over_seeds(values: Float[np.ndarray, " seeds"], num_items: int, confidence: float) -> Estimate:
    """A training statistic with one value per seed, and Student's interval over the seeds."""
    band = seed_band(values[:, None], confidence)
    num_seeds = int(band.num_seeds[0])
    return Estimate(
        mean=tidy(band.mean[0]),
        low=tidy(band.low[0]),
        high=tidy(band.high[0]),
        num_seeds=num_seeds,
        num_items=num_items,
        covers="seeds" if num_seeds > 1 else "nothing",
    )


def _ends(interval: Interval, bounds: tuple[float, float] | None) -> tuple[float | None, float | None]:
    """The interval's ends; those of shares are cut at what a share can be, which leaves coverage as it is."""
    low, high = interval.low, interval.high
    if bounds is not None and not isnan(low):
        low, high = max(low, bounds[0]), min(high, bounds[1])
    return tidy(low), tidy(high)


def _covers(interval: Interval) -> Covers:
    if isnan(interval.low):
        return "nothing"
    return "seeds and items" if interval.num_seeds > 1 else "items"
