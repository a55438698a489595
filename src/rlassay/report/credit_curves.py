"""Learning curves of token credit: attention by layers, selected tokens, trajectory scaling."""

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
        "combined_token_fraction": ("tokens selected by either", "share"),
        "sensitivity_score_mean": ("perception per token", "nats"),
        "low_var_kl_mean_selected": ("perception where selected", "nats"),
        "low_var_kl_mean_rejected": ("perception elsewhere", "nats"),
    },
    "scaling": {
        "scaling_factor_mean": ("trajectory scale, mean", "value"),
        "dynamic_scaling_max": ("trajectory scale, upper end", "value"),
        SCALE_SPREAD: ("trajectory scale, spread", "value"),
    },
}
"""Part of the section -> metric -> title and unit."""


def with_scale_spread(results: Results) -> dict[str, pd.DataFrame]:
    """The metrics of every run, with the spread of its trajectory scaling where its rollouts hold the factors."""
    found = {folder: results.rollouts.get(folder, pd.DataFrame()) for folder in results.metrics}
    return {
        folder: metrics.join(found[folder][[SCALE_SPREAD]]) if SCALE_SPREAD in found[folder] else metrics
        for folder, metrics in results.metrics.items()
    }
