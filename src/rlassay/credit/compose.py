"""Several credit parts become one weight per token."""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from rlassay.credit.metrics import TOKEN_FRACTIONS, filter_metrics, scale_metrics, signal_metrics, weight_metrics
from rlassay.credit.parts import Credit, CreditPart, TokenSignals, judged, name_of, needs

# MERGED FROM credit.spread: The step that every credit ends in.


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


# MERGED FROM credit.denominator: Over how many tokens the loss is a mean, when a filter leaves some out.

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


# MERGED FROM credit.compose: Several credit parts become one weight per token.

Denominator = Literal["all", "selected"]


def compose(
    parts: Sequence[CreditPart],
    signals: TokenSignals,
    denominator: Denominator = "all",
    loss_type: str = "dapo",
) -> Credit:
    """The credit that `parts` give together, in their order: filters join by OR, weights and scales multiply.

    `weights_BT = product of weights x scales x selected`, 0 outside the completions, to be multiplied with the
    advantages (`spread`). An order (`shuffled_weights`) rearranges what the parts before it gave.

    A filter of `CREDITS` has no say on a completion for which its signal was not measured at all (no image, or NaN
    throughout); one on which no filter has a say keeps all its tokens.

    Args:
        parts: functions of the signals, see `CreditPart`; none gives uniform credit.
        signals: of the whole generation batch, over all processes.
        denominator: `all` leaves the loss a mean over all completion tokens, so that a filter also shrinks the policy
            term; `selected` makes it a mean over the selected ones, see `selected_denominator`.
        loss_type: TRL's, for `selected`.

    Raises:
        ValueError: a signal that a part needs was not measured; an option out of range; a part that gives something
            else than `CreditPart` says; a loss that has no denominator to change.
    """
    spreading = _Spreading(signals)
    for part in parts:
        spreading.add(part)
    selected_BT = spreading.selected()
    weights_BT = torch.where(selected_BT, spreading.weights_BT, 0.0)
    if denominator == "selected":
        weights_BT = weights_BT * selected_denominator(selected_BT, signals.completion_mask, loss_type)[:, None]
    metrics = weight_metrics(weights_BT, selected_BT, signals) | signal_metrics(signals, needs(parts))
    return Credit(
        weights_BT=weights_BT,
        selected_BT=selected_BT,
        scale_B=spreading.scale_B,
        metrics=metrics | spreading.metrics,
    )


class _Spreading:
    """The credit of the parts so far."""

    def __init__(self, signals: TokenSignals) -> None:
        self.signals = signals
        self.mask_BT = signals.completion_mask.bool()
        self.weights_BT = torch.ones_like(signals.completion_mask, dtype=torch.float32)
        self.kept_BT = torch.zeros_like(self.mask_BT)
        self.judged_B = torch.zeros_like(signals.has_image_B)
        self.scale_B: Tensor | None = None
        self.metrics: dict[str, float] = {}

    def add(self, part: CreditPart) -> None:
        """Take in what a part gives, by its type."""
        given = part(self.signals)
        if given.shape == self.mask_BT.shape and given.dtype == torch.bool:
            self._filter(part, given)
        elif given.shape == self.mask_BT.shape and given.is_floating_point():
            self.weights_BT = self.weights_BT * given
        elif given.shape == self.judged_B.shape and given.is_floating_point():
            self._scale(part, given)
        elif given.shape == self.mask_BT.shape and given.dtype == torch.int64:
            self.weights_BT = self.weights_BT.gather(1, given)
            self.kept_BT = self.kept_BT.gather(1, given)
        else:
            size = tuple(self.mask_BT.shape)
            raise ValueError(
                f"credit part {part!r}: got {given.dtype} of shape {tuple(given.shape)}, expected {size}: bool for a "
                f"filter, float for weights, int64 for an order; or float of shape {size[:1]} for a scale"
            )

    def selected(self) -> Bool[Tensor, "batch time"]:
        """The tokens that the filters leave."""
        return self.mask_BT & (self.kept_BT | ~self.judged_B[:, None])

    def _filter(self, part: CreditPart, given: Bool[Tensor, "batch time"]) -> None:
        judged_B = judged(part, self.signals)
        self.kept_BT = self.kept_BT | (given & judged_B[:, None])
        self.judged_B = self.judged_B | judged_B
        name = name_of(part)
        if name in TOKEN_FRACTIONS:
            self.metrics |= filter_metrics(name, given, judged_B, self.signals)

    def _scale(self, part: CreditPart, given: Float[Tensor, "batch"]) -> None:
        self.weights_BT = self.weights_BT * given[:, None]
        self.scale_B = given if self.scale_B is None else self.scale_B * given
        self.metrics |= scale_metrics(given, judged(part, self.signals))
