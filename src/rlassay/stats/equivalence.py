"""Two one-sided tests: whether a difference is shown to be smaller than a margin."""

from numpy.typing import ArrayLike
from scipy.special import ndtr

from rlassay.stats.intervals import are_shares, contrast_scores, paired_difference, variance_of_mean


def equivalent(
    a: ArrayLike, b: ArrayLike, margin: float, confidence: float = 0.95, *, matched_seeds: bool = True
) -> bool:
    """Whether two arms are shown to differ by less than `margin`, in either direction.

    Both one-sided tests at level alpha = 1 - confidence reject a difference beyond the margin exactly when the interval
    of `paired_difference` at confidence `1 - 2 alpha` (90 % for 0.95) lies within `(-margin, margin)`. False means
    "not shown", never "different"; it is the answer for a single seed, whose variance between seeds is not known.

    Args:
        a: scores, shape (num_seeds, num_items).
        b: the same shape, the same seeds and items in the same order.
        margin: the smallest difference that matters, above 0, in the scores' unit.
        confidence: 1 minus the probability of a false "equivalent", above 0.5.
        matched_seeds: as in `paired_difference`.

    Raises:
        ValueError: as `paired_difference`, and a margin or a confidence out of its range.
    Source: Schuirmann (1987), A comparison of the two one-sided tests procedure and the power approach, J.
        Pharmacokinetics and Biopharmaceutics 15, 657-680.
    """
    _check_margin(margin)
    if not 0.5 < confidence < 1:
        raise ValueError(f"confidence is {confidence:g}; expected a level between 0.5 and 1, such as 0.95")
    found = paired_difference(a, b, 2 * confidence - 1, matched_seeds=matched_seeds)
    return found.num_seeds > 1 and -margin < found.low and found.high < margin


def equivalence_p_value(a: ArrayLike, b: ArrayLike, margin: float, *, matched_seeds: bool = True) -> float:
    """The smallest `1 - confidence` at which `equivalent` holds; 1 where none below 1/2 does, NaN with one seed.

    With mean difference m, the `1 - 2 alpha` interval lies within `(-margin, margin)` exactly if its half-width is
    below `margin - |m|`, so that alpha is half the two-sided p-value of a mean `margin - |m|` with the same variance.

    Args:
        a: as in `equivalent`.
        b: as in `equivalent`.
        margin: the smallest difference that matters, above 0.
        matched_seeds: as in `paired_difference`.

    Raises:
        ValueError: as `equivalent`.
    """
    _check_margin(margin)
    values, sides = contrast_scores((a, b), (1.0, -1.0), matched_seeds=matched_seeds)
    num_seeds, num_items = values.shape
    if num_seeds < 2:
        return float("nan")
    mean = float(values.mean()) if values.size else float("nan")
    if num_items < 2 or abs(mean) >= margin:
        return 1.0
    variance = variance_of_mean(values, sides)
    if variance is not None:
        return variance.p_value(margin - abs(mean)) / 2
    return _of_equal_differences(mean, num_items, margin) if are_shares(a) and are_shares(b) else 0.0


def _check_margin(margin: float) -> None:
    if not margin > 0:
        raise ValueError(f"margin is {margin:g}; expected the smallest difference that matters, above 0")


def _of_equal_differences(value: float, num_items: int, margin: float) -> float:
    """`equivalence_p_value` of shares that all differ by `value`.

    The interval is `value + u (bound - value)` towards -1 and 1, with Wilson's `u = z^2 / (n + z^2)` for n items
    without an exception; it reaches the margin at the smaller of two u.
    """
    if margin >= 1:
        return 0.0
    reached = min((margin - value) / (1 - value), (margin + value) / (1 + value))
    z: float = (num_items * reached / (1 - reached)) ** 0.5
    return float(ndtr(-z))
