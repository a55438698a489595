"""The base of config sections, and helpers for values and types of the tree."""

import json
from collections.abc import Iterator
from types import UnionType
from typing import Annotated, Any, TypeGuard, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A frozen section of the config tree: unknown keys, wrong types and NaN are refused."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        use_attribute_docstrings=True,
        allow_inf_nan=False,
        validate_default=True,
    )


def is_section(option: Any) -> TypeGuard[type[Section]]:
    """Whether a type of the tree is a section with keys of its own."""
    return isinstance(option, type) and issubclass(option, Section)


def alternatives(annotation: Any) -> Iterator[Any]:
    """The plain types of an annotation: unions are spread, `Annotated` and None are left out."""
    if get_origin(annotation) is Annotated:
        yield from alternatives(get_args(annotation)[0])
    elif get_origin(annotation) in (Union, UnionType):
        for member in get_args(annotation):
            yield from alternatives(member)
    elif annotation is not type(None):
        yield annotation


def is_mapping(value: Any) -> TypeGuard[dict[str, Any]]:
    """Whether a value of a YAML file has keys."""
    return isinstance(value, dict)


def is_list(value: Any) -> TypeGuard[list[Any]]:
    """Whether a value of a YAML file is a list."""
    return isinstance(value, list)


def to_json(content: Any) -> str:
    """Content of a YAML file as JSON; dates become text."""
    return json.dumps(content, default=str)


def merge(base: Any, over: Any) -> Any:
    """Lay `over` on `base`: mappings merge key by key, everything else is replaced.

    A mapping of another `kind` replaces the whole section, since keys of one kind mean nothing to another.
    """
    if not (is_mapping(base) and is_mapping(over)):
        return over
    if "kind" in base and "kind" in over and base["kind"] != over["kind"]:
        return over
    return {**base, **{key: merge(base[key], value) if key in base else value for key, value in over.items()}}


def is_none(value: object) -> bool:
    """For `exclude_if` of an optional key. Leaving the key out has the same fingerprint as before it existed."""
    return value is None


def is_false(value: object) -> bool:
    """For `exclude_if` of a switch that is off by default, as `is_none`."""
    return value is False


def is_empty(value: object) -> bool:
    """For `exclude_if` of a list that is empty by default, as `is_none`."""
    return value == ()
