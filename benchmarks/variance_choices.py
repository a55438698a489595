"""Ways to count the variance that a seed and an item share: coverage and width, for normal scores and many items.

Scale: the variance between items and that of the pairs together are 1 in the mean, and both are known, since they have
many degrees of freedom; the variance between seeds is estimated, on S - 1. Then a half-width is a function of V_a
alone, whose distribution is known, and coverage is an integral, without draws. Critical values are Cochran's, weighted
by the two terms, unless the choice says otherwise; "over items" is Student's interval from V_b alone. The grid has pair
variances of 0 to 1 and true variances between seeds of 0 to 200.
Run from the project's root: python -m benchmarks.variance_choices
"""

from itertools import product

import numpy as np
from jaxtyping import Float
from scipy.special import chdtri, ndtr, stdtrit

Grid = Float[np.ndarray, " grid"]
SEEDS = (2, 3, 5, 10)
PAIRS = (0.0, 0.2, 0.4, 0.6, 0.8, 0.9, 1.0)
BETWEEN_SEEDS = (0.0, 0.03, 0.1, 0.2, 0.4, 0.7, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 10.0, 20.0, 50.0, 200.0)
TYPICAL = (0.8, 0.0)
"""Setting of the widths: one sample per item, seeds that do not differ."""
POINTS = (np.arange(20_000) + 0.5) / 20_000
TAIL, Z = 0.025, 1.959964


def main() -> None:
    """Print one line per number of seeds and choice."""
    print("coverage in % over the grid; mean width over that with known variances, pair variance 0.8, seeds alike")
    for num_seeds in SEEDS:
        rows = [_scored(num_seeds, *setting) for setting in product(PAIRS, BETWEEN_SEEDS)]
        typical = _scored(num_seeds, *TYPICAL)
        for name in typical:
            covered = [row[name][0] for row in rows]
            above = sum(share > 0.985 for share in covered)
            print(
                f"{num_seeds:>2} seeds, {name:<40} {100 * min(covered):5.1f} to {100 * max(covered):5.1f}, "
                f"above 98.5 in {above:>2} of {len(rows)}; width {typical[name][1]:.2f}"
            )


def _scored(num_seeds: int, pairs: float, between: float) -> dict[str, tuple[float, float]]:
    """Choice -> coverage and relative width."""
    v_a = (between + pairs) * chdtri(num_seeds - 1, 1 - POINTS) / (num_seeds - 1)
    deviation = (between + 1) ** 0.5
    return {
        name: (float((2 * ndtr(half / deviation) - 1).mean()), float(half.mean() / deviation / Z))
        for name, half in _half_widths(v_a, pairs, num_seeds).items()
    }


def _half_widths(v_a: Grid, v_e: float, num_seeds: int) -> dict[str, Grid]:
    """Choice -> half-width for every V_a; V_b is 1."""
    quantile = -float(stdtrit(num_seeds - 1, TAIL))

    def cochran(of_seeds: Grid, rest: float) -> Grid:
        return (of_seeds * quantile + rest * Z) / np.sqrt(of_seeds + rest)

    twice, once = cochran(v_a, 1.0), cochran(v_a, 1 - v_e)
    floored = np.maximum(v_a + 1 - v_e, 1.0)
    df = (v_a + 1 - v_e) ** 2 / np.maximum(v_a, 1e-30) ** 2 * (num_seeds - 1)
    return {
        "V_a + V_b": twice,
        "V_a + (V_b - V_e)": once,
        "V_a + (V_b - V_e), at least over items": np.maximum(once, Z),
        "the smaller of that and V_a + V_b": np.minimum(twice, np.maximum(once, Z)),
        "the same, at least over V_b - V_e / 2": np.minimum(twice, np.maximum(once, Z * np.sqrt(1 - v_e / 2))),
        "max(0, V_a - V_e) + V_b": cochran(np.maximum(v_a - v_e, 0.0), 1.0),
        "max(0, V_a - V_e / 2) + V_b": cochran(np.maximum(v_a - v_e / 2, 0.0), 1.0),
        "max(V_b, V_a + V_b - V_e)": np.sqrt(floored) * (v_a * quantile + Z) / (v_a + 1),
        "that with Satterthwaite's quantile": np.sqrt(floored) * -stdtrit(np.minimum(df, 1e9), TAIL),
        "squared half-widths added": np.maximum(np.sqrt(Z**2 * (1 - v_e) + quantile**2 * v_a), Z),
    }


if __name__ == "__main__":
    main()
