"""Formulas of token credit: pure functions of tensors that select, weight or scale.

The parts that a study names (`parts.py`) call them with the signals of a batch.
"""

import math

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from rlassay.signals.formulas import mean_perception

ROUNDING = 1e-9
"""Subtracted from `fraction * n` before rounding up. As a float, .55 of 100 tokens is 55.00000001, and should be 55."""
DOMINANCE_EPSILON = 1e-6
"""Added to a dominance before it divides."""
MIN_PERCEPTION_RANGE = 1e-6
"""Mean perceptions within this range, nats, count as equal."""
SCALE_EPSILON = 1e-8
"""Added to a mean before it divides."""


def top_fraction_mask(
    signal_BT: Float[Tensor, "batch time"], completion_mask: Shaped[Tensor, "batch time"], fraction: float
) -> Bool[Tensor, "batch time"]:
    """Select the `ceil(fraction * n)` tokens of largest signal in each completion of n tokens.

    Ties go to the earliest token. NaN is never selected, so a completion with too few measured tokens keeps fewer. A
    completion without tokens keeps none; any other keeps at least one if it has a measured token.

    Args:
        signal_BT: (B, T), any unit.
        completion_mask: (B, T), 1 where a completion has a token.
        fraction: in (0, 1]; else ValueError.

    Source: token gradient filtering of VPPO (arXiv 2510.09285).
    """
    _check_fraction(fraction)
    measured_BT = completion_mask.bool() & ~torch.isnan(signal_BT)
    kept_B = torch.ceil(fraction * completion_mask.bool().sum(dim=1, dtype=torch.float64) - ROUNDING)
    order_BT = torch.where(measured_BT, signal_BT, -torch.inf).argsort(dim=1, descending=True, stable=True)
    measured_in_order = measured_BT.gather(1, order_BT)
    kept_in_order = measured_in_order & (measured_in_order.cumsum(dim=1) <= kept_B[:, None])
    return torch.zeros_like(measured_BT).scatter(1, order_BT, kept_in_order)


def batch_quantile_mask(
    signal_BT: Float[Tensor, "batch time"], completion_mask: Shaped[Tensor, "batch time"], fraction: float
) -> Bool[Tensor, "batch time"]:
    """Select tokens whose signal reaches the batch's `1 - fraction` quantile.

    The quantile is of all measured tokens in the batch. Ties at the threshold are all selected, and a completion may
    keep no token. NaN is never selected.

    Args: as for `top_fraction_mask`.

    Source: `top_entropy_quantile` of TRL ("Beyond the 80/20 Rule", arXiv 2506.01939), which takes the quantile of a
    micro-batch; here it is the quantile of the batch given. Not `torch.quantile`, which refuses 2^24 tokens.
    """
    _check_fraction(fraction)
    measured_BT = completion_mask.bool() & ~torch.isnan(signal_BT)
    values = signal_BT[measured_BT].sort().values
    if not len(values):
        return measured_BT
    position = (1 - fraction) * (len(values) - 1)
    below = math.floor(position)
    threshold = torch.lerp(values[below], values[math.ceil(position)], position - below)
    return measured_BT & (signal_BT >= threshold)


def token_covariance(
    logps_BT: Float[Tensor, "batch time"],
    advantages_B: Float[Tensor, "batch"],
    valid_BT: Bool[Tensor, "batch time"],
) -> Float[Tensor, "batch time"]:
    """Centred advantage times centred log-probability of each valid token, 0 elsewhere.

    It is `(A - mean A) (log p - mean log p)`, with means over the valid tokens. Its mean over the valid tokens is the
    covariance of the two, to which the fall of entropy in a step is proportional.

    Args:
        logps_BT: (B, T), nats, of the sampled tokens.
        advantages_B: (B,), of the completions.
        valid_BT: (B, T), tokens to count.

    Source: "The Entropy Mechanism of Reinforcement Learning" (arXiv 2505.22617), Clip-Cov and KL-Cov.
    """
    advantages_BT = advantages_B[:, None].expand_as(logps_BT)
    of_advantages = advantages_BT - advantages_BT[valid_BT].mean()
    of_logps = logps_BT - logps_BT[valid_BT].mean()
    return torch.where(valid_BT, of_advantages * of_logps, 0.0)


def covariance_mask(
    covariance_BT: Float[Tensor, "batch time"],
    valid_BT: Bool[Tensor, "batch time"],
    draws_BT: Float[Tensor, "batch time"],
    fraction: float,
    choice: str,
    bounds: tuple[float, float] = (1.0, 5.0),
) -> Bool[Tensor, "batch time"]:
    """Select all tokens except some of large `token_covariance`, whose training makes the entropy fall.

    Args:
        covariance_BT: (B, T), see `token_covariance`.
        valid_BT: (B, T), tokens to choose from.
        draws_BT: (B, T), random draws in [0, 1).
        fraction: share of the batch's tokens to leave out, rounded down, but one at least.
        choice: leave out the `largest`, or `random` ones of those whose covariance lies strictly between the bounds.
        bounds: for `random`, in nats times the unit of advantages.

    Errors: ValueError for an option out of range.

    Source: `random` is Clip-Cov (arXiv 2505.22617; .0002, 1 and 5 in its code). `largest` takes the tokens that its
    KL-Cov penalises (see `covariance_penalty` in `parts.py`).
    """
    if choice not in ("largest", "random") or not 0 < fraction <= 1 or not bounds[0] < bounds[1]:
        raise ValueError(
            f"got fraction {fraction!r}, choice {choice!r}, bounds {bounds!r}, expected a fraction in (0, 1], the "
            "choice 'largest' or 'random', and bounds in ascending order"
        )
    candidates_BT, order_BT = valid_BT, covariance_BT
    if choice == "random":
        candidates_BT = valid_BT & (covariance_BT > bounds[0]) & (covariance_BT < bounds[1])
        # The low bits: `shuffled_weights` orders tokens by the draws, and must not find these tokens at one end.
        order_BT = (draws_BT * 2**12) % 1
    order = torch.where(candidates_BT, order_BT, -torch.inf).flatten().argsort(descending=True, stable=True)
    count = min(max(1, int(fraction * int(valid_BT.sum()) + ROUNDING)), int(candidates_BT.sum()))
    return torch.ones_like(valid_BT).flatten().index_fill(0, order[:count], value=False).view_as(valid_BT)


def inverse_dominance_weights(
    dominance_BT: Float[Tensor, "batch time"],
    completion_mask: Shaped[Tensor, "batch time"],
    clip: tuple[float, float] = (0.2, 3.0),
    sigma: float = 0.0,
    smooth_first: bool = False,
) -> Float[Tensor, "batch time"]:
    """Weights `1 / (dominance + 1e-6)` with mean 1 within each completion; 0 outside it.

    Order: divide by the mean, clip, smooth over neighbouring tokens if `sigma` > 0, divide by the mean again (which may
    exceed `clip` a little). With `smooth_first`, as in the published code: smooth, divide by the mean, clip; the mean
    is then no longer exactly 1.

    A token whose dominance is NaN or negative gets an average weight. A dominance of exactly 0, which would weigh 1e6,
    counts as 1, as in the published code. An infinite dominance gets the smallest weight. A completion whose weights
    would all be 0 gets weights of 1. Scaling all dominances changes nothing, apart from zeros and the 1e-6.

    Args:
        dominance_BT: (B, T), attention density on text over that on the image, ratio.
        completion_mask: (B, T), 1 where a completion has a token.
        clip: smallest and largest weight, around 1; else ValueError.
        sigma: width of the Gaussian in tokens; 0 does not smooth.
        smooth_first: whether to use the published code's order.

    Source: JuncyLu/trl_DAPO, `attention_token_weights.py`. The default order is that of its README. Its code uses the
    other one and then divides by the sum, which shrinks the gradient by the number of tokens.
    """
    low, high = clip
    if not 0 <= low <= 1 <= high:
        raise ValueError(f"clip: got {clip}, expected 0 <= smallest <= 1 <= largest")
    valid_BT = completion_mask.bool()
    if not sigma >= 0:
        raise ValueError(f"sigma: got {sigma!r}, expected a number of at least 0")
    usable_BT = valid_BT & (dominance_BT >= 0)
    dominance_BT = torch.where(dominance_BT == 0, 1.0, dominance_BT)
    weights_BT = _mean_one(torch.where(usable_BT, 1 / (dominance_BT + DOMINANCE_EPSILON), 0.0), usable_BT)
    weights_BT = torch.where(usable_BT, weights_BT, 1.0)
    if smooth_first:
        return torch.where(valid_BT, _mean_one(_smooth(weights_BT, valid_BT, sigma), valid_BT).clamp(low, high), 0.0)
    return _mean_one(_smooth(weights_BT.clamp(low, high), valid_BT, sigma), valid_BT)


def cap_at_quantile(
    weights_BT: Float[Tensor, "batch time"], completion_mask: Shaped[Tensor, "batch time"], quantile: float
) -> Float[Tensor, "batch time"]:
    """Cap weights at a quantile, in [0, 1], of their own completion's weights; the mean falls.

    Source: JuncyLu/trl_DAPO, whose quantile (.95) also counts padding.
    """
    counted_BT = torch.where(completion_mask.bool(), weights_BT, torch.nan)
    ceiling_B = torch.nanquantile(counted_BT, quantile, dim=1)
    return torch.where(completion_mask.bool(), weights_BT.minimum(ceiling_B[:, None]), weights_BT)


def perception_scale(
    perception_BT: Float[Tensor, "batch time"],
    completion_mask: Shaped[Tensor, "batch time"],
    min_scale: float,
    max_scale: float | None = None,
) -> Float[Tensor, "batch"]:
    """Trajectory advantage shaping: a scale per completion that grows with mean perception, 1 on average.

    `scale = min_scale + n (top - min_scale)`. n in [0, 1] is the completion's mean perception, normalised between the
    smallest and the largest of the batch. `top = min_scale + (1 - min_scale) / (mean n + 1e-8)` makes the mean scale 1.
    `max_scale` caps `top`; where it does, the mean scale is below 1 and the step is that much smaller.

    A completion without a measured token (no image, or fully masked) gets exactly 1 and does not enter the statistics.
    With fewer than two others, or with all of them within 1e-6 nats, every scale is 1.

    Args:
        perception_BT: (B, T), nats, NaN where not measured; the whole generation batch, over all processes.
        completion_mask: (B, T), 1 where a completion has a token.
        min_scale: scale of the completion with the lowest mean perception, in [0, 1]; else ValueError.
        max_scale: largest scale, at least 1 (else ValueError); None does not cap.

    Source: VPPO (arXiv 2510.09285), eq. 5. The published code takes the smallest and the largest of a process's
    mini-batch and the mean of a micro-batch, so that micro-batches of one scale nothing.
    """
    if not 0 <= min_scale <= 1 or (max_scale is not None and max_scale < 1):
        raise ValueError(f"got min_scale {min_scale!r}, max_scale {max_scale!r}, expected 0 <= min_scale <= 1 <= max")
    means_B = mean_perception(perception_BT, completion_mask)
    measured_B = ~torch.isnan(means_B)
    means = means_B[measured_B]
    if len(means) < 2 or means.max() - means.min() <= MIN_PERCEPTION_RANGE:
        return torch.ones_like(means_B)
    normalised_B = (means_B - means.min()) / (means.max() - means.min())
    top = min_scale + (1 - min_scale) / (normalised_B[measured_B].mean() + SCALE_EPSILON)
    top = top if max_scale is None else top.clamp(max=max_scale)
    return torch.where(measured_B, min_scale + normalised_B * (top - min_scale), 1.0)


def _check_fraction(fraction: float) -> None:
    if not 0 < fraction <= 1:
        raise ValueError(f"fraction: got {fraction!r}, expected a number above 0 and at most 1")


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
    """Gaussian mean over neighbouring valid tokens; the first and the last one are repeated beyond the ends.

    The half width is max(1, int(3 sigma)). Completions of up to two tokens are not smoothed.
    """
    if sigma == 0:
        return weights_BT
    count_B1 = valid_BT.sum(dim=1, keepdim=True)
    order_BT = valid_BT.int().argsort(dim=1, descending=True, stable=True)  # valid tokens first, order kept
    in_order_BT = weights_BT.gather(1, order_BT)
    position_1T = torch.arange(weights_BT.shape[1], device=weights_BT.device)[None]
    half = max(1, int(3 * sigma))
    kernel = {offset: math.exp(-0.5 * (offset / sigma) ** 2) for offset in range(-half, half + 1)}
    smooth_BT = torch.zeros_like(weights_BT)
    for offset, height in kernel.items():
        neighbour_BT = (position_1T + offset).clamp(min=0).minimum((count_B1 - 1).clamp(min=0))
        smooth_BT = smooth_BT + height / sum(kernel.values()) * in_order_BT.gather(1, neighbour_BT)
    return torch.where(count_B1 > 2, torch.zeros_like(weights_BT).scatter(1, order_BT, smooth_BT), weights_BT)
