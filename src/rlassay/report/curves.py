# pyright: basic
# Aligns metrics by step with pandas, which ships no types.
"""Build the learning curves: each logged metric over training, averaged over seeds, with a band."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from jaxtyping import Float

from rlassay.models.vllm_engine import SAMPLER_GAP
from rlassay.names import in_words
from rlassay.report.gather import PolicyRow, Results
from rlassay.report.numbers import Curve, CurveGroup, Series, Unit
from rlassay.report.tables import SHARE_LIMITS, cut_at_0, tidy, value_limits
from rlassay.stats import seed_band

ATTENTION_METRICS = {
    "mdi": "text over image (MDI)",
    "mdi_balance": "balance of MDI",
    "aei_text": "efficiency of text (AEI)",
    "aei_vision": "efficiency of image (AEI)",
}
LAYERS = ("early", "middle", "late")
SCALE_SPREAD = "scale_spread"
"""Column of the rollouts: standard deviation of the scaling factors within a step. It is shown as a metric."""
NO_FIGURE_AT_ZERO = ("no_image_fraction", "unmeasured_token_fraction")
"""Metrics that get no figure if they are 0 throughout."""

CREDIT_CURVES: dict[CurveGroup, dict[str, tuple[str, Unit]]] = {
    "document": {
        f"attention/{part}/attended_tokens": (f"document tokens attended to, {part}", "tokens") for part in LAYERS
    },
    "attention": {f"attention/all/{name}": (title, "value") for name, title in ATTENTION_METRICS.items()},
    "layers": {
        f"attention/{part}/{name}": (f"{title}, {part}", "value")
        for name, title in ATTENTION_METRICS.items()
        for part in LAYERS
    },
    "selection": {
        "entropy_token_fraction": ("tokens selected by entropy", "share"),
        "perception_token_fraction": ("tokens selected by perception", "share"),
        "covariance_token_fraction": ("tokens kept by covariance", "share"),
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
"""Curves of token credit: group -> metric -> title and unit."""
MAX_POINTS = 200
"""Points per curve; a longer run is averaged over equal spans of steps."""
LENGTH_METRICS: dict[str, tuple[str, Unit]] = {
    "completions/mean_length": ("completion length", "tokens"),
    "completions/clipped_ratio": ("truncated", "share"),
}
POLICY_METRICS: dict[str, tuple[str, Unit]] = {
    "entropy": ("entropy per token", "nats"),
    "kl": ("KL from the policy before RL", "nats"),
    "frac_reward_zero_std": ("groups with zero reward variance", "share"),
    SAMPLER_GAP: ("gap between vLLM and the trainer, per token", "nats"),
    "loss": ("loss", "value"),
    "grad_norm": ("gradient norm", "value"),
}


def build_curves(results: Results, confidence: float) -> list[Curve]:
    """The curves in the order of the page, for every metric that a run logged."""
    return [curve for curve in _curves(results, confidence) if curve.series]


def _curves(results: Results, confidence: float) -> Iterator[Curve]:
    shown: dict[str, tuple[str, Unit]] = {"reward": ("weighted sum of rewards", "value")}
    shown |= {f"rewards/{name}/mean": (in_words(name), "value") for name in results.study.rewards}
    of_custom = {metric for frame in results.metrics.values() for metric in frame.columns if "/metrics/" in metric}
    shown |= {metric: (in_words(_evaluated(metric)), "value") for metric in sorted(of_custom)}
    shown |= {"reward_std": ("spread within groups", "value")}
    groups: dict[CurveGroup, dict[str, tuple[str, Unit]]] = {
        "reward": shown,
        "length": LENGTH_METRICS,
        "policy": POLICY_METRICS,
    }
    logged, overall = credit_metrics(results), list[tuple[Series, ...]]()
    for group, metrics in (groups | CREDIT_CURVES).items():
        for metric, (title, unit) in metrics.items():
            arms = [row for row in results.rows.values() if row.kind == "arm"]
            limits = SHARE_LIMITS if unit == "share" else value_limits(results, _evaluated(metric))
            series = tuple(
                _series(logged, row, metric, limits, confidence) for row in arms if _logged(logged, row, metric)
            )
            if group == "attention":
                overall.append(series)
            elif group == "layers" and series in overall:
                continue  # with few layers a third may be all of them
            yield Curve(metric=metric, title=title, unit=unit, group=group, series=series)


def _evaluated(metric: str) -> str:
    """The evaluation's key for a logged metric of a reward: `<reward>` or `<reward>/<metric>`."""
    return metric.removeprefix("rewards/").removesuffix("/mean").replace("/metrics/", "/")


def _logged(logged: dict[str, pd.DataFrame], row: PolicyRow, metric: str) -> bool:
    return any(metric in logged[folder] and logged[folder][metric].notna().any() for folder in row.folders.values())


def _series(
    logged: dict[str, pd.DataFrame],
    row: PolicyRow,
    metric: str,
    limits: tuple[float, float] | None,
    confidence: float,
) -> Series:
    runs = [logged[folder][metric] for folder in row.folders.values() if metric in logged[folder]]
    values = pd.concat(runs, axis=1).sort_index().dropna(how="all")
    steps = values.index.to_numpy(dtype=int)
    spans = np.array_split(np.arange(len(steps)), min(MAX_POINTS, len(steps)))
    band = seed_band(_averaged(values.to_numpy(dtype=float).T, spans), confidence, limits)
    return Series(
        arm=row.key,
        num_seeds=len(runs),
        steps=tuple(int(steps[span[-1]]) for span in spans),
        mean=tuple(tidy(value) for value in band.mean),
        low=tuple(tidy(value) for value in cut_at_0(metric, band.mean, band.low)),
        high=tuple(tidy(value) for value in band.high),
    )


def _averaged(values: Float[np.ndarray, "seeds steps"], spans: list[np.ndarray]) -> Float[np.ndarray, "seeds points"]:
    """Mean of each seed over each span of steps; NaN where it logged none of them."""
    sums = np.stack([np.nansum(values[:, span], axis=1) for span in spans], axis=1)
    counts = np.stack([(~np.isnan(values[:, span])).sum(axis=1) for span in spans], axis=1)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def credit_metrics(results: Results) -> dict[str, pd.DataFrame]:
    """Metrics of every run, without `NO_FIGURE_AT_ZERO` metrics at 0.

    They include the spread of its scaling factors.
    """
    return {folder: _metrics(metrics, results.rollouts.get(folder)) for folder, metrics in results.metrics.items()}


def _metrics(metrics: pd.DataFrame, rollouts: pd.DataFrame | None) -> pd.DataFrame:
    absent = [
        name for name in NO_FIGURE_AT_ZERO if name in metrics and not np.nansum(metrics[name].to_numpy(dtype=float))
    ]
    metrics = metrics.drop(columns=absent)
    return metrics.join(rollouts[[SCALE_SPREAD]]) if rollouts is not None and SCALE_SPREAD in rollouts else metrics
