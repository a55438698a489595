"""Equivalence of two policies, from intervals that cross seeds with prompts."""

import numpy as np
from jaxtyping import Float

from rlassay.stats import paired_difference

SMALLEST_TAIL = 1e-9
"""Smallest p-value of equivalence that is distinguished from 0."""


def equivalence_p(
    a: Float[np.ndarray, "seeds items"],
    b: Float[np.ndarray, "seeds items"],
    margin: float,
    *,
    matched_seeds: bool,
) -> float | None:
    """p-value of the hypothesis that the means of `a` and `b` differ by `margin` or more; None with one seed.

    Two one-sided tests at level alpha reject it exactly if the 1 - 2 alpha interval of the difference lies within
    `(-margin, margin)`, so the p-value is the smallest alpha with such an interval. Above 1/2 all values are 1.
    Source: Schuirmann (1987), J. Pharmacokinetics and Biopharmaceutics 15, 657-680.
    """

    def inside(tail: float) -> bool:
        found = paired_difference(a, b, 1 - 2 * tail, matched_seeds=matched_seeds)
        return found.low > -margin and found.high < margin

    if paired_difference(a, b, matched_seeds=matched_seeds).num_seeds < 2:
        return None
    if not inside(0.4999):
        return 1.0
    if inside(SMALLEST_TAIL):
        return SMALLEST_TAIL
    low, high = np.log(SMALLEST_TAIL), np.log(0.4999)
    while high - low > 1e-6:
        middle = (low + high) / 2
        low, high = (low, middle) if inside(float(np.exp(middle))) else (middle, high)
    return float(np.exp(high))
