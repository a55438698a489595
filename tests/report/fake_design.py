"""Results of a designed study with planted effects of its ingredients."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import combinations

import numpy as np

from rlassay.report.gather import Results
from tests.report.by_hand import hand_results

LABELS = {"a": "accuracy reward", "b": "format reward", "c": "length reward"}
NUM_SEEDS, NUM_ITEMS = 3, 40
FACTORIAL = [frozenset(chosen) for size in range(4) for chosen in combinations("abc", size)]
FRACTION = [frozenset(chosen) for chosen in ("", "ac", "bc", "ab")]
"""An arm has `c` if it has one of `a` and `b`."""


def additive(has: frozenset[str]) -> float:
    """Mean score of an arm without interactions."""
    return 0.3 + sum({"a": 0.1, "b": 0.05, "c": -0.02}[name] for name in has)


def interacting(has: frozenset[str]) -> float:
    """`additive`, and 8 points more for `a` and `b` together."""
    return additive(has) + 0.08 * ({"a", "b"} <= has)


def name_of(has: frozenset[str]) -> str:
    """The arm that has these ingredients; `base` has none."""
    return "_and_".join(sorted(has)) or "base"


def cell(has: frozenset[str], mean: float) -> np.ndarray:
    """Scores with this mean exactly, and noise that differs between seeds, prompts and arms."""
    rng = np.random.default_rng([ord(letter) for letter in name_of(has)])
    noise = rng.uniform(-0.1, 0.1, (NUM_SEEDS, NUM_ITEMS)) + rng.normal(0, 0.01, (NUM_SEEDS, 1))
    return mean + noise - noise.mean()


def designed(
    truth: Callable[[frozenset[str]], float],
    arms: Iterable[frozenset[str]] = FACTORIAL,
    design: str = "factorial",
    unfinished: Iterable[frozenset[str]] = (),
) -> Results:
    """Results of a design over three ingredients in which each arm's mean score is the truth."""
    scores = {name_of(has): cell(has, truth(has)) for has in arms}
    scores |= {name_of(has): np.empty((0, NUM_ITEMS)) for has in unfinished}
    results = hand_results({**scores, "sft": np.full((1, NUM_ITEMS), 0.2)})
    study = results.study
    members = {name_of(has): tuple(sorted(has)) for has in arms}
    made = {name: arm.model_copy(update={"has": members[name]}) for name, arm in study.arms.items()}
    study = study.model_copy(update={"design": design, "ingredients": LABELS, "arms": made})
    return replace(results, **({"study": study}))
