"""The reward taken apart: what each one measured and what it added to the sum, observers included."""

import numpy as np
import pandas as pd

from rlassay.report.estimates import DECIMALS, over_seeds
from rlassay.report.evidence import RewardPart
from rlassay.report.gather import Results, Row
from rlassay.report.numbers import Estimate


def build_reward_parts(results: Results, confidence: float) -> list[RewardPart]:
    """One part per arm and reward, in the study's order; arms without a finished run are left out."""
    return [
        _part(results, results.rows[name], reward, confidence)
        for name, arm in results.study.arms.items()
        for reward in arm.recipe.rewards
        if results.rows[name].policies
    ]


def _part(results: Results, row: Row, reward: str, confidence: float) -> RewardPart:
    weight = results.study.arms[row.key].recipe.rewards[reward].weight
    runs = [results.rollouts[folder] for folder in row.folders.values()]
    first, last = [_sums(run.head(_tenth(run))) for run in runs], [_sums(run.tail(_tenth(run))) for run in runs]
    whole = [_sums(run) for run in runs]
    judged, completions = (sum(sums[name] for sums in whole) for name in (f"judged.{reward}", "completions"))
    raw, added = (f"raw.{reward}", f"judged.{reward}"), (f"weighted.{reward}", "completions")
    return RewardPart(
        arm=row.key,
        reward=reward,
        role="trained" if weight else "observer",
        weight=weight,
        first=_mean(first, raw, confidence),
        last=_mean(last, raw, confidence),
        weighted_last=_mean(last, added, confidence),
        not_judged=round(1 - judged / completions, DECIMALS),
    )


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
