"""Compose an arm's credit parts into token weights, and apply them to the advantages."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from rlassay.credit.metrics import (
    TOKEN_FRACTIONS,
    filter_metrics,
    penalty_metrics,
    scale_metrics,
    signal_metrics,
    weight_metrics,
)
from rlassay.credit.parts import applicable, needs, part_name, registered_name
from rlassay.credit.token_signals import CreditPart, OldPolicyPenalty, TokenSignals, remedy

Denominator = Literal["all", "selected"]
"""Tokens of the loss's mean: all completion tokens, or those that the filters select."""

MEAN_OVER: dict[str, Literal["batch", "completion"]] = {
    "dapo": "batch",
    "bnpo": "batch",
    "cispo": "batch",
    "vespo": "batch",
    "grpo": "completion",
    "sapo": "completion",
}
"""TRL's loss type -> whose number of tokens divides the sum of the token losses.

It is that of the batch, or of each completion. `dr_grpo` divides by a constant and `luspo` by the number of
completions: neither counts tokens.
"""


@dataclass(frozen=True, kw_only=True)
class Credit:
    """Combined credit of the parts of an arm."""

    weights_BT: Float[Tensor, "batch time"]
    """(B, T), multiplier of each token's advantage: weights, scale, selection, denominator; 0 outside completions."""
    selected_BT: Bool[Tensor, "batch time"]
    """(B, T), tokens that the filters select; without a filter, every token of the completions."""
    scale_B: Float[Tensor, "batch"] | None
    """(B,), scale of each completion, already part of the weights; None without a part that scales."""
    old_policy_penalty_BT: Float[Tensor, "batch time"] | None
    """(B, T), weight of each token's old-policy penalty, 0 outside completions; None without a part that penalises. The
    penalty is for leaving the policy that sampled the token."""
    metrics: dict[str, float]
    """Values to log, see `metrics.py`; one without any token or completion to average over is left out."""


def compose(
    parts: Sequence[CreditPart],
    signals: TokenSignals,
    denominator: Denominator = "all",
    loss_type: str = "dapo",
) -> Credit:
    """Combine credit parts in their order: filters join by OR, weights and scales multiply.

    `weights_BT = product of weights x scales x selected`, 0 outside the completions. An order (`shuffled_weights`)
    rearranges the credit and the penalty of the parts before it. A penalty (`covariance_penalty`) changes no weight. A
    filter does not apply to a completion without a signal that it needs (no image, or NaN on every token), and a
    completion to which no filter applies keeps all its tokens.

    Args:
        parts: functions of the signals, see `CreditPart`; none gives uniform credit.
        signals: of the whole generation batch, over all processes.
        denominator: `all` leaves the loss a mean over all completion tokens, so that a filter also shrinks the policy
            term; `selected` makes it a mean over the selected ones, see `selected_denominator`.
        loss_type: TRL's, for `selected`.

    Raises:
        ValueError: a signal that a part needs was not measured; an option out of range; a part whose result has a type
            or shape that `CreditPart` does not list; a loss that has no denominator to change.
    """
    check_denominator(denominator, loss_type)
    composition = _Composition(signals)
    for part in parts:
        composition.add(part)
    selected_BT = composition.selected()
    weights_BT = torch.where(selected_BT, composition.weights_BT, 0.0)
    if denominator == "selected":
        weights_BT = weights_BT * selected_denominator(selected_BT, signals.completion_mask, loss_type)[:, None]
    metrics = weight_metrics(weights_BT, selected_BT, signals) | signal_metrics(signals, needs(parts))
    return Credit(
        weights_BT=weights_BT,
        selected_BT=selected_BT,
        scale_B=composition.scale_B,
        old_policy_penalty_BT=composition.penalty_BT,
        metrics=metrics | composition.metrics,
    )


class _Composition:
    """Credit of the parts added so far."""

    def __init__(self, signals: TokenSignals) -> None:
        self.signals = signals
        self.mask_BT = signals.completion_mask.bool()
        self.weights_BT = torch.ones_like(signals.completion_mask, dtype=torch.float32)
        self.kept_BT = torch.zeros_like(self.mask_BT)
        self.filtered_B = torch.zeros_like(signals.has_image_B)
        self.scale_B: Tensor | None = None
        self.penalty_BT: Tensor | None = None
        self.metrics: dict[str, float] = {}

    def add(self, part: CreditPart) -> None:
        """Apply a part; the type of its result decides how."""
        given = self._result(part)
        if isinstance(given, OldPolicyPenalty):
            self._penalise(part, given.weights_BT)
        elif given.shape == self.mask_BT.shape and given.dtype == torch.bool:
            self._filter(part, given)
        elif given.shape == self.mask_BT.shape and given.is_floating_point():
            self.weights_BT = self.weights_BT * given
        elif given.shape == self.filtered_B.shape and given.is_floating_point():
            self._scale(part, given)
        elif given.shape == self.mask_BT.shape and given.dtype == torch.int64:
            self._check_order(part, given)
            self._reorder(given)
        else:
            size = tuple(self.mask_BT.shape)
            raise ValueError(
                f"credit part {part_name(part)}: got {given.dtype} of shape {tuple(given.shape)}, expected {size}: "
                f"bool for a filter, float for weights, int64 for an order; or float of shape {size[:1]} for a scale"
            )

    def _result(self, part: CreditPart) -> Tensor | OldPolicyPenalty:
        try:
            given: Any = part(self.signals)
        except (TypeError, AttributeError) as error:
            # A function of the user's own that computes with a signal that is None.
            missing = self.signals.missing
            if registered_name(part) is not None or not missing:
                raise
            raise ValueError(
                f"credit part {part_name(part)}: {error}. Signals that were not measured are None, here "
                f"{', '.join(missing)}. {remedy(missing[:1])}, with the names of the signals that it reads"
            ) from error
        if not isinstance(given, Tensor | OldPolicyPenalty):
            raise ValueError(f"credit part {part_name(part)}: got a {type(given).__name__}, expected a tensor")
        return given

    def _check_order(self, part: CreditPart, order_BT: Int[Tensor, "batch time"]) -> None:
        positions_T = torch.arange(order_BT.shape[1], device=order_BT.device)
        if not torch.equal(order_BT.sort(dim=1).values, positions_T.expand_as(order_BT)):
            raise ValueError(
                f"credit part {part_name(part)}: got int64 that is no order of the positions of each completion; for a "
                "filter return bool, such as `kept.bool()`, for weights return float"
            )

    def _reorder(self, order_BT: Int[Tensor, "batch time"]) -> None:
        self.weights_BT = self.weights_BT.gather(1, order_BT)
        self.kept_BT = self.kept_BT.gather(1, order_BT)
        self.penalty_BT = None if self.penalty_BT is None else self.penalty_BT.gather(1, order_BT)

    def _penalise(self, part: CreditPart, weights_BT: Float[Tensor, "batch time"]) -> None:
        weights_BT = torch.where(self.mask_BT, weights_BT, 0.0)
        if not bool((torch.isfinite(weights_BT) & (weights_BT >= 0)).all()):
            raise ValueError(f"credit part {part_name(part)}: got a penalty that is negative or not finite")
        self.penalty_BT = weights_BT if self.penalty_BT is None else self.penalty_BT + weights_BT
        self.metrics |= penalty_metrics(self.penalty_BT, self.signals)

    def selected(self) -> Bool[Tensor, "batch time"]:
        """The tokens that the filters select."""
        return self.mask_BT & (self.kept_BT | ~self.filtered_B[:, None])

    def _filter(self, part: CreditPart, kept_BT: Bool[Tensor, "batch time"]) -> None:
        applies_B = applicable(part, self.signals)
        self.kept_BT = self.kept_BT | (kept_BT & applies_B[:, None])
        self.filtered_B = self.filtered_B | applies_B
        name = registered_name(part)
        if name in TOKEN_FRACTIONS:
            self.metrics |= filter_metrics(name, kept_BT, applies_B, self.signals)

    def _scale(self, part: CreditPart, scale_B: Float[Tensor, "batch"]) -> None:
        self.weights_BT = self.weights_BT * scale_B[:, None]
        self.scale_B = scale_B if self.scale_B is None else self.scale_B * scale_B
        self.metrics |= scale_metrics(scale_B, applicable(part, self.signals))


def check_denominator(denominator: str, loss_type: str) -> None:
    """Raise ValueError for an unknown denominator, or one that the loss cannot use.

    A loss that divides by no token count cannot use `selected`.
    """
    if denominator not in get_args(Denominator):
        raise ValueError(f"credit_denominator: got {denominator!r}, expected {' or '.join(get_args(Denominator))}")
    if denominator == "selected" and loss_type not in MEAN_OVER:
        raise ValueError(f"loss_type {loss_type!r} does not divide by a token count; expected {', '.join(MEAN_OVER)}")


def check_penalty(coefficient: float) -> None:
    """Raise ValueError unless the coefficient of the entropy penalty is finite and not negative."""
    if not 0 <= coefficient < math.inf:
        raise ValueError(f"entropy_penalty: got {coefficient!r}, expected a finite number of at least 0")


def selected_denominator(
    selected_BT: Bool[Tensor, "batch time"], completion_mask: Int[Tensor, "batch time"], loss_type: str
) -> Float[Tensor, "batch"]:
    """Factor that turns a mean loss over all tokens into one over the selected.

    The loss divides by n tokens, and the advantages of all but k of them are 0. Multiplying the advantages by n / k
    makes the policy term a mean over k:

    - `dapo`, `bnpo`, `cispo`, `vespo` divide by the tokens of the batch: one n / k, counted over the whole batch. (A
      `bnpo` loss divides by the tokens of its micro-batch, so that the mean over selected tokens is right on average
      over the micro-batches.)
    - `grpo`, `sapo` divide by the tokens of each completion: n_i / k_i for each completion.

    Where k is 0 the factor is 1: the policy term is 0 there whatever the factor.

    Raises:
        ValueError: `dr_grpo` and `luspo`, which divide by no number of tokens.
    """
    check_denominator("selected", loss_type)
    all_B = completion_mask.bool().sum(dim=1)
    selected_B = (selected_BT & completion_mask.bool()).sum(dim=1)
    if MEAN_OVER[loss_type] == "batch":
        all_B, selected_B = all_B.sum().expand_as(all_B), selected_B.sum().expand_as(selected_B)
    return torch.where(selected_B > 0, all_B / selected_B, 1.0)


def spread(
    advantages: Float[Tensor, "batch"] | Float[Tensor, "batch time"],
    weights_BT: Float[Tensor, "batch time"],
    completion_mask: Shaped[Tensor, "batch time"],
) -> Float[Tensor, "batch time"]:
    """Advantages per token: `advantages_B[:, None] * weights_BT` on the completion, 0 outside it.

    Advantages that are per token already are multiplied token by token.

    They change only the policy term of the loss; KL term, entropy bonus and the loss's denominator stay unweighted.

    Errors: ValueError when a weight on the completion is NaN, infinite or negative (it would flip an advantage).
    """
    weights_BT = torch.where(completion_mask.bool(), weights_BT, 0.0)
    if not bool((torch.isfinite(weights_BT) & (weights_BT >= 0)).all()):
        raise ValueError("credit weights must be finite and not negative on every completion token")
    return (advantages[:, None] if advantages.ndim == 1 else advantages) * weights_BT


def penalise_entropy(
    advantages_BT: Float[Tensor, "batch time"], completion_mask: Int[Tensor, "batch time"], coefficient: float
) -> Float[Tensor, "batch time"]:
    """Add the published entropy penalty to the advantages: `coefficient` on every completion token.

    The gradient is that of adding `coefficient * mean(-log p)` of the sampled tokens to the loss, as long as the policy
    is the one that sampled them: there the policy term of one token is `-A log p`, up to a constant. In later steps on
    the same completions the importance ratio weights it and clipping may cut it off. The mean is the loss's own: over
    the tokens of the batch for `dapo`, of each completion for `grpo`. Credit weights and filters do not change it.

    The penalised term is not the entropy: over tokens sampled from the whole distribution, the mean of this gradient
    is 0. It acts where sampling was truncated (top-p), by favouring the tokens that remained.

    Args:
        advantages_BT: (B, T), after credit.
        completion_mask: (B, T), 1 on the tokens that the loss counts.
        coefficient: nats, at least 0 (else ValueError); .06 in the source.

    Source: VPPO (arXiv 2510.09285) and its code, `use_entropy_penalty`.
    """
    check_penalty(coefficient)
    return advantages_BT + coefficient * completion_mask
