"""Checks of the comparison: named arms exist, no two arms are the same, and arms differ only in what they declare."""

from collections.abc import Iterator
from typing import Any

from rlassay.config.confounds import differences, idle, undeclared
from rlassay.config.explain import describe, nearest, one_of
from rlassay.config.fingerprints import recipe_id
from rlassay.config.study import Study


def check_design(study: Study) -> list[str]:
    """One sentence for everything that is wrong with what the study compares; empty for a sound one."""
    problems = [*_names(study), *_family(study), *_labels(study), *_equal_arms(study)]
    if study.baseline in study.arms:
        problems += _declarations(study)
    return problems


def _names(study: Study) -> Iterator[str]:
    for path, name in [("baseline", study.baseline), *((f"family.{i}", name) for i, name in enumerate(study.family))]:
        if name not in study.arms:
            yield f"{path}: got the text {name!r}, expected an arm: {one_of(study.arms)}{nearest(name, study.arms)}"


def _family(study: Study) -> Iterator[str]:
    for i, name in enumerate(study.family):
        if name == study.baseline:
            yield f"family.{i}: {name!r} is the baseline, which is not compared with itself; leave it out"
        if name in study.family[:i]:
            yield f"family.{i}: {name!r} stands in the list twice"


def _labels(study: Study) -> Iterator[str]:
    first: dict[str, str] = {}
    for name, arm in study.arms.items():
        if arm.label in first:
            yield f"arms.{name}.label: {arm.label!r} is also the label of {first[arm.label]!r}; expected another text"
        first.setdefault(arm.label, name)


def _equal_arms(study: Study) -> Iterator[str]:
    first: dict[str, str] = {}
    for name, arm in study.arms.items():
        recipe = recipe_id(arm.recipe)
        if recipe in first:
            yield f"arms.{name}: equal to arms.{first[recipe]} and would train the same weights; change or remove one"
        first.setdefault(recipe, name)


def _declarations(study: Study) -> Iterator[str]:
    """Confounds, and declarations in which nothing differs."""
    for name, found in differences(study).items():
        varies = study.arms[name].varies
        paths = [difference.path for difference in found]
        for difference in undeclared(found, varies):
            yield (
                f"arms.{name}: {difference.path} is {_short(difference.arm)} here and {_short(difference.baseline)} in "
                f"the baseline {study.baseline!r}, a confound; add {difference.path} to `varies` if it is what this "
                "arm tests, or take the difference out"
            )
        for path in idle(found, varies):
            others = f"; this arm differs in {', '.join(paths)}{nearest(path, paths)}" if paths else ""
            yield f"arms.{name}.varies: nothing below {path!r} differs from the baseline {study.baseline!r}{others}"


def _short(value: Any) -> str:
    return describe(value) if value is None or isinstance(value, dict | list) else repr(value)
