"""Proportions of correct answers: Wilson's interval, intervals of shares, and pass@k."""

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike
from scipy.special import ndtri


def wilson(successes: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a proportion, never of zero width or outside [0, 1].

    It is `(low, high)`. With z the normal quantile and p = successes / trials: centre `(p + z^2/2n) / (1 + z^2/n)`,
    half-width `z sqrt(p(1-p)/n + z^2/4n^2) / (1 + z^2/n)`.

    Raises:
        ValueError: no trials, or successes outside 0..trials.
    Source: Wilson (1927), J. American Statistical Association 22, 209-212.
    """
    if not 0 <= successes <= trials or trials == 0:
        raise ValueError(f"{successes} successes in {trials} trials; expected 0 <= successes <= trials and trials > 0")
    z = float(ndtri(0.5 + confidence / 2))
    share = successes / trials
    shrink = 1 + z**2 / trials
    centre = (share + z**2 / (2 * trials)) / shrink
    half = z * float(np.sqrt(share * (1 - share) / trials + z**2 / (4 * trials**2))) / shrink
    # The ends are exact at 0 and 1, where rounding would leave 1e-17.
    low = 0.0 if successes == 0 else centre - half
    high = 1.0 if successes == trials else centre + half
    return low, high


def share_interval(share: float, half_width: float) -> tuple[float, float]:
    """An interval of a share in Wilson's form, which stays inside [0, 1].

    It is made from the half-width of the linear interval. The standard error of a share pi shrinks towards 0 and 1 as
    `sqrt(pi (1 - pi))`. With the half-width h at the mean p, the ends are the two shares that solve `(p - pi)^2 = c pi
    (1 - pi)`, `c = h^2 / (p (1 - p))`:

        (p + c / 2 -/+ sqrt(c p (1 - p) + c^2 / 4)) / (1 + c).

    With `h = z sqrt(p (1 - p) / n)`, so c = z^2 / n, they are those of `wilson`.

    Args:
        share: the mean p, above 0 and below 1.
        half_width: h, at least 0; it may combine several sources of variance and any quantile.

    Raises:
        ValueError: a share outside (0, 1), or a negative half-width.
    Source: Wilson (1927); Korn and Graubard (1998), Survey Methodology 24, 193-201 (the same form for shares whose
        variance is not binomial, by an effective sample size).
    """
    if not 0 < share < 1 or not half_width >= 0:
        raise ValueError(f"got share {share} and half-width {half_width}; expected 0 < share < 1 and half-width >= 0")
    c = half_width**2 / (share * (1 - share))
    reach = float(np.sqrt(c * share * (1 - share) + c**2 / 4))
    return max(0.0, (share + c / 2 - reach) / (1 + c)), min(1.0, (share + c / 2 + reach) / (1 + c))


def pass_at_k(
    num_samples: ArrayLike | int, num_correct: ArrayLike | int, k: ArrayLike | int
) -> Float[np.ndarray, "..."]:
    """Unbiased estimate of the probability that at least one of k samples is correct.

    With c correct samples of n it is `1 - C(n - c, k) / C(n, k)`, as the product over j < k of `(n - c - j) / (n - j)`,
    which cannot overflow.

    Args:
        num_samples: n, samples per item; broadcast against the others.
        num_correct: c, correct ones among them.
        k: number of samples drawn.

    Returns:
        The estimate per item, in [0, 1]; NaN where n < k.

    Raises:
        ValueError: k < 1, c < 0 or c > n.
    Source: Chen et al. (2021), Evaluating Large Language Models Trained on Code, equation 1.
    """
    n, c, draws = np.broadcast_arrays(*(np.asarray(value, dtype=float) for value in (num_samples, num_correct, k)))
    if np.any(draws < 1) or np.any(c < 0) or np.any(c > n):
        raise ValueError("expected k >= 1 and 0 <= num_correct <= num_samples")
    all_wrong = np.ones(n.shape)
    for j in range(int(draws.max(initial=0))):
        drawn = (j < draws) & (j < n)
        all_wrong = np.where(drawn, all_wrong * np.maximum(n - c - j, 0) / np.where(drawn, n - j, 1), all_wrong)
    return np.where(n < draws, np.nan, 1 - all_wrong)
