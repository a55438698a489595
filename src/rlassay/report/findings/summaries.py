"""Summaries of each arm: IQM, seed variance, area under the learning curve, tokens per point."""

import numpy as np

from rlassay.report.content import Comparison
from rlassay.report.findings.records import ArmSummary
from rlassay.report.gather import PolicyRow, Results
from rlassay.report.numbers import Estimate
from rlassay.report.read.scores import column_or_nan
from rlassay.report.tables import SeedScores, over_seeds, primary_column, scores_of, tidy, value_limits
from rlassay.stats import iqm


def build_summaries(results: Results, gains: list[Comparison], confidence: float) -> list[ArmSummary]:
    """One per arm with a finished run."""
    found: list[ArmSummary] = []
    for gain in gains:
        row = results.rows[gain.arm]
        if row.policies:
            column = primary_column(results)
            scores, limits = scores_of(results, row, column), value_limits(results, column.metric)
            found.append(
                ArmSummary(
                    arm=row.key,
                    iqm=_iqm(scores, confidence, limits),
                    seed_share=seed_share(scores),
                    curve_area=_curve_area(results, row, confidence, limits),
                    tokens=_tokens(results, row),
                    tokens_per_point=tokens_per_point(_tokens(results, row), gain) if column.unit == "share" else None,
                )
            )
    return found


def seed_share(scores: SeedScores) -> float | None:
    """Share of the variance that comes from seeds, `V_a / (V_a + V_b)`; None with one seed or prompt.

    `V_a = var(seed means) / S` and `V_b = var(prompt means) / I`, as in `rlassay.stats.intervals`: where it is large,
    more seeds narrow the interval, where it is small, more prompts do.
    """
    complete = scores[:, ~np.isnan(scores).any(axis=0)]
    num_seeds, num_items = complete.shape
    if num_seeds < 2 or num_items < 2:
        return None
    of_seeds = float(complete.mean(axis=1).var(ddof=1)) / num_seeds
    of_items = float(complete.mean(axis=0).var(ddof=1)) / num_items
    return tidy(of_seeds / (of_seeds + of_items)) if of_seeds + of_items > 0 else None


def tokens_per_point(tokens: int, gain: Comparison) -> Estimate | None:
    """Training tokens per percentage point gained over the run's start; None without a gain.

    The ends of the interval come from those of the gain; the upper one is null where the gain may be 0.
    """
    found = gain.difference
    if found is None or found.effect is None or found.effect <= 0:
        return None
    low, high = (None if end is None or end <= 0 else tokens / (100 * end) for end in (found.high, found.low))
    return Estimate(
        mean=tidy(tokens / (100 * found.effect)),
        low=None if low is None else tidy(low),
        high=None if high is None else tidy(high),
        num_seeds=found.num_seeds,
        num_items=found.num_items,
        covers=found.covers,
    )


def _iqm(scores: SeedScores, confidence: float, limits: tuple[float, float] | None) -> Estimate:
    """The interquartile mean over the prompts of each seed, with Student's interval over the seeds."""
    values = np.array([iqm(line) for line in scores])
    return over_seeds(values, int((~np.isnan(scores)).any(axis=0).sum()), confidence, limits)


def _curve_area(
    results: Results, row: PolicyRow, confidence: float, limits: tuple[float, float] | None
) -> Estimate | None:
    """Mean of the primary metric over the steps, on training prompts.

    That is the area under its curve, per step.
    """
    metric = f"rewards/{results.study.primary.metric}/mean"
    curves = [column_or_nan(results.metrics[folder], metric) for folder in row.folders.values()]
    if any(not np.isfinite(curve).any() for curve in curves):
        return None
    means = np.array([float(np.nanmean(curve)) for curve in curves])
    counts = [float(column_or_nan(results.rollouts[folder], "completions").sum()) for folder in row.folders.values()]
    return over_seeds(means, int(sum(counts)), confidence, limits)


def _tokens(results: Results, row: PolicyRow) -> int:
    """Mean number of tokens that a run of the arm sampled in training."""
    counts = [int(results.manifests[folder]["generated_tokens"]) for folder in row.folders.values()]
    return round(sum(counts) / len(counts))
