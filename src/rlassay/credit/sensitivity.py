"""How much a completion owes to its image: perception per token, and a scale per completion from it."""

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

LOG_RATIO_BOUND = 20.0
"""The log-ratio is held within plus and minus this, nats."""
PERCEPTION_BOUND = 10.0
"""Perception is held below this, nats."""
SMALLEST_RANGE = 1e-6
"""Completions whose mean perceptions lie closer together than this, nats, cannot be told apart."""
NOT_ZERO = 1e-8
"""Added to a mean before it divides."""


def perception(
    per_token_logps: Float[Tensor, "batch time"], masked_per_token_logps: Float[Tensor, "batch time"]
) -> Float[Tensor, "batch time"]:
    """How much the probability of each sampled token owes to the image: `S = clip(e^x - x - 1, 0, 10)` nats.

    x is the log-probability with the masked image less the one with the image, held within 20 nats. For tokens sampled
    with the image, S is an unbiased estimate (k3) of the divergence KL(with image || with masked image), from the
    sampled token alone. NaN stays NaN.

    Args:
        per_token_logps: (B, T), nats, of the sampled tokens, given the image.
        masked_per_token_logps: (B, T), nats, of the same tokens, given the masked image.

    Source: VPPO (arXiv 2510.09285), eq. 3 and appendix B, where the code estimates from the sampled token what the
    equation sums over the vocabulary.
    """
    x = (masked_per_token_logps - per_token_logps).clamp(-LOG_RATIO_BOUND, LOG_RATIO_BOUND)
    return (torch.exp(x) - x - 1).clamp(0.0, PERCEPTION_BOUND)


def mean_perception(
    perception_BT: Float[Tensor, "batch time"], completion_mask: Shaped[Tensor, "batch time"]
) -> Float[Tensor, "batch"]:
    """Mean perception of each completion over its measured tokens, nats; NaN for one that has none."""
    measured_BT = completion_mask.bool() & ~torch.isnan(perception_BT)
    return torch.where(measured_BT, perception_BT, 0.0).sum(dim=1) / measured_BT.sum(dim=1)


def trajectory_scaling(
    perception_BT: Float[Tensor, "batch time"],
    completion_mask: Shaped[Tensor, "batch time"],
    min_scale: float,
    max_scale: float | None = None,
) -> Float[Tensor, "batch"]:
    """Trajectory advantage shaping: a scale per completion that grows with its mean perception, 1 on average.

    `scale = min_scale + n (top - min_scale)`, where n in [0, 1] is where the completion's mean perception lies between
    the smallest and the largest of the batch, and `top = min_scale + (1 - min_scale) / (mean n + 1e-8)` makes the mean
    scale 1. `max_scale` holds `top` down; where it does, the mean scale is below 1 and the step is that much smaller.

    A completion without a measured token (no image, or masked as a whole) gets exactly 1 and plays no part in the
    statistics. With fewer than two others, or with all of them within 1e-6 nats, every scale is 1.

    Args:
        perception_BT: (B, T), nats, NaN where it was not measured; the whole generation batch, of all processes.
        completion_mask: (B, T), 1 where a completion has a token.
        min_scale: scale of the completion that owes the image least, in [0, 1]; else ValueError.
        max_scale: largest scale, at least 1 (else ValueError); None leaves it to the mean.

    Source: VPPO (arXiv 2510.09285), eq. 5. Its code takes the smallest and the largest of a process's mini-batch and
    the mean of a micro-batch, so that micro-batches of one scale nothing.
    """
    if not 0 <= min_scale <= 1 or (max_scale is not None and max_scale < 1):
        raise ValueError(f"got min_scale {min_scale!r}, max_scale {max_scale!r}, expected 0 <= min_scale <= 1 <= max")
    means_B = mean_perception(perception_BT, completion_mask)
    measured_B = ~torch.isnan(means_B)
    means = means_B[measured_B]
    if len(means) < 2 or means.max() - means.min() <= SMALLEST_RANGE:
        return torch.ones_like(means_B)
    place_B = (means_B - means.min()) / (means.max() - means.min())
    top = min_scale + (1 - min_scale) / (place_B[measured_B].mean() + NOT_ZERO)
    top = top if max_scale is None else top.clamp(max=max_scale)
    return torch.where(measured_B, min_scale + place_B * (top - min_scale), 1.0)
