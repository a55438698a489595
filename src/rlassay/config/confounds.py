"""In which key paths arms differ from the baseline, and whether the study says that they are meant to."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from rlassay.config.study import Study
from rlassay.config.training import Recipe
from rlassay.config.yaml_file import is_mapping


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One key path in which an arm's recipe differs from the baseline's."""

    path: str
    """Key path below the arm, such as `rl.loss_type`; a section or a reward that only one of them has is one path."""
    baseline: Any
    """The baseline's value; None where it has none."""
    arm: Any
    """The arm's value; None where it has none."""


def differences(study: Study) -> dict[str, list[Difference]]:
    """For each arm, the baseline included, the key paths in which its recipe differs from the baseline's."""
    baseline = study.arms[study.baseline].recipe
    return {name: recipe_differences(baseline, arm.recipe) for name, arm in study.arms.items()}


def recipe_differences(baseline: Recipe, arm: Recipe) -> list[Difference]:
    """The key paths in which two recipes differ, in the order of the sections; lists are compared whole."""
    return list(_differences("", baseline.model_dump(mode="json"), arm.model_dump(mode="json")))


def undeclared(found: Iterable[Difference], varies: Iterable[str]) -> list[Difference]:
    """Confounds: the differences that no path of `varies` covers; a path covers everything below it."""
    varies = list(varies)
    return [difference for difference in found if not any(_covers(path, difference.path) for path in varies)]


def idle(found: Iterable[Difference], varies: Iterable[str]) -> list[str]:
    """The paths of `varies` in which nothing differs."""
    paths = [difference.path for difference in found]
    return [declared for declared in varies if not any(_covers(declared, path) for path in paths)]


def _covers(declared: str, path: str) -> bool:
    return f"{path}.".startswith(f"{declared}.")


def _differences(path: str, baseline: Any, arm: Any) -> Iterator[Difference]:
    if baseline == arm:
        return
    if not (is_mapping(baseline) and is_mapping(arm)) or baseline.get("kind") != arm.get("kind"):
        yield Difference(path=path, baseline=baseline, arm=arm)
        return
    for key in dict.fromkeys([*baseline, *arm]):
        yield from _differences(f"{path}.{key}" if path else key, baseline.get(key), arm.get(key))
