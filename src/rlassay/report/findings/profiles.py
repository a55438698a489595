# pyright: basic
# Reads pandas frames, which ship no types.
"""Performance profiles (scores over prompts), and the frontier of scores against KL."""

import numpy as np
from jaxtyping import Float

from rlassay.config.training import RLConfig
from rlassay.report.findings.records import Frontier, FrontierRun, Profiles, ProfileSeries
from rlassay.report.gather import PolicyRow, Results
from rlassay.report.numbers import Column
from rlassay.report.read.scores import column_or_nan
from rlassay.report.tables import SHARE_LIMITS, SeedScores, means_by_seed, primary_column, scores_of, tidy
from rlassay.stats import seed_band

FEWEST_LEVELS = 3
"""Fewest different scores of prompts; with fewer, a profile adds nothing to the mean."""
MOST_THRESHOLDS = 33
"""Thresholds of a profile; with more different scores than that, they are evenly spaced."""
ESTIMATES_OF_KL = ("kl", "low_var_kl", "exact")
"""Kinds of `rl.kl` whose mean is the KL divergence."""


def build_profiles(results: Results, confidence: float) -> Profiles | None:
    """Profiles of the primary metric; None with one arm, or where prompts have fewer than three different scores.

    Source: performance profiles of Agarwal et al. 2021 (arXiv 2108.13264, section 4.3), with prompts in place of tasks
    and `>=` in place of `>`. Their bands resample runs; these are Student's over seeds, since three seeds have only ten
    resamples.
    """
    column = primary_column(results)
    arms = {row.key: scores_of(results, row, column) for row in results.finished_arms}
    if len(arms) < 2:
        return None
    complete = ~np.isnan(np.concatenate(list(arms.values()))).any(axis=0)
    kept = {arm: scores[:, complete] for arm, scores in arms.items()}
    values = np.unique(np.round(np.concatenate([scores.ravel() for scores in kept.values()]), 6))
    if len(values) < FEWEST_LEVELS:
        return None
    thresholds = values if len(values) <= MOST_THRESHOLDS else np.linspace(values[0], values[-1], MOST_THRESHOLDS)
    return Profiles(
        column=column,
        thresholds=tuple(float(value) for value in thresholds),
        num_items=int(complete.sum()),
        series=tuple(_profile(arm, scores, thresholds, confidence) for arm, scores in kept.items()),
    )


def _profile(
    arm: str, scores: SeedScores, thresholds: Float[np.ndarray, " thresholds"], confidence: float
) -> ProfileSeries:
    band = seed_band(shares_at(scores, thresholds), confidence, SHARE_LIMITS)
    return ProfileSeries(
        arm=arm,
        mean=tuple(tidy(value) for value in band.mean),
        low=tuple(tidy(value) for value in band.low),
        high=tuple(tidy(value) for value in band.high),
        num_seeds=len(scores),
    )


def shares_at(
    scores: SeedScores, thresholds: Float[np.ndarray, " thresholds"]
) -> Float[np.ndarray, "seeds thresholds"]:
    """For each seed, the share of prompts that score at least each threshold."""
    # Means over samples are rounded, so that a score of 3 right of 8 reaches the threshold 3/8.
    return (scores[:, :, None] >= thresholds - 1e-6).mean(axis=1)


def build_frontier(results: Results) -> Frontier | None:
    """KL against score of each run; None unless two arms have measured the KL from a fixed reference."""
    column = primary_column(results)
    runs = {row.key: _runs(results, row, column) for row in results.finished_arms}
    if sum(bool(found) for found in runs.values()) < 2:
        return None
    return Frontier(
        column=column,
        runs=tuple(run for found in runs.values() for run in found),
        left_out=tuple(arm for arm, found in runs.items() if not found),
    )


def _runs(results: Results, row: PolicyRow, column: Column) -> list[FrontierRun]:
    if not _measures_kl(results.study.arms[row.key].recipe.rl):
        return []
    scores = means_by_seed(scores_of(results, row, column))
    found: list[FrontierRun] = []
    for (seed, folder), score in zip(row.folders.items(), scores, strict=True):
        kl = last_kl(column_or_nan(results.metrics[folder], "kl"))
        if kl is not None and score is not None and seed is not None:
            found.append(FrontierRun(arm=row.key, seed=seed, kl=kl, score=score))
    return found


def _measures_kl(rl: RLConfig) -> bool:
    """Whether the `kl` of a run estimates the KL from the policy before RL."""
    return not rl.sync_ref_model and (rl.kl is None or rl.kl.kind in ESTIMATES_OF_KL)


def last_kl(values: Float[np.ndarray, " steps"]) -> float | None:
    """Mean over the last tenth of the logged steps, one at least; None if none is logged."""
    logged = values[np.isfinite(values)]
    return tidy(float(logged[-max(1, -(-len(logged) // 10)) :].mean())) if len(logged) else None


# Rows of the CSV files.


def profile_rows(found: Profiles) -> list[dict[str, object]]:
    """One row per arm and threshold."""
    return [
        {"arm": one.arm, "threshold": threshold, "mean": mean, "low": low, "high": high, "num_seeds": one.num_seeds}
        for one in found.series
        for threshold, mean, low, high in zip(found.thresholds, one.mean, one.low, one.high, strict=True)
    ]
