"""Student's t for a variance that is a sum of estimates with different degrees of freedom.

With `V = sum of V_j`, each V_j estimated on f_j degrees of freedom, Cochran's critical value for a tail q is

    t'(q) = (sum of V_j t_q(f_j)) / V,

the quantiles of Student's t weighted by what they stand for.

Source: Cochran (1964), Approximate significance levels of the Behrens-Fisher test, Biometrics 20, 191-195.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import log10

from scipy.optimize import brentq
from scipy.special import stdtr, stdtrit

LEAST = 1e-100
"""Smallest tail probability told apart from 0."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """One estimated part of a mean's variance."""

    variance: float
    """The estimate, in squared units of the mean."""
    freedom: float
    """Its degrees of freedom."""


def reach(parts: Sequence[Part], tail: float) -> float:
    """Half-width `t'(tail) sqrt(V)` of the interval that leaves out `tail` on either side; V must be above 0."""
    weighted = sum(part.variance * -float(stdtrit(part.freedom, tail)) for part in parts)
    return weighted / sum(part.variance for part in parts) ** 0.5


def two_sided_p(mean: float, parts: Sequence[Part]) -> float:
    """1 - confidence of the interval around `mean` that ends at 0, at least 2e-100.

    Since t' lies between the quantiles that it weighs, the p-value lies between those with either's degrees of freedom.
    """
    statistic: float = abs(mean) / sum(part.variance for part in parts) ** 0.5
    tails = [max(float(stdtr(part.freedom, -statistic)), LEAST) for part in parts]
    if min(tails) == max(tails):
        return 2 * tails[0]

    def beyond(exponent: float) -> float:
        return reach(parts, 10.0**exponent) - abs(mean)

    low, high = log10(min(tails)) - 1e-6, min(log10(max(tails)) + 1e-6, log10(0.5))
    return 2 * 10.0 ** float(brentq(beyond, low, high, xtol=1e-13))
