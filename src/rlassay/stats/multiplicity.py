"""Holm's correction of p-values that are read together."""

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike


def holm(p_values: ArrayLike) -> Float[np.ndarray, " comparisons"]:
    """Holm's step-down adjusted p-values, which bound the chance of any false rejection.

    In the family that chance stays below the level. With the m p-values in ascending order, the j-th (from 0) becomes
    the largest `(m - i) p_i` over i <= j, at most 1.

    Args:
        p_values: one per comparison; NaN = not tested: not counted in m, and stays NaN.

    Returns:
        The adjusted p-values in the order given.

    Raises:
        ValueError: not one-dimensional, or a value outside [0, 1].
    Source: Holm (1979), A simple sequentially rejective multiple test procedure, Scand. J. of Statistics 6, 65-70.
    """
    given = np.asarray(p_values, dtype=float)
    tested = ~np.isnan(given)
    if given.ndim != 1 or np.any((given[tested] < 0) | (given[tested] > 1)):
        raise ValueError(f"got p-values {given.tolist()}; expected a list of numbers between 0 and 1, or NaN")
    adjusted = given.copy()
    values = given[tested]
    order = np.argsort(values, kind="stable")
    steps = np.maximum.accumulate((len(values) - np.arange(len(values))) * values[order])
    back = np.empty(len(values))
    back[order] = np.minimum(steps, 1.0)
    adjusted[tested] = back
    return adjusted
