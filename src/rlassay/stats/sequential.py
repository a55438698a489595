"""Group sequential tests: several looks at growing data, one overall chance of false verdicts.

Testing at level alpha after every added seed is wrong more often than alpha. An alpha-spending function a(t; alpha)
with a(1) = alpha says how much of it may be used up by the time that a fraction t of the planned information is there.
The local level of look k is the largest at which, without any effect, the chance of a first crossing at look k is
`a(t_k) - a(t_{k-1})`. Scores of a normal mean over t_k form a Brownian motion, so that

    P(first crossing at k) = integral of f_{k-1}(s) Phi((s - c_k sqrt(t_k)) / sqrt(t_k - t_{k-1})) ds,

where f_{k-1} is the density of the score at look k - 1 on the paths that have not crossed. Here a(t; alpha) is
`alpha t^2`, between Pocock's even boundary and O'Brien-Fleming's, which leaves 4e-5 of 0.05 for a look at 3 of 10:
too little for Student's t on two degrees of freedom ever to cross.

Looks add seeds to the same items. The part of the variance that comes from items, V_b, does not shrink, so that the
true information `(V_b + V_a / n_max) / (V_b + V_a / n_k)` is at least the planned fraction n_k / n_max: looks are more
alike than planned for, and the chance of any crossing is smaller (Slepian). The test is conservative, never liberal.
The p-value of each look is used in place of its score, as is usual for Student's t; `benchmarks/sequential_seeds.py`
measures the rates that follow.

Source: Lan and DeMets (1983), Discrete sequential boundaries for clinical trials, Biometrika 70, 659-663; Kim and
DeMets (1987), Biometrika 74, 149-154 (a(t) = alpha t^rho, here rho = 2); Armitage, McPherson and Rowe (1969), J. Royal
Statistical Society A 132, 235-244 (the recursion); Jennison and Turnbull (1989), J. Royal Statistical Society B 51,
305-361 (repeated confidence intervals); Liu and Anderson (2008), J. American Statistical Association 103, 1621-1630
(sequential p-values); Slepian (1962), Bell System Technical Journal 41, 463-501.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from jaxtyping import Float
from scipy.optimize import brentq
from scipy.special import ndtr, ndtri

Grid = Float[np.ndarray, " points"]
Spending = Callable[[float, float], float]

NODES = 96
"""Points of the quadrature over the score of a look; levels are then exact to 8 digits."""
REACH = 9.0
"""Standard deviations below 0 at which the quadrature begins."""
SMALLEST = 1e-12
"""Smallest overall level of the table."""
_LEVELS: Grid = np.geomspace(SMALLEST, 0.5, 120)


def quadratic_spending(fraction: float, level: float) -> float:
    """`level * fraction^2`, the power family of Kim and DeMets with rho = 2."""
    return level * fraction**2


def local_levels(
    fractions: Sequence[float], level: float, spending: Spending = quadratic_spending
) -> Float[np.ndarray, " looks"]:
    """The one-sided level of the test at each look.

    Args:
        fractions: planned information at each look, ascending, above 0; the last is 1.
        level: chance that any look is a false verdict, one-sided, between 0 and 1/2.
        spending: `a(fraction, level)`, ascending in both, `level` at 1.

    Raises:
        ValueError: fractions that are not ascending to 1, or a level out of its range.
    """
    times = np.asarray(fractions, dtype=float)
    if times.size == 0 or times[0] <= 0 or times[-1] != 1 or np.any(np.diff(times) <= 0):
        raise ValueError(f"fractions are {list(fractions)}; expected values above 0 that ascend to 1")
    if not 0 < level <= 0.5:
        raise ValueError(f"level is {level:g}; expected a one-sided level above 0 and at most 0.5")
    spent = [spending(float(time), level) for time in times]
    bound = -float(ndtri(spent[0])) * times[0] ** 0.5
    levels = [spent[0]]
    points, density = _start(times[0], bound)
    for k in range(1, times.size):
        spread = float(times[k] - times[k - 1]) ** 0.5
        bound = _bound(points, density, spread, spent[k] - spent[k - 1])
        tail = np.asarray(ndtr(-bound / float(times[k]) ** 0.5), dtype=float)
        levels.append(float(tail))
        points, density = _carried(points, density, spread, (-REACH * float(times[k]) ** 0.5, bound))
    return np.array(levels)


def _start(time: float, bound: float) -> tuple[Grid, Grid]:
    """Scores below the first bound, and their density times the quadrature weights."""
    points, weights = _nodes(-REACH * time**0.5, bound)
    return points, weights * np.exp(-(points**2) / (2 * time)) / (2 * np.pi * time) ** 0.5


def _carried(points: Grid, density: Grid, spread: float, ends: tuple[float, float]) -> tuple[Grid, Grid]:
    """Scores and weighted density at the next look, on paths that stay below its bound."""
    after, weights = _nodes(*ends)
    step = (after[:, None] - points[None, :]) / spread
    return after, weights * (np.exp(-(step**2) / 2) @ density) / ((2 * np.pi) ** 0.5 * spread)


def _bound(points: Grid, density: Grid, spread: float, crossing: float) -> float:
    """The score above which a path that has not crossed ends with probability `crossing`."""

    def excess(bound: float) -> float:
        return float(np.log(max(float(ndtr((points - bound) / spread) @ density), 1e-300)) - np.log(crossing))

    return float(brentq(excess, -REACH, float(points[-1]) + 40 * spread, xtol=1e-11))


@cache
def _gauss() -> tuple[Grid, Grid]:
    return np.polynomial.legendre.leggauss(NODES)


def _nodes(low: float, high: float) -> tuple[Grid, Grid]:
    points, weights = _gauss()
    return low + (points + 1) / 2 * (high - low), weights * (high - low) / 2


@dataclass(frozen=True)
class SequentialTest:
    """A declared plan of looks at growing numbers of seeds; every level and p-value is two-sided unless it says so."""

    looks: tuple[int, ...]
    """Seeds at each look, ascending; the last is the most that may run."""
    spending: Spending = quadratic_spending
    """The spending function."""

    @property
    def fractions(self) -> tuple[float, ...]:
        """Planned information at each look."""
        return tuple(seeds / self.looks[-1] for seeds in self.looks)

    def confidence(self, look: int, level: float) -> float:
        """Confidence of the interval at a look (from 0).

        With it, the intervals of all looks hold together at 1 - level.
        """
        return 1 - 2 * float(local_levels(self.fractions, level / 2, self.spending)[look])

    def p_value(self, p_values: Sequence[float], *, one_sided: bool = False) -> float:
        """The p-value over all looks so far.

        It is the smallest overall level at which one of them is a verdict. It is valid whenever the looks end, so that
        corrections for several comparisons apply to it as to any p-value.

        Args:
            p_values: the p-value of the data at each look so far, from the first; NaN = not tested.
            one_sided: whether they are one-sided.
        """
        sides = 1 if one_sided else 2
        tails = [p_value / sides for p_value in p_values]
        table = _table(self.fractions, self.spending)
        # NaN compares as larger than anything, so that a look without a test decides nothing.
        found = [_overall(tail, table[:, k]) for k, tail in enumerate(tails) if not np.isnan(tail)]
        return min(1.0, sides * min(found)) if found else float("nan")


@cache
def _table(fractions: tuple[float, ...], spending: Spending) -> Float[np.ndarray, "levels looks"]:
    """The local levels, one-sided, at each of `_LEVELS`."""
    return np.array([local_levels(fractions, float(level), spending) for level in _LEVELS])


def _overall(tail: float, levels: Grid) -> float:
    """The overall one-sided level whose local level is `tail`; 1 above the table."""
    if tail > levels[-1]:
        return 1.0
    logarithm = np.interp(math.log(max(tail, 1e-300)), np.log(levels), np.log(_LEVELS))
    return math.exp(float(logarithm))
