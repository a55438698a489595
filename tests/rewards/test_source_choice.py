"""The published parser, with the misreadings that were found by running its patterns."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlassay.rewards.source_choice import extract_choice_as_published


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Answer: B", "B"),
        ("<think>Answer: A</think>\nAnswer: B", "B"),
        ("Final Answer: (C)", "C"),
        ("答案：Ｂ", "B"),
        ("答案是 [D]", "D"),
        ("选项 C", "C"),
        ("My choice: option j", "J"),
        ("Answer: A\nAnswer: B", "B"),  # the last line first
        ("Answer: B\nno cue: C", "B"),
        ("Answer: see (B)", "B"),  # at the end of a line
        ("I like C", "C"),
        ("B or D", "D"),
        ("", None),
        ("dog", None),
        # Misreadings
        ("The answer is a dog.", "A"),
        ("Answer: dog", "D"),
        ("The correct option is clearly B", "C"),
        ("I don't know the answer", "I"),
        ("The answer is not B", "I"),  # the i of `is`
        ("<think>Answer: A", "A"),
        ("Answer: ｂ", None),
        ("选Ａ项", None),
    ],
)
def test_it_reads_what_the_published_patterns_read(text, expected):
    assert extract_choice_as_published(text) == expected


@given(
    st.one_of(st.text(), st.lists(st.sampled_from(["answer ", "is", ":", "(", "B", "ı", "选项", "\n"])).map("".join))
)
def test_any_text_gives_a_letter_or_none(text):
    assert extract_choice_as_published(text) in {None, *"ABCDEFGHIJ"}


@pytest.mark.parametrize("unit", ["answer ", "answer is", " ", "<think>", "</think>", "A", "a ", "(", "option\n"])
def test_a_megabyte_is_read_without_backtracking(unit):
    text = "answer" + unit * (1_000_000 // len(unit))
    start = time.process_time()
    extract_choice_as_published(text)
    assert time.process_time() - start < 30  # well under 1 s; one that backtracks takes hours
