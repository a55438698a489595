"""Token credit: how an advantage is spread over the tokens of its completion. Pure functions of tensors.

`compose(parts, signals)` joins the parts of an arm, `spread` multiplies the advantages. The parts take `TokenSignals`
and stand in `CREDITS`; the functions that they rest on take tensors. `rlassay.credit.attention_weights` and
`rlassay.credit.trajectory_scaling` are such functions; the parts of these names are `CREDITS[...]`.
"""

from rlassay.credit.attention import attention_weights
from rlassay.credit.compose import Denominator, compose, spread
from rlassay.credit.dominance import attention_efficiency, modality_dominance
from rlassay.credit.parts import (
    CREDITS,
    NEEDS,
    Credit,
    CreditPart,
    TokenSignals,
    as_parts,
    needs,
    top_fraction_mask,
    uniform,
)
from rlassay.credit.penalty import penalise_entropy
from rlassay.credit.sensitivity import perception, trajectory_scaling

__all__ = [
    "CREDITS",
    "NEEDS",
    "Credit",
    "CreditPart",
    "Denominator",
    "TokenSignals",
    "as_parts",
    "attention_efficiency",
    "attention_weights",
    "compose",
    "modality_dominance",
    "needs",
    "penalise_entropy",
    "perception",
    "spread",
    "top_fraction_mask",
    "trajectory_scaling",
    "uniform",
]
