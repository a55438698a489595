"""What the logits of completion tokens say: pure functions of distributions over the vocabulary."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor


def token_logps(
    log_probs: Float[Tensor, "batch time vocabulary"], ids: Int[Tensor, "batch time"]
) -> Float[Tensor, "batch time"]:
    """Log-probability of each sampled token, nats."""
    return log_probs.gather(2, ids[..., None]).squeeze(2)


def entropy(log_probs: Float[Tensor, "batch time vocabulary"]) -> Float[Tensor, "batch time"]:
    """Entropy of each distribution, `-sum p ln p`, nats."""
    return torch.special.entr(log_probs.exp()).sum(dim=2)


def kl(
    log_p: Float[Tensor, "batch time vocabulary"], log_q: Float[Tensor, "batch time vocabulary"]
) -> Float[Tensor, "batch time"]:
    """Kullback-Leibler divergence `sum p (ln p - ln q)`, nats; infinite where q excludes what p allows.

    Source: VPPO ("Spotlight on Token Perception for Multimodal RL", eq. 3), with q under a masked image.
    """
    return torch.where(log_p == -math.inf, 0.0, log_p.exp() * (log_p - log_q)).sum(dim=2)


def js(
    log_p: Float[Tensor, "batch time vocabulary"], log_q: Float[Tensor, "batch time vocabulary"]
) -> Float[Tensor, "batch time"]:
    """Jensen-Shannon divergence `(KL(p, m) + KL(q, m)) / 2` with `m = (p + q) / 2`: symmetric, at most ln 2 nats."""
    log_m = torch.logaddexp(log_p, log_q) - math.log(2)
    return (kl(log_p, log_m) + kl(log_q, log_m)) / 2


DIVERGENCES = {"kl": kl, "js": js}
