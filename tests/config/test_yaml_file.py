"""YAML as people expect it, and merges by hand."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlassay.config.load import read_yaml
from rlassay.config.section import merge


def read(folder: Path, text: str | bytes):
    """What `text` in a file reads as."""
    file = folder / "file.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_yaml(file)


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("1e-4", 1e-4),
        ("2e3", 2000.0),
        ("2.5e4", 25000.0),
        ("-1E+2", -100.0),
        ("1.5", 1.5),
        ("7", 7),
        ("'1e-4'", "1e-4"),
        ("1e", "1e"),
        ("none", "none"),
        ("null", None),
        ("2024-01-31", "2024-01-31"),
        ("[1, {a: ~}]", [1, {"a": None}]),
    ],
)
def test_values(tmp_path: Path, written: str, value: object):
    read_back = read(tmp_path, f"key: {written}")["key"]
    assert read_back == value
    assert type(read_back) is type(value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: 1\nb: 2\na: 3", "line 1: the key 'a' appears twice in one section"),
        ("s:\n  x: {a: 1, a: 2}", "line 2: the key 'a' appears twice in one section"),
        ("a: [1", "expected ',' or ']'"),
        ("- 1\n- 2", "expected sections `key: value`, got list"),
        ("", "expected sections `key: value`, got NoneType"),
        (b"a: \xff", "not UTF-8 (invalid start byte at byte 3)"),
        ("a: &a [*a]", "Circular reference"),
        ("a: !!python/object:os.system {}", "could not determine a constructor"),
        ("? [1]\n: 2", "unhashable key"),
        ("a: 1\n---\nb: 2", "expected a single document"),
    ],
)
def test_what_cannot_be_read_is_named_with_its_file(tmp_path: Path, text: str | bytes, expected: str):
    with pytest.raises(ValueError, match=r"file\.yaml: ") as caught:
        read(tmp_path, text)
    assert expected in str(caught.value)


def test_a_missing_file(tmp_path: Path):
    with pytest.raises(ValueError, match=r"gone\.yaml: No such file or directory"):
        read_yaml(tmp_path / "gone.yaml")


def test_anchors_and_merge_keys_work(tmp_path: Path):
    read_back = read(tmp_path, "a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}\nc: *a")
    assert read_back == {"a": {"x": 1, "y": 2}, "b": {"x": 1, "y": 3}, "c": {"x": 1, "y": 2}}


MERGES = [
    ({"a": 1}, {"b": 2}, {"a": 1, "b": 2}),
    ({"a": {"x": 1, "y": 2}}, {"a": {"y": 3}}, {"a": {"x": 1, "y": 3}}),
    ({"a": [1, 2]}, {"a": [3]}, {"a": [3]}),
    ({"a": {"x": 1}}, {"a": None}, {"a": None}),
    ({"a": None}, {"a": {"x": 1}}, {"a": {"x": 1}}),
    ({"a": 1}, {"a": {"x": 1}}, {"a": {"x": 1}}),
    ({"m": {"kind": "p", "x": 1}}, {"m": {"kind": "p", "y": 2}}, {"m": {"kind": "p", "x": 1, "y": 2}}),
    ({"m": {"kind": "p", "x": 1}}, {"m": {"y": 2}}, {"m": {"kind": "p", "x": 1, "y": 2}}),
    ({"m": {"kind": "p", "x": 1}}, {"m": {"kind": "q", "y": 2}}, {"m": {"kind": "q", "y": 2}}),
]


@pytest.mark.parametrize(("base", "over", "merged"), MERGES)
def test_merges_by_hand(base: dict, over: dict, merged: dict):
    assert merge(base, over) == merged


JSON = st.recursive(
    st.none() | st.integers(0, 9), lambda inner: st.dictionaries(st.sampled_from("abc"), inner), max_leaves=9
)


@given(JSON, JSON, JSON)
def test_merging_is_idempotent_and_associative_and_nothing_is_its_unit(one: object, two: object, three: object):
    assert merge(one, one) == one
    assert merge(merge(one, two), two) == merge(one, two)
    if all(isinstance(side, dict) for side in (one, two, three)):
        assert merge(one, {}) == one == merge({}, one)


@given(JSON, JSON)
def test_merging_changes_neither_side(base: object, over: object):
    before = (repr(base), repr(over))
    merge(base, over)
    assert (repr(base), repr(over)) == before
