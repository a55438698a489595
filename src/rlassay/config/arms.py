"""Write every arm out in full: follow `from`, lay its differences over the shared sections, validate the whole."""

from typing import Any

from pydantic import ValidationError

from rlassay.config.explain import explain, nearest, one_of
from rlassay.config.scale import lay_scale
from rlassay.config.study import Arm
from rlassay.config.training import Recipe
from rlassay.config.yaml_file import merge, to_json


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
