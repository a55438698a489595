"""Expand a study's arms to complete recipes, and list their differences from the baseline.

An arm follows its chain of `from`, lays each link's differences over the study's shared sections, and validates the
result as a `Recipe`.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from rlassay.config.explain import explain, locate
from rlassay.config.section import is_mapping, merge, to_json
from rlassay.config.study import Arm, Study, StudyFile
from rlassay.config.training import Recipe
from rlassay.names import nearest, one_of


def expand_arms(content: dict[str, Any], overlay: dict[str, Any]) -> tuple[dict[str, Arm], list[str]]:
    """The arms of a study, and one sentence per problem in them.

    Args:
        content: the parsed study file; its arms are mappings of mappings.
        overlay: a scale's overlay, laid over each arm last, so that no arm escapes it; empty for none.

    An inherited problem is reported only where it is written: in the shared sections, or in the arm that is `from`.
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
        recipe, found = lay_arms(content, chain, overlay)
        _, inherited = lay_arms(content, chain[:-1], overlay)
        problems += [f"arms.{name}.{problem}" for problem in own_problems(found, inherited)]
        if recipe is not None:
            label, color, varies = arm.get("label") or name, arm.get("color"), tuple(arm.get("varies", ()))
            arms[name] = Arm(label=label, color=color, varies=varies, recipe=recipe)
    return arms, list(dict.fromkeys(problems))


def own_problems(found: list[str], inherited: list[str]) -> list[str]:
    """The problems that an arm itself causes.

    They are not inherited, and not in an inherited section that is unreadable.
    """
    wrong = {problem.split(":")[0] for problem in inherited}
    return [problem for problem in found if problem not in inherited and problem.split(".")[0] not in wrong]


def _chain(name: str, written: dict[str, Any]) -> list[str]:
    """The chain of `from` that ends at `name`, outermost arm first; ValueError for a circle or an unknown arm."""
    chain = [name]
    while (parent := written[chain[0]].get("from")) is not None:
        if parent not in written:
            known = [other for other in written if other != chain[0]]
            expected = f"expected {one_of(known)}" if known else "but there is no other arm"
            raise ValueError(f"arms.{chain[0]}.from: got the text {parent!r}, {expected}{nearest(parent, known)}")
        if parent in chain:
            circle = chain[: chain.index(parent) + 1][::-1]
            first = circle.index(min(circle))
            circle = [*circle[first:], *circle[: first + 1]]
            raise ValueError(f"arms.{circle[0]}.from: runs in a circle: {' from '.join(circle)}")
        chain.insert(0, parent)
    return chain


def lay_arms(
    content: dict[str, Any], chain: list[dict[str, Any]], overlay: dict[str, Any]
) -> tuple[Recipe | None, list[str]]:
    """The recipe of the shared sections with the arms of `chain` laid over them; or None and its problems."""
    sections = {key: content[key] for key in Recipe.model_fields if key in content}
    for arm in chain:
        sections = merge(sections, {key: arm[key] for key in Recipe.model_fields if key in arm})
    if isinstance(sections.get("rewards"), dict) and chain:
        sections["rewards"] = {name: reward for name, reward in sections["rewards"].items() if reward is not None}
    laid = (*Recipe.model_fields, "lora", "at_most")
    sections = lay_scale(sections, {key: overlay[key] for key in laid if key in overlay})
    try:
        return Recipe.model_validate_json(to_json(sections)), []
    except ValidationError as error:
        return None, explain(error, Recipe, sections)


def unknown_sources(scale: dict[str, Any]) -> list[str]:
    """One sentence per key of `by_source` that is no kind of data."""
    known = locate(StudyFile, ("data",)).kinds
    return [
        f"by_source.{name}: unknown kind of data; expected {one_of(known)}{nearest(name, known)}"
        for name in scale.get("by_source", {})
        if name not in known
    ]


def fit_scale(content: dict[str, Any], scale: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The study with any warm start that the scale adds, and the overlay to apply.

    The overlay is that of the scale for the study's source of data and kind of model.

    Args:
        content: a parsed study file that is valid as written.
        scale: a parsed scale file.
    """
    general = {key: over for key, over in scale.items() if key not in ("adds_warm_start", "by_source", "seq2seq")}
    special = scale.get("by_source", {}).get(content["data"]["kind"], {})
    overlay = merge(general, special)
    if "data" in special:
        overlay["data"] = special["data"]
    if _is_seq2seq(content.get("model", {})):
        overlay = merge(overlay, scale.get("seq2seq") or {})
    is_warm = any(section.get("sft") for section in (content, *content["arms"].values()))
    if scale.get("adds_warm_start", False) and not is_warm:
        content = {**content, "sft": overlay["sft"]}
    return content, overlay


def _is_seq2seq(model: dict[str, Any]) -> bool:
    return model.get("kind") == "tiny_seq2seq" or model.get("architecture") == "seq2seq"


def lay_scale(sections: dict[str, Any], overlay: dict[str, Any]) -> dict[str, Any]:
    """Lay an overlay on sections; a warm start, reward, adapters, curve or average that they lack stay absent.

    A setting of the signals that is null in the sections stays null.

    Where the overlay replaces the model by one of another kind, adapters stay, with the overlay's `lora` over them.
    """
    over = {key: section for key, section in overlay.items() if key != "sft" or sections.get("sft")}
    of_adapters = over.pop("lora", None)
    written = sections.get("model", {})
    sections = at_most(sections, over.pop("at_most", {}))
    rounds = over.pop("sequential_seeds", {})
    if is_mapping(sections.get("seeds")):
        over["seeds"] = rounds
    if "signals" in over:
        over["signals"] = _unless_null(over["signals"], sections.get("signals", {}))
    for section, optional in (("evaluation", "every"), ("primary", "over")):
        if section in over and not sections.get(section, {}).get(optional):
            over[section] = {key: value for key, value in over[section].items() if key != optional}
    if "rewards" in over:
        over["rewards"] = {name: reward for name, reward in over["rewards"].items() if name in sections["rewards"]}
    laid = merge(sections, over)
    if "splits" in over.get("data", {}):
        laid["data"] = {**laid["data"], "splits": over["data"]["splits"]}
    if of_adapters is not None and written.get("lora") and laid["model"].get("kind") != written.get("kind"):
        laid["model"] = {**laid["model"], "lora": merge(written["lora"], of_adapters)}
    return laid


def _unless_null(over: dict[str, Any], written: dict[str, Any]) -> dict[str, Any]:
    """The overlay without the keys that are null as written."""
    return {
        key: _unless_null(value, written[key]) if is_mapping(value) and is_mapping(written.get(key)) else value
        for key, value in over.items()
        if key not in written or written[key] is not None
    }


def at_most(sections: dict[str, Any], ceilings: dict[str, Any]) -> dict[str, Any]:
    """Lower the numbers of the sections to their ceilings; keys that the sections lack or set to null stay so."""
    lowered: dict[str, Any] = {}
    for key, ceiling in ceilings.items():
        value = sections.get(key)
        if is_mapping(value) and is_mapping(ceiling):
            lowered[key] = at_most(value, ceiling)
        elif isinstance(value, int | float):
            lowered[key] = min(value, ceiling)
    return {**sections, **lowered}


@dataclass(frozen=True, kw_only=True)
class RecipeDifference:
    """One key path in which an arm's recipe differs from the baseline's."""

    path: str
    """Such as `rl.loss_type`; a section or a reward that only one of the two has is one path."""
    baseline: Any
    """The baseline's value; None where it has none."""
    arm: Any
    """The arm's value; None where it has none."""


def differences(study: Study) -> dict[str, list[RecipeDifference]]:
    """The differences of each arm's recipe from the baseline's; empty for the baseline itself."""
    baseline = study.arms[study.baseline].recipe
    return {name: recipe_differences(baseline, arm.recipe) for name, arm in study.arms.items()}


def recipe_differences(baseline: Recipe, arm: Recipe) -> list[RecipeDifference]:
    """The differences between two recipes, in the order of the sections; lists are compared whole."""
    return list(_differences("", baseline.model_dump(mode="json"), arm.model_dump(mode="json")))


def undeclared(found: Iterable[RecipeDifference], varies: Iterable[str]) -> list[RecipeDifference]:
    """The confounds: differences that no path of `varies` covers. A path covers every key below it."""
    varies = list(varies)
    return [difference for difference in found if not any(covers(path, difference.path) for path in varies)]


def idle(found: Iterable[RecipeDifference], varies: Iterable[str]) -> list[str]:
    """The paths of `varies` that cover no difference."""
    paths = [difference.path for difference in found]
    return [declared for declared in varies if not any(covers(declared, path) for path in paths)]


def covers(declared: str, path: str) -> bool:
    """Whether `declared`, a path of `varies`, is `path` or one above it."""
    return f"{path}.".startswith(f"{declared}.")


def _differences(path: str, baseline: Any, arm: Any) -> Iterator[RecipeDifference]:
    if baseline == arm:
        return
    if not (is_mapping(baseline) and is_mapping(arm)) or baseline.get("kind") != arm.get("kind"):
        yield RecipeDifference(path=path, baseline=baseline, arm=arm)
        return
    for key in dict.fromkeys([*baseline, *arm]):
        yield from _differences(f"{path}.{key}" if path else key, baseline.get(key), arm.get(key))
