"""Whether two results folders hold the same files in the same schema, whatever ran the jobs."""

import csv
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from safetensors import safe_open

Schema = dict[tuple[str, ...], set[str]]
"""Place in a file -> kinds of the values there: `("resumes", "[]", "step")` -> `{"number"}`."""


def differences(results: Path, others: Path) -> list[str]:
    """Files, keys and columns that only one of two results folders has, and values of different kinds; sorted.

    Names of policies are compared without their fingerprints. An empty list or a null in one folder agrees with any
    content in the other.
    """
    schemas = [_schemas(folder) for folder in (results, others)]
    return sorted({line for one, other in (schemas, schemas[::-1]) for line in _lacking(one, other)})


def _lacking(schemas: dict[str, Schema], others: dict[str, Schema]) -> Iterator[str]:
    """What `others` lack of `schemas`, and what is of another kind in both."""
    for file, schema in schemas.items():
        if file not in others:
            yield f"{file}: in one only"
            continue
        other = others[file]
        for place, kinds in schema.items():
            name = "".join(f".{key}" for key in place)
            if place in other:
                found, expected = other[place] - {"null"}, kinds - {"null"}
                if found and expected and found != expected:
                    yield f"{file}: {name} is {' or '.join(sorted(found | expected))}"
            elif place[-1] != "[]" and "object" in other.get(place[:-1], ()):
                yield f"{file}: {name} in one only"


def _schemas(folder: Path) -> dict[str, Schema]:
    """File -> its schema; of a file that is read by people alone, no places."""
    files = (file for file in sorted(folder.rglob("*")) if file.is_file())
    return {_anonymous(str(file.relative_to(folder))): READERS.get(file.suffix, _unread)(file) for file in files}


def _anonymous(name: str) -> str:
    return re.sub(r"\b[0-9a-f]{8}\b", "<id>", name)


def _of_values(*values: Any) -> Schema:
    """The places of JSON values that share a schema, such as the lines of a file."""
    schema: Schema = {}

    def visit(value: Any, place: tuple[str, ...]) -> None:
        kinds = schema.setdefault(place, set())
        if isinstance(value, dict):
            kinds.add("object")
            for key, each in value.items():
                visit(each, (*place, _anonymous(key)))
        elif isinstance(value, list):
            kinds.add("list")
            for each in value:
                visit(each, (*place, "[]"))
        else:
            kinds.add(KINDS[type(value)])

    for value in values:
        visit(value, ())
    return schema


def _of_columns(columns: dict[str, str]) -> Schema:
    return {(): {"object"}} | {(name,): {kind} for name, kind in columns.items()}


def _parquet(file: Path) -> Schema:
    return _of_columns({field.name: str(field.type) for field in pq.read_schema(file)})


def _weights(file: Path) -> Schema:
    with safe_open(file, framework="pt") as tensors:
        slices = {name: tensors.get_slice(name) for name in tensors.keys()}  # noqa: SIM118  # it is no dict
        return _of_columns({name: f"{each.get_dtype()}{each.get_shape()}" for name, each in slices.items()})


def _table(file: Path) -> Schema:
    with file.open(newline="") as lines:
        header = next(csv.reader(lines, delimiter="\t" if file.suffix == ".tsv" else ","), [])
    return _of_columns(dict.fromkeys(header, "text"))


def _unread(file: Path) -> Schema:
    return {}


KINDS = {str: "text", bool: "truth", int: "number", float: "number", type(None): "null"}
READERS: dict[str, Callable[[Path], Schema]] = {
    ".json": lambda file: _of_values(json.loads(file.read_bytes())),
    ".jsonl": lambda file: _of_values(*map(json.loads, file.read_bytes().splitlines())),
    ".parquet": _parquet,
    ".safetensors": _weights,
    ".csv": _table,
    ".tsv": _table,
}
