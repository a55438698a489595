"""The study's answer in plain words: a sentence per arm, and one about all."""

from collections.abc import Mapping, Sequence

from rlassay.names import in_words
from rlassay.report.content import Comparison
from rlassay.report.findings.records import Attribution, Equivalence, Needed
from rlassay.report.numbers import Column, PairedDifference
from rlassay.report.typeset import EFFECT_UNIT, counted, interval, listed, number, quoted

GROUPS = {
    "better": ("helps", "help"),
    "worse": ("hurts", "hurt"),
    "equivalent": ("makes no difference larger than {margin}", "make no difference larger than {margin}"),
    "not resolved": ("is not resolved", "are not resolved"),
    "seed variance not measured": ("ran with one seed only", "ran with one seed only"),
    "missing": ("has no results yet", "have no results yet"),
}
"""Outcome -> phrase of the headline for one arm, and for several."""
NAMED = 4
"""Most arms of one outcome that a sentence names; if there are more, it counts them."""


def amount(value: float | None, column: Column, signed: bool = False) -> str:
    """A difference with its unit: `5 points`, `+2.2 points`."""
    text = number(value, column.unit, signed)
    text = text if signed else text.lstrip("−").removesuffix(".0")
    unit = EFFECT_UNIT[column.unit]
    return f"{text} {unit.removesuffix('s') if text == '1' else unit}".rstrip()


def metric_name(column: Column, heading: str) -> str:
    """The metric in a sentence: `accuracy`, `greedy accuracy`."""
    if column.mode == "beams":
        return f"{heading} of beam search"
    return f"greedy {heading}" if column.mode == "greedy" else heading


def answer(
    outcome: str,
    found: PairedDifference | None,
    equivalence: Equivalence | None,
    column: Column,
    words: Mapping[str, str],
) -> str:
    """The effect of an arm, to follow its label in a sentence.

    Args:
        outcome: its outcome.
        found: its difference from the reference.
        equivalence: the test against the declared smallest effect, if one is declared.
        column: the primary column.
        words: `metric`, the metric's name; `reference`, the label of the reference.
    """
    metric, against = words["metric"], f"compared with {quoted(words['reference'])}"
    if found is None or found.effect is None:
        return "has no results yet."
    if outcome == "seed variance not measured":
        return f"ran with one seed, so that its effect on {metric} cannot be separated from chance."
    if outcome == "equivalent" and equivalence is not None:
        return f"changes {metric} by no more than {amount(equivalence.margin, column)} {against}."
    verb = "raises" if found.effect > 0 else "lowers"
    if outcome in ("better", "worse"):
        small = equivalence is not None and equivalence.p_holm is not None and equivalence.p_holm < 0.05
        less = f", by less than the {amount(equivalence.margin, column)} that matter" if small and equivalence else ""
        return f"{verb} {metric} by {amount(abs(found.effect), column)} {against}{less}."
    ends = f"{interval(found, column.unit, signed=True)} {EFFECT_UNIT[column.unit]}".rstrip()
    if found.low is not None and found.high is not None and not found.low <= 0 <= found.high:
        return (
            f"seems to {verb.removesuffix('s')} {metric} {against}, but among {found.family_size} comparisons this may "
            f"be chance; an effect beyond {ends} is excluded."
        )
    return f"may raise or lower {metric} {against}; an effect beyond {ends} is excluded."


def headline(
    outcomes: Sequence[tuple[str, str]], baseline: str, metric: str, column: Column, margin: float | None
) -> str:
    """One sentence about all arms: which help, hurt, make no difference, or are not resolved.

    Args:
        outcomes: label and outcome of each arm.
        baseline: label of the baseline.
        metric: the metric's name.
        column: the primary column.
        margin: the declared smallest effect; None = none.
    """
    parts: list[str] = []
    for outcome, (one, several) in GROUPS.items():
        labels = [quoted(label) for label, found in outcomes if found == outcome]
        if labels:
            verb = (one if len(labels) == 1 else several).format(margin=amount(margin, column))
            parts.append(f"{_named(labels)} {verb}")
    return f"In {metric}, compared with {quoted(baseline)}: {'; '.join(parts)}." if parts else ""


def main_effects(attribution: Attribution | None, column: Column, confidence: float) -> str:
    """The main effect of each ingredient of a design, in a sentence; empty without main effects.

    Args:
        attribution: the study's attribution; None = no design.
        column: the primary column.
        confidence: level of the intervals.
    """
    methods = () if attribution is None else attribution.methods
    effects = [one for method in methods if method.kind == "main_effect" for one in method.effects]
    if not effects:
        return ""
    name, parts = metric_name(column, in_words(column.metric)), list[str]()
    for one in effects:
        ends = " to ".join(number(end, column.unit, True) for end in (one.difference.low, one.difference.high))
        verb, interval_of = ("by", "") if parts else (f"changes {name} by", f"{100 * confidence:g}% interval ")
        effect = amount(one.difference.effect, column, signed=True)
        parts.append(f"{quoted(one.label)} {verb} {effect} ({interval_of}{ends})")
    return (
        f"Averaged over the settings of the other ingredients, {listed(parts)}. These are no verdicts, since they are "
        "not corrected for several comparisons."
    )


def modes_apart(gains: Sequence[Comparison], labels: Mapping[str, str], column: Column) -> list[str]:
    """Sentences on other modes of the metric that contradict the effect of RL.

    Each is for all arms with the same contradiction.

    Args:
        gains: each arm against its policy before RL.
        labels: label of each arm.
        column: the primary column.
    """
    alike: dict[tuple[bool, tuple[str, ...]], list[Comparison]] = {}
    for gain in gains:
        modes = tuple(mode.title for mode in gain.other_modes if mode.opposed)
        if modes and gain.difference is not None:
            alike.setdefault(((gain.difference.effect or 0.0) > 0, modes), []).append(gain)
    return [_apart(found, titles, labels, column) for (_, titles), found in alike.items()]


def _apart(gains: Sequence[Comparison], titles: Sequence[str], labels: Mapping[str, str], column: Column) -> str:
    moved = [gain.difference for gain in gains if gain.difference is not None]
    arms = _named([quoted(labels[gain.arm]) for gain in gains])
    others = [
        _moves(title, [mode.difference for gain in gains for mode in gain.other_modes if mode.title == title], column)
        for title in titles
    ]
    return f"Compared with the policy before RL, {_moves(column.title, moved, column)} in {arms}, but {listed(others)}."


def _moves(title: str, found: Sequence[PairedDifference], column: Column) -> str:
    """`'accuracy, greedy' falls by 2.8 to 3.9 points`; all effects have one sign."""
    effects = sorted(abs(one.effect or 0.0) for one in found)
    verb = "rises" if (found[0].effect or 0.0) > 0 else "falls"
    smallest, largest = (amount(effect, column) for effect in (effects[0], effects[-1]))
    span = largest if smallest == largest else f"{number(effects[0], column.unit)} to {largest}"
    return f"{quoted(title)} {verb} by {span}"


def _named(labels: Sequence[str]) -> str:
    return listed(labels) if len(labels) <= NAMED else f"{len(labels)} arms"


def what_it_takes(needed: Needed, column: Column, num_seeds: int, num_items: int) -> str:
    """The number of seeds or prompts that would find the declared effect, as one sentence."""
    size, power = amount(needed.effect, column), f"{100 * needed.power:g} %"
    ways: list[str] = []
    if needed.seeds is not None and needed.seeds > num_seeds:
        ways.append(f"{counted(needed.seeds, 'seed')} per arm instead of {num_seeds}")
    if needed.items is not None and needed.items > num_items:
        ways.append(f"{needed.items:,} prompts instead of {num_items:,}")
    if ways:
        return f"An effect of {size} would be found in {power} of studies with {', or with '.join(ways)}."
    if needed.detectable is not None and needed.detectable <= needed.effect:
        return f"The study was large enough to find an effect of {size} in {power} of repetitions."
    return f"Only more seeds and more prompts together would find an effect of {size}."
