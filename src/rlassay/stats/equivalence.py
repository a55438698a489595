"""Two one-sided tests: whether a difference is shown to be smaller than a margin."""

from numpy.typing import ArrayLike

from rlassay.stats.intervals import paired_difference


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
    if not margin > 0:
        raise ValueError(f"margin is {margin:g}; expected the smallest difference that matters, above 0")
    if not 0.5 < confidence < 1:
        raise ValueError(f"confidence is {confidence:g}; expected a level between 0.5 and 1, such as 0.95")
    found = paired_difference(a, b, 2 * confidence - 1, matched_seeds=matched_seeds)
    return found.num_seeds > 1 and -margin < found.low and found.high < margin
