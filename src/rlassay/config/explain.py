"""Turn pydantic's errors into sentences: place, value found, values expected, and the nearest valid name."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, get_args, get_origin

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from rlassay.config.engine import VLLMSampler
from rlassay.config.section import Section, alternatives, is_section
from rlassay.names import nearest, one_of

MOST_SEEDS = 16
"""Largest number that is read as a number of seeds in place of a list. A larger one is a seed."""


class StudyError(ValueError):
    """All problems of a study or a settings file, one sentence each."""

    def __init__(self, problems: Sequence[str], source: str | None = None) -> None:
        """Args: problems: one sentence each; source: the file that has them, None if the sentences name it."""
        self.problems = tuple(problems)
        self.source = source
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        head = f"{source}: {count}" if source else count
        super().__init__("\n".join([head, *(f"  - {problem}" for problem in problems)]))


def explain(error: ValidationError, model: type[Section], content: Any) -> list[str]:
    """One sentence per problem that pydantic found when it read `content` as a `model`.

    Pydantic refuses each type of a union (text or a list) by itself; these become one sentence.
    """
    problems: dict[str, list[str]] = {}
    for detail in error.errors(include_url=False):
        if not _is_echo(detail):
            place = locate(model, detail["loc"])
            got, expected = _sentence(detail, place)
            hint = _hint(detail, place, content)
            problems.setdefault(f"{place.dotted}: {got}", []).append(expected + hint)
    return [start + " or ".join(dict.fromkeys(expected)) for start, expected in problems.items()]


def describe(value: Any) -> str:
    """A YAML file's value in words: `the text '1'`, `the number 1.5`, `a mapping`."""
    match value:
        case None:
            return "nothing (null)"
        case bool():
            return str(value).lower()
        case str():
            return f"the text {value!r}"
        case int() | float():
            return f"the number {value}"
        case dict():
            return "a mapping" if value else "an empty mapping"
        case _:
            return "a list" if value else "an empty list"


@dataclass(frozen=True, kw_only=True)
class Place:
    """A place in a YAML file, and the types that the config tree allows there."""

    path: tuple[str | int, ...]
    """Keys and list indices as in the file."""
    parents: tuple[Any, ...]
    """Types that the value around the last key may have."""
    types: tuple[Any, ...]
    """Types that the value itself may have; empty for an unknown key."""

    @property
    def dotted(self) -> str:
        """The path as users write it: `arms.base.rl.max_steps`."""
        return ".".join(str(part) for part in self.path) or "the file"

    @property
    def siblings(self) -> dict[str, str]:
        """The keys allowed beside the last key of `path`, each with its description."""
        return {key: about for parent in self.parents if is_section(parent) for key, about in _keys(parent).items()}

    @property
    def kinds(self) -> list[str]:
        """The values that `kind` may have in this section."""
        return [kind for option in self.types if is_section(option) for kind in _kinds(option)]


def locate(model: type[Section], location: tuple[str | int, ...]) -> Place:
    """Find the place of a pydantic error location, skipping tags and type names.

    These are no keys of the study.
    """
    path: tuple[str | int, ...] = ()
    parents: tuple[Any, ...] = ()
    types: tuple[Any, ...] = (model,)
    for part in location:
        chosen = [option for option in types if len(types) > 1 and is_section(option) and part in _kinds(option)]
        children = tuple(child for option in types for child in _children(option, part))
        if chosen:
            types = tuple(chosen)
        elif children or (not str(part).startswith("[") and any(is_section(option) for option in types)):
            path, parents, types = (*path, part), types, children
    return Place(path=path, parents=parents, types=types)


def _keys(section: type[Section]) -> dict[str, str]:
    return {field.alias or name: field.description or "" for name, field in section.model_fields.items()}


def _kinds(section: type[Section]) -> tuple[str, ...]:
    return get_args(section.model_fields["kind"].annotation) if "kind" in section.model_fields else ()


def _children(option: Any, part: str | int) -> Iterator[Any]:
    """The types that `part` may have below a value of the type `option`; none for an unknown key."""
    arguments = get_args(option)
    if is_section(option):
        fields = {field.alias or name: field for name, field in option.model_fields.items()}
        if part in fields:
            yield from alternatives(fields[str(part)].annotation)
    elif get_origin(option) is dict and part != "[key]":
        yield from alternatives(arguments[1])
    elif get_origin(option) is tuple and isinstance(part, int):
        yield from alternatives(arguments[0])


# By the type of pydantic's error; {name} comes from the error's context.
_EXPECTED = {
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "text",
    "tuple_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "greater_than": "a number above {gt}",
    "greater_than_equal": "a number of at least {ge}",
    "less_than": "a number below {lt}",
    "less_than_equal": "a number of at most {le}",
    "multiple_of": "a multiple of {multiple_of}",
    "too_short": "at least {min_length} entry",
    "string_too_short": "text that is not empty",
}
_PATTERNS = {
    "^#": "a colour such as '#1f77b4', in quotes",
    "^[": "a name of lower-case letters, digits and underscores",
    "^l": "last_2, last_3, or another number of at least 2",
}


def _is_echo(detail: ErrorDetails) -> bool:
    """Whether a list is too short only because its items were refused.

    Each item then has a sentence of its own.
    """
    return detail["type"] == "too_short" and len(detail["input"]) >= detail.get("ctx", {})["min_length"]


def _sentence(detail: ErrorDetails, place: Place) -> tuple[str, str]:
    """The two halves of a sentence: the value found, and the values expected."""
    kind, context, key = detail["type"], detail.get("ctx", {}), str(place.path[-1] if place.path else "")
    if kind == "missing":
        return "missing", f"; expected: {place.siblings[key].rstrip('.')}"
    if kind == "extra_forbidden":
        return "unknown key", f"; expected {one_of(place.siblings)}{nearest(key, place.siblings)}"
    if kind == "union_tag_not_found":
        return "kind is missing", f"; expected kind: {one_of(place.kinds)}"
    if kind in ("union_tag_invalid", "literal_error"):
        known = re.findall(r"'([^']*)'", str(context.get("expected_tags") or context["expected"]))
        value = context.get("tag", detail["input"])
        where = "kind is " if "tag" in context else "got "
        return f"{where}{describe(value)}, expected ", one_of(known) + nearest(str(value), known)
    got = f"got {describe(detail['input'])}, expected "
    if kind == "string_pattern_mismatch":
        return got, _PATTERNS[context["pattern"][:2]]
    bounds = {name: f"{bound:g}" if isinstance(bound, float) else bound for name, bound in context.items()}
    return got, _EXPECTED[kind].format(**bounds) if kind in _EXPECTED else f"something else ({detail['msg']})"


def _hint(detail: ErrorDetails, place: Place, content: Any) -> str:
    """`; write seeds: [1]` where the intended value is obvious; empty elsewhere."""
    kind, value = detail["type"], detail["input"]
    if kind == "extra_forbidden" and place.path[:2] == ("evaluation", "engine"):
        of_rl = place.path[-1] in VLLMSampler.model_fields
        return "; it is an option of rl.engine: the evaluation opens vLLM in its own jobs" if of_rl else ""
    if kind == "tuple_type" and place.path == ("seeds",) and isinstance(value, int) and 1 < value <= MOST_SEEDS:
        seeds = ", ".join(str(seed) for seed in range(1, value + 1))
        return f"; write seeds: [{seeds}] for {value} seeds, or seeds: [{value}] for seed {value} alone"
    meant = _meant(kind, value)
    if meant is None:
        return ""
    *above, key = place.path
    if isinstance(key, int):
        *above, key = above
        items = content
        for part in (*above, key):
            items = items[part]
        meant = f"[{', '.join(_meant(detail['type'], item) or str(item) for item in items)}]"
    return f"; write {key}: {meant}"


def _meant(kind: str, value: Any) -> str | None:
    """The YAML text that the user meant by a value of the wrong type; None if it is unclear."""
    if kind == "tuple_type" and isinstance(value, str | int | float):
        return f"[{value}]"
    if kind == "string_type" and isinstance(value, int | float) and not isinstance(value, bool):
        return f"'{value}'"
    if kind == "bool_type" and str(value).lower() in ("true", "yes", "false", "no"):
        return str(str(value).lower() in ("true", "yes")).lower()
    if kind in ("int_type", "int_from_float", "float_type") and isinstance(value, str | float):
        return _number(kind, value)
    return None


def _number(kind: str, value: str | float) -> str | None:
    """`1` for '1' and 1.0, `1e-3` for '1e-3' where fractions are allowed; None for other text."""
    try:
        number = float(value)
    except ValueError:
        return None
    if kind == "float_type":
        return str(value)
    return str(int(number)) if number.is_integer() else None
