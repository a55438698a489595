"""What sequential seeds cost and promise: false verdicts, power, coverage after stopping, and runs saved.

Each simulated study has a baseline and three arms with planted effects. It is followed look by look through the
report's own code, from scores to verdicts after Holm's correction, until no arm is undecided. Beside it are the fixed
design with all seeds, and an invalid control that takes the fixed design's verdicts at every look and stops at the
first: what happens without error control.
Run from the project's root: python -m benchmarks.sequential_seeds [--studies N] [--setting K ...]
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from benchmarks.verdicts import ARMS, MARGIN, declared, simulated_scores
from rlassay.config.study import SequentialSeeds
from rlassay.report.findings.records import ArmAtLook
from rlassay.report.findings.rounds import DECIDED, decide_look
from rlassay.report.gather import PolicyRow, Results
from rlassay.report.verdicts import compare_with_baseline

ROUNDS = SequentialSeeds(start=3, max=10)
ITEMS = 200
SETTINGS = (
    ("nulls", (0.0, 0.0, 0.0), 0.0),
    ("nulls", (0.0, 0.0, 0.0), 0.015),
    ("nulls", (0.0, 0.0, 0.0), 0.04),
    ("mixed", (0.0, MARGIN, 0.15), 0.015),
    ("mixed", (0.0, MARGIN, 0.15), 0.04),
)
"""Name, true effects of the three arms, standard deviation between seeds."""
WAYS = ("sequential", "fixed", "every look")


def main() -> None:
    """Print one line per setting, and last the highest rates of false verdicts."""
    parser = argparse.ArgumentParser(description="Sequential seeds, by simulation.")
    parser.add_argument("--studies", type=int, default=500, help="simulated studies per setting [%(default)s]")
    parser.add_argument("--setting", type=int, nargs="+", default=range(len(SETTINGS)), help="settings, from 0 [all]")
    arguments = parser.parse_args()
    worst = np.zeros(len(WAYS))
    print(f"looks at {', '.join(map(str, ROUNDS.looks))} seeds; all numbers in %")
    for setting in arguments.setting:
        name, effects, spread = SETTINGS[setting]
        rng = np.random.default_rng([23, setting])
        false, power, inside, runs = _rates(rng, arguments.studies, effects, spread)
        worst = np.maximum(worst, false)
        rates = ", ".join(f"{way} {100 * rate:.1f}" for way, rate in zip(WAYS, false, strict=True))
        found = ", ".join(f"{way} {100 * rate:.0f}" for way, rate in zip(WAYS, power, strict=True))
        print(
            f"{name}, seed SD {100 * spread:g}: studies with a false verdict: {rates}; "
            + (f"true effects found: {found}; " if any(effects) else "")
            + f"intervals that hold after stopping {100 * inside:.1f}; runs {100 * runs:.0f} of the fixed design",
            flush=True,
        )
    print(", ".join(f"{way} {100 * rate:.1f} %" for way, rate in zip(WAYS, worst, strict=True)))


def _rates(
    rng: np.random.Generator, studies: int, effects: tuple[float, ...], spread: float
) -> tuple[np.ndarray, np.ndarray, float, float]:
    """Per way, the share of studies with a false verdict and of true effects found; coverage; share of runs."""
    false, power, inside, runs = np.zeros(len(WAYS)), np.zeros(len(WAYS)), 0.0, 0.0
    for _ in range(studies):
        whole = declared(simulated_scores(rng, effects, (ROUNDS.max, ITEMS, spread)))
        arms, used = followed(whole)
        of_looks = _at_every_look(whole)
        for way, words in enumerate(([one.outcome for one in arms], of_looks[-1], _unadjusted(of_looks))):
            pairs = list(zip(words, effects, strict=True))
            false[way] += any(_is_false(word, effect) for word, effect in pairs)
            true = [word == "better" for word, effect in pairs if effect > 0]
            power[way] += float(np.mean(true)) if true else 0.0
        inside += float(np.mean([_holds(one, effect) for one, effect in zip(arms, effects, strict=True)]))
        runs += used / (ROUNDS.max * (1 + len(ARMS)))
    return false / studies, power / studies, inside / studies, runs / studies


def followed(whole: Results) -> tuple[tuple[ArmAtLook, ...], int]:
    """The outcomes of the last look for every arm of a study, and the runs that it took; `whole` has all seeds."""
    study = whole.study.model_copy(update={"sequential": ROUNDS})
    counts: dict[str, int] = dict.fromkeys(("base", *ARMS), ROUNDS.start)
    for look in range(1, len(ROUNDS.looks) + 1):
        results = replace(whole, study=study, rows=_first(whole, counts))
        found = decide_look(results, compare_with_baseline(results, 0.95, plan=False), look)
        if not found.undecided:
            break
        counts |= dict.fromkeys(("base", *found.undecided), ROUNDS.looks[look])
    return found.arms, sum(counts.values())


def _first(whole: Results, counts: dict[str, int]) -> dict[str, PolicyRow]:
    """The rows with the first so many seeds of each arm."""
    return {name: replace(row, policies=row.policies[: counts.get(name, 1)]) for name, row in whole.rows.items()}


def _at_every_look(whole: Results) -> list[list[str]]:
    """The outcome of each arm at each look, as a study with that many seeds from the beginning would have it."""
    of_looks: list[list[str]] = []
    for seeds in ROUNDS.looks:
        results = replace(whole, rows=_first(whole, dict.fromkeys(("base", *ARMS), seeds)))
        of_looks.append([one.outcome for one in compare_with_baseline(results, 0.95, plan=False)])
    return of_looks


def _unadjusted(of_looks: list[list[str]]) -> Sequence[str]:
    """The first verdict of each arm if every look is read as if it were the only one."""
    words = ["unresolved"] * len(ARMS)
    for found in of_looks:
        words = [old if old in DECIDED else new for old, new in zip(words, found, strict=True)]
    return words


def _is_false(word: str, effect: float) -> bool:
    if word == "equivalent":
        return abs(effect) >= MARGIN
    return (word == "better" and effect <= 0) or (word == "worse" and effect >= 0)


def _holds(arm: ArmAtLook, effect: float) -> bool:
    """Whether an arm's interval, when it stopped, contains its effect."""
    found = arm.difference
    return found is not None and found.low is not None and found.high is not None and found.low <= effect <= found.high


if __name__ == "__main__":
    main()
