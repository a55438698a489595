"""The design table: every setting in which arms differ, who declares it, and who differs without declaring it."""

import json
from collections.abc import Iterator
from typing import Any

from rlassay.config.confounds import differences, undeclared
from rlassay.config.study import Study
from rlassay.report.evidence import Design, DesignRow


def build_design(study: Study) -> Design:
    """The table and the outcome of the confound check."""
    found = differences(study)
    confounds = {name: {one.path for one in undeclared(found[name], arm.varies)} for name, arm in study.arms.items()}
    varied = {name: {one.path for one in found[name]} - confounds[name] for name in study.arms}
    paths = dict.fromkeys(one.path for arm in found.values() for one in arm)
    rows = tuple(
        DesignRow(
            key=path,
            values=_values(study, path),
            declared_by=tuple(name for name in study.arms if path in varied[name]),
            confounds=tuple(name for name in study.arms if path in confounds[name]),
        )
        for path in paths
    )
    return Design(sentence=_sentence(study, rows), rows=rows)


def _sentence(study: Study, rows: tuple[DesignRow, ...]) -> str:
    if len(study.arms) == 1:
        return "The study has one arm, so there is nothing to confound."
    confounded = [f"{study.arms[name].label} in {row.key}" for row in rows for name in row.confounds]
    if confounded:
        return f"Confounded, differs from the baseline without declaring it: {'; '.join(confounded)}."
    return (
        "Confound check passed: every arm differs from the baseline only in what it declares as varied, and everything "
        "that is not in this table is the same in every arm."
    )


def _values(study: Study, path: str) -> dict[str, str]:
    """Arm -> value at the path as JSON text; without the arms that have no such key."""
    recipes = {name: arm.recipe.model_dump(mode="json") for name, arm in study.arms.items()}
    found = {name: list(_at(recipe, path.split("."))) for name, recipe in recipes.items()}
    return {
        name: json.dumps(value, sort_keys=True, ensure_ascii=False)
        for name, values in found.items()
        for value in values
    }


def _at(place: Any, keys: list[str]) -> Iterator[Any]:
    """The value below the keys, or nothing."""
    if not keys:
        yield place
    elif isinstance(place, dict) and keys[0] in place:
        yield from _at(place[keys[0]], keys[1:])
