"""Intervals for scores that cross seeds with items: every seed's policy answered every item.

Model. Score of seed s on item i: `y_si = mu + a_s + b_i + e_si`, with independent random effects of the S seeds (they
vary between training runs), of the I items (they vary between test sets) and of the pair. Then

    Var(mean) = var_a / S + var_b / I + var_e / (S I).

It is estimated from the variances of the S seed means and of the I item means, each over its own count, and from the
residual mean square MS_e:

    V_a = var(seed means) / S,  V_b = var(item means) / I,  V_e = MS_e / (S I),
    E[V_a] = var_a / S + var_e / (S I),  E[V_b] = var_b / I + var_e / (S I),  E[V_e] = var_e / (S I),

so V_a + V_b counts the pair variance twice (for differences, `mean^2 / (V_a + V_b)` is Clark's min F'), and V_a +
(V_b - V_e) once, without bias (as his quasi F does). An interval is `mean -/+ t' sqrt(V)` with Cochran's critical value
t': the quantiles of t(S - 1) and t(d_b), weighted by the two terms of V. The half-width in use is that of V_a +
(V_b - V_e), but at most that of V_a + V_b, whose t' gives less weight to a few seeds, and at least that of V_b alone
less V_e / 2, since a few seeds may agree by chance. d_b is I - 1 for normal item means; where a few items decide, V_b
is less certain, and d_b falls with their kurtosis k: `2 I / (k - (I - 3) / (I - 1))` (Shoemaker), at most I - 1.

Departure from Clark, who takes Satterthwaite's degrees of freedom for V as a whole: with three seeds these come out too
high whenever the seeds agree by chance, and nominal 95 % intervals cover only 92-95 % once seed variance matters
(`benchmarks/coverage.py`; `benchmarks/variance_choices.py` compares ways to count V_e).

Source: Clark (1973), The language-as-fixed-effect fallacy, J. Verbal Learning and Verbal Behavior 12, 335-359 (min F');
Owen (2007), The pigeonhole bootstrap, Annals of Applied Statistics 1, 386-411 (a conservative variance over crossed
effects); Welch (1947), Biometrika 34, 28-35 (independent samples); Cochran (1964), Approximate significance levels of
the Behrens-Fisher test, Biometrics 20, 191-195; Shoemaker (2003), Fixing the F test for equal variances, American
Statistician 57, 105-114 (degrees of freedom of a variance, from the kurtosis).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import log10

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike
from scipy.optimize import brentq
from scipy.special import ndtr, stdtrit
from scipy.stats import kurtosis

from rlassay.stats.proportions import wilson

ScoreMatrix = Float[np.ndarray, "seeds items"]
CompleteScores = Float[np.ndarray, "complete_seeds complete_items"]
NAN = float("nan")
MIN_TAIL = 1e-100
"""Smallest tail probability that is distinguished from 0."""


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A mean over seeds and items, its confidence interval, and the test against 0."""

    mean: float
    """Mean over the scores used, in their unit; NaN when no item is complete."""
    low: float
    """Lower end of the interval; NaN with fewer than two items."""
    high: float
    """Upper end of the interval; NaN with fewer than two items."""
    p_value: float
    """Two-sided p-value of a mean of 0; NaN with one seed, whose variance between seeds was not measured."""
    num_seeds: int
    """Seeds used. With one, the interval covers items only."""
    num_items: int
    """Items used."""


def crossed_interval(scores: ArrayLike, confidence: float = 0.95) -> Interval:
    """Mean, interval and test of scores that cross seeds with items.

    Args:
        scores: shape (num_seeds, num_items); an item's repeated samples are averaged beforehand, since they are not
            independent items. NaN = not scored: seeds without any score are left out, then items that miss a score, so
            that every mean is over the same items.
        confidence: level of the interval, between 0 and 1.

    With one seed the interval is Student's over the items. Scores that are all equal have no variance to estimate: if
    they lie in [0, 1], the interval allows for unseen items at the rate that Wilson's bound permits after `num_items`
    without an exception (all 0: Wilson's interval itself), otherwise it has zero width.

    Raises:
        ValueError: not two-dimensional, infinite scores, or a confidence outside (0, 1).
    """
    values = _scores(scores, "scores")
    return _interval(values, [values], confidence, (0.0, 1.0) if are_shares(values) else None)


def paired_difference(a: ArrayLike, b: ArrayLike, confidence: float = 0.95, *, matched_seeds: bool = True) -> Interval:
    """`crossed_interval` of `a - b`, paired item by item.

    Effects that both share on an item cancel.

    Args:
        a: shape (num_seeds, num_items).
        b: the same shape, the same seeds and items in the same order; a score that is NaN in either is missing in both.
        confidence: level of the interval, between 0 and 1.
        matched_seeds: whether runs of the same seed share more than the number, such as their warm start: V_a is then
            the variance of the seeds' differences, on S - 1 degrees of freedom. False adds the variances of both
            sides, on Welch's degrees of freedom (between S - 1 and 2 S - 2): the same on average for runs that are
            independent, with narrower intervals for few seeds, and conservative when both sides vary together.

    Raises:
        ValueError: as `crossed_interval`, and shapes that differ.
    """
    first, second = _scores(a, "a"), _scores(b, "b")
    if first.shape != second.shape:
        raise ValueError(f"a has shape {first.shape}, b has {second.shape}; expected the same seeds and items in both")
    return contrast((first, second), (1.0, -1.0), confidence, matched_seeds=matched_seeds)


def contrast(
    cells: Sequence[ArrayLike], weights: Sequence[float], confidence: float = 0.95, *, matched_seeds: bool = True
) -> Interval:
    """`crossed_interval` of a weighted sum of several arms' scores.

    Examples are a main effect and a Shapley value.

    Args:
        cells: scores of each arm, shape (num_seeds, num_items), the same seeds and items in the same order.
        weights: the weight of each arm.
        confidence: level of the interval, between 0 and 1.
        matched_seeds: as in `paired_difference`, which is the contrast with the weights 1 and -1.

    Raises:
        ValueError: as `crossed_interval`, shapes that differ, and numbers of cells and weights that differ.
    """
    scores = _same_shape(cells, weights)
    values, sides = _weighted(scores, weights, matched_seeds)
    bounds = (sum(min(weight, 0.0) for weight in weights), sum(max(weight, 0.0) for weight in weights))
    return _interval(values, sides, confidence, bounds if are_shares(np.stack(scores)) else None)


def contrast_scores(
    cells: Sequence[ArrayLike], weights: Sequence[float], *, matched_seeds: bool = True
) -> tuple[CompleteScores, list[CompleteScores]]:
    """The weighted sum that `contrast` tests, and the sides whose seeds vary.

    Both are over the seeds and items that all cells have.
    """
    values, sides = _weighted(_same_shape(cells, weights), weights, matched_seeds)
    return _complete(values, sides)


def are_shares(scores: ArrayLike) -> bool:
    """Whether all scores, of any shape, lie in [0, 1]; NaN = not scored, and no score at all counts as yes."""
    values = np.asarray(scores, dtype=float)
    present = values[~np.isnan(values)]
    return bool(np.all((present >= 0) & (present <= 1)))


@dataclass(frozen=True, kw_only=True)
class VarianceComponent:
    """One estimated component of a mean's variance, with its degrees of freedom."""

    variance: float
    """The estimate, in squared units of the mean."""
    df: float
    """Degrees of freedom of the estimate."""

    def quantile(self, tail: float) -> float:
        """The critical value that Student's t exceeds with probability `tail`."""
        return -float(stdtrit(self.df, tail))


@dataclass(frozen=True, kw_only=True)
class MeanVariance:
    """Estimated variance of a mean over seeds and items, in its unit squared."""

    items: VarianceComponent
    """V_b."""
    seeds: VarianceComponent | None
    """V_a; None with one seed."""
    pairs: float = 0.0
    """V_e; 0 with one seed."""

    def half_width(self, tail: float) -> float:
        """Half-width of the interval with probability `tail` beyond either end."""
        of_items = self.items.variance, self.items.quantile(tail)
        of_seeds = (self.seeds.variance, self.seeds.quantile(tail)) if self.seeds else (0.0, 0.0)
        return float(crossed_half_width(of_seeds, of_items, self.pairs))

    def p_value(self, mean: float) -> float:
        """1 - confidence of the interval around `mean` that ends at 0, at least 2e-100."""

        def beyond(exponent: float) -> float:
            return self.half_width(10.0**exponent) - abs(mean)

        low, high = log10(MIN_TAIL), log10(0.5)
        if beyond(low) <= 0:  # the tail is below the smallest one that is reported
            return 2 * MIN_TAIL
        if beyond(high) >= 0:  # the mean is 0
            return 1.0
        return 2 * 10.0 ** float(brentq(beyond, low, high, xtol=1e-13))


Numbers = float | Float[np.ndarray, "..."]
"""One number, or as many as the other arguments have."""


def crossed_half_width(
    of_seeds: tuple[Numbers, Numbers], of_items: tuple[Numbers, Numbers], v_e: Numbers = 0.0
) -> Numbers:
    """Half-width of the interval of a mean over seeds and items.

    The rule is at the top of this module.

    Args:
        of_seeds: V_a and the critical value of its degrees of freedom.
        of_items: V_b and the critical value of its degrees of freedom.
        v_e: V_e, which V_b counts too.
    """
    v_b = of_items[0]
    rest, floor = np.maximum(v_b - v_e, 0.0), np.maximum(v_b / 2, v_b - v_e / 2)
    once = cochran_half_width(of_seeds, (rest, of_items[1]))
    return np.minimum(np.maximum(once, np.sqrt(floor) * of_items[1]), cochran_half_width(of_seeds, of_items))


def cochran_half_width(first: tuple[Numbers, Numbers], second: tuple[Numbers, Numbers]) -> Numbers:
    """Half-width `t' sqrt(V)` of an interval from two variances, `V = V_1 + V_2`.

    Each variance comes with the critical value of its degrees of freedom. The critical value t' is that of both,
    weighted by their variances; without any variance the half-width is 0.
    """
    variance = np.add(first[0], second[0])
    weighted = first[0] * first[1] + second[0] * second[1]
    return weighted / np.sqrt(np.where(variance > 0, variance, 1.0))


def _scores(scores: ArrayLike, name: str) -> ScoreMatrix:
    values = np.asarray(scores, dtype=float)
    if values.ndim != 2:
        raise ValueError(f"{name} has shape {values.shape}; expected (num_seeds, num_items)")
    if np.isinf(values).any():
        raise ValueError(f"{name} holds infinite scores; expected numbers, or NaN for scores that are missing")
    return values


def _same_shape(cells: Sequence[ArrayLike], weights: Sequence[float]) -> list[ScoreMatrix]:
    scores = [_scores(cell, f"cell {i}") for i, cell in enumerate(cells)]
    shapes = {values.shape for values in scores}
    if len(shapes) != 1 or len(scores) != len(weights):
        raise ValueError(
            f"got cells of the shapes {sorted(shapes)} and {len(weights)} weights; expected cells of one shape, and a "
            f"weight for each of the {len(scores)}"
        )
    return scores


def _weighted(
    scores: list[ScoreMatrix], weights: Sequence[float], matched_seeds: bool
) -> tuple[ScoreMatrix, list[ScoreMatrix]]:
    """The weighted sum, and the matrices whose variances between seeds add up to its own."""
    parts = [weight * values for weight, values in zip(weights, scores, strict=True)]
    total = np.sum(parts, axis=0)
    return total, [total] if matched_seeds else parts


def _complete(values: ScoreMatrix, sides: list[ScoreMatrix]) -> tuple[CompleteScores, list[CompleteScores]]:
    """Without the seeds that have no score, then without the items that miss one."""
    seeds = ~np.isnan(values).all(axis=1)
    items = ~np.isnan(values[seeds]).any(axis=0) if seeds.any() else np.zeros(values.shape[1], dtype=bool)
    return values[seeds][:, items], [side[seeds][:, items] for side in sides]


def _interval(
    values: ScoreMatrix, sides: list[ScoreMatrix], confidence: float, bounds: tuple[float, float] | None
) -> Interval:
    """Interval of the mean of `values`; its variance between seeds is the sum of that of all `sides`."""
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}; expected a level between 0 and 1, such as 0.95")
    values, sides = _complete(values, sides)
    num_seeds, num_items = values.shape
    mean, low, high, p_value = float(values.mean()) if values.size else NAN, NAN, NAN, NAN
    if values.size and num_items > 1:
        variance = variance_of_mean(values, sides)
        if variance is not None:
            half = variance.half_width(0.5 - confidence / 2)
            low, high, p_value = mean - half, mean + half, variance.p_value(mean)
        else:
            mean = float(values[0, 0])
            low, high, p_value = _constant(mean, num_items, confidence, bounds)
    p_value = NAN if num_seeds == 1 else p_value
    return Interval(mean=mean, low=low, high=high, p_value=p_value, num_seeds=num_seeds, num_items=num_items)


def variance_of_mean(values: CompleteScores, sides: Sequence[CompleteScores]) -> MeanVariance | None:
    """Of the mean of `values`, for two or more items; None when all values and all seeds are equal."""
    num_seeds = len(values)
    largest = max(float(np.abs(side).max()) for side in sides)
    smallest = (1e-12 * largest) ** 2  # below it, variances are those of rounding
    items = _between_items(values, smallest)
    seeds = _between_seeds(sides) if num_seeds > 1 else None
    of_pairs = sum(map(mean_square_of_pairs, sides)) / values.size if num_seeds > 1 else 0.0
    if items.variance + (seeds.variance if seeds else 0.0) > smallest:
        return MeanVariance(items=items, seeds=seeds, pairs=of_pairs)
    if np.ptp(values) == 0:
        return None
    # Seed means are all equal and so are item means, yet the scores differ: only the pair variance is left.
    df = (num_seeds - 1.0) * (values.shape[1] - 1.0)
    return MeanVariance(items=VarianceComponent(variance=mean_square_of_pairs(values) / values.size, df=df), seeds=None)


def _between_items(values: CompleteScores, smallest: float) -> VarianceComponent:
    """V_b on d_b degrees of freedom; with one seed they are I - 1, as in Student's interval."""
    num_seeds, num_items = values.shape
    means = values.mean(axis=0)
    variance = float(means.var(ddof=1)) / num_items
    if num_seeds == 1 or variance <= smallest:
        return VarianceComponent(variance=variance, df=num_items - 1.0)
    # The relative variance of V_b is 2 / d_b, where that of normal item means is 2 / (I - 1).
    relative_variance = 2 / (num_items - 1) + max(0.0, float(kurtosis(means))) / num_items
    return VarianceComponent(variance=variance, df=2 / relative_variance)


def _between_seeds(sides: Sequence[CompleteScores]) -> VarianceComponent:
    """V_a: the sum over the sides, on Welch's degrees of freedom."""
    num_seeds = len(sides[0])
    between = np.array([side.mean(axis=1).var(ddof=1) / num_seeds for side in sides])
    of_seeds = float(between.sum())
    shares = between / of_seeds if of_seeds > 0 else np.array([1.0])
    return VarianceComponent(variance=of_seeds, df=(num_seeds - 1.0) / float((shares**2).sum()))


def mean_square_of_pairs(values: CompleteScores) -> float:
    """MS_e: the variance that neither seeds nor items explain, for two or more of each."""
    num_seeds, num_items = values.shape
    residuals = values - values.mean(axis=1, keepdims=True) - values.mean(axis=0) + values.mean()
    return float((residuals**2).sum()) / ((num_seeds - 1) * (num_items - 1))


def _constant(
    value: float, num_items: int, confidence: float, bounds: tuple[float, float] | None
) -> tuple[float, float, float]:
    """Interval and p-value of scores that are all `value`.

    After n items without an exception, exceptions have a rate of at most `u = wilson(0, n)`; each could lie anywhere
    within the bounds, so the mean lies in `value + u * (bounds - value)`. The p-value is that interval's inversion: 1 -
    confidence at the confidence where it reaches 0, from `u = z^2 / (n + z^2)`.
    """
    if bounds is None:
        return value, value, float(value == 0)
    rate = wilson(0, num_items, confidence)[1]
    low, high = (value + rate * (bound - value) for bound in bounds)
    if value == 0:
        return low, high, 1.0
    limit = value / (value - bounds[0] if value > 0 else value - bounds[1])
    reached_at: float = -((num_items * limit / (1 - limit)) ** 0.5) if limit < 1 else -np.inf
    return low, high, 2 * float(ndtr(reached_at))
