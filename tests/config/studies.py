"""Study files for the tests: the built-in one with edits, as content and as a file."""

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from rlassay.config import Study, StudyError
from rlassay.config.load import read_yaml, resolve_study

DIGITS = Path("config/studies/digits.yaml")


class _Gone:
    def __repr__(self) -> str:  # the names of parametrized tests must not change from process to process
        return "GONE"


GONE = _Gone()
"""As the value of an edit: remove the key."""

_CONTENT = read_yaml(DIGITS)
# Steps that answers can be worked from, however the built-in study is tuned.
_CONTENT["sft"]["max_steps"] = 1200
_CONTENT["rl"] |= {"max_steps": 60, "save_steps": 20}


def content(**edits: Any) -> dict[str, Any]:
    """The content of the built-in study with edits: `rl__max_steps=3` sets the key path rl.max_steps."""
    edited = copy.deepcopy(_CONTENT)
    for path, value in edits.items():
        *above, key = path.split("__")
        section = edited
        for part in above:
            section = section.setdefault(part, {})
        if value is GONE:
            del section[key]
        else:
            section[key] = copy.deepcopy(value)  # a later edit may lie within it
    return edited


def study(**edits: Any) -> Study:
    """The resolved study of `content(**edits)`."""
    return resolve_study(content(**edits))


def problems(**edits: Any) -> list[str]:
    """The problems of `content(**edits)`."""
    with pytest.raises(StudyError) as caught:
        resolve_study(content(**edits))
    return list(caught.value.problems)


def write(path: Path, edited: dict[str, Any]) -> Path:
    """`edited` as a YAML file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(edited, sort_keys=False), encoding="utf-8")
    return path
