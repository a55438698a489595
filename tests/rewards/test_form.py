import pytest

from rlassay.rewards import REWARDS
from tests.rewards.make import completion

think_answer_format = REWARDS["think_answer_format"]


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
