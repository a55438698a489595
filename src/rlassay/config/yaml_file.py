"""Read a YAML file the way people expect: `1e-4` is a number and a key that stands twice is an error."""

import json
import re
from pathlib import Path
from typing import Any, TypeGuard

import yaml


class _Loader(yaml.SafeLoader):
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [(key.tag, key.value) for key, _ in node.value]
        for (_, name), (key, _) in zip(keys, node.value, strict=True):
            if keys.count((key.tag, name)) > 1:
                raise ValueError(f"line {key.start_mark.line + 1}: the key {name!r} stands twice in one section")
        return super().construct_mapping(node, deep)


# YAML 1.1 reads 1e-4 and 2.5e4 as text; YAML 1.2 and every user read numbers.
_Loader.add_implicit_resolver(  # pyright: ignore[reportUnknownMemberType] - PyYAML's stubs leave `tag` open
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file, in JSON's types; ValueError names the file and what is wrong with it."""
    try:
        content = json.loads(to_json(yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)))
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 ({error.reason} at byte {error.start})") from None
    except (yaml.YAMLError, ValueError, TypeError) as error:
        raise ValueError(f"{path}: {error}") from None
    if not is_mapping(content):
        raise ValueError(f"{path}: expected sections `key: value`, got {type(content).__name__}")
    return content


def to_json(content: Any) -> str:
    """Content of a YAML file as JSON; dates become text."""
    return json.dumps(content, default=str)


def is_mapping(value: Any) -> TypeGuard[dict[str, Any]]:
    """Whether a value of a YAML file has keys."""
    return isinstance(value, dict)


def merge(base: Any, over: Any) -> Any:
    """`over` laid on `base`: mappings merge key by key, everything else is replaced.

    A mapping of another `kind` replaces the whole section, since keys of one kind mean nothing to another.
    """
    if not (is_mapping(base) and is_mapping(over)):
        return over
    if "kind" in base and "kind" in over and base["kind"] != over["kind"]:
        return over
    return {**base, **{key: merge(base[key], value) if key in base else value for key, value in over.items()}}
