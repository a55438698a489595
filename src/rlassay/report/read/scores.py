# pyright: basic
# pandas and pyarrow ship no types; results of public functions are typed.
"""Read a policy's scores, and those of a run in the middle of training."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from jaxtyping import Float

from rlassay.files import sha256
from rlassay.records import SCORED
from rlassay.stats import are_shares, pass_at_k

DISAGREEMENT = "grading_disagreement"
"""Share of completions that the strict and the lenient parser score differently."""
SCORE_COLUMNS = ["prompt_id", "mode", "sample", "metric", "value"]


@dataclass(frozen=True, kw_only=True)
class PolicyScores:
    """Scores of one policy on one evaluation set, averaged over the samples of each prompt."""

    means: pd.DataFrame
    """One row per prompt, sorted by prompt_id; columns (mode, metric); NaN = no sample has a score."""
    counts: pd.DataFrame
    """Scored samples behind each mean, in the same shape."""
    binary: frozenset[str]
    """Metrics whose every value is 0 or 1."""

    def mean_by_prompt(self, mode: str, metric: str) -> Float[np.ndarray, " items"]:
        """Mean score per prompt; NaN throughout if the policy has no such scores."""
        return _column_of(self._means, (mode, metric), len(self.means))

    def samples_by_prompt(self, mode: str, metric: str) -> Float[np.ndarray, " items"]:
        """Scored samples per prompt."""
        return np.nan_to_num(_column_of(self._counts, (mode, metric), len(self.counts)))

    def pass_at(self, mode: str, metric: str, k: int) -> Float[np.ndarray, " items"]:
        """pass@k per prompt of a metric whose values are 0 or 1; NaN with fewer than k scored samples."""
        name = (mode, metric, k)
        if name not in self._passes:
            samples = self.samples_by_prompt(mode, metric)
            right = np.nan_to_num(np.round(self.mean_by_prompt(mode, metric) * samples))
            self._passes[name] = pass_at_k(samples, right, k)
        return self._passes[name].copy()

    @cached_property
    def _passes(self) -> dict[tuple[str, str, int], Float[np.ndarray, " items"]]:
        return {}

    @cached_property
    def _means(self) -> dict[Any, Float[np.ndarray, " items"]]:
        return _columns(self.means)

    @cached_property
    def _counts(self) -> dict[Any, Float[np.ndarray, " items"]]:
        return _columns(self.counts)

    @property
    def metrics(self) -> frozenset[str]:
        """All metrics."""
        return frozenset(str(metric) for _, metric in self.counts.columns)

    def has(self, metric: str) -> bool:
        """Whether any sample has a score of this metric."""
        return bool(_of_metric(self.counts, metric).any())

    def are_shares(self, metric: str) -> bool:
        """Whether the mean scores of this metric all lie in [0, 1], as in `rlassay.stats.are_shares`."""
        return are_shares(_of_metric(self.means, metric))


def read_scores(path: Path, prompt_ids: list[str]) -> PolicyScores:
    """Scores of one policy; ValueError unless they cover exactly the prompts `prompt_ids`."""
    return _by_prompt(pq.read_table(path, columns=SCORE_COLUMNS).to_pandas(), prompt_ids)


def check_origin(path: Path, folder: str, completions: Path) -> None:
    """Raise ValueError for scores not of the policy `folder` or not of its completions.

    Files of earlier versions do not say what they score.
    """
    scored = json.loads((pq.read_schema(path).metadata or {}).get(SCORED.encode(), b"{}"))
    if (policy := scored.get("policy", folder)) != folder:
        raise ValueError(f"it has the scores of {policy}")
    if scored and scored["completions"] != sha256(completions):
        raise ValueError(f"it has the scores of other completions than those in {completions.name}")


def read_curve(path: Path, prompt_ids: list[str]) -> dict[int, PolicyScores]:
    """Step -> scores of one run in the middle of its training, ascending; ValueError as `read_scores`."""
    long = pq.read_table(path, columns=["step", *SCORE_COLUMNS]).to_pandas()
    return {int(step): _by_prompt(of_step, prompt_ids) for step, of_step in long.groupby("step")}


def _by_prompt(long: Any, prompt_ids: list[str]) -> PolicyScores:
    wide = long.pivot(index=["mode", "prompt_id", "sample"], columns="metric", values="value").astype(float)
    if {"choice_accuracy", "choice_accuracy_lenient"} <= set(wide.columns):
        strict, lenient = wide["choice_accuracy"], wide["choice_accuracy_lenient"]
        wide[DISAGREEMENT] = (strict != lenient).astype(float).where(strict.notna() & lenient.notna())
    binary = {str(metric) for metric in wide.columns if wide[metric].dropna().isin([0.0, 1.0]).all()}
    by_prompt = wide.groupby(level=["mode", "prompt_id"])
    means, counts = (_prompts_as_rows(frame) for frame in (by_prompt.mean(), by_prompt.count()))
    if list(means.index) != sorted(prompt_ids):
        raise ValueError(f"it scores {len(means)} prompts that are not the {len(prompt_ids)} prompts of the data")
    return PolicyScores(means=means, counts=counts, binary=frozenset(binary))


def _prompts_as_rows(frame: pd.DataFrame) -> pd.DataFrame:
    wide = frame.unstack("mode")
    assert isinstance(wide, pd.DataFrame)
    return wide.swaplevel(axis=1).sort_index(axis=1).sort_index()


def _of_metric(frame: pd.DataFrame, metric: str) -> Float[np.ndarray, "items modes"]:
    return frame.loc[:, frame.columns.get_level_values("metric") == metric].to_numpy(dtype=float)


def _columns(frame: pd.DataFrame) -> dict[Any, Float[np.ndarray, " rows"]]:
    """Column -> its values. Pandas is slow to look up the same columns many times."""
    return {name: frame[name].to_numpy(dtype=float) for name in frame}


def _column_of(
    columns: dict[Any, Float[np.ndarray, " rows"]], name: tuple[str, str], rows: int
) -> Float[np.ndarray, " rows"]:
    """A copy of a column; NaN throughout if there is none."""
    return columns[name].copy() if name in columns else np.full(rows, np.nan)


def column_or_nan(frame: pd.DataFrame, name: str | tuple[str, str]) -> Float[np.ndarray, " rows"]:
    """A column as floats; NaN throughout if the frame has no such column."""
    return frame[name].to_numpy(dtype=float) if name in frame else np.full(len(frame), np.nan)
