import time

import pytest

from rlassay.rewards import REWARDS
from tests.rewards.make import completion, row

action_set_iou = REWARDS["action_set_iou"]


def score(text: str, gold: str) -> float | None:
    return action_set_iou([completion(text, of=row(gold, choices=()))])[0]


@pytest.mark.parametrize(
    ("text", "gold", "expected"),
    [
        ("<answer>(1)(2)</answer>", "<answer>(1) walk (2) run</answer>", 1.0),
        ("<answer>(2) run, (1) walk</answer>", "(1)(2)", 1.0),  # sorted
        ("<answer>(1)(1)(2)</answer>", "(1)(2)", 1.0),  # the sets are equal
        ("<answer>(1)(3)</answer>", "(1)(2)", pytest.approx(1 / 3)),  # {1} of {1, 2, 3}
        ("<answer>(1)</answer>", "(1)(2)", 0.5),
        ("<answer>(3)</answer>", "(1)(2)", 0.0),
        ("<answer>1, 2</answer>", "(1)(2)", 0.0),  # numbers count in brackets only
        ("<answer></answer>", "(1)", 0.0),
        ("(1)(2)", "(1)(2)", 0.0),  # no block
        ("<answer>(1)(2)", "(1)(2)", 0.0),
        ("<answer>(1)</answer><answer>(2)</answer>", "(1)", 1.0),  # the first block counts
        ("<answer>(8)</answer>", "(8) Non of the above", 1.0),
        # Nothing against nothing
        ("<answer>dog</answer>", "none", 0.0),
        ("<answer></answer>", "<answer> </answer>", 1.0),
        ("<answer></answer>", "", 1.0),
        ("<answer>(1)</answer>", "", 0.0),
        ("", "", 0.0),
    ],
)
def test_exact_lists_then_overlap_of_sets(text, gold, expected):
    assert score(text, gold) == expected


@pytest.mark.parametrize("unit", ["<answer>", "</answer>", "(1)", "("])
def test_a_megabyte_is_read_without_backtracking(unit):
    start = time.process_time()
    score(unit * (1_000_000 // len(unit)), "(1)")
    assert time.process_time() - start < 30  # well under 1 s; one that backtracks takes hours
