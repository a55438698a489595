"""The reward taken apart: what each one measured and what it added to the sum, observers included."""

import numpy as np
import pandas as pd

from rlassay.report.estimates import DECIMALS, over_seeds, tidy
from rlassay.report.evidence import RewardPart
from rlassay.report.gather import Results, Row
from rlassay.report.numbers import Estimate
from rlassay.rewards import MOSTLY_SILENT
from rlassay.rewards.outcomes import FAILURE_KINDS


def build_reward_parts(results: Results, confidence: float) -> list[RewardPart]:
    """One part per arm and reward, in the study's order; arms without a finished run are left out."""
    return [
        _part(results, results.rows[name], reward, confidence)
        for name, arm in results.study.arms.items()
        for reward in arm.recipe.rewards
        if results.rows[name].policies
    ]


def _part(results: Results, row: Row, reward: str, confidence: float) -> RewardPart:
    recipe = results.study.arms[row.key].recipe
    phases = recipe.weight_phases[reward]
    trained = any(weight for _, weight in phases)
    runs = [results.rollouts[folder] for folder in row.folders.values()]
    first, last = [_sums(run.head(_tenth(run))) for run in runs], [_sums(run.tail(_tenth(run))) for run in runs]
    whole = [_sums(run) for run in runs]
    judged, completions = (sum(sums[name] for sums in whole) for name in (f"judged.{reward}", "completions"))
    rewards = list(recipe.rewards)
    others = [*(other for other in rewards if other != reward), "length"]
    same = _logged(results, row, f"rewards/{reward}/frac_zero_std")
    raw, added = (f"raw.{reward}", f"judged.{reward}"), (f"weighted.{reward}", "completions")
    return RewardPart(
        arm=row.key,
        reward=reward,
        role="trained" if trained else "observer",
        weight=phases[-1][1],
        phases=phases,
        first=_mean(first, raw, confidence),
        last=_mean(last, raw, confidence),
        weighted_last=_mean(last, added, confidence),
        not_judged=round(1 - judged / completions, DECIMALS),
        failed=_failures(whole, reward),
        same_in_group=same,
        silent=trained and same is not None and same > MOSTLY_SILENT,
        correlations={other: _logged(results, row, _pair(reward, other, rewards)) for other in others},
    )


def _failures(runs: list[dict[str, float]], reward: str) -> dict[str, int]:
    counts = {kind: sum(sums.get(f"failed.{reward}.{kind}", 0.0) for sums in runs) for kind in FAILURE_KINDS}
    return {kind: int(count) for kind, count in counts.items() if count}


def _pair(reward: str, other: str, rewards: list[str]) -> str:
    """The metric that holds the correlation of two rewards, which is logged under the earlier one."""
    first, second = (other, reward) if other in rewards[: rewards.index(reward)] else (reward, other)
    return f"rewards/{first}/correlation/{second}"


def _logged(results: Results, row: Row, metric: str) -> float | None:
    """The mean of a metric over steps and seeds, without those where it was not defined."""
    runs = [results.metrics[folder] for folder in row.folders.values() if metric in results.metrics[folder]]
    values = np.concatenate([run[metric].to_numpy(dtype=float) for run in runs]) if runs else np.empty(0)
    defined = values[~np.isnan(values)]
    return tidy(float(defined.mean())) if len(defined) else None


def _tenth(run: pd.DataFrame) -> int:
    """A tenth of the generation batches, at least one."""
    return -(-len(run) // 10)


def _sums(part: pd.DataFrame) -> dict[str, float]:
    return {str(name): float(part[name].to_numpy(dtype=float).sum()) for name in part.columns}


def _mean(parts: list[dict[str, float]], ratio: tuple[str, str], confidence: float) -> Estimate:
    """Sum over count of every seed, and the interval over the seeds."""
    total, count = ratio
    values = np.array([sums[total] / sums[count] if sums[count] else np.nan for sums in parts])
    return over_seeds(values, int(parts[0]["completions"]), confidence)
