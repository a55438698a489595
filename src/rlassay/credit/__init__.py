"""Token credit: how the tokens of a completion share its advantage. Pure functions of tensors.

`compose(parts, signals)` combines the parts of an arm into one weight per token; `spread` applies the weights to the
advantages. The parts that a study names are in `CREDITS` and, under the same names, here. They take `TokenSignals`;
the formulas that they call take tensors (`inverse_dominance_weights` for `attention_weights`, `perception_scale` for
`trajectory_scaling`).
"""

from rlassay.credit.compose import (
    Credit,
    Denominator,
    check_denominator,
    check_penalty,
    compose,
    penalise_entropy,
    spread,
)
from rlassay.credit.formulas import inverse_dominance_weights, perception_scale, top_fraction_mask
from rlassay.credit.parts import (
    CREDITS,
    NEEDS,
    as_parts,
    attention_weights,
    check_parts,
    covariance_filter,
    covariance_penalty,
    entropy_filter,
    needs,
    perception_filter,
    random_filter,
    shuffled_weights,
    trajectory_scaling,
    uniform,
)
from rlassay.credit.token_signals import CreditPart, OldPolicyPenalty, TokenSignals, credit_part
from rlassay.signals.formulas import SIGNALS, attention_efficiency, modality_dominance, perception

__all__ = [
    "CREDITS",
    "NEEDS",
    "SIGNALS",
    "Credit",
    "CreditPart",
    "Denominator",
    "OldPolicyPenalty",
    "TokenSignals",
    "as_parts",
    "attention_efficiency",
    "attention_weights",
    "check_denominator",
    "check_parts",
    "check_penalty",
    "compose",
    "covariance_filter",
    "covariance_penalty",
    "credit_part",
    "entropy_filter",
    "inverse_dominance_weights",
    "modality_dominance",
    "needs",
    "penalise_entropy",
    "perception",
    "perception_filter",
    "perception_scale",
    "random_filter",
    "shuffled_weights",
    "spread",
    "top_fraction_mask",
    "trajectory_scaling",
    "uniform",
]
