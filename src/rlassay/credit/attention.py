"""Token weights from attention: tokens that were read off the image count more."""

import math

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

NOT_ZERO = 1e-6
"""Added to a dominance before it divides."""


def attention_weights(
    dominance_BT: Float[Tensor, "batch time"],
    completion_mask: Shaped[Tensor, "batch time"],
    clip: tuple[float, float] = (0.2, 3.0),
    sigma: float = 0.0,
    smooth_first: bool = False,
) -> Float[Tensor, "batch time"]:
    """Weights `1 / (dominance + 1e-6)` with mean 1 within each completion; 0 outside it.

    In this order: divided by their mean, clipped, smoothed over neighbouring tokens with `sigma` > 0, divided by their
    mean again (which may lead a little out of `clip`). With `smooth_first`, as in the source: smoothed, divided by
    their mean, clipped, and left at whatever mean that gives.

    A token whose dominance is NaN or negative counts as an average one. An infinite dominance gives the smallest
    weight. A completion whose weights would all be 0 gets weights of 1. Multiplying all dominances by a constant
    changes nothing, apart from the 1e-6.

    Args:
        dominance_BT: (B, T), attention density on text over that on the image, ratio.
        completion_mask: (B, T), 1 where a completion has a token.
        clip: smallest and largest weight around 1; else ValueError.
        sigma: width of the Gaussian in tokens; 0 does not smooth.
        smooth_first: the source's order.

    Source: JuncyLu/trl_DAPO, `attention_token_weights.py`; the default order is its README's, the other its code's,
    which then divides by the sum and so shrinks the gradient by the number of tokens.
    """
    low, high = clip
    if not 0 <= low <= 1 <= high:
        raise ValueError(f"clip: got {clip}, expected 0 <= smallest <= 1 <= largest")
    valid_BT = completion_mask.bool()
    usable_BT = valid_BT & (dominance_BT >= 0)
    weights_BT = _mean_one(torch.where(usable_BT, 1 / (dominance_BT + NOT_ZERO), 0.0), usable_BT)
    weights_BT = torch.where(usable_BT, weights_BT, 1.0)
    if smooth_first:
        return torch.where(valid_BT, _mean_one(_smooth(weights_BT, valid_BT, sigma), valid_BT).clamp(low, high), 0.0)
    return _mean_one(_smooth(weights_BT.clamp(low, high), valid_BT, sigma), valid_BT)


def cap_at_quantile(
    weights_BT: Float[Tensor, "batch time"], completion_mask: Shaped[Tensor, "batch time"], quantile: float
) -> Float[Tensor, "batch time"]:
    """Weights held at or below a quantile, in [0, 1], of their own completion's weights; the mean falls.

    Source: JuncyLu/trl_DAPO, whose quantile (.95) also counts padding.
    """
    counted_BT = torch.where(completion_mask.bool(), weights_BT, torch.nan)
    ceiling_B = torch.nanquantile(counted_BT, quantile, dim=1)
    return torch.where(completion_mask.bool(), weights_BT.minimum(ceiling_B[:, None]), weights_BT)


def _mean_one(
    weights_BT: Float[Tensor, "batch time"], valid_BT: Bool[Tensor, "batch time"]
) -> Float[Tensor, "batch time"]:
    """Weights over their mean on the valid tokens, 0 on others; 1 where that mean is 0."""
    means_B1 = torch.where(valid_BT, weights_BT, 0.0).sum(dim=1, keepdim=True) / valid_BT.sum(dim=1, keepdim=True)
    scaled_BT = torch.where(means_B1 > 0, weights_BT / means_B1, 1.0)
    return torch.where(valid_BT, scaled_BT, 0.0)


def _smooth(
    weights_BT: Float[Tensor, "batch time"], valid_BT: Bool[Tensor, "batch time"], sigma: float
) -> Float[Tensor, "batch time"]:
    """A Gaussian mean over neighbours; the first and last valid token stand in for those beyond.

    Half width max(1, int(3 sigma)); completions of up to two tokens stay as they are.
    """
    if sigma == 0:
        return weights_BT
    count_B1 = valid_BT.sum(dim=1, keepdim=True)
    order_BT = valid_BT.int().argsort(dim=1, descending=True, stable=True)  # valid tokens first, in their own order
    in_order_BT = weights_BT.gather(1, order_BT)
    place_1T = torch.arange(weights_BT.shape[1], device=weights_BT.device)[None]
    half = max(1, int(3 * sigma))
    kernel = {offset: math.exp(-0.5 * (offset / sigma) ** 2) for offset in range(-half, half + 1)}
    smooth_BT = torch.zeros_like(weights_BT)
    for offset, height in kernel.items():
        neighbour_BT = (place_1T + offset).clamp(min=0).minimum((count_B1 - 1).clamp(min=0))
        smooth_BT = smooth_BT + height / sum(kernel.values()) * in_order_BT.gather(1, neighbour_BT)
    return torch.where(count_B1 > 2, torch.zeros_like(weights_BT).scatter(1, order_BT, smooth_BT), weights_BT)
