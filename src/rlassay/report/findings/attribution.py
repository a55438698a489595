"""Attribution: each ingredient's effect on the primary metric in a design, with its interval.

Every number is a weighted sum of the scores of arms, v(S) for the arm that has exactly the ingredients S of all N:

    Shapley value      sum over S without i of |S|! (n - |S| - 1)! / n! (v(S + i) - v(S))
    main effect        mean over S without i of v(S + i) - v(S)
    leave-one-out      v(N) - v(N - i)
    add-one-in         v({i}) - v({})
    interaction of ij  mean over S without i, j of v(S + i + j) - v(S + i) - v(S + j) + v(S)

Nothing is imputed: a number needs all of its arms to be finished.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, product

import numpy as np

from rlassay.config.study import Study
from rlassay.report.findings.records import Attribution, AttributionKind, AttributionMethod, IngredientEffect
from rlassay.report.gather import Results
from rlassay.report.numbers import PairedDifference, Unit
from rlassay.report.tables import SeedScores, contrast_difference, means_by_seed, primary_column, scores_of
from rlassay.report.typeset import listed, quoted
from rlassay.stats import effect_weights, shapley_weights

METHODS: dict[AttributionKind, str] = {
    "shapley": "Shapley value",
    "main_effect": "main effect",
    "leave_one_out": "leave-one-out",
    "add_one_in": "add-one-in",
    "interaction": "interaction",
}
"""Kind -> its name on the page."""
MAX_NAMED = 5
"""Missing arms that a sentence names."""
Subset = frozenset[str]
Weights = Mapping[Subset, float]
Wanted = list[tuple[tuple[str, ...], Weights]]
"""Ingredients of each number of a kind, and its weights of the arms."""


@dataclass(frozen=True, kw_only=True)
class _Cell:
    """A finished arm of the design."""

    seeds: tuple[int, ...]
    """Its finished seeds."""
    scores: SeedScores
    """The primary metric, one line per seed."""
    start: str | None
    """The policy before RL of its first seed, if that belongs to the seed; None = all seeds share one."""


def build_attribution(results: Results, confidence: float) -> Attribution | None:
    """The attribution of the primary metric; None for a study whose arms are written by hand."""
    study = results.study
    if study.design == "explicit" or not study.ingredients:
        return None
    planned = {frozenset(arm.has): name for name, arm in study.arms.items()}
    finished = _cells(results, planned)
    wanted = _wanted(study, list(planned))
    methods = [
        _method(study, kind, numbers, finished, (primary_column(results).unit, confidence))
        for kind, numbers in wanted.items()
        if numbers
    ]
    mixed = study.design == "fractional" and any(one.kind == "main_effect" and one.effects for one in methods)
    return Attribution(methods=tuple(methods), note=_aliases(study.ingredients, list(planned)) if mixed else "")


def _cells(results: Results, planned: Mapping[Subset, str]) -> dict[Subset, _Cell]:
    column, every, first = primary_column(results), results.planned, results.study.seeds[0]
    cells: dict[Subset, _Cell] = {}
    for subset, name in planned.items():
        row, start = results.rows[name], every[results.layout.run(name, first)].start
        if row.seeds:
            own = start.folder if start is not None and start.seed is not None else None
            cells[subset] = _Cell(seeds=row.seeds, scores=scores_of(results, row, column), start=own)
    return cells


def _wanted(study: Study, fraction: Sequence[Subset]) -> dict[AttributionKind, Wanted]:
    names, everything, nothing = tuple(study.ingredients), Subset(study.ingredients), Subset()
    in_fraction = study.design == "fractional" and _keeps_apart(names, fraction)
    shapley = shapley_weights(names)
    return {
        "shapley": [((name,), shapley[name]) for name in names],
        "main_effect": [
            ((name,), _fraction_weights(name, fraction) if in_fraction else effect_weights(names, (name,)))
            for name in names
        ],
        "leave_one_out": [((name,), {everything: 1.0, everything - {name}: -1.0}) for name in names],
        "add_one_in": [((name,), {Subset({name}): 1.0, nothing: -1.0}) for name in names],
        "interaction": [(pair, effect_weights(names, pair)) for pair in combinations(names, 2)],
    }


# Fractions.


def _keeps_apart(names: Sequence[str], arms: Sequence[Subset]) -> bool:
    """Whether the arms are a regular fraction in which each ingredient varies, no two together."""
    known = set(arms)
    regular = bool(arms) and all(arms[0] ^ one ^ other in known for one, other in product(arms, arms))
    columns = [_signs((name,), arms) for name in names]
    apart = all(not _proportional(one, other) for one, other in combinations(columns, 2))
    return regular and apart and all(len(set(column)) == 2 for column in columns)


def _fraction_weights(name: str, arms: Sequence[Subset]) -> Weights:
    """Mean of the arms with the ingredient minus that of the arms without it.

    Each side is half of a regular fraction.
    """
    return {subset: sign * 2 / len(arms) for subset, sign in zip(arms, _signs((name,), arms), strict=True)}


def _signs(of: Sequence[str], arms: Iterable[Subset]) -> list[int]:
    """Each arm's sign in the effect of ingredients: -1 if it lacks an odd number."""
    return [(-1) ** len(set(of) - subset) for subset in arms]


def _proportional(one: list[int], other: list[int]) -> bool:
    return len({a * b for a, b in zip(one, other, strict=True)}) == 1


def _aliases(labels: Mapping[str, str], arms: Sequence[Subset]) -> str:
    """The two-way interactions with which a fraction confounds each main effect, in a sentence."""
    parts: list[str] = []
    for name, label in labels.items():
        own = _signs((name,), arms)
        pairs = [
            pair for pair in combinations(labels, 2) if name not in pair and _proportional(own, _signs(pair, arms))
        ]
        if pairs:
            parts.append(f"{quoted(label)} from that of {listed([quoted(_label(labels, pair)) for pair in pairs])}")
    if not parts:
        return (
            "The arms are a fraction of all combinations: a main effect cannot be told from interactions of three or "
            "more ingredients."
        )
    return (
        "The arms are a fraction of all combinations: a main effect cannot be told from certain interactions: "
        f"{'; '.join(parts)}."
    )


# Numbers.


def _method(
    study: Study,
    kind: AttributionKind,
    wanted: Wanted,
    finished: Mapping[Subset, _Cell],
    form: tuple[Unit, float],
) -> AttributionMethod:
    """The numbers of one kind, and why others are left out; `form`: unit and level of the intervals."""
    effects: list[IngredientEffect] = []
    refused: dict[tuple[str, ...], list[Subset]] = {}
    for names, weights in wanted:
        absent = [subset for subset in weights if subset not in finished]
        cells = [finished[subset] for subset in weights if subset in finished]
        seeds = [] if absent else sorted(set[int].intersection(*(set(cell.seeds) for cell in cells)))
        if seeds:
            numbers, by_seed = _contrast(cells, list(weights.values()), seeds, form)
            label = _label(study.ingredients, names)
            effects.append(IngredientEffect(ingredients=names, label=label, difference=numbers, by_seed=by_seed))
        else:
            refused[names] = absent
    some = [_label(study.ingredients, names) for names in refused] if effects else []
    missing = dict.fromkeys(subset for absent in refused.values() for subset in absent)
    return AttributionMethod(
        kind=kind,
        title=METHODS[kind],
        effects=tuple(effects),
        refused=_refusal(study, kind, some, list(missing)) if refused else "",
    )


def _contrast(
    cells: Sequence[_Cell], weights: Sequence[float], seeds: Sequence[int], form: tuple[Unit, float]
) -> tuple[PairedDifference, tuple[float | None, ...]]:
    """The arms' weighted sum over the seeds that all have, and its value in each."""
    scores = [cell.scores[[cell.seeds.index(seed) for seed in seeds]] for cell in cells]
    # Runs of a seed that share a warm start of that seed are not independent samples of their arms.
    own = [cell.start for cell in cells if cell.start is not None]
    total = np.tensordot(np.array(weights), np.stack(scores), axes=1)
    return contrast_difference(scores, weights, *form, len(set(own)) < len(own)), means_by_seed(total)


# Words.


def _label(labels: Mapping[str, str], names: Iterable[str]) -> str:
    return " × ".join(labels[name] for name in names)


def _refusal(study: Study, kind: AttributionKind, some: Sequence[str], missing: Iterable[Subset]) -> str:
    """Why a kind of number, or that of some ingredients, is not shown."""
    missing = sorted(missing, key=lambda one: (len(one), sorted(one)))
    what = METHODS[kind][0].upper() + METHODS[kind][1:]
    of = f" of {listed([quoted(label) for label in some])}" if some else ""
    if not missing:
        return f"{what}{of} is not shown: no seed is finished in all the arms that it needs."
    planned = {frozenset(arm.has) for arm in study.arms.values()}
    absent, unfinished = [one for one in missing if one not in planned], [one for one in missing if one in planned]
    reasons = [f"the study has no arm {_arms(study, absent)}"] if absent else []
    reasons += [f"no run is finished of arm {_arms(study, unfinished)}"] if unfinished else []
    return f"{what}{of} is not shown: {', and '.join(reasons)}."


def _arms(study: Study, subsets: Sequence[Subset]) -> str:
    """Arms by the labels of their ingredients."""
    named = [
        quoted(" + ".join(label for name, label in study.ingredients.items() if name in subset) or "none")
        for subset in subsets[:MAX_NAMED]
    ]
    more = len(subsets) - len(named)
    return f"{', '.join(named)} and {more} more" if more else listed(named, "or")
