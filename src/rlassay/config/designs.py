"""Designs: the arms of a study, made from its declared ingredients.

They are made before anything is validated or runs. An arm that has some ingredients is the study's own sections with
their differences laid over it, so that a designed study becomes an explicit one, and every check of an explicit study
holds for it.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations
from typing import Any

from rlassay.config.arms import covers, idle, lay_arms, own_problems, recipe_differences, undeclared
from rlassay.config.section import is_list, is_mapping, merge
from rlassay.config.study import Design
from rlassay.config.training import Recipe
from rlassay.names import nearest, one_of

NONE, ALL = "none", "all"
"""Names of the arms without any ingredient, and with every one of several."""
MOST_INGREDIENTS = 10
"""Most ingredients of a design: 1,024 arms of a factorial one."""
UNIFORM = {"kind": "uniform"}


def design_arms(content: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Write out the arms of a study's design, and list its problems.

    Returns the content of the study file with all arms, and one sentence per problem of the design.

    Args:
        content: the parsed study file, whose design keys are valid by themselves.
    """
    written: Any = content.get("arms", {})
    if not is_mapping(written):
        return content, []
    if content.get("design", "explicit") == "explicit":
        needless = [key for key in ("ingredients", "generators") if content.get(key)]
        return content, [f"{key}: only a design uses it; set design, or leave it out" for key in needless]
    problems = [*_names(content), *_generators(content)]
    if problems:
        return content, problems
    changes, problems = _changes(content)
    subsets = members(content)
    baseline = subsets.get(content.get("baseline", ""))
    arms: dict[str, Any] = {}
    for name, has in subsets.items():
        differs = has if baseline is None else tuple(each for each in changes if (each in has) != (each in baseline))
        varies = list(dict.fromkeys(path for each in differs for path in changes.get(each, ())))
        arms[name] = {"label": _label(content, has), "varies": varies, **_sections(content, has)}
    for name, arm in written.items():
        if name in arms and is_mapping(arm):
            problems += [
                f"arms.{name}.{key}: {name!r} is an arm of the design, of which only label and color can be written; "
                "put differences into an ingredient, or into an arm of another name"
                for key in arm
                if key not in ("label", "color")
            ]
            arms[name] = {**arms[name], **arm}
        else:
            arms[name] = arm
    return {**content, "arms": arms}, problems


def members(content: dict[str, Any]) -> dict[str, tuple[str, ...]]:
    """Arm -> the ingredients that it has, in the order of the study; empty for an explicit study."""
    names = list(content.get("ingredients") or {})
    design: Design = content.get("design", "explicit")
    match design:
        case "explicit":
            return {}
        case "leave_one_out":
            subsets = [tuple(names), *(tuple(other for other in names if other != name) for name in names)]
        case "add_one_in":
            subsets = [(), *((name,) for name in names)]
        case "factorial":
            subsets = list(_subsets(names))
        case "fractional":
            subsets = sorted(_fraction(names, generators(content)), key=len)
    return {arm_name(has, names): has for has in subsets}


def arm_name(has: Sequence[str], ingredients: Sequence[str]) -> str:
    """`none`, `all`, or the ingredients of the arm joined by `_and_`."""
    if not has:
        return NONE
    return ALL if len(has) == len(ingredients) > 1 else "_and_".join(has)


def generators(content: dict[str, Any]) -> dict[str, tuple[str, ...]]:
    """The generators of a fractional design: those declared, else the last ingredient from all others."""
    *others, last = content["ingredients"]
    declared: dict[str, Any] = content.get("generators") or {last: others}
    return {name: tuple(parents) for name, parents in declared.items()}


def defining_words(generating: dict[str, tuple[str, ...]]) -> list[frozenset[str]]:
    """The defining relation: sets of ingredients of which every arm has an even number.

    A main effect is aliased with the interaction of the rest of each word that holds it; the shortest word has as many
    ingredients as the resolution of the design.

    Source: Box and Hunter (1961), The 2^(k-p) fractional factorial designs, Technometrics 3, 311-351.
    """
    words = [frozenset({name, *parents}) for name, parents in generating.items()]
    products: list[frozenset[str]] = []
    for size in range(1, len(words) + 1):
        for chosen in combinations(words, size):
            product = frozenset[str]()
            for word in chosen:
                product ^= word
            products.append(product)
    return products


def _fraction(names: list[str], generating: dict[str, tuple[str, ...]]) -> Iterator[tuple[str, ...]]:
    for chosen in _subsets([name for name in names if name not in generating]):
        follows = {name for name, parents in generating.items() if len(set(parents) & set(chosen)) % 2}
        yield tuple(name for name in names if name in follows or name in chosen)


def _subsets(names: Sequence[str]) -> Iterator[tuple[str, ...]]:
    for size in range(len(names) + 1):
        yield from combinations(names, size)


def ingredient_labels(content: dict[str, Any]) -> dict[str, str]:
    """Ingredient -> its name on the page; empty for an explicit study."""
    return {name: section.get("label") or name for name, section in content.get("ingredients", {}).items()}


def _label(content: dict[str, Any], has: Sequence[str]) -> str:
    labels = ingredient_labels(content)
    lacking = [label for name, label in labels.items() if name not in has]
    if content["design"] == "leave_one_out":
        return f"all but {lacking[0]}" if lacking else ALL
    return " + ".join(labels[name] for name in has) or NONE


def _sections(content: dict[str, Any], has: Iterable[str]) -> dict[str, Any]:
    """The differences of some ingredients together; their credit parts follow those of the study."""
    sections: dict[str, Any] = {}
    credit: list[Any] = []
    for name in has:
        own = {key: part for key, part in content["ingredients"][name].items() if key in Recipe.model_fields}
        credit += own.pop("credit", None) or []
        sections = merge(sections, own)
    if credit:
        shared = content.get("credit", [])
        sections["credit"] = [*(part for part in shared if part != UNIFORM), *credit] if is_list(shared) else shared
    return sections


def _changes(content: dict[str, Any]) -> tuple[dict[str, tuple[str, ...]], list[str]]:
    """Ingredient -> the key paths that it declares or changes, and problems of single ingredients."""
    shared, inherited = lay_arms(content, [], {})
    changes: dict[str, tuple[str, ...]] = {}
    problems: list[str] = []
    for name, section in content["ingredients"].items():
        recipe, found = lay_arms(content, [_sections(content, [name])], {})
        problems += [f"ingredients.{name}.{problem}" for problem in own_problems(found, inherited)]
        if shared is None or recipe is None:
            continue
        differences = recipe_differences(shared, recipe)
        paths = tuple(difference.path for difference in differences)
        if not paths:
            problems.append(f"ingredients.{name}: changes nothing in the study's own sections; change or remove it")
        for other, theirs in changes.items():
            both = [path for path in paths if path != "credit" and any(_overlap(path, one) for one in theirs)]
            problems += [
                f"ingredients.{name}: {path} is changed by {other!r} too, so that an arm with both would have only one "
                "of them; let each key be changed by one ingredient"
                for path in both
            ]
        declared = section.get("varies")
        if declared is not None:
            problems += [
                f"ingredients.{name}: changes {difference.path}, which its `varies` does not declare, a confound; add "
                "the path, or take the change out"
                for difference in undeclared(differences, declared)
            ]
            problems += [
                f"ingredients.{name}.varies: nothing below {path!r} is changed{nearest(path, paths)}"
                for path in idle(differences, declared)
            ]
        changes[name] = paths if declared is None else tuple(declared)
    return changes, problems


def _overlap(path: str, other: str) -> bool:
    return covers(path, other) or covers(other, path)


def _names(content: dict[str, Any]) -> Iterator[str]:
    """Ingredients of a number and of names that a design can use."""
    names = list(content.get("ingredients") or {})
    least = 3 if content["design"] == "fractional" else 1
    if not least <= len(names) <= MOST_INGREDIENTS:
        expected = f"expected {least} to {MOST_INGREDIENTS}"
        yield f"ingredients: design {content['design']} has {len(names)} of them, {expected}"
    for name in names:
        if name in (NONE, ALL):
            yield f"ingredients.{name}: {name!r} is the name of the arm that has {name}; rename it"
        joined = [other for other in names if other != name and f"_and_{other}_and_" in f"_and_{name}_and_"]
        if joined:
            yield f"ingredients.{name}: reads like an arm that has {joined[0]!r}; rename it without `_and_`"


def _generators(content: dict[str, Any]) -> Iterator[str]:
    """Generators of a fractional design that name ingredients and keep main effects apart."""
    names: list[str] = list(content.get("ingredients") or {})
    declared: dict[str, list[str]] = content.get("generators") or {}
    if content["design"] != "fractional":
        if declared:
            yield f"generators: design {content['design']} uses none; leave them out, or set design: fractional"
        return
    unknown = False
    for name, parents in declared.items():
        known = [other for other in names if other not in declared]
        places = [("", name, names), *((f".{i}", parent, known) for i, parent in enumerate(parents))]
        for place, given, allowed in places:
            if given not in allowed:
                unknown = True
                expected = f"expected {one_of(allowed)}" if allowed else "but no ingredient is free"
                path = f"generators.{name}{place}"
                yield f"{path}: got the text {given!r}, {expected}{nearest(given, allowed)}"
    if unknown or len(names) < 3:
        return
    for word in defining_words(generators(content)):
        if len(word) == 1:
            yield f"generators: no arm would have {min(word)!r}; expected other generators"
        elif len(word) < 3:
            named = " and ".join(repr(name) for name in sorted(word)) or "two ingredients"
            yield f"generators: every arm would have both or neither of {named}; expected other generators"
