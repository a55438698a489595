"""Over how many tokens the loss is a mean, when a filter leaves some out."""

from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

MEAN_OVER: dict[str, Literal["batch", "completion"]] = {
    "dapo": "batch",
    "bnpo": "batch",
    "cispo": "batch",
    "vespo": "batch",
    "grpo": "completion",
    "sapo": "completion",
}
"""What each of TRL's losses divides the sum of token losses by: the tokens of the batch, or of each completion.

`dr_grpo` divides by a constant and `luspo` by the number of completions: neither counts tokens.
"""


def selected_denominator(
    selected_BT: Bool[Tensor, "batch time"], completion_mask: Int[Tensor, "batch time"], loss_type: str
) -> Float[Tensor, "batch"]:
    """By how much the selected tokens count more when the loss is to be a mean over them, not over all tokens.

    The loss divides by n tokens, and the advantages of all but k of them are 0. Multiplying the advantages by n / k
    makes the policy term a mean over k:

    - `dapo`, `bnpo`, `cispo`, `vespo` divide by the tokens of the batch: one n / k, counted over the whole batch. (A
      `bnpo` loss divides by the tokens of its micro-batch, so that the mean over selected tokens is right on average
      over the micro-batches.)
    - `grpo`, `sapo` divide by the tokens of each completion: n_i / k_i for each completion.

    Where k is 0 the factor is 1: there is nothing to take a mean of, and the loss there is 0 whatever it is.

    Raises:
        ValueError: `dr_grpo` and `luspo`, which divide by no number of tokens.
    """
    if loss_type not in MEAN_OVER:
        raise ValueError(f"loss_type {loss_type!r} counts no tokens to divide by; expected {', '.join(MEAN_OVER)}")
    all_B = completion_mask.bool().sum(dim=1)
    selected_B = (selected_BT & completion_mask.bool()).sum(dim=1)
    if MEAN_OVER[loss_type] == "batch":
        all_B, selected_B = all_B.sum().expand_as(all_B), selected_B.sum().expand_as(selected_B)
    return torch.where(selected_B > 0, all_B / selected_B, 1.0)
