"""Power of a planned comparison: minimum detectable effect, and seeds or items needed.

Model of `rlassay.stats.intervals`: the difference of seed s on item i is `effect + a_s + b_i + e_si`, here with normal
effects of standard deviations `seed_sd`, `item_sd` and `pair_sd`, S seeds and I items. Then, independently,

    mean ~ N(effect, seed_sd^2 / S + item_sd^2 / I + pair_sd^2 / (S I)),
    V_a  ~ (seed_sd^2 / S + pair_sd^2 / (S I)) chi2(S - 1) / (S - 1),
    V_b  ~ (item_sd^2 / I + pair_sd^2 / (S I)) chi2(I - 1) / (I - 1),

and the comparison finds the effect when `|mean|` exceeds the half-width of the report's interval. Its V_e, on (S - 1)
(I - 1) degrees of freedom, is taken to be `pair_sd^2 / (S I)`, and V_b to have I - 1. The power is the
expectation over V_a and V_b of the normal probability of that, by Gauss-Legendre quadrature over the probabilities of
the two chi-squares.

Source: the interval of `rlassay.stats.intervals`; Westfall, Kenny and Judd (2014), Statistical power and optimal design
in experiments in which samples of participants respond to samples of stimuli, J. Experimental Psychology: General 143,
2020-2045 (the model). Departure: they use a noncentral t with Satterthwaite's degrees of freedom, this the test itself.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import sqrt

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike
from scipy.optimize import brentq
from scipy.special import chdtri, ndtr, stdtrit

from rlassay.stats.intervals import contrast_scores, crossed_half_width, mean_square_of_pairs

Grid = Float[np.ndarray, " grid"]
MOST = 100_000
"""Largest number of seeds or items that is tried. An effect that needs more counts as out of reach."""
_NODES = 32
_SINGLE_NODES = 400  # on one axis alone; one degree of freedom needs them


@dataclass(frozen=True, kw_only=True)
class PlannedTest:
    """How a difference will be tested, and the variance that neither seeds nor items explain."""

    pair_sd: float = 0.0
    """Standard deviation of a seed's difference on an item beyond those of seed and item. It comes from sampling (for
    binary scores, sqrt of `p (1 - p) / num_samples` of both arms together), and from items that some seeds answer
    better."""
    confidence: float = 0.95
    """Level of the test; for a comparison that Holm corrects, `1 - 0.05 / family size` is the strictest it can meet."""
    matched_seeds: bool = True
    """As in `paired_difference`; False supposes that both arms vary alike between seeds."""


DEFAULT_TEST = PlannedTest()


@dataclass(frozen=True, kw_only=True)
class Deviations:
    """Standard deviations of a difference between two arms, in the scores' unit."""

    seed_sd: float
    """Between seeds; for independent runs it holds the variance of both arms."""
    item_sd: float
    """Between items."""
    pair_sd: float
    """Of one seed on one item, beyond both."""


def minimum_detectable_effect(
    num_seeds: int, num_items: int, seed_sd: float, item_sd: float, power: float = 0.8, test: PlannedTest = DEFAULT_TEST
) -> float:
    """The smallest true difference between two arms that the report's test finds with probability `power`.

    Args:
        num_seeds: seeds per arm, at least 2: with one, variance between seeds is not measured and nothing is tested.
        num_items: items that both arms answer, at least 2.
        seed_sd: standard deviation of the difference between seeds; for independent runs (`matched_seeds=False`) it
            holds the variance of both arms, sqrt(2) times the deviation of one.
        item_sd: standard deviation of the true difference between items.
        power: probability of finding it, above that of a false verdict and below 1.
        test: level, pairing of seeds, and the deviation beyond seeds and items.

    Returns:
        The effect, above 0, in the unit of the deviations.

    Raises:
        ValueError: a number out of its range, or no deviation at all.
    """
    _check(num_seeds, num_items, Deviations(seed_sd=seed_sd, item_sd=item_sd, pair_sd=test.pair_sd), power, test)
    found = _detection(num_seeds, num_items, Deviations(seed_sd=seed_sd, item_sd=item_sd, pair_sd=test.pair_sd), test)
    high = sqrt(seed_sd**2 + item_sd**2 + test.pair_sd**2) / sqrt(num_seeds * num_items)
    while found(high) < power:
        high *= 2
    return float(brentq(lambda effect: found(effect) - power, 0.0, high, xtol=1e-9 * high))


def seeds_needed(
    effect: float, num_items: int, seed_sd: float, item_sd: float, power: float = 0.8, test: PlannedTest = DEFAULT_TEST
) -> int | None:
    """The fewest seeds per arm, at least 2, with which `minimum_detectable_effect` is at most `effect`.

    Returns:
        The number of seeds; None where no number suffices, because the items alone leave too much variance.

    Raises:
        ValueError: as `minimum_detectable_effect`, and an effect that is not above 0.
    """
    deviations = Deviations(seed_sd=seed_sd, item_sd=item_sd, pair_sd=test.pair_sd)
    _check(2, num_items, deviations, power, test, effect)
    return _fewest(lambda seeds: _detection(seeds, num_items, deviations, test)(effect) >= power - 1e-9)


def items_needed(
    effect: float, num_seeds: int, seed_sd: float, item_sd: float, power: float = 0.8, test: PlannedTest = DEFAULT_TEST
) -> int | None:
    """The fewest items, at least 2, with which `minimum_detectable_effect` is at most `effect`; see `seeds_needed`."""
    deviations = Deviations(seed_sd=seed_sd, item_sd=item_sd, pair_sd=test.pair_sd)
    _check(num_seeds, 2, deviations, power, test, effect)
    return _fewest(lambda items: _detection(num_seeds, items, deviations, test)(effect) >= power - 1e-9)


def power_of(effect: float, num_seeds: int, num_items: int, deviations: Deviations, test: PlannedTest) -> float:
    """The probability that the report's test finds a true difference `effect`; `deviations` hold their own `pair_sd`.

    Raises:
        ValueError: as `minimum_detectable_effect`.
    """
    _check(num_seeds, num_items, deviations, 0.8, test)
    return _detection(num_seeds, num_items, deviations, test)(effect)


def deviations_of(a: ArrayLike, b: ArrayLike, *, matched_seeds: bool = True) -> Deviations:
    """Deviations of the difference `a - b` between two finished arms.

    They follow from the mean squares of seeds, items and pairs. `pair_sd^2 = MS_pairs`, `seed_sd^2 = (MS_seeds -
    MS_pairs) / I` and `item_sd^2 = (MS_items - MS_pairs) / S`, where an estimate below 0 becomes 0. For independent
    seeds, those of both arms are added, as in the interval: `MS_pairs`, and the variances of seed means in place of
    `MS_seeds / I`.

    Args:
        a: scores, shape (num_seeds, num_items), a mean over each item's samples; NaN = not scored.
        b: the same shape.
        matched_seeds: as in `paired_difference`.

    Raises:
        ValueError: shapes that differ, or fewer than two seeds or items that both scored.
    Source: the method of moments for a two-way layout without replication (Searle et al. 1992, Variance Components).
    """
    difference, sides = contrast_scores((a, b), (1.0, -1.0), matched_seeds=matched_seeds)
    num_seeds, num_items = difference.shape
    if min(num_seeds, num_items) < 2:
        raise ValueError(
            f"{num_seeds} seeds x {num_items} items have scores in both arms; expected at least two of each"
        )
    of_pairs = sum(map(mean_square_of_pairs, sides))
    of_seeds = sum(float(side.mean(axis=1).var(ddof=1)) for side in sides) - of_pairs / num_items
    of_items = float(difference.mean(axis=0).var(ddof=1)) - of_pairs / num_seeds
    return Deviations(seed_sd=max(0.0, of_seeds) ** 0.5, item_sd=max(0.0, of_items) ** 0.5, pair_sd=of_pairs**0.5)


def _check(
    num_seeds: int, num_items: int, deviations: Deviations, power: float, test: PlannedTest, effect: float = 1.0
) -> None:
    given = {"seed_sd": deviations.seed_sd, "item_sd": deviations.item_sd, "pair_sd": deviations.pair_sd}
    if num_seeds < 2 or num_items < 2:
        raise ValueError(f"{num_seeds} seeds x {num_items} items; expected at least two of each")
    if not all(0 <= value < np.inf for value in given.values()) or not any(given.values()):
        got = ", ".join(f"{name} {value:g}" for name, value in given.items())
        raise ValueError(f"got {got}; expected deviations of at least 0, and one above 0")
    if not 0.5 < test.confidence < 1 or not 1 - test.confidence < power < 1:
        raise ValueError(
            f"got power {power:g} at confidence {test.confidence:g}; expected a confidence between 0.5 and 1, and a "
            "power between 1 - confidence and 1"
        )
    if not 0 < effect < np.inf:
        raise ValueError(f"effect is {effect:g}; expected a size above 0")


def _fewest(suffices: Callable[[int], bool]) -> int | None:
    """The smallest number from 2 that suffices, where every larger one does too; None if `MOST` does not."""
    if suffices(2):
        return 2
    low, high = 2, 4
    while not suffices(high):
        if high >= MOST:
            return None
        low, high = high, min(2 * high, MOST)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if suffices(middle) else (middle, high)
    return high


def _detection(num_seeds: int, num_items: int, deviations: Deviations, test: PlannedTest) -> Callable[[float], float]:
    """The power as a function of the effect."""
    of_seeds, of_items = deviations.seed_sd**2 / num_seeds, deviations.item_sd**2 / num_items
    of_pairs = deviations.pair_sd**2 / num_seeds / num_items
    half_widths, weights = _half_widths(num_seeds, num_items, (of_seeds, of_items, of_pairs), test)
    deviation = (of_seeds + of_items + of_pairs) ** 0.5

    def found(effect: float) -> float:
        ends = np.stack([effect - half_widths, -effect - half_widths]) / deviation
        return float(np.asarray(ndtr(ends), dtype=float).sum(axis=0) @ weights)

    return found


def _half_widths(
    num_seeds: int, num_items: int, variances: tuple[float, float, float], test: PlannedTest
) -> tuple[Grid, Grid]:
    """Half-widths of the interval on a grid of V_a and V_b, and their probabilities; flat arrays.

    `variances` are those that seeds, items and pairs add to the mean.
    """
    tail, (of_seeds, of_items, of_pairs) = 0.5 - test.confidence / 2, variances
    items, item_weights = _mean_square(num_items - 1, 24 if num_items < 30 else 6)
    if test.matched_seeds:
        seeds, seed_weights = _mean_square(num_seeds - 1, _SINGLE_NODES)
        df = np.full(len(seeds), num_seeds - 1.0)
    else:
        side, side_weights = _mean_square(num_seeds - 1, _NODES)
        first, second = (grid.ravel() for grid in np.meshgrid(side / 2, side / 2))
        seeds, seed_weights = first + second, np.outer(side_weights, side_weights).ravel()
        df = (num_seeds - 1.0) * seeds**2 / (first**2 + second**2)
    v_a, v_b = (of_seeds + of_pairs) * seeds[:, None], (of_items + of_pairs) * items[None, :]
    half_widths = crossed_half_width(
        (v_a, -stdtrit(df, tail)[:, None]), (v_b, -float(stdtrit(num_items - 1.0, tail))), of_pairs
    )
    return np.ravel(half_widths), np.outer(seed_weights, item_weights).ravel()


def _mean_square(df: int, nodes: int) -> tuple[Grid, Grid]:
    """Quantiles of `chi2(df) / df` and their weights, which sum to 1."""
    points, weights = np.polynomial.legendre.leggauss(nodes)
    return chdtri(df, 0.5 - points / 2) / df, weights / 2
