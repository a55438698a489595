"""What to log about the credit of a generation batch, under the names of TSYJ-He/Visual-Reweighting (MTRL).

A mean over nothing (no token was rejected, no completion has an image) is left out, never NaN.
"""

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from rlassay.credit.parts import OF_THE_IMAGE, TokenSignals, seen
from rlassay.credit.sensitivity import mean_perception

TOKEN_FRACTIONS = {
    "entropy_filter": "entropy_token_fraction",
    "perception_filter": "perception_token_fraction",
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
    name: str, kept_BT: Bool[Tensor, "batch time"], judged_B: Bool[Tensor, "batch"], signals: TokenSignals
) -> dict[str, float]:
    """Share of tokens that one filter keeps of the completions that it judges; of perception also where it cuts."""
    judged_BT = signals.completion_mask.bool() & judged_B[:, None]
    found = _means(**{TOKEN_FRACTIONS[name]: kept_BT[judged_BT]})
    if name == "perception_filter":
        perception_BT = signals.named("perception")
        measured_BT = judged_BT & ~torch.isnan(perception_BT)
        selected, rejected = perception_BT[measured_BT & kept_BT], perception_BT[measured_BT & ~kept_BT]
        found |= _means(low_var_kl_mean_selected=selected, low_var_kl_mean_rejected=rejected)
        found |= {"low_var_kl_threshold": selected.min().item()} if len(selected) else {}
    return found


def scale_metrics(scale_B: Float[Tensor, "batch"], judged_B: Bool[Tensor, "batch"]) -> dict[str, float]:
    """`scaling_factor_mean` and `dynamic_scaling_max`, over the completions that are judged."""
    scales = scale_B[judged_B]
    return _means(scaling_factor_mean=scales) | ({"dynamic_scaling_max": scales.max().item()} if len(scales) else {})


def signal_metrics(signals: TokenSignals, needed: frozenset[str]) -> dict[str, float]:
    """What was measured: `unmeasured_token_fraction`, `no_image_fraction` and `sensitivity_score_mean`.

    The last two only where a part needs a signal of the image.
    """
    found: dict[str, float] = {}
    mask_BT = signals.completion_mask.bool()
    if needed & OF_THE_IMAGE:
        found |= _means(no_image_fraction=~signals.has_image_B)
    if "perception" in needed:
        means_B = mean_perception(seen(signals, "perception"), signals.completion_mask)
        found |= _means(sensitivity_score_mean=means_B[~torch.isnan(means_B)])
    if needed:
        missing_BT = torch.stack([_is_missing(signals, name) for name in sorted(needed)]).any(dim=0)
        found |= _means(unmeasured_token_fraction=missing_BT[mask_BT])
    return found


def _is_missing(signals: TokenSignals, name: str) -> Bool[Tensor, "batch time"]:
    """Tokens without a signal that they should have: those without an image need none of the image."""
    expected_B = signals.has_image_B if name in OF_THE_IMAGE else torch.ones_like(signals.has_image_B)
    return expected_B[:, None] & torch.isnan(signals.named(name))


def _means(**values: Shaped[Tensor, "_"]) -> dict[str, float]:
    return {name: each.float().mean().item() for name, each in values.items() if len(each)}
