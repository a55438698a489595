import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlassay.rewards import REWARDS
from tests.rewards.make import completion

think_answer_format = REWARDS["think_answer_format"]
think_format = REWARDS["think_format"]
strict_think_answer_format = REWARDS["strict_think_answer_format"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<think>3 7</think><answer>B</answer>", 1.0),  # .3 + .3 + .4
        ("Well. <think></think> So: <answer></answer> Bye.", 1.0),  # other text, empty blocks
        ("<answer>B</answer><think>3 7</think>", 0.6),  # .3 + .3, order wrong
        ("<think>3 <answer>B</answer> 7</think>", 0.6),  # the answer begins before the thought ends
        ("<think>3</think><answer>B</answer><think>7</think>", 1.0),  # the first blocks count
        ("<answer>B</answer><think>7</think><answer>B</answer>", 0.6),
        ("<think>3 7</think> B", 0.3),
        ("<answer>B</answer>", 0.3),
        ("<think>3 7<answer>B</answer>", 0.3),  # unclosed thought
        ("<think>3 7</think><answer>B", 0.3),
        ("</think><think>", 0.0),
        ("B", 0.0),
        ("", 0.0),
    ],
)
def test_graded_by_blocks_and_their_order(text, expected):
    assert think_answer_format([completion(text)]) == [pytest.approx(expected, abs=1e-12)]


def test_a_full_score_is_exactly_one():
    assert think_answer_format([completion("<think></think><answer></answer>")]) == [1.0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<think>3 7</think>\nAnswer: B", 1.0),
        ("<think></think>", 1.0),
        ("<think>3</think></think>B", 1.0),
        ("\n<think>3</think>", 0.0),
        ("<think>3<think>7</think>", 0.0),
        ("<think>3</think><think>", 0.0),
        ("<think>3", 0.0),
        ("<THINK>3</THINK>", 0.0),
        ("</think><think>", 0.0),
        ("", 0.0),
    ],
)
def test_think_format_requires_one_thought_at_the_start(text, expected):
    assert think_format([completion(text)]) == [expected]


@given(st.lists(st.sampled_from(["<think>", "</think>", "a", "\n", "<", "B"]), max_size=9).map("".join))
def test_think_format_is_the_published_pattern(text):
    published = re.match(r"^<think>(?!.*<think>)(.*?)</think>.*$", text, re.DOTALL | re.MULTILINE)
    assert think_format([completion(text)]) == [float(published is not None)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<think>3 7</think><answer>B</answer>", 1.0),
        ("<think>3 < 4, 5 > 2</think>\n<answer> [J] </answer>\n", 1.0),  # passes here, but states `[J]`
        ("<think>3</think><answer>[B</answer>", 1.0),
        ("<think> </think><answer>B</answer>", 0.0),
        ("<think>3</think><answer>b</answer>", 0.0),
        ("<think>3</think><answer>K</answer>", 0.0),
        ("<think>3</think><answer>B.</answer>", 0.0),
        ("<think>3</think><answer></answer>", 0.0),
        ("<think>3</think> so <answer>B</answer>", 0.0),
        ("So <think>3</think><answer>B</answer>", 0.0),
        (" <think>3</think><answer>B</answer>", 0.0),
        ("<think>3</think><answer>B</answer>.", 0.0),
        ("<think>3</think><think>3</think><answer>B</answer>", 0.0),
        ("<think>3</think><answer>B</answer><answer>B</answer>", 0.0),
        ("<think>a <b>bold</b> 3</think><answer>B</answer>", 0.0),
        ("<answer>B</answer><think>3</think>", 0.0),
        ("<think>3</think>B", 0.0),
        ("", 0.0),
    ],
)
def test_the_strict_format_is_two_blocks_and_nothing_else(text, expected):
    assert strict_think_answer_format([completion(text)]) == [expected]
