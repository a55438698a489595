"""Coverage of nominal 95 % intervals for a difference between arms when seeds differ.

Two arms answer the same items; each run's probability of a correct answer is shifted by its seed. The study's
intervals, for matched and for independent seeds, are compared with an interval over items alone and with one that takes
Satterthwaite's degrees of freedom for the whole variance. A second table has the level of one arm near the ends of the
range, where the report's interval takes Wilson's form: its coverage, that of the linear interval clipped to the range,
and their mean widths.
Run from the project's root: python -m benchmarks.coverage [--draws N]
"""

import argparse
from collections.abc import Callable
from itertools import product

import numpy as np
from scipy import stats

from rlassay.report.tables import estimate
from rlassay.stats import Interval, crossed_interval, paired_difference

EFFECT = 0.03
FIELD = (0.015, 0.015)
"""Seed-to-seed standard deviations of the two arms in the field setting: 1.5 points."""
SPREADS = ((0.0, 0.0), FIELD, (0.04, 0.04), (0.03, 0.0))
"""No seed variance, the field setting, a large one, and one arm that varies while the other does not."""


def main() -> None:
    """Print one line per setting, and last the range of the study's coverage in the field setting."""
    parser = argparse.ArgumentParser(description="Coverage of the report's intervals, by simulation.")
    parser.add_argument("--draws", type=int, default=2000, help="simulated studies per setting [%(default)s]")
    draws = parser.parse_args().draws
    rng = np.random.default_rng(20)
    print(f"{'seeds':>5} {'items':>5} {'samples':>7} {'seed SD':>9} " + " ".join(f"{name:>13}" for name in METHODS))
    field, every = list[float](), list[float]()
    for num_seeds, num_items, samples, spread in product((2, 3, 5, 10), (100, 1000), (1, 8), SPREADS):
        covered = _coverage(rng, draws, (num_seeds, num_items, samples), spread)
        shown = "/".join(f"{100 * one:g}" for one in dict.fromkeys(spread))
        line = " ".join(f"{100 * share:>13.1f}" for share in covered.values())
        print(f"{num_seeds:>5} {num_items:>5} {samples:>7} {shown:>9} {line}")
        every += [covered["matched"], covered["independent"]]
        field += every[-2:] if spread == FIELD else []
    for name, shares in (("at a seed SD of 1.5 points", field), ("in all settings", every)):
        print(f"coverage of nominal 95 % intervals {name}: {100 * min(shares):.1f} to {100 * max(shares):.1f} %")
    print_levels(draws)


def print_levels(draws: int) -> None:
    """Print one line per setting for levels near the ends of the range, and last the range of the coverage."""
    rng, found = np.random.default_rng(21), []
    print(f"\n{'level':>5} {'seeds':>5} {'items':>5} {'seed SD':>7} {'Wilson':>7} {'clipped':>7}  mean widths, points")
    for level, num_seeds, num_items, spread in product(
        (0.005, 0.02, 0.1, 0.98), (2, 3, 5, 10), (100, 1000), (0.0, 0.015, 0.04)
    ):
        hits, widths = _level_coverage(rng, draws // 4, (level, spread), (num_seeds, num_items))
        found.append(hits[0])
        print(
            f"{level:>5} {num_seeds:>5} {num_items:>5} {100 * spread:>7g} {100 * hits[0]:>7.1f} {100 * hits[1]:>7.1f}  "
            f"{100 * widths[0]:.1f} {100 * widths[1]:.1f}"
        )
    print(f"coverage of levels near the ends: {100 * min(found):.1f} to {100 * max(found):.1f} %")


def _level_coverage(
    rng: np.random.Generator, draws: int, truth: tuple[float, float], size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Share of intervals with the true mean, and their mean width: in the report's form, and clipped.

    A seed multiplies the odds of all its items, so that its shift shrinks near the ends, as real ones do: `truth` is
    the level and the deviation that a seed would have in the middle of the range.
    """
    level, spread = truth
    num_seeds, num_items = size
    logits = np.log(level / (1 - level)) + rng.normal(0, 1.5, 200_000)[None] + 4 * rng.normal(0, spread, (1, 200_000))
    mean = float((1 / (1 + np.exp(-logits))).mean())
    hits, widths = np.zeros(2), np.zeros(2)
    for _ in range(draws):
        easy = np.log(level / (1 - level)) + rng.normal(0, 1.5, num_items)
        chance = 1 / (1 + np.exp(-(easy + 4 * rng.normal(0, spread, (num_seeds, 1)))))
        scores = rng.binomial(8, chance) / 8
        shown, linear = estimate(scores, "share", 0.95), crossed_interval(scores)
        for place, (low, high) in enumerate(
            ((shown.low or 0.0, shown.high or 0.0), (max(0.0, linear.low), min(1.0, linear.high)))
        ):
            hits[place] += low <= mean <= high
            widths[place] += high - low
    return hits / draws, widths / draws


def _coverage(
    rng: np.random.Generator, draws: int, size: tuple[int, int, int], spread: tuple[float, ...]
) -> dict[str, float]:
    """Method -> share of simulated studies whose interval contains the true difference."""
    num_seeds, num_items, samples = size
    hits = dict.fromkeys(METHODS, 0)
    for _ in range(draws):
        chance = rng.uniform(0.2, 0.75, num_items)
        effect = rng.normal(EFFECT, 0.1, num_items)
        arms = []
        for deviation, shift in zip(spread, (effect, 0.0), strict=True):
            shifted = chance + shift + rng.normal(0, deviation, (num_seeds, 1))
            arms.append(rng.binomial(samples, np.clip(shifted, 0, 1)) / samples)
        for name, method in METHODS.items():
            low, high = method(arms[0], arms[1])
            hits[name] += low <= EFFECT <= high
    return {name: count / draws for name, count in hits.items()}


def _ends(interval: Interval) -> tuple[float, float]:
    return interval.low, interval.high


def _items_only(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    return _ends(paired_difference(a.mean(axis=0)[None], b.mean(axis=0)[None]))


def _satterthwaite(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    values = a - b
    parts = np.array([values.mean(axis=1 - axis).var(ddof=1) / size for axis, size in enumerate(values.shape)])
    freedom = parts.sum() ** 2 / (parts**2 / (np.array(values.shape) - 1)).sum()
    reach = stats.t.ppf(0.975, freedom) * parts.sum() ** 0.5
    return values.mean() - reach, values.mean() + reach


METHODS: dict[str, Callable[[np.ndarray, np.ndarray], tuple[float, float]]] = {
    "matched": lambda a, b: _ends(paired_difference(a, b)),
    "independent": lambda a, b: _ends(paired_difference(a, b, matched_seeds=False)),
    "items only": _items_only,
    "Satterthwaite": _satterthwaite,
}


if __name__ == "__main__":
    main()
