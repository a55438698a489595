"""Intervals for scores that cross seeds with items: every seed's policy answered every item.

Model. Score of seed s on item i: `y_si = mu + a_s + b_i + e_si`, with independent random effects of the S seeds (what
another training run would change), of the I items (what another test set would change) and of the pair. Then

    Var(mean) = var_a / S + var_b / I + var_e / (S I).

The variances of the S seed means and of the I item means, each over its own count, estimate it from above:

    V = V_a + V_b,  V_a = var(seed means) / S,  V_b = var(item means) / I,
    E[V_a] = var_a / S + var_e / (S I),  E[V_b] = var_b / I + var_e / (S I),

so V counts the pair variance twice: conservative by var_e / (S I), never negative, no component to truncate at 0. For
differences, `mean^2 / V` is Clark's min F'. The interval is `mean -/+ t' sqrt(V)` with Cochran's critical value

    t' = (V_a t(S - 1) + V_b t(I - 1)) / V,

the quantiles of Student's t weighted by what they stand for: Student's interval over items when seeds agree, over
seeds when items do, in between otherwise. Departure from Clark, who takes Satterthwaite's degrees of freedom: with
three seeds these come out too high whenever the seeds agree by chance, and intervals cover only 92-95 % at nominal 95 %
once seed variance matters; Cochran's cover 95-99 % (`benchmarks/coverage.py`).

Source: Clark (1973), The language-as-fixed-effect fallacy, J. Verbal Learning and Verbal Behavior 12, 335-359 (min F');
Cochran (1964), Approximate significance levels of the Behrens-Fisher test, Biometrics 20, 191-195 (t'); Owen (2007),
The pigeonhole bootstrap, Annals of Applied Statistics 1, 386-411 (a conservative variance over crossed effects).
"""

from dataclasses import dataclass
from math import log10

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike
from scipy.optimize import brentq
from scipy.special import ndtr, stdtr, stdtrit

from rlassay.stats.proportions import wilson

Scores = Float[np.ndarray, "seeds items"]
NAN = float("nan")
LEAST = 1e-100
"""Smallest tail probability told apart from 0."""


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A mean over seeds and items, its confidence interval, and the test that it is 0."""

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
            independent items. NaN = could not be judged: seeds without any score are left out, then items that miss a
            score, so that every mean is over the same items.
        confidence: level of the interval, between 0 and 1.

    With one seed the interval is Student's over the items. Scores that are all equal have no variance to estimate: if
    they lie in [0, 1], the interval allows for unseen items at the rate that Wilson's bound permits after `num_items`
    without an exception (all 0: Wilson's interval itself), otherwise it has zero width.

    Raises:
        ValueError: not two-dimensional, infinite scores, or a confidence outside (0, 1).
    """
    values = _scores(scores, "scores")
    return _interval(values, confidence, (0.0, 1.0) if _are_shares(values) else None)


def paired_difference(a: ArrayLike, b: ArrayLike, confidence: float = 0.95) -> Interval:
    """`crossed_interval` of `a - b`, paired by seed and item: what both have in common cancels.

    Args:
        a: shape (num_seeds, num_items).
        b: the same shape, the same seeds and items in the same order; a score that is NaN in either is missing in both.
        confidence: level of the interval, between 0 and 1.

    Raises:
        ValueError: as `crossed_interval`, and shapes that differ.
    """
    first, second = _scores(a, "a"), _scores(b, "b")
    if first.shape != second.shape:
        raise ValueError(f"a has shape {first.shape}, b has {second.shape}; expected the same seeds and items in both")
    shares = _are_shares(first) and _are_shares(second)
    return _interval(first - second, confidence, (-1.0, 1.0) if shares else None)


def _scores(scores: ArrayLike, name: str) -> Scores:
    values = np.asarray(scores, dtype=float)
    if values.ndim != 2:
        raise ValueError(f"{name} has shape {values.shape}; expected (num_seeds, num_items)")
    if np.isinf(values).any():
        raise ValueError(f"{name} holds infinite scores; expected numbers, or NaN for scores that are missing")
    return values


def _are_shares(values: Scores) -> bool:
    present = values[~np.isnan(values)]
    return bool(np.all((present >= 0) & (present <= 1)))


def _interval(values: Scores, confidence: float, bounds: tuple[float, float] | None) -> Interval:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}; expected a level between 0 and 1, such as 0.95")
    values = values[~np.isnan(values).all(axis=1)]
    values = values[:, ~np.isnan(values).any(axis=0)]
    num_seeds, num_items = values.shape
    if values.size == 0:
        items = num_items if num_seeds else 0
        return Interval(mean=NAN, low=NAN, high=NAN, p_value=NAN, num_seeds=num_seeds, num_items=items)
    mean = float(values.mean())
    if num_items == 1:
        low = high = p_value = NAN
    elif np.ptp(values) == 0:
        mean = float(values[0, 0])
        low, high, p_value = _constant(mean, num_items, confidence, bounds)
    else:
        variances = _variances(values)
        reach = _reach(variances, 0.5 - confidence / 2)
        low, high, p_value = mean - reach, mean + reach, _p_value(mean, variances)
    p_value = NAN if num_seeds == 1 else p_value
    return Interval(mean=mean, low=low, high=high, p_value=p_value, num_seeds=num_seeds, num_items=num_items)


def _variances(values: Scores) -> list[tuple[float, float]]:
    """The parts of V, each with its degrees of freedom, for two or more items whose scores are not all equal."""
    num_seeds, num_items = values.shape
    seed_means, item_means = values.mean(axis=1), values.mean(axis=0)
    parts = [(float(item_means.var(ddof=1)) / num_items, num_items - 1.0)]
    if num_seeds > 1:
        parts.append((float(seed_means.var(ddof=1)) / num_seeds, num_seeds - 1.0))
    if sum(part for part, _ in parts) > (1e-12 * float(np.abs(values).max())) ** 2:
        return parts
    # Seed means are all equal and so are item means, yet the scores differ: what is left is the pair variance.
    freedom = (num_seeds - 1.0) * (num_items - 1.0)
    pairs = values - seed_means[:, None] - item_means[None, :] + values.mean()
    return [(float((pairs**2).sum()) / freedom / values.size, freedom)]


def _reach(variances: list[tuple[float, float]], tail: float) -> float:
    """Half-width `t' sqrt(V)` of the interval that leaves out `tail` on either side."""
    weighted = sum(part * -float(stdtrit(freedom, tail)) for part, freedom in variances)
    return weighted / sum(part for part, _ in variances) ** 0.5


def _p_value(mean: float, variances: list[tuple[float, float]]) -> float:
    """1 - confidence of the interval that ends at 0; it lies between the p-values at either's degrees of freedom."""
    statistic: float = abs(mean) / sum(part for part, _ in variances) ** 0.5
    tails = [max(float(stdtr(freedom, -statistic)), LEAST) for _, freedom in variances]
    if min(tails) == max(tails):
        return 2 * tails[0]

    def beyond(exponent: float) -> float:
        return _reach(variances, 10.0**exponent) - abs(mean)

    low, high = log10(min(tails)) - 1e-6, min(log10(max(tails)) + 1e-6, log10(0.5))
    return 2 * 10.0 ** float(brentq(beyond, low, high, xtol=1e-13))


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
