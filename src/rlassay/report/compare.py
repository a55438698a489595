"""Compare two finished studies: arms with equal runs, other recipes, or in one only."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from rlassay.config import StudyError
from rlassay.config.arms import recipe_differences
from rlassay.records import Record
from rlassay.report.gather import PolicyRow, Results
from rlassay.report.numbers import Column, Estimate, PairedDifference
from rlassay.report.tables import difference, estimate, primary_column, scores_of
from rlassay.report.typeset import quoted, shortened

MUST_MATCH = ("metric", "mode", "set", "over")
"""Keys of `primary` that two studies must share."""
DECODING = ("num_samples", "temperature", "top_p", "max_completion_length", "greedy", "beams")
"""Keys of `evaluation` that two studies must share, since other decoding changes the metric."""
LONGEST = 160
"""Characters of the settings named in a note."""


class ComparedRow(Record):
    """One arm, warm start or untrained model in two studies."""

    row: str
    """Its key."""
    label: str
    """Its name."""
    first: Estimate | None
    """The primary metric in the first study; null where it has no such row."""
    second: Estimate | None
    """The primary metric in the second study; null where it has no such row."""
    difference: PairedDifference | None
    """Second minus first over the same prompts; null where one is missing, or where they are the same runs."""
    note: str
    """`same runs`, the settings in which they differ, or the study that has it."""


class ComparedStudies(Record):
    """Two studies side by side."""

    first: str
    """Id of the first study."""
    second: str
    """Id of the second study."""
    column: Column
    """The primary metric."""
    rows: tuple[ComparedRow, ...]
    """Rows of the first study, then those that the second alone has."""


def compare_studies(first: Results, second: Results, confidence: float) -> ComparedStudies:
    """Compare two studies: each row's primary metric, and differences of rows of one name.

    Runs are identified by the fingerprints of their manifests, which cover everything that decides their weights.

    Raises:
        StudyError: other metric, decoding or prompts; one run under two arms or labels; an arm of which some seeds are
            the same runs and others are not.
    """
    problems = [*_settings(first, second), *_prompts(first, second)]
    problems = problems or [*_labels(first, second), *_mixed(first, second)]
    if problems:
        raise StudyError(problems)
    column = primary_column(first)
    keys = dict.fromkeys([*first.rows, *second.rows])
    return ComparedStudies(
        first=first.study.id,
        second=second.study.id,
        column=column,
        rows=tuple(_row(first, second, key, column, confidence) for key in keys),
    )


def _row(first: Results, second: Results, key: str, column: Column, confidence: float) -> ComparedRow:
    ours, theirs = first.rows.get(key), second.rows.get(key)
    label = (ours or theirs or first.rows[key]).label
    cells = [
        None if row is None else estimate(scores_of(results, row, column), column.unit, confidence, column.limits)
        for results, row in ((first, ours), (second, theirs))
    ]
    found, note = None, f"only in {(second if ours is None else first).study.id}"
    if ours is not None and theirs is not None:
        same = _runs(first, ours) == _runs(second, theirs)
        note = "same runs" if same else _changes(first, second, key)
        found = None if same else _paired(first, second, (ours, theirs), column, confidence)
    return ComparedRow(row=key, label=label, first=cells[0], second=cells[1], difference=found, note=note)


def _paired(
    first: Results, second: Results, rows: tuple[PolicyRow, PolicyRow], column: Column, confidence: float
) -> PairedDifference | None:
    """Second minus first; None without equally many seeds, as each side needs its own variance."""
    before, after = scores_of(first, rows[0], column), scores_of(second, rows[1], column)
    if before.shape != after.shape or not len(before) or np.isnan(after - before).all():
        return None
    return difference(after, before, column.unit, confidence, matched_seeds=False)


def _runs(results: Results, row: PolicyRow) -> dict[int | None, str]:
    """Seed -> fingerprint of each policy of a row."""
    return {policy.seed: policy.fingerprint for policy in row.policies}


def _changes(first: Results, second: Results, key: str) -> str:
    """The settings in which an arm differs between the studies, with both values."""
    if key not in first.study.arms or key not in second.study.arms:
        return "other policies"
    found = recipe_differences(first.study.arms[key].recipe, second.study.arms[key].recipe)
    named = [f"{one.path} {one.baseline} → {one.arm}" for one in found]
    if not named and first.study.seeds != second.study.seeds:
        named = [f"seeds {_listed(first.study.seeds)} → {_listed(second.study.seeds)}"]
    return shortened("; ".join(named) or "same recipe, other data", LONGEST)


def _listed(values: tuple[int, ...]) -> str:
    return ", ".join(str(value) for value in values)


# Differences that make two studies incomparable.


def _settings(first: Results, second: Results) -> Iterator[str]:
    for section, keys in (("primary", MUST_MATCH), ("evaluation", DECODING)):
        ours: dict[str, Any] = getattr(first.study, section).model_dump()
        theirs: dict[str, Any] = getattr(second.study, section).model_dump()
        for key in keys:
            if ours.get(key) != theirs.get(key):
                yield (
                    f"{section}.{key}: {first.study.id} has {ours.get(key)!r}, "
                    f"{second.study.id} has {theirs.get(key)!r}; "
                    "expected the same, since numbers of other metrics or decoding cannot be compared"
                )


def _prompts(first: Results, second: Results) -> Iterator[str]:
    name = first.study.primary.set
    ours, theirs = (set(results.prompts.get(name, {})) for results in (first, second))
    if ours != theirs:
        other = min(ours ^ theirs)
        holder = first if other in ours else second
        yield (
            f"evaluation set {name}: {first.study.id} has {len(ours)} prompts, {second.study.id} has {len(theirs)}, of "
            f"which {len(ours & theirs)} are the same; prompt {other} is only in {holder.study.id}; expected the same"
        )


def _labels(first: Results, second: Results) -> Iterator[str]:
    """Problems of runs that have another arm or label in the second study."""
    known = {
        fingerprint: (row, seed)
        for row in first.rows.values()
        if row.kind == "arm"
        for seed, fingerprint in _runs(first, row).items()
    }
    for row in second.rows.values():
        for seed, fingerprint in _runs(second, row).items() if row.kind == "arm" else ():
            other, other_seed = known.get(fingerprint, (row, seed))
            if (other.key, other.label, other_seed) != (row.key, row.label, seed):
                yield (
                    f"run {fingerprint} is arm {other.key} {quoted(other.label)}, seed {other_seed}, in "
                    f"{first.study.id}, but arm {row.key} {quoted(row.label)}, seed {seed}, in {second.study.id}; "
                    "expected one name and label for one recipe"
                )


def _mixed(first: Results, second: Results) -> Iterator[str]:
    for key in first.study.arms.keys() & second.study.arms.keys():
        ours, theirs = (_runs(results, results.rows[key]) for results in (first, second))
        common = sorted(seed for seed in ours.keys() & theirs.keys() if seed is not None)
        same = [seed for seed in common if ours[seed] == theirs[seed]]
        if same and len(same) < len(common):
            yield (
                f"arm {key}: seeds {', '.join(map(str, same))} are the same runs in both studies, the others are not; "
                "expected the fingerprints of all common seeds to be the same, or none"
            )
