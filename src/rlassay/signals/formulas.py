"""Formulas of the signals: pure functions of tensors.

Credit uses them too, so that this file imports torch alone.
"""

import math
from collections.abc import Callable
from typing import cast

import torch
from jaxtyping import Float, Int, Real, Shaped
from torch import Tensor

Count = Real[Tensor, "*#axes"] | int
"""Numbers of tokens; they broadcast against the masses."""

SIGNALS = ("entropy", "logps", "perception", "dominance", "draws")
"""Signals per token, by name."""
IMAGE_SIGNALS = frozenset({"perception", "dominance"})
"""Signals that exist only for completions with an image."""
MAX_LOG_RATIO = 20.0
"""Log-ratios are clipped to plus and minus this, nats."""
MAX_PERCEPTION = 10.0
"""Perception is clipped to this, nats."""


def modality_dominance(
    text_mass: Float[Tensor, "*axes"],
    vision_mass: Float[Tensor, "*axes"],
    text_tokens: Count,
    vision_tokens: Count,
) -> Float[Tensor, "*axes"]:
    """Modality dominance (MDI, also VGR): `(text_mass / text_tokens) / (vision_mass / vision_tokens)`.

    Above 1, text gets more attention per token than the image. No unit: scaling both masses changes nothing. NaN
    (undefined) without text tokens, without image tokens, or without any mass; infinite when all attention is on text,
    0 when all of it is on the image.

    It drifts with the image's resolution, because the token count is part of it: log the counts beside it.

    Args:
        text_mass, vision_mass: attention mass on each kind of prompt token, any axes, such as (B, T) or (L, B).
        text_tokens, vision_tokens: number of prompt tokens of each kind; broadcast.

    Source: "When Language Overrules" (arXiv 2508.10552), eq. 1. Departs from JuncyLu/trl_DAPO, where no image gives
    infinity and the text mass counts special tokens that the text count leaves out.
    """
    defined = torch.as_tensor((text_tokens > 0) & (vision_tokens > 0), device=text_mass.device)
    return torch.where(defined, text_mass * vision_tokens / (vision_mass * text_tokens), torch.nan)


def attention_efficiency(
    mass: Float[Tensor, "*axes"],
    other_mass: Float[Tensor, "*axes"],
    tokens: Count,
    other_tokens: Count,
) -> Float[Tensor, "*axes"]:
    """Attention efficiency (AEI) of a kind of token: its attention share over token share.

    `AEI = (mass / (mass + other_mass)) / (tokens / (tokens + other_tokens))`, no unit; 1 is a fair share. MDI is AEI of
    text over AEI of the image. Weighted by their shares of the tokens, the two AEIs sum to 1. NaN without tokens of
    this kind or without any mass.

    Args:
        mass, tokens: attention mass on this kind of token, and number of tokens; any axes, counts broadcast.
        other_mass, other_tokens: the same for the other kind.

    Source: "When Language Overrules" (arXiv 2508.10552), eqs. 2-4.
    """
    share = mass / (mass + other_mass)
    defined = torch.as_tensor(tokens > 0, device=mass.device)
    return torch.where(defined, share * (tokens + other_tokens) / tokens, torch.nan)


def effective_number(mass: Float[Tensor, "*axes keys"]) -> Float[Tensor, "*axes"]:
    """Number of tokens over which attention is spread: `exp(-sum p ln p)`.

    p are the shares of the mass, and the number is their perplexity. 1 if all mass is on one token, K if K tokens have
    equal mass; no scale matters. NaN without any mass.

    Args:
        mass: attention mass on each token, not negative.

    Source: the number of equally common kinds with the same Shannon entropy (Hill 1973, order 1).
    """
    shares = mass / mass.sum(dim=-1, keepdim=True)
    terms = cast("Tensor", torch.special.entr(shares))  # pyright: ignore[reportUnknownMemberType]
    return terms.sum(dim=-1).exp()


def perception(
    per_token_logps: Float[Tensor, "batch time"], masked_per_token_logps: Float[Tensor, "batch time"]
) -> Float[Tensor, "batch time"]:
    """Sensitivity of each sampled token's probability to the image, nats.

    It is `S = clip(e^x - x - 1, 0, 10)`. x is the log-probability with the masked image minus the one with the image,
    clipped to 20 nats. For tokens sampled with the image, S is an unbiased estimate (k3) of KL(with image || with
    masked image) from the sampled token alone. NaN stays NaN.

    Args:
        per_token_logps: (B, T), nats, of the sampled tokens, given the image.
        masked_per_token_logps: (B, T), nats, of the same tokens, given the masked image.

    Source: VPPO (arXiv 2510.09285), eq. 3 and appendix B. The equation sums over the vocabulary; the published code
    estimates that sum from the sampled token, as here.
    """
    x = (masked_per_token_logps - per_token_logps).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
    return (torch.exp(x) - x - 1).clamp(0.0, MAX_PERCEPTION)


def mean_perception(
    perception_BT: Float[Tensor, "batch time"], completion_mask: Shaped[Tensor, "batch time"]
) -> Float[Tensor, "batch"]:
    """Mean perception of each completion over its measured tokens, nats; NaN without any."""
    measured_BT = completion_mask.bool() & ~torch.isnan(perception_BT)
    return torch.where(measured_BT, perception_BT, 0.0).sum(dim=1) / measured_BT.sum(dim=1)


def token_logps(
    log_probs: Float[Tensor, "batch time vocabulary"], ids: Int[Tensor, "batch time"]
) -> Float[Tensor, "batch time"]:
    """Log-probability of each sampled token, nats."""
    return log_probs.gather(2, ids[..., None]).squeeze(2)


def entropy(log_probs: Float[Tensor, "batch time vocabulary"]) -> Float[Tensor, "batch time"]:
    """Entropy of each distribution, `-sum p ln p`, nats."""
    terms = cast("Tensor", torch.special.entr(log_probs.exp()))  # pyright: ignore[reportUnknownMemberType]
    return terms.sum(dim=2)


def kl(
    log_p: Float[Tensor, "batch time vocabulary"], log_q: Float[Tensor, "batch time vocabulary"]
) -> Float[Tensor, "batch time"]:
    """Kullback-Leibler divergence `sum p (ln p - ln q)`, nats; infinite where q is 0 and p is not.

    Source: VPPO ("Spotlight on Token Perception for Multimodal RL", eq. 3), with q under a masked image.
    """
    # The condition is inside the product, so that an excluded token has a gradient of 0, not NaN.
    return (log_p.exp() * torch.where(log_p == -math.inf, 0.0, log_p - log_q)).sum(dim=2)


def js(
    log_p: Float[Tensor, "batch time vocabulary"], log_q: Float[Tensor, "batch time vocabulary"]
) -> Float[Tensor, "batch time"]:
    """Jensen-Shannon divergence, nats: symmetric, and at most ln 2.

    It is `(KL(p, m) + KL(q, m)) / 2` with `m = (p + q) / 2`.
    """
    log_m = torch.logaddexp(log_p, log_q) - math.log(2)
    return (kl(log_p, log_m) + kl(log_q, log_m)) / 2


DIVERGENCES: dict[str, Callable[..., Tensor]] = {"kl": kl, "js": js}
"""Exact divergences between two distributions over the vocabulary, by name."""
