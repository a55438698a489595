"""Robust statistics of scores over seeds and items: interquartile mean, probability of improvement."""

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike


def iqm(scores: ArrayLike) -> float:
    """Interquartile mean: the mean of n scores without the floor(n / 4) lowest and highest.

    Args:
        scores: any shape, all scores alike, such as (num_seeds, num_items); NaN = not scored, left out.

    Returns:
        The mean; NaN without any score.

    Raises:
        ValueError: infinite scores.
    Source: Agarwal et al. (2021), Deep Reinforcement Learning at the Edge of the Statistical Precipice, section 4.3.
    """
    values = np.asarray(scores, dtype=float).ravel()
    values = np.sort(values[~np.isnan(values)])
    if np.isinf(values).any():
        raise ValueError("scores holds infinite values; expected numbers, or NaN for scores that are missing")
    cut = len(values) // 4
    return float(values[cut : len(values) - cut].mean()) if len(values) else float("nan")


def probability_of_improvement(a: ArrayLike, b: ArrayLike) -> float:
    """Probability that a run of `a` beats a run of `b` on an item.

    `mean_i P(a_i > b_i) + P(a_i = b_i) / 2`, over all pairs of seeds (Mann and Whitney's U over their number).

    Args:
        a: scores, shape (num_seeds_a, num_items); NaN = not scored: its pairs are left out, as are items without any.
        b: shape (num_seeds_b, num_items), the same items in the same order.

    Returns:
        A number in [0, 1], 0.5 for equal arms; NaN without an item that both scored.

    Raises:
        ValueError: not two-dimensional, or different numbers of items.
    Source: Agarwal et al. (2021), section 4.3 and appendix A.6; Mann and Whitney (1947).
    """
    first, second = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    if first.ndim != 2 or second.ndim != 2 or first.shape[1] != second.shape[1]:
        raise ValueError(
            f"a has shape {first.shape}, b has {second.shape}; expected (num_seeds, num_items), with the same items"
        )
    shares = np.array([_beats(first[:, i], second[:, i]) for i in range(first.shape[1])])
    return float(np.nanmean(shares)) if not np.isnan(shares).all() else float("nan")


def _beats(ours: Float[np.ndarray, " seeds_a"], theirs: Float[np.ndarray, " seeds_b"]) -> float:
    ours, theirs = ours[~np.isnan(ours)], theirs[~np.isnan(theirs)]
    if not len(ours) or not len(theirs):
        return float("nan")
    lead = ours[:, None] - theirs[None, :]
    return float((lead > 0).mean() + (lead == 0).mean() / 2)
