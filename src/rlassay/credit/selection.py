"""Which tokens a filter keeps."""

import math

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

ROUNDING = 1e-9
"""Taken off `fraction * n` before it is rounded up, so that .55 of 100 tokens are 55 (a float makes it 55.00000001)."""


def top_fraction_mask(
    signal_BT: Float[Tensor, "batch time"], completion_mask: Shaped[Tensor, "batch time"], fraction: float
) -> Bool[Tensor, "batch time"]:
    """The `ceil(fraction * n)` tokens with the largest signal within each completion of n tokens.

    Of equal signals the earliest is taken. NaN is never taken, so that a completion with too few measured tokens keeps
    fewer; a completion without tokens keeps none, any other at least one if it has a measured token.

    Args:
        signal_BT: (B, T), any unit.
        completion_mask: (B, T), 1 where a completion has a token.
        fraction: in (0, 1]; else ValueError.

    Source: token gradient filtering of VPPO (arXiv 2510.09285).
    """
    if not 0 < fraction <= 1:
        raise ValueError(f"fraction: got {fraction!r}, expected a number above 0 and at most 1")
    measured_BT = completion_mask.bool() & ~torch.isnan(signal_BT)
    kept_B = torch.ceil(fraction * completion_mask.bool().sum(dim=1, dtype=torch.float64) - ROUNDING)
    order_BT = torch.where(measured_BT, signal_BT, -torch.inf).argsort(dim=1, descending=True, stable=True)
    measured_in_order = measured_BT.gather(1, order_BT)
    kept_in_order = measured_in_order & (measured_in_order.cumsum(dim=1) <= kept_B[:, None])
    return torch.zeros_like(measured_BT).scatter(1, order_BT, kept_in_order)


def batch_quantile_mask(
    signal_BT: Float[Tensor, "batch time"], completion_mask: Shaped[Tensor, "batch time"], fraction: float
) -> Bool[Tensor, "batch time"]:
    """The tokens whose signal is at least the `1 - fraction` quantile of all measured tokens of the batch.

    Equal signals at the threshold are all taken, and a completion may keep none. NaN is never taken.

    Args: as `top_fraction_mask`.

    Source: `top_entropy_quantile` of TRL ("Beyond the 80/20 Rule", arXiv 2506.01939), whose quantile is that of a
    micro-batch; here it is that of whatever batch is given. Not `torch.quantile`, which refuses 2^24 tokens.
    """
    if not 0 < fraction <= 1:
        raise ValueError(f"fraction: got {fraction!r}, expected a number above 0 and at most 1")
    measured_BT = completion_mask.bool() & ~torch.isnan(signal_BT)
    values = signal_BT[measured_BT].sort().values
    if not len(values):
        return measured_BT
    place = (1 - fraction) * (len(values) - 1)
    below = math.floor(place)
    threshold = torch.lerp(values[below], values[math.ceil(place)], place - below)
    return measured_BT & (signal_BT >= threshold)
