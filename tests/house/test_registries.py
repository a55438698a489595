"""One registry per kind, as a dict literal; a key is the name of its function."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "src/rlassay"
REGISTRIES = {"REWARDS": "rewards", "ADVANTAGES": "advantages", "CREDITS": "credit", "SOURCES": "data"}


@pytest.mark.parametrize(("name", "folder"), REGISTRIES.items())
def test_a_registry_is_a_dict_literal_of_functions_by_their_names(name: str, folder: str):
    values = [
        node.value
        for file in (PACKAGE / folder).glob("*.py")
        for node in ast.parse(file.read_text()).body
        for target in (node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)])
        if isinstance(target, ast.Name) and target.id == name
    ]

    assert len(values) == 1, f"{name} must be assigned once in {folder}/"
    assert isinstance(values[0], ast.Dict)
    keys = [key.value for key in values[0].keys if isinstance(key, ast.Constant)]
    functions = [value.id for value in values[0].values if isinstance(value, ast.Name)]
    assert len(keys) == len(values[0].keys) > 0
    assert keys == functions
