"""Rules on evaluation sets, held-out curves and averaged checkpoints, each with its message."""

from typing import Any

import pytest

from tests.config.studies import problems, study

CONTRADICTIONS = [
    (
        {"evaluation__sets": ["tests"], "primary__set": "tests"},
        ["evaluation.sets.0: got the text 'tests', expected a split of data.splits: test; did you mean 'test'?"],
    ),
    (
        {"evaluation__sets": ["test", "train"], "primary__set": "train"},
        ["primary.set: 'train' is a training split; expected test"],
    ),
    ({"evaluation__curve_set": "test"}, ["evaluation.curve_set: needs evaluation.every, got null"]),
    ({"evaluation__while_training": True}, ["evaluation.while_training: needs evaluation.every, got null"]),
    (
        {"evaluation__every": 10, "evaluation__while_training": True, "nodes": 2},
        [
            "evaluation.while_training: expected false with nodes: 2, since the process beside a training runs on one "
            "machine"
        ],
    ),
    (
        {"evaluation__every": 10, "evaluation__curve_set": "tets"},
        ["evaluation.curve_set: got the text 'tets', expected a set of evaluation.sets: test; did you mean 'test'?"],
    ),
    (
        {"evaluation__every": 60},
        [
            "evaluation.every: got the number 60, but no arm trains more than 60 steps, so that the curve would have "
            "no point between start and end; take a smaller number, or null"
        ],
    ),
    (
        {"primary__over": "last_3"},
        ["primary.over: last_3 averages points of the held-out curve, but evaluation.every is null; set it"],
    ),
    (
        {
            "data__splits": {"sft": 10, "train": 100, "test": 10, "held": 10},
            "evaluation__sets": ["test", "held"],
            "evaluation__every": 10,
            "evaluation__curve_set": "held",
            "primary__over": "last_3",
        },
        ["primary.over: last_3 averages points on 'test', but evaluation.curve_set is 'held'; leave curve_set out"],
    ),
    # 60 steps, one arm with 50: the points of that arm are 20, 40 and 50.
    (
        {
            "evaluation__every": 20,
            "primary__over": "last_4",
            "arms__dr_grpo__rl__max_steps": 50,
            "arms__dr_grpo__varies": ["rl"],
        },
        [
            "primary.over: last_4, but a run of 50 steps has 3 points after its start with evaluation.every 20; take "
            "fewer points, or a smaller number of steps between them"
        ],
    ),
    (
        {"evaluation__sets": ["test", "test"]},
        ["evaluation.sets.1: 'test' appears twice in the list"],
    ),
]


@pytest.mark.parametrize(("edits", "expected"), CONTRADICTIONS, ids=lambda value: str(value)[:50])
def test_a_contradiction_is_one_problem(edits: dict[str, Any], expected: list[str]):
    assert problems(**edits) == expected


def test_an_average_may_take_every_point_after_the_start():
    # Points at 20, 40 and 60.
    assert study(evaluation__every=20, primary__over="last_3").primary.num_checkpoints == 3
    assert study().primary.num_checkpoints == 1


@pytest.mark.parametrize("over", ["last_1", "last_0", "last_02", "last", "3", "last_3 "])
def test_an_average_of_fewer_than_two_points_or_in_other_words_is_refused(over: str):
    expected = "expected last_2, last_3, or another number of at least 2"
    assert problems(evaluation__every=10, primary__over=over) == [f"primary.over: got the text {over!r}, {expected}"]
