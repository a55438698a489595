"""Legal names for MLflow, and points read from `metrics.jsonl` while it grows or is truncated."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlassay.tracking.names import MetricsFile, Point, legal_name


@pytest.mark.parametrize(
    ("name", "legal"),
    [
        ("reward", "reward"),
        ("rewards/choice_accuracy/mean", "rewards/choice_accuracy/mean"),
        ("pass@1", "pass_at_1"),
        ("eval/pass@16", "eval/pass_at_16"),
        ("clip ratio/low-mean", "clip ratio/low-mean"),
        ("kl(π|ref)", "kl___ref_"),
        ("100%", "100_"),
        ("a//b", "a/_/b"),
        ("../up", "__/up"),
        ("./here", "_/here"),
        ("", "_"),
    ],
)
def test_legal_names_stay_and_others_change(name: str, legal: str) -> None:
    assert legal_name(name) == legal


@given(st.text(max_size=30))
def test_mlflow_accepts_every_legal_name(name: str) -> None:
    from mlflow.utils.validation import _validate_metric_name

    _validate_metric_name(legal_name(name))


def write(path: Path, *lines: dict[str, object]) -> None:
    """Replace the file by these lines."""
    unfinished = path.with_name("unfinished")
    unfinished.write_text("".join(json.dumps(line) + "\n" for line in lines))
    unfinished.replace(path)


def steps(points: list[Point]) -> list[int]:
    """The steps of the points."""
    return [point.step for point in points]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "metrics.jsonl"


def test_a_line_becomes_a_point_per_number(path: Path) -> None:
    write(path, {"step": 3, "time": 12.3456, "pass@1": 0.5, "n": 2, "none": None, "text": "x", "inf": float("inf")})
    assert MetricsFile(path).new_points() == [
        Point(key="pass_at_1", value=0.5, step=3, timestamp=12345),
        Point(key="n", value=2.0, step=3, timestamp=12345),
    ]


def test_no_file_has_no_points(path: Path) -> None:
    assert MetricsFile(path).new_points() == []


def test_only_new_lines_are_returned_until_the_reader_is_rewound(path: Path) -> None:
    metrics = MetricsFile(path)
    lines = [{"step": step, "time": 1.0, "a": step} for step in (1, 2, 3)]
    write(path, *lines[:2])
    assert steps(metrics.new_points()) == [1, 2]
    write(path, *lines)
    assert steps(metrics.new_points()) == [3]
    metrics.rewind()
    assert steps(metrics.new_points()) == [1, 2, 3]


@pytest.mark.parametrize("regrown", [[1], [1, 22], [1, 22, 333, 4444], [11, 2]])
def test_a_truncated_file_is_read_from_its_start(path: Path, regrown: list[int]) -> None:
    metrics = MetricsFile(path)
    write(path, *({"step": step, "time": 1.0, "a": step} for step in (1, 2, 3)))
    metrics.new_points()
    write(path, *({"step": step, "time": 1.0, "a": step} for step in regrown))
    assert steps(metrics.new_points()) == regrown


def test_a_file_that_was_deleted_and_recreated_is_read_from_its_start(path: Path) -> None:
    metrics = MetricsFile(path)
    write(path, {"step": 1, "time": 1.0, "a": 1})
    metrics.new_points()
    path.unlink()
    assert metrics.new_points() == []
    write(path, {"step": 1, "time": 1.0, "a": 1})
    assert steps(metrics.new_points()) == [1]


def test_a_broken_line_is_left_out_and_an_unfinished_one_waits(path: Path) -> None:
    path.write_text('{"step": 1, "ti\n{"step": 2, "time": 1.0, "a": 1}\n{"step": 3, "time": 1.0, "a"')
    metrics = MetricsFile(path)
    assert steps(metrics.new_points()) == [2]
    with path.open("a") as out:
        out.write(": 1}\n")
    assert steps(metrics.new_points()) == [3]
