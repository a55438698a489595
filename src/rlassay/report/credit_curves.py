"""Learning curves of token credit: attention by layers, selected tokens, trajectory scaling."""

import numpy as np
import pandas as pd

from rlassay.report.gather import Results
from rlassay.report.numbers import CurveGroup, Unit

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
