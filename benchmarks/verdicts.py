"""How often the report is wrong about effects that are known: false verdicts of either kind, and power.

Each simulated study has a baseline and three arms whose true effects are planted, and goes through the report's own
code, from scores per seed and prompt to the outcomes after Holm's correction. An error is "helps" or "hurts" of an arm
without an effect (or of the wrong sign), and "no effect as large as declared" of one whose effect is that large. The
second table has studies of one arm whose effect is the one that `minimum_detectable_effect` promises to find in 80 %.
Run from the project's root: python -m benchmarks.verdicts [--studies N] [--setting K ...] [--power]
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np

from rlassay.report.gather import Results
from rlassay.report.verdicts import compare_with_baseline
from rlassay.stats import PlannedTest, minimum_detectable_effect
from tests.report.by_hand import hand_results

MARGIN = 0.05
"""Declared smallest effect: 5 points."""
ARMS = ("accuracy_only", "format_only", "dr_grpo")
PLANTED = {"nulls": (0.0, 0.0, 0.0), "at the margin": (MARGIN, -MARGIN, MARGIN), "mixed": (0.0, MARGIN, 0.15)}
"""True effects of the three arms."""
SPREADS = (0.0, 0.015, 0.04)
"""Standard deviations between the seeds of an arm."""
SETTINGS = list(product(PLANTED.items(), (3, 5), SPREADS))
"""Planted effects, seeds, standard deviation between seeds."""
ITEMS, SAMPLES = 200, 8
CHANCES = (0.25, 0.65)
"""Range of the baseline's chance of a right answer over prompts."""
ITEM_SD = 0.05
"""Standard deviation of an arm's true effect between prompts."""


def main() -> None:
    """Print one line per setting, and last the highest rates of false verdicts and the range of the power."""
    parser = argparse.ArgumentParser(description="False verdicts of the report, by simulation.")
    parser.add_argument("--studies", type=int, default=500, help="simulated studies per setting [%(default)s]")
    parser.add_argument("--setting", type=int, nargs="+", default=range(len(SETTINGS)), help="settings, from 0 [all]")
    parser.add_argument("--power", action="store_true", help="only the second table")
    arguments = parser.parse_args()
    if not arguments.power:
        _print_false_verdicts(arguments.studies, arguments.setting)
    if arguments.power or len(arguments.setting) == len(SETTINGS):
        _print_power(arguments.studies)


def _print_false_verdicts(studies: int, settings: Sequence[int]) -> None:
    print("share of studies in % with a false difference, a false equivalence; share of arms by outcome")
    worst = np.zeros(2)
    for setting in settings:
        (name, effects), num_seeds, spread = SETTINGS[setting]
        rng = np.random.default_rng([22, setting])
        false, outcomes = _rates(rng, studies, effects, (num_seeds, ITEMS, spread))
        worst = np.maximum(worst, false)
        shares = ", ".join(f"{key} {100 * share:.0f}" for key, share in sorted(outcomes.items()))
        print(
            f"{name:>13} {num_seeds:>2} seeds {ITEMS:>4} items, seed SD {100 * spread:>3g}: "
            f"{100 * false[0]:>4.1f} {100 * false[1]:>4.1f}; {shares}",
            flush=True,
        )
    print(f"highest rate of false differences {100 * worst[0]:.1f} %, of false equivalences {100 * worst[1]:.1f} %")


def _print_power(studies: int) -> None:
    """Print the share of studies that find the effect which is promised to be found in 80 % of them."""
    found: list[float] = []
    for setting, (num_seeds, spread) in enumerate(product((3, 5, 10), SPREADS)):
        effect = _promised(num_seeds, spread)
        rng = np.random.default_rng([24, setting])
        _, outcomes = _rates(rng, studies, (effect,), (num_seeds, ITEMS, spread))
        found.append(outcomes.get("better", 0.0))
        print(
            f"{num_seeds:>2} seeds {ITEMS:>4} items, seed SD {100 * spread:>3g}: an effect of "
            f"{100 * effect:.1f} points is found in {100 * found[-1]:.1f} %, promised 80",
            flush=True,
        )
    print(f"power where 80 % is promised: {100 * min(found):.1f} to {100 * max(found):.1f} %")


def _promised(num_seeds: int, spread: float) -> float:
    """The effect that a study of one arm finds with probability 80 %, from the deviations of `simulated_scores`."""
    low, high = CHANCES
    mean, variance = (low + high) / 2, (high - low) ** 2 / 12 + spread**2
    of_baseline = mean - mean**2 - variance
    effect = 0.0
    # The noise of sampling depends a little on the effect itself.
    for _ in range(5):
        of_arm = mean + effect - (mean + effect) ** 2 - variance - ITEM_SD**2
        test = PlannedTest(pair_sd=((of_baseline + of_arm) / SAMPLES) ** 0.5, matched_seeds=False)
        effect = minimum_detectable_effect(num_seeds, ITEMS, 2**0.5 * spread, ITEM_SD, 0.8, test)
    return effect


def _rates(
    rng: np.random.Generator, studies: int, effects: tuple[float, ...], size: tuple[int, int, float]
) -> tuple[np.ndarray, dict[str, float]]:
    """Shares of studies with a false difference and with a false equivalence; outcome -> share of all arms."""
    false, outcomes = np.zeros(2), dict[str, float]()
    for _ in range(studies):
        found = outcomes_of(rng, effects, size)
        false += false_verdicts(found, effects)
        for outcome in found:
            outcomes[outcome] = outcomes.get(outcome, 0.0) + 1 / studies / len(found)
    return false / studies, outcomes


def outcomes_of(rng: np.random.Generator, effects: tuple[float, ...], size: tuple[int, int, float]) -> tuple[str, ...]:
    """Outcomes of the arms of one simulated study with the planted effects."""
    results = declared(simulated_scores(rng, effects, size))
    return tuple(one.outcome for one in compare_with_baseline(results, 0.95, plan=False))


def simulated_scores(
    rng: np.random.Generator, effects: tuple[float, ...], size: tuple[int, int, float]
) -> dict[str, np.ndarray]:
    """Scores (seeds, items) of the warm start, a baseline and the arms of a study with the planted effects."""
    num_seeds, num_items, spread = size
    chance = rng.uniform(*CHANCES, num_items)
    scores = {"sft": rng.binomial(SAMPLES, chance, (1, num_items)) / SAMPLES}
    for arm, effect in zip(("base", *ARMS[: len(effects)]), (0.0, *effects), strict=True):
        varied = 0.0 if arm == "base" else rng.normal(0, ITEM_SD, num_items)
        shifted = chance + effect + varied + rng.normal(0, spread, (num_seeds, 1))
        scores[arm] = rng.binomial(SAMPLES, np.clip(shifted, 0, 1)) / SAMPLES
    return scores


def declared(scores: dict[str, np.ndarray], **study: Any) -> Results:
    """Results with those scores, of a study that declares the margin and the given keys."""
    results = hand_results(scores, SAMPLES)
    primary = results.study.primary.model_copy(update={"smallest_effect": MARGIN})
    return replace(results, study=results.study.model_copy(update={"primary": primary, **study}))


def false_verdicts(outcomes: tuple[str, ...], effects: tuple[float, ...]) -> np.ndarray:
    """Whether any outcome is a false difference, and whether any is a false equivalence."""
    pairs = list(zip(outcomes, effects, strict=True))
    difference = any(
        (outcome == "better" and effect <= 0) or (outcome == "worse" and effect >= 0) for outcome, effect in pairs
    )
    return np.array([difference, any(outcome == "equivalent" and abs(effect) >= MARGIN for outcome, effect in pairs)])


if __name__ == "__main__":
    main()
