"""Learning curves: each logged metric over training, as the mean over an arm's seeds with a band."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from jaxtyping import Float

from rlassay.report.gather import Results, Row
from rlassay.report.numbers import Curve, CurveGroup, Series, Unit
from rlassay.report.tables import tidy
from rlassay.stats import seed_band

# MERGED FROM report.credit_curves: Learning curves of token credit: attention by layers, selected tokens,
# trajectory scaling.

MEASURES = {
    "mdi": "text over image (MDI)",
    "mdi_balance": "balance of MDI",
    "aei_text": "efficiency of text (AEI)",
    "aei_vision": "efficiency of image (AEI)",
}
LAYERS = ("early", "middle", "late")
SCALE_SPREAD = "scale_spread"
"""Column of the rollouts, and metric: deviation of the factors of trajectory scaling within a step."""
SHORTCOMINGS = ("no_image_fraction", "unmeasured_token_fraction")
"""Metrics that are worth a figure only where they are not 0 throughout."""

CREDIT_CURVES: dict[CurveGroup, dict[str, tuple[str, Unit]]] = {
    "attention": {f"attention/all/{measure}": (title, "value") for measure, title in MEASURES.items()},
    "layers": {
        f"attention/{part}/{measure}": (f"{title}, {part}", "value")
        for measure, title in MEASURES.items()
        for part in LAYERS
    },
    "selection": {
        "entropy_token_fraction": ("tokens selected by entropy", "share"),
        "perception_token_fraction": ("tokens selected by perception", "share"),
        "random_token_fraction": ("tokens selected at random", "share"),
        "combined_token_fraction": ("tokens selected in all", "share"),
        "credit_weight_mean": ("mean credit weight", "value"),
        "sensitivity_score_mean": ("perception per token", "nats"),
        "low_var_kl_mean_selected": ("perception where selected", "nats"),
        "low_var_kl_mean_rejected": ("perception elsewhere", "nats"),
    },
    "scaling": {
        "scaling_factor_mean": ("trajectory scale, mean", "value"),
        "dynamic_scaling_max": ("trajectory scale, largest", "value"),
        SCALE_SPREAD: ("trajectory scale, spread", "value"),
        "no_image_fraction": ("completions without an image", "share"),
        "unmeasured_token_fraction": ("tokens that lack a signal", "share"),
    },
}
"""Part of the section -> metric -> title and unit."""


def credit_metrics(results: Results) -> dict[str, pd.DataFrame]:
    """The metrics of every run, with the spread of its trajectory scaling, and without shortcomings that it has not."""
    return {folder: _metrics(metrics, results.rollouts.get(folder)) for folder, metrics in results.metrics.items()}


def _metrics(metrics: pd.DataFrame, rollouts: pd.DataFrame | None) -> pd.DataFrame:
    absent = [name for name in SHORTCOMINGS if name in metrics and not np.nansum(metrics[name].to_numpy(dtype=float))]
    metrics = metrics.drop(columns=absent)
    return metrics.join(rollouts[[SCALE_SPREAD]]) if rollouts is not None and SCALE_SPREAD in rollouts else metrics


# MERGED FROM report.curves: Learning curves: each logged metric over training, as the mean over an arm's seeds
# with a band.

MAX_POINTS = 200
"""Points per curve; the steps of a longer run are averaged over equal stretches."""
LENGTHS: dict[str, tuple[str, Unit]] = {
    "completions/mean_length": ("completion length", "tokens"),
    "completions/clipped_ratio": ("truncated", "share"),
}
POLICY: dict[str, tuple[str, Unit]] = {
    "entropy": ("entropy per token", "nats"),
    "kl": ("KL from the start", "nats"),
    "frac_reward_zero_std": ("groups without a signal", "share"),
    "loss": ("loss", "value"),
    "grad_norm": ("gradient norm", "value"),
}


def build_curves(results: Results, confidence: float) -> list[Curve]:
    """The curves in the order of the page; a metric that no run logged is left out."""
    return [curve for curve in _curves(results, confidence) if curve.series]


def _curves(results: Results, confidence: float) -> Iterator[Curve]:
    shown: dict[str, tuple[str, Unit]] = {"reward": ("weighted sum of rewards", "value")}
    shown |= {f"rewards/{name}/mean": (name.replace("_", " "), "value") for name in results.study.rewards}
    of_custom = {metric for frame in results.metrics.values() for metric in frame.columns if "/metrics/" in metric}
    shown |= {metric: (metric.removeprefix("rewards/").replace("_", " "), "value") for metric in sorted(of_custom)}
    shown |= {"reward_std": ("spread within groups", "value")}
    groups: dict[CurveGroup, dict[str, tuple[str, Unit]]] = {"reward": shown, "length": LENGTHS, "policy": POLICY}
    logged = credit_metrics(results)
    for group, metrics in (groups | CREDIT_CURVES).items():
        for metric, (title, unit) in metrics.items():
            arms = [row for row in results.rows.values() if row.kind == "arm"]
            series = tuple(_series(logged, row, metric, confidence) for row in arms if _logged(logged, row, metric))
            yield Curve(metric=metric, title=title, unit=unit, group=group, series=series)


def _logged(logged: dict[str, pd.DataFrame], row: Row, metric: str) -> bool:
    return any(metric in logged[folder] and logged[folder][metric].notna().any() for folder in row.folders.values())


def _series(logged: dict[str, pd.DataFrame], row: Row, metric: str, confidence: float) -> Series:
    runs = [logged[folder][metric] for folder in row.folders.values() if metric in logged[folder]]
    values = pd.concat(runs, axis=1).sort_index().dropna(how="all")
    steps = values.index.to_numpy(dtype=int)
    stretches = np.array_split(np.arange(len(steps)), min(MAX_POINTS, len(steps)))
    band = seed_band(_averaged(values.to_numpy(dtype=float).T, stretches), confidence)
    return Series(
        arm=row.key,
        num_seeds=len(runs),
        steps=tuple(int(steps[stretch[-1]]) for stretch in stretches),
        mean=tuple(tidy(value) for value in band.mean),
        low=tuple(tidy(value) for value in band.low),
        high=tuple(tidy(value) for value in band.high),
    )


def _averaged(
    values: Float[np.ndarray, "seeds steps"], stretches: list[np.ndarray]
) -> Float[np.ndarray, "seeds points"]:
    """Each seed's mean over each stretch of steps; NaN where it logged none of them."""
    sums = np.stack([np.nansum(values[:, stretch], axis=1) for stretch in stretches], axis=1)
    counts = np.stack([(~np.isnan(values[:, stretch])).sum(axis=1) for stretch in stretches], axis=1)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
