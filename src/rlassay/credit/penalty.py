"""The published entropy penalty, by way of the advantages."""

from jaxtyping import Float, Int
from torch import Tensor


def penalise_entropy(
    advantages_BT: Float[Tensor, "batch time"], completion_mask: Int[Tensor, "batch time"], coefficient: float
) -> Float[Tensor, "batch time"]:
    """Advantages with `coefficient` added on every completion token.

    The gradient is that of a loss to which `coefficient * mean(-log p)` of the sampled tokens is added, as long as the
    policy is the one that sampled them: there the policy term of one token is `-A log p`, up to a constant. In later
    steps on the same completions the ratio weighs it and the clip may cut it off. The mean is the loss's own: over the
    tokens of the batch for `dapo`, of each completion for `grpo`. Credit leaves it as it is, whatever a filter selects.

    It is no entropy: over tokens that the policy drew from its whole distribution, the mean of this gradient is 0. It
    acts where sampling was truncated (top-p), by favouring what was left.

    Args:
        advantages_BT: (B, T), after credit.
        completion_mask: (B, T), 1 on the tokens that the loss counts.
        coefficient: nats; .06 in the source.

    Source: VPPO (arXiv 2510.09285) and its code, `use_entropy_penalty`.
    """
    return advantages_BT + coefficient * completion_mask
