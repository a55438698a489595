"""The step that every credit ends in."""

import torch
from jaxtyping import Float, Shaped
from torch import Tensor


def spread(
    advantages_B: Float[Tensor, "batch"],
    weights_BT: Float[Tensor, "batch time"],
    completion_mask: Shaped[Tensor, "batch time"],
) -> Float[Tensor, "batch time"]:
    """Advantages per token: `advantages_B[:, None] * weights_BT` on the completion, 0 outside it.

    Only the policy term of the loss sees them; KL term, entropy bonus and the loss's denominator stay unweighted.

    Errors: ValueError when a weight on the completion is NaN, infinite or negative (it would flip an advantage).
    """
    weights_BT = torch.where(completion_mask.bool(), weights_BT, 0.0)
    if not bool((torch.isfinite(weights_BT) & (weights_BT >= 0)).all()):
        raise ValueError("credit weights must be finite and not negative on every completion token")
    return advantages_B[:, None] * weights_BT
