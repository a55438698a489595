"""Sequential seeds: comparisons valid over all looks, decisions of a look, and the runs saved."""

from collections.abc import Sequence

from rlassay.config.policies import seeds_by_arm
from rlassay.config.study import SequentialSeeds
from rlassay.files import read_json
from rlassay.report.content import Comparison
from rlassay.report.findings.effects import ReferenceScores
from rlassay.report.findings.records import ArmAtLook, Look, Rounds, SequentialOutcome
from rlassay.report.gather import Results
from rlassay.report.numbers import Column, PairedDifference
from rlassay.report.tables import SeedScores, difference, primary_column, tidy_p
from rlassay.report.typeset import counted, listed, quoted
from rlassay.stats import SequentialTest, equivalence_p_value, paired_difference

DECIDED: dict[str, SequentialOutcome] = {"better": "better", "worse": "worse", "equivalent": "equivalent"}
"""Outcomes of a comparison that are verdicts."""


def difference_over_looks(
    rounds: SequentialSeeds, ours: SeedScores, theirs: ReferenceScores, column: Column, matched_seeds: bool
) -> PairedDifference:
    """The difference at the last look, with its interval and p-value over all looks.

    The interval is a repeated confidence interval.

    Args:
        rounds: the declared looks.
        ours: scores of the arm, in the order of its seeds.
        theirs: the same shape.
        column: the primary column.
        matched_seeds: as in `rlassay.stats.paired_difference`.
    """
    test, taken = SequentialTest(rounds.looks), _taken(rounds, len(ours))
    p_values = [paired_difference(ours[:n], theirs[:n], matched_seeds=matched_seeds).p_value for n in taken]
    confidence = test.confidence(max(0, len(taken) - 1), rounds.alpha)
    # Before the first look nothing is decided, even if the interval excludes 0.
    p_value = tidy_p(test.p_value(p_values)) if taken else 1.0
    if taken:
        ours, theirs = ours[: taken[-1]], theirs[: taken[-1]]
    found = difference(ours, theirs, column.unit, confidence, matched_seeds)
    return found.model_copy(update={"p_value": p_value})


def equivalence_over_looks(
    rounds: SequentialSeeds, ours: SeedScores, theirs: ReferenceScores, margin: float, matched_seeds: bool
) -> float:
    """`equivalence_p_value` over all looks so far; NaN before the first."""
    found = [
        equivalence_p_value(ours[:n], theirs[:n], margin, matched_seeds=matched_seeds)
        for n in _taken(rounds, len(ours))
    ]
    return SequentialTest(rounds.looks).p_value(found, one_sided=True)


def _taken(rounds: SequentialSeeds, num_seeds: int) -> list[int]:
    return [seeds for seeds in rounds.looks if seeds <= num_seeds]


def decide_look(results: Results, verdicts: Sequence[Comparison], look: int) -> Look:
    """Decide a look: an outcome for every arm, and the arms that get more seeds.

    Args:
        results: the results of all seeds up to this look.
        verdicts: each other arm against the baseline.
        look: the look, counted from 1.
    """
    study, column = results.study, primary_column(results)
    rounds = study.sequential
    assert rounds is not None  # only such studies have looks
    seeds, is_last = rounds.looks[look - 1], look == len(rounds.looks)
    arms: list[ArmAtLook] = []
    for one in verdicts:
        found = one.difference
        mine = 0 if found is None else found.num_seeds
        word = DECIDED.get(one.outcome)
        # An arm that got no seeds for this look had been dropped before.
        hopeless = not is_last and _is_hopeless(rounds, study.primary.smallest_effect, found, column)
        dropped = word is None and (mine < seeds or hopeless)
        open_word: SequentialOutcome = "inconclusive" if dropped or is_last else "continue"
        arms.append(ArmAtLook(arm=one.arm, outcome=word or open_word, dropped=dropped, seeds=mine, difference=found))
    undecided = tuple(one.arm for one in arms if one.outcome == "continue")
    return Look(look=look, seeds=seeds, arms=tuple(arms), undecided=undecided)


def _is_hopeless(rounds: SequentialSeeds, margin: float | None, found: PairedDifference | None, column: Column) -> bool:
    """Whether the interval excludes the declared gain, in a study that drops such arms."""
    if rounds.stop != "decided_or_hopeless" or margin is None or found is None:
        return False
    if found.low is None or found.high is None:
        return False
    return (-found.low if column.better == "lower" else found.high) < margin


def build_rounds(results: Results) -> Rounds | None:
    """The looks of a study with sequential seeds, and the runs that it took; None for a study with fixed seeds."""
    study, layout = results.study, results.layout
    rounds = study.sequential
    if rounds is None:
        return None
    found = [read_json(layout.decision(look)) for look in range(1, len(rounds.looks) + 1)]
    taken: list[Look] = []
    for content in found:
        if content is None or (taken and not taken[-1].undecided):
            break
        taken.append(Look.model_validate(content, strict=False))
    runs = sum(len(seeds) for seeds in seeds_by_arm(study, layout).values())
    planned = rounds.max * len(study.arms)
    return Rounds(
        alpha=rounds.alpha,
        margin=study.primary.smallest_effect,
        looks=rounds.looks,
        drops=rounds.stop == "decided_or_hopeless",
        taken=tuple(taken),
        runs=runs,
        planned_runs=planned,
        sentence=(
            f"Sequential seeds took {counted(runs, 'run')}; {counted(rounds.max, 'seed')} for every arm would have "
            f"taken {planned}. Saved: {100 * (1 - runs / planned):.0f} %."
        ),
    )


def look_summary(look: Look, labels: dict[str, str], num_looks: int) -> str:
    """The decisions of a look, in one line of the terminal."""
    words: dict[str, list[str]] = {}
    for one in look.arms:
        word = "dropped" if one.dropped else one.outcome
        words.setdefault(word, []).append(quoted(labels[one.arm]))
    found = "; ".join(f"{word}: {listed(arms)}" for word, arms in words.items())
    return f"Look {look.look} of {num_looks} at {counted(look.seeds, 'seed')}: {found}"
