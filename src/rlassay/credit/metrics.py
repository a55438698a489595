"""Credit metrics of a generation batch, under the names of TSYJ-He/Visual-Reweighting (MTRL).

A mean without values (no token was rejected, no completion has an image) is left out, never NaN.
"""

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from rlassay.credit.parts import defined_signal
from rlassay.credit.token_signals import TokenSignals
from rlassay.signals.formulas import IMAGE_SIGNALS, mean_perception

TOKEN_FRACTIONS = {
    "entropy_filter": "entropy_token_fraction",
    "perception_filter": "perception_token_fraction",
    "covariance_filter": "covariance_token_fraction",
    "random_filter": "random_token_fraction",
}
"""The metric of each filter of `CREDITS`."""


def weight_metrics(
    weights_BT: Float[Tensor, "batch time"], selected_BT: Bool[Tensor, "batch time"], signals: TokenSignals
) -> dict[str, float]:
    """`credit_weight_mean` and `combined_token_fraction`, over the completion tokens of the batch."""
    mask_BT = signals.completion_mask.bool()
    return _means(credit_weight_mean=weights_BT[mask_BT], combined_token_fraction=selected_BT[mask_BT])


def filter_metrics(
    name: str, kept_BT: Bool[Tensor, "batch time"], applies_B: Bool[Tensor, "batch"], signals: TokenSignals
) -> dict[str, float]:
    """Share of tokens that a filter keeps, over the completions it applies to.

    For `perception_filter` also its threshold, and the mean perception of selected and of rejected tokens.
    """
    counted_BT = signals.completion_mask.bool() & applies_B[:, None]
    metrics = _means(**{TOKEN_FRACTIONS[name]: kept_BT[counted_BT]})
    if name == "perception_filter":
        perception_BT = signals.named("perception")
        measured_BT = counted_BT & ~torch.isnan(perception_BT)
        selected, rejected = perception_BT[measured_BT & kept_BT], perception_BT[measured_BT & ~kept_BT]
        metrics |= _means(low_var_kl_mean_selected=selected, low_var_kl_mean_rejected=rejected)
        metrics |= {"low_var_kl_threshold": selected.min().item()} if len(selected) else {}
    return metrics


def penalty_metrics(penalty_BT: Float[Tensor, "batch time"], signals: TokenSignals) -> dict[str, float]:
    """`penalised_token_fraction`, over the completion tokens of the batch."""
    return _means(penalised_token_fraction=(penalty_BT > 0)[signals.completion_mask.bool()])


def scale_metrics(scale_B: Float[Tensor, "batch"], applies_B: Bool[Tensor, "batch"]) -> dict[str, float]:
    """`scaling_factor_mean` and `dynamic_scaling_max`, over the completions that the part applies to."""
    scales = scale_B[applies_B]
    return _means(scaling_factor_mean=scales) | ({"dynamic_scaling_max": scales.max().item()} if len(scales) else {})


def signal_metrics(signals: TokenSignals, needed: frozenset[str]) -> dict[str, float]:
    """`unmeasured_token_fraction`, `no_image_fraction` and `sensitivity_score_mean`.

    The last two only where a part needs a signal of the image.
    """
    metrics: dict[str, float] = {}
    mask_BT = signals.completion_mask.bool()
    if needed & IMAGE_SIGNALS:
        metrics |= _means(no_image_fraction=~signals.has_image_B)
    if "perception" in needed:
        means_B = mean_perception(defined_signal(signals, "perception"), signals.completion_mask)
        metrics |= _means(sensitivity_score_mean=means_B[~torch.isnan(means_B)])
    if needed:
        missing_BT = torch.stack([_is_missing(signals, name) for name in sorted(needed)]).any(dim=0)
        metrics |= _means(unmeasured_token_fraction=missing_BT[mask_BT])
    return metrics


def _is_missing(signals: TokenSignals, name: str) -> Bool[Tensor, "batch time"]:
    """Tokens that lack a signal they should have; without an image, no signal of the image is expected."""
    expected_B = signals.has_image_B if name in IMAGE_SIGNALS else torch.ones_like(signals.has_image_B)
    return expected_B[:, None] & torch.isnan(signals.named(name))


def _means(**values: Shaped[Tensor, "_"]) -> dict[str, float]:
    return {name: each.float().mean().item() for name, each in values.items() if len(each)}
