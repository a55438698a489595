"""Compare each arm with the baseline and with its policy before RL; write each verdict as one sentence."""

import numpy as np
from jaxtyping import Float

from rlassay.config.policies import Policy
from rlassay.names import in_words
from rlassay.report.content import Comparison, ComparisonOutcome, OtherMode
from rlassay.report.findings.answer import answer, headline, metric_name, what_it_takes
from rlassay.report.findings.effects import flips, improvement, needed
from rlassay.report.findings.records import Equivalence, Needed
from rlassay.report.findings.rounds import difference_over_looks, equivalence_over_looks
from rlassay.report.gather import SHARED_KINDS, PolicyRow, Results
from rlassay.report.numbers import Column, PairedDifference
from rlassay.report.tables import (
    SeedScores,
    difference,
    means_by_seed,
    other_modes,
    primary_column,
    scores_of,
    tidy_p,
)
from rlassay.report.typeset import EFFECT_UNIT, counted, interval, number, probability, quoted
from rlassay.stats import equivalence_p_value, holm

ReferenceScores = Float[np.ndarray, "reference_seeds items"]


def compare_with_baseline(results: Results, confidence: float, plan: bool = True) -> list[Comparison]:
    """Each other arm against the baseline; p-values are corrected over the declared family.

    Args:
        results: the study's results.
        confidence: level of the intervals; sequential seeds declare their own.
        plan: also compute the seeds and prompts that the declared smallest effect needs, which takes most of the time.
    """
    study = results.study
    pairs = [(results.rows[name], results.rows[study.baseline]) for name in study.arms if name != study.baseline]
    level = confidence if study.sequential is None else 1 - study.sequential.alpha
    return _compare(results, pairs, set(study.family), level, plan)


def compare_with_start(results: Results, confidence: float) -> list[Comparison]:
    """Each arm against its policy before RL; p-values are corrected over all arms."""
    study = results.study
    pairs = [(results.rows[name], start_of(results, name)) for name in study.arms]
    return _compare(results, pairs, set(study.arms), confidence, plan=False)


def compare_with_references(results: Results, confidence: float) -> list[Comparison]:
    """Each arm against each reference that declares it; p-values are corrected over all arms, per reference."""
    study = results.study
    found: list[Comparison] = []
    for reference in (name for name, one in study.references.items() if one.compare):
        pairs = [(results.rows[name], results.rows[reference]) for name in study.arms]
        found += _compare(results, pairs, set(study.arms), confidence, plan=False)
    return found


def headline_of(results: Results, verdicts: list[Comparison]) -> str:
    """The answer to the study's question in one sentence; empty with one arm."""
    study, column = results.study, primary_column(results)
    outcomes = [(study.arms[one.arm].label, one.outcome) for one in verdicts]
    baseline, margin = study.arms[study.baseline].label, study.primary.smallest_effect
    return headline(outcomes, baseline, _metric(column), column, margin)


def start_of(results: Results, arm: str) -> PolicyRow:
    """The row of an arm's policy before RL: its warm start, or the untrained model."""
    start = _start(results, arm)
    kind = SHARED_KINDS[start.stage]
    key = f"{kind}/{start.fingerprint}"
    return results.rows[key if key in results.rows else kind]


def start_note(results: Results) -> str:
    """Coverage of the intervals of `compare_with_start`, in words."""
    shared = {arm.recipe.sft is None or not arm.recipe.sft.per_seed for arm in results.study.arms.values()}
    if shared == {False}:
        return "Each seed has a warm start of its own, so these intervals cover the variance of training it."
    if shared == {True}:
        return (
            "The policy before RL is shared by all seeds, so these intervals cover the variance of RL and of the "
            "prompts, but not that of training the warm start."
        )
    return (
        "For arms with one warm start per seed, these intervals cover the variance of training it; for arms that share "
        "one, they do not."
    )


def _start(results: Results, arm: str) -> Policy:
    """The policy before RL of an arm's first seed."""
    start = results.planned[results.layout.run(arm, results.study.seeds[0])].start
    assert start is not None  # a run always has one
    return start


# Numbers.


def _compare(
    results: Results, pairs: list[tuple[PolicyRow, PolicyRow]], family: set[str], confidence: float, plan: bool
) -> list[Comparison]:
    column = primary_column(results)
    found = {arm.key: _over_looks(results, arm, reference, column, confidence) for arm, reference in pairs}
    tested = {
        name: one for name, one in found.items() if name in family and one is not None and one.p_value is not None
    }
    corrected = holm([one.p_value for one in tested.values() if one.p_value is not None])
    for (name, one), p_holm in zip(tested.items(), corrected, strict=True):
        found[name] = one.model_copy(update={"p_holm": tidy_p(float(p_holm)), "family_size": len(tested)})
    tests = _equivalences(results, pairs, family)
    verdicts = [_verdict(results, pair, found[pair[0].key], tests.get(pair[0].key), confidence) for pair in pairs]
    return [_with_findings(results, pair, one, confidence, plan) for pair, one in zip(pairs, verdicts, strict=True)]


def _with_findings(
    results: Results, pair: tuple[PolicyRow, PolicyRow], verdict: Comparison, confidence: float, plan: bool
) -> Comparison:
    """Add the needed sample size, the prompts that flip, and the probability of improvement."""
    column, found = primary_column(results), verdict.difference
    if found is None or found.effect is None:
        return verdict
    ours, theirs = _paired_scores(results, *pair, column)
    effort, changed = _needed(results, pair, found, confidence) if plan else None, None
    if column.unit == "share":
        changed = flips(ours, theirs, sorted(results.prompts[column.set]))
    takes = ""
    if verdict.outcome == "not resolved" and effort is not None:
        takes = what_it_takes(effort, column, found.num_seeds, found.num_items)
    return verdict.model_copy(
        update={
            "needed": effort,
            "takes": takes,
            "flips": changed,
            "improvement": improvement(ours, theirs, confidence),
        }
    )


def _needed(
    results: Results, pair: tuple[PolicyRow, PolicyRow], found: PairedDifference, confidence: float
) -> Needed | None:
    margin = results.study.primary.smallest_effect
    if margin is None:
        return None
    ours, theirs = _paired_scores(results, *pair, primary_column(results))
    level = (1 - confidence) / max(1, found.family_size)
    return needed(ours, theirs, margin, level, matched_seeds=are_matched(results, *pair))


def _equivalences(
    results: Results, pairs: list[tuple[PolicyRow, PolicyRow]], family: set[str]
) -> dict[str, Equivalence]:
    """Arm -> its test against the declared smallest effect, corrected like the differences."""
    margin, column = results.study.primary.smallest_effect, primary_column(results)
    if margin is None:
        return {}
    found: dict[str, float] = {}
    for arm, reference in pairs:
        ours, theirs = _paired_scores(results, arm, reference, column)
        if _share_scores(ours, theirs):
            matched = are_matched(results, arm, reference)
            rounds = results.study.sequential if reference.kind == "arm" else None
            if rounds is None:
                found[arm.key] = equivalence_p_value(ours, theirs, margin, matched_seeds=matched)
            else:
                found[arm.key] = equivalence_over_looks(rounds, ours, theirs, margin, matched)
    tested = {name: p_value for name, p_value in found.items() if name in family and not np.isnan(p_value)}
    corrected = dict(zip(tested, holm(list(tested.values())), strict=True))
    return {
        name: Equivalence(
            margin=margin,
            p_value=tidy_p(p_value),
            p_holm=tidy_p(float(corrected[name])) if name in corrected else None,
        )
        for name, p_value in found.items()
    }


def row_difference(
    results: Results, arm: PolicyRow, reference: PolicyRow, column: Column, confidence: float
) -> PairedDifference | None:
    """The arm minus the reference in a column; None if the two have no finished seed in common."""
    ours, theirs = _paired_scores(results, arm, reference, column)
    if not _share_scores(ours, theirs):
        return None
    return difference(ours, theirs, column.unit, confidence, are_matched(results, arm, reference))


def _over_looks(
    results: Results, arm: PolicyRow, reference: PolicyRow, column: Column, confidence: float
) -> PairedDifference | None:
    """`row_difference`; with sequential seeds, the one from the baseline holds over all looks."""
    found, rounds = row_difference(results, arm, reference, column, confidence), results.study.sequential
    if found is None or rounds is None or reference.kind != "arm":
        return found
    ours, theirs = _paired_scores(results, arm, reference, column)
    return difference_over_looks(rounds, ours, theirs, column, are_matched(results, arm, reference))


def _paired_scores(
    results: Results, arm: PolicyRow, reference: PolicyRow, column: Column
) -> tuple[SeedScores, ReferenceScores]:
    """Scores of the seeds that both have; a reference that all seeds share is paired with each of them."""
    ours, theirs = scores_of(results, arm, column), scores_of(results, reference, column)
    if reference.seeds:
        common = sorted(set(arm.seeds) & set(reference.seeds))
        ours = ours[[arm.seeds.index(seed) for seed in common]]
        theirs = theirs[[reference.seeds.index(seed) for seed in common]]
    elif len(theirs) == 1:
        theirs = np.repeat(theirs, len(ours), axis=0)
    return ours, theirs


def _share_scores(ours: SeedScores, theirs: ReferenceScores) -> bool:
    """Whether the scores of `_paired_scores` have seeds and prompts in common."""
    return ours.shape == theirs.shape and not np.isnan(ours - theirs).all()


def _by_seed(results: Results, arm: PolicyRow, reference: PolicyRow, column: Column) -> tuple[float | None, ...]:
    ours, theirs = _paired_scores(results, arm, reference, column)
    return means_by_seed(ours - theirs) if ours.shape == theirs.shape else ()


def _pairing(results: Results, arm: PolicyRow, reference: PolicyRow) -> str:
    if not reference.seeds:
        return f"Every seed is compared with the one policy {quoted(reference.label)}."
    if are_matched(results, arm, reference):
        return "Runs are paired by seed: the two of a seed share a warm start."
    return "Runs of the same seed share nothing but the prompts, so seeds are independent samples of each arm."


def are_matched(results: Results, arm: PolicyRow, reference: PolicyRow) -> bool:
    """Whether runs of the same seed share a warm start of that seed.

    Also true if the reference is the arm's start.
    """
    if reference.kind != "arm":
        return True
    ours, theirs = _start(results, arm.key), _start(results, reference.key)
    return ours.folder == theirs.folder and ours.seed is not None


# Outcome and sentence.


def _verdict(
    results: Results,
    pair: tuple[PolicyRow, PolicyRow],
    found: PairedDifference | None,
    equivalence: Equivalence | None,
    confidence: float,
) -> Comparison:
    arm, reference = pair
    column = primary_column(results)
    outcome = _outcome(found, equivalence, column, confidence)
    modes = [] if found is None else _other_modes(results, arm, reference, outcome, confidence)
    modes += _other_pairing(results, arm, reference, confidence)
    warnings = tuple(_warning(mode, column, confidence) for mode in modes if mode.opposed)
    sentence = _sentence(quoted(arm.label), quoted(reference.label), found, outcome, column, confidence)
    return Comparison(
        arm=arm.key,
        reference=reference.key,
        outcome=outcome,
        answer=answer(outcome, found, equivalence, column, {"metric": _metric(column), "reference": reference.label}),
        warnings=warnings,
        equivalence=equivalence,
        sentence=" ".join([sentence, *warnings]),
        difference=found,
        by_seed=_by_seed(results, arm, reference, column),
        pairing=_pairing(results, arm, reference),
        other_modes=tuple(modes),
    )


def _metric(column: Column) -> str:
    return metric_name(column, in_words(column.metric))


def _other_modes(
    results: Results, arm: PolicyRow, reference: PolicyRow, outcome: ComparisonOutcome, confidence: float
) -> list[OtherMode]:
    # Modes of one metric improve in the same direction.
    lower_is_better = primary_column(results).better == "lower"
    wrong = {"better": -1, "worse": 1}.get(outcome, 0) * (-1 if lower_is_better else 1)
    modes: list[OtherMode] = []
    for column in other_modes(results):
        found = row_difference(results, arm, reference, column, confidence)
        if found is not None and found.effect is not None:
            by_seed = _by_seed(results, arm, reference, column)
            opposed = wrong != 0 and _is_clear(found, by_seed, wrong)
            mode = OtherMode(column=column.key, title=column.title, difference=found, by_seed=by_seed, opposed=opposed)
            modes.append(mode)
    return modes


def _other_pairing(results: Results, arm: PolicyRow, reference: PolicyRow, confidence: float) -> list[OtherMode]:
    """The comparison with seeds paired instead of independent, or the reverse; none with one seed."""
    column = primary_column(results)
    ours, theirs = _paired_scores(results, arm, reference, column)
    if reference.kind != "arm" or len(ours) < 2 or not _share_scores(ours, theirs):
        return []
    found = difference(ours, theirs, column.unit, confidence, not are_matched(results, arm, reference))
    title = f"{column.title}, seeds paired the other way"
    return [OtherMode(column=column.key, title=title, difference=found, by_seed=(), opposed=False)]


def _is_clear(found: PairedDifference, by_seed: tuple[float | None, ...], sign: int) -> bool:
    """Whether the whole interval, or each of several seeds, has this sign."""
    ends = [end for end in (found.low, found.high) if end is not None]
    seeds = [value for value in by_seed if value is not None]
    return (len(ends) == 2 and all(sign * end > 0 for end in ends)) or (
        len(seeds) > 1 and all(sign * value > 0 for value in seeds)
    )


def _warning(mode: OtherMode, column: Column, confidence: float) -> str:
    found, seeds = mode.difference, [value for value in mode.by_seed if value is not None]
    agreeing = sum((value > 0) == ((found.effect or 0) > 0) and value != 0 for value in seeds)
    return (
        f"But {mode.title} moves the other way: {_effect(found, column)} ({_ends(found, column, confidence)}), "
        f"in {agreeing} of {counted(len(seeds), 'seed')}."
    )


def _outcome(
    found: PairedDifference | None, equivalence: Equivalence | None, column: Column, confidence: float
) -> ComparisonOutcome:
    if found is None or found.effect is None:
        return "missing"
    if found.num_seeds < 2:
        return "seed variance not measured"
    if _covers_zero(found) or (found.p_holm is not None and found.p_holm >= 1 - confidence):
        return "equivalent" if _is_equivalent(equivalence, 1 - confidence) else "not resolved"
    return "better" if (found.effect > 0) != (column.better == "lower") else "worse"


def _is_equivalent(equivalence: Equivalence | None, level: float) -> bool:
    """Whether the test against the declared effect holds, corrected for arms in the family."""
    if equivalence is None:
        return False
    p_value = equivalence.p_value if equivalence.p_holm is None else equivalence.p_holm
    return p_value is not None and p_value < level


def _covers_zero(found: PairedDifference) -> bool:
    return found.low is None or found.high is None or found.low <= 0 <= found.high


def _sentence(
    arm: str,
    reference: str,
    found: PairedDifference | None,
    outcome: ComparisonOutcome,
    column: Column,
    confidence: float,
) -> str:
    no_verdict = f"No verdict on {arm} against {reference}"
    if found is None:
        return f"{no_verdict}: results are missing."
    opening = {
        "better": f"{arm} beats {reference}",
        "worse": f"{arm} is worse than {reference}",
        "equivalent": f"{arm} has no effect as large as declared against {reference}",
        "not resolved": f"Not resolved whether {arm} beats {reference}",
        "seed variance not measured": f"{no_verdict}, because seed variance was not measured",
        "missing": no_verdict,
    }[outcome]
    return f"{opening}: {_effect(found, column)} in {column.title} ({_evidence(found, outcome, column, confidence)})."


def _effect(found: PairedDifference, column: Column) -> str:
    unit = EFFECT_UNIT[column.unit].replace("points", "percentage points")
    return f"{number(found.effect, column.unit, signed=True)} {unit}".rstrip()


def _ends(found: PairedDifference, column: Column, confidence: float, over: str = "") -> str:
    ends = interval(found, column.unit, signed=True) or "cannot be computed"
    return f"{100 * confidence:g}% interval{over} {ends}"


def _evidence(found: PairedDifference, outcome: ComparisonOutcome, column: Column, confidence: float) -> str:
    over = " over prompts only" if found.covers == "items" else ""
    parts = [_ends(found, column, confidence, over)]
    if found.p_holm is not None:
        parts.append(f"Holm p {probability(found.p_holm)}")
    elif found.p_value is not None:
        parts.append(f"outside the declared family, uncorrected p {probability(found.p_value)}")
    parts.append(f"{counted(found.num_seeds, 'seed')} × {found.num_items} prompts")
    if outcome == "not resolved" and not _covers_zero(found):
        parts.append(
            f"the interval excludes 0, but after Holm's correction over {found.family_size} comparisons the difference "
            "is not significant"
        )
    return "; ".join(parts)
