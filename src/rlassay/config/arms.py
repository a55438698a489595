"""Write every arm out in full: follow `from`, lay its differences over the shared sections, validate the whole."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import Field, ValidationError

from rlassay.config.explain import explain, locate, nearest, one_of
from rlassay.config.section import Section
from rlassay.config.study import Arm, Study, StudyFile
from rlassay.config.training import Recipe
from rlassay.config.yaml_file import is_mapping, merge, to_json

# MERGED FROM config.confounds: In which key paths arms differ from the baseline, and whether the study says
# that they are meant to.


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


# MERGED FROM config.scale: A scale: differences laid over a whole study and over each of its arms, so that the
# same question runs elsewhere.


class Overlay(Section):
    """Differences by section, in the shape of a study file."""

    model: dict[str, Any] = Field(default={})
    """Differences in the model section; another `kind` replaces it."""
    data: dict[str, Any] = Field(default={})
    """Differences in the data section; another `kind` replaces it, and its splits replace the study's."""
    sft: dict[str, Any] = Field(default={})
    """Differences in the warm start of those arms that have one."""
    rl: dict[str, Any] = Field(default={})
    """Differences in the RL section."""
    rewards: dict[str, Any] = Field(default={})
    """Differences in those rewards that an arm has, such as the length that a penalty begins at."""
    signals: dict[str, Any] = Field(default={})
    """Differences in how signals are measured."""
    evaluation: dict[str, Any] = Field(default={})
    """Differences in the evaluation."""
    primary: dict[str, Any] = Field(default={})
    """Differences in the primary number."""


class ScaleFile(Overlay):
    """`config/scales/<scale>.yaml`."""

    seeds: list[Any] | None = None
    """Replaces the study's seeds."""
    gpus: int | None = None
    """Replaces the study's number of GPUs."""
    adds_warm_start: bool = False
    """Give a study without any warm start `sft` as one: its model knows what to do, the scale's has to be shown."""
    by_source: dict[str, Overlay] = Field(default={})
    """By the `kind` of a study's data: laid over the rest of this file, whose `data` it replaces."""


def unknown_sources(scale: dict[str, Any]) -> list[str]:
    """One sentence for each source in `by_source` that no study can have."""
    known = locate(StudyFile, ("data",)).kinds
    return [
        f"by_source.{name}: unknown kind of data; expected {one_of(known)}{nearest(name, known)}"
        for name in scale.get("by_source", {})
        if name not in known
    ]


def fit_scale(content: dict[str, Any], scale: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The study with the warm start that the scale adds, if any, and the overlay for a study of its source.

    Args:
        content: a parsed study file that is sound as written.
        scale: a parsed scale file.
    """
    general = {key: over for key, over in scale.items() if key not in ("adds_warm_start", "by_source")}
    special = scale.get("by_source", {}).get(content["data"]["kind"], {})
    overlay = merge(general, special)
    if "data" in special:
        overlay["data"] = special["data"]
    is_warm = any(section.get("sft") for section in (content, *content["arms"].values()))
    if scale.get("adds_warm_start", False) and not is_warm:
        content = {**content, "sft": overlay["sft"]}
    return content, overlay


def lay_scale(sections: dict[str, Any], overlay: dict[str, Any]) -> dict[str, Any]:
    """An overlay laid on sections; what they leave out (a warm start, a reward) stays out."""
    over = {key: section for key, section in overlay.items() if key != "sft" or sections.get("sft")}
    if "rewards" in over:
        over["rewards"] = {name: reward for name, reward in over["rewards"].items() if name in sections["rewards"]}
    laid = merge(sections, over)
    if "splits" in over.get("data", {}):
        laid["data"] = {**laid["data"], "splits": over["data"]["splits"]}
    return laid


# MERGED FROM config.arms: Write every arm out in full: follow `from`, lay its differences over the shared
# sections, validate the whole.


def expand_arms(content: dict[str, Any], overlay: dict[str, Any]) -> tuple[dict[str, Arm], list[str]]:
    """The arms of a study, and one sentence for everything that is wrong with them.

    Args:
        content: the parsed study file; its arms are mappings of mappings.
        overlay: a scale's overlay, laid over each arm last, so that no arm escapes it; empty for none.

    A problem that an arm inherits is reported only where it is written: in the shared sections or in the arm above.
    """
    written: dict[str, Any] = content["arms"]
    arms: dict[str, Arm] = {}
    problems: list[str] = []
    for name, arm in written.items():
        try:
            chain = [written[link] for link in _chain(name, written)]
        except ValueError as error:
            problems.append(str(error))
            continue
        recipe, found = _recipe(content, chain, overlay)
        _, inherited = _recipe(content, chain[:-1], overlay)
        problems += [f"arms.{name}.{problem}" for problem in _own(found, inherited)]
        if recipe is not None:
            label, color, varies = arm.get("label") or name, arm.get("color"), tuple(arm.get("varies", ()))
            arms[name] = Arm(label=label, color=color, varies=varies, recipe=recipe)
    return arms, list(dict.fromkeys(problems))


def _own(found: list[str], inherited: list[str]) -> list[str]:
    """The problems that are not inherited, and not a consequence of an inherited section that is wrong as a whole."""
    wrong = {problem.split(":")[0] for problem in inherited}
    return [problem for problem in found if problem not in inherited and problem.split(".")[0] not in wrong]


def _chain(name: str, written: dict[str, Any]) -> list[str]:
    """The arms that `name` is laid over, the outermost first, and itself last; ValueError for a circle or a gap."""
    chain = [name]
    while (above := written[chain[0]].get("from")) is not None:
        if above not in written:
            known = [other for other in written if other != chain[0]]
            expected = f"expected {one_of(known)}" if known else "but there is no other arm"
            raise ValueError(f"arms.{chain[0]}.from: got the text {above!r}, {expected}{nearest(above, known)}")
        if above in chain:
            circle = chain[: chain.index(above) + 1][::-1]
            first = circle.index(min(circle))
            circle = [*circle[first:], *circle[: first + 1]]
            raise ValueError(f"arms.{circle[0]}.from: goes round in a circle: {' from '.join(circle)}")
        chain.insert(0, above)
    return chain


def _recipe(
    content: dict[str, Any], chain: list[dict[str, Any]], overlay: dict[str, Any]
) -> tuple[Recipe | None, list[str]]:
    """The recipe of the shared sections with the arms of `chain` laid over them, or None and what is wrong with it."""
    sections = {key: content[key] for key in Recipe.model_fields if key in content}
    for arm in chain:
        sections = merge(sections, {key: arm[key] for key in Recipe.model_fields if key in arm})
    if isinstance(sections.get("rewards"), dict) and chain:
        sections["rewards"] = {name: reward for name, reward in sections["rewards"].items() if reward is not None}
    sections = lay_scale(sections, {key: overlay[key] for key in Recipe.model_fields if key in overlay})
    try:
        return Recipe.model_validate_json(to_json(sections)), []
    except ValidationError as error:
        return None, explain(error, Recipe, sections)
