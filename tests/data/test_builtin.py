"""Rows that are made here: in the right schema, right, balanced, and held-out where they evaluate."""

import re

import pytest

from rlassay.config import StudyError
from rlassay.config.data import Aokvqa, Builtin, Gsm8k, Summarization
from rlassay.data import load_rows
from rlassay.data.builtin import in_columns
from rlassay.data.digits import QUESTIONS

ORIGIN = Builtin(kind="builtin", seed=3)
RIGHT = {"left": lambda a, b: a, "right": lambda a, b: b, "larger": max, "smaller": min}


def test_digits_in_the_schema_of_aokvqa(tmp_path):
    section = Aokvqa(kind="aokvqa", origin=ORIGIN, splits={"sft": 40, "test": 20})
    rows = list(load_rows(section, tmp_path))
    assert [len(row.choices) for row in rows] == [4] * 60
    for row in rows[20:]:
        left, right = (int(digit) for digit in re.findall(r"digit is (\d)", row.demonstration or ""))
        (kind,) = (kind for kind, question in QUESTIONS.items() if question == row.question)
        assert row.choices[row.letters.index(row.answer)] == str(RIGHT[kind](left, right))
        assert row.media[0].path.endswith(".jpg")
    assert {row.answer for row in rows} == set("ABCD")
    images = [{row.media[0].path.rpartition("_")[2] for row in part} for part in (rows[:20], rows[20:])]
    assert not images[0] & images[1]
    assert rows == list(load_rows(section, tmp_path / "again"))


def test_sums_in_the_schema_of_gsm8k(tmp_path):
    section = Gsm8k(kind="gsm8k", origin=ORIGIN, splits={"train": 60, "test": 30})
    rows = list(load_rows(section, tmp_path))
    pairs = []
    for row in rows:
        more, less = (int(number) for number in re.findall(r"\d+", row.question))
        assert int(row.answer) == (more + less if "gets" in row.question else more - less)
        pairs.append((more, less))
    assert not set(pairs[:30]) & set(pairs[30:])


def test_the_working_of_a_sum_is_right_column_by_column(tmp_path):
    section = Gsm8k(kind="gsm8k", origin=ORIGIN, splits={"sft": 200})
    demonstrations = {row.answer: row.demonstration or "" for row in load_rows(section, tmp_path)}
    worked = 0
    for answer, demonstration in demonstrations.items():
        assert demonstration.endswith(f"<answer>{answer}</answer>")
        thought = re.match(r"<think>(.*?)=(\d+), (.*?)=(\d+)</think>", demonstration)
        if thought is None:
            assert demonstration == f"<answer>{answer}</answer>"
            continue
        worked += 1
        ones, tens = (sum(int(term) for term in re.findall(r"-?\d+", thought[part])) for part in (1, 3))
        assert (ones, tens) == (int(thought[2]), int(thought[4]))
        assert 10 * tens + ones % 10 == int(answer)
    assert 0.5 < worked / len(demonstrations) < 0.7


@pytest.mark.parametrize(
    ("more", "less", "adds", "working"),
    [
        (89, 34, True, "9+4=<<9+4=13>>13, 8+3+1=<<8+3+1=12>>12"),
        (45, 42, True, "5+2=<<5+2=7>>7, 4+4=<<4+4=8>>8"),
        (82, 37, False, "12-7=<<12-7=5>>5, 8-1-3=<<8-1-3=4>>4"),
        (45, 42, False, "5-2=<<5-2=3>>3, 4-4=<<4-4=0>>0"),
    ],
)
def test_carrying_and_borrowing(more: int, less: int, adds: bool, working: str):
    assert in_columns(more, less, adds) == working


def test_what_has_no_end_or_no_rows_of_its_own_is_named(tmp_path):
    with pytest.raises(StudyError, match=r"data.splits: the origin builtin never ends"):
        list(load_rows(Gsm8k(kind="gsm8k", origin=ORIGIN, splits={"test": None}), tmp_path))
    with pytest.raises(StudyError, match=r"data.origin: kind builtin, but this source has no rows of its own"):
        list(load_rows(Summarization(kind="summarization", origin=ORIGIN, splits={"test": 1}), tmp_path))
