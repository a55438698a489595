"""Agreement of the planned power with simulation: `minimum_detectable_effect` and `seeds_needed` against binary scores.

Two arms answer the same items with a few samples each; a run's chance of a right answer is shifted by its seed, an
item's by the item, so that scores are shares and not normal. The effect that the report's test finds in 80 % of such
studies is read off simulated power curves and compared with the planned one; so is the number of seeds.
Run from the project's root: python -m benchmarks.power [--draws N]
"""

import argparse
from itertools import product

import numpy as np
from scipy.special import ndtri

from rlassay.stats import PlannedTest, minimum_detectable_effect, paired_difference, seeds_needed

POWER = 0.8
ITEM_SD = 0.12
FACTORS = np.array([0.8, 0.9, 1.0, 1.1, 1.2])
"""Simulated effects, as multiples of the planned one."""


def main() -> None:
    """Print one line per setting, and last the largest disagreement."""
    parser = argparse.ArgumentParser(description="The power formulas beside simulated studies.")
    parser.add_argument(
        "--draws", type=int, default=1000, help="simulated studies per setting and effect [%(default)s]"
    )
    draws = parser.parse_args().draws
    rng = np.random.default_rng(21)
    print(f"{'seeds':>5} {'items':>5} {'samples':>7} {'seed SD':>7} {'pairing':>11} {'planned':>8} {'simulated':>9}")
    ratios: list[float] = []
    for num_seeds, num_items, samples, seed_sd, matched in product(
        (3, 5, 10), (100, 400), (1, 8), (0.0, 0.02), (True, False)
    ):
        size = (num_seeds, num_items, samples)
        pair_sd = _pair_sd(samples)
        test = PlannedTest(pair_sd=pair_sd, matched_seeds=matched)
        planned = minimum_detectable_effect(num_seeds, num_items, 2**0.5 * seed_sd, ITEM_SD, POWER, test)
        powers = [_power(rng, draws, size, (seed_sd, factor * planned), matched) for factor in FACTORS]
        # Power is close to a normal probability of the effect, so that a line through its quantiles uses all draws.
        slope, start = np.polyfit(FACTORS, ndtri(np.clip(powers, 0.5 / draws, 1 - 0.5 / draws)), 1)
        ratios.append(float((ndtri(POWER) - start) / slope))
        name = "matched" if matched else "independent"
        shown = f"{100 * seed_sd:>7g} {name:>11} {100 * planned:>8.2f} {100 * planned * ratios[-1]:>9.2f}"
        print(f"{num_seeds:>5} {num_items:>5} {samples:>7} {shown}", flush=True)
    for effect in (0.045, 0.06, 0.09):
        print(_seeds_line(rng, draws, effect))
    print(f"simulated over planned minimum detectable effect: {min(ratios):.3f} to {max(ratios):.3f}")


def _pair_sd(samples: int) -> float:
    """Sampling noise of the difference of two shares whose chances are uniform on 0.3 to 0.7."""
    return (2 * (0.25 - 0.4**2 / 12 - ITEM_SD**2 / 2) / samples) ** 0.5


def _power(
    rng: np.random.Generator, draws: int, size: tuple[int, int, int], shift: tuple[float, float], matched: bool
) -> float:
    """Share of simulated studies whose test finds the effect; `shift` is the deviation of a seed and the effect."""
    (num_seeds, num_items, samples), (seed_sd, effect) = size, shift
    found = 0
    for _ in range(draws):
        chance, own = rng.uniform(0.3, 0.7, num_items), rng.normal(0, ITEM_SD / 2, num_items)
        arms = [
            rng.binomial(samples, np.clip(chance + sign * (own + effect / 2) + seeds, 0, 1)) / samples
            for sign, seeds in ((sign, rng.normal(0, seed_sd, (num_seeds, 1))) for sign in (1, -1))
        ]
        found += paired_difference(arms[0], arms[1], matched_seeds=matched).p_value < 0.05
    return found / draws


def _seeds_line(rng: np.random.Generator, draws: int, effect: float) -> str:
    """The simulated power with the seeds needed for an effect and with one less, at 200 items x 4 samples."""
    test = PlannedTest(pair_sd=_pair_sd(4), matched_seeds=False)
    seeds = seeds_needed(effect, 200, 2**0.5 * 0.03, ITEM_SD, POWER, test)
    assert seeds is not None
    powers = [_power(rng, 5 * draws, (number, 200, 4), (0.03, effect), False) for number in (seeds - 1, seeds)]
    shown = ", ".join(f"{100 * power:.1f} % with {seeds - 1 + i}" for i, power in enumerate(powers))
    return f"{seeds} seeds planned for {100 * effect:g} points at a seed SD of 3; simulated power {shown}"


if __name__ == "__main__":
    main()
