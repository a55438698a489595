"""Walk the types of the config tree along the place of an error that pydantic reports."""

from collections.abc import Iterator
from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from rlassay.config.section import Section


@dataclass(frozen=True, kw_only=True)
class Place:
    """A place in a YAML file, and what the config tree says about it."""

    path: tuple[str | int, ...]
    """Keys and list indices as they stand in the file."""
    parents: tuple[Any, ...]
    """Types that the value holding the last key may have."""
    types: tuple[Any, ...]
    """Types that the value itself may have; empty for a key that does not exist."""

    @property
    def dotted(self) -> str:
        """The path as users write it: `arms.base.rl.max_steps`."""
        return ".".join(str(part) for part in self.path) or "the file"

    @property
    def siblings(self) -> dict[str, str]:
        """The valid keys beside the last one, each with its description."""
        return {key: about for parent in self.parents if is_section(parent) for key, about in _keys(parent).items()}

    @property
    def kinds(self) -> list[str]:
        """The values that `kind` may have in this section."""
        return [kind for option in self.types if is_section(option) for kind in _kinds(option)]


def locate(model: type[Section], location: tuple[str | int, ...]) -> Place:
    """The place of a pydantic error location, which also holds tags and type names that no file has as keys."""
    path: tuple[str | int, ...] = ()
    parents: tuple[Any, ...] = ()
    types: tuple[Any, ...] = (model,)
    for part in location:
        chosen = [option for option in types if len(types) > 1 and is_section(option) and part in _kinds(option)]
        children = tuple(child for option in types for child in _children(option, part))
        if chosen:
            types = tuple(chosen)
        elif children or (part != "[key]" and any(is_section(option) for option in types)):
            path, parents, types = (*path, part), types, children
    return Place(path=path, parents=parents, types=types)


def is_section(option: Any) -> bool:
    """Whether a type of the tree is a section with keys of its own."""
    return isinstance(option, type) and issubclass(option, Section)


def _keys(section: type[Section]) -> dict[str, str]:
    return {field.alias or name: field.description or "" for name, field in section.model_fields.items()}


def _kinds(section: type[Section]) -> tuple[str, ...]:
    return get_args(section.model_fields["kind"].annotation) if "kind" in section.model_fields else ()


def _children(option: Any, part: str | int) -> Iterator[Any]:
    """The types that `part` may have below a value of the type `option`; nothing when it has no such key."""
    arguments = get_args(option)
    if is_section(option):
        fields = {field.alias or name: field for name, field in option.model_fields.items()}
        if part in fields:
            yield from _alternatives(fields[str(part)].annotation)
    elif get_origin(option) is dict and part != "[key]":
        yield from _alternatives(arguments[1])
    elif get_origin(option) is tuple and isinstance(part, int):
        yield from _alternatives(arguments[0])


def _alternatives(annotation: Any) -> Iterator[Any]:
    """The plain types of an annotation: unions are spread, `Annotated` is taken off."""
    if get_origin(annotation) is Annotated:
        yield from _alternatives(get_args(annotation)[0])
    elif get_origin(annotation) in (Union, UnionType):
        for member in get_args(annotation):
            yield from _alternatives(member)
    elif annotation is not type(None):
        yield annotation
