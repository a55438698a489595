"""Outcomes of rewards that return odd values or raise."""

import math

import numpy as np
import pytest

from rlassay.rewards.outcomes import Failure, InvalidOutputError, outcomes_of
from tests.rewards.make import completion

GROUP = [completion(text) for text in "abc"]


def outcomes(values, *, per_sample=False, caught=Exception):
    """Outcomes of a reward that gives `values` for the letters a, b and c."""

    def reward(group, **options):
        assert options == {"scale": 2}
        return [values["abc".index(each.text)] for each in group] if per_sample else values

    return [
        each for part in outcomes_of(reward, {"scale": 2}, GROUP, per_sample=per_sample, caught=caught) for each in part
    ]


@pytest.mark.parametrize("per_sample", [False, True])
def test_numbers_and_none_pass(per_sample):
    values = outcomes([1, None, np.float32(0.5)], per_sample=per_sample)
    assert values == [1.0, None, 0.5]
    assert [type(value) for value in values] == [float, type(None), float]


@pytest.mark.parametrize(
    ("value", "text"), [(math.nan, "got nan"), (-math.inf, "got -inf"), (10**400, "got inf"), (np.nan, "got nan")]
)
@pytest.mark.parametrize("per_sample", [False, True])
def test_a_value_that_is_not_finite_fails_alone(value, text, per_sample):
    assert outcomes([1.0, value, 0.0], per_sample=per_sample) == [1.0, Failure(kind="not_finite", text=text), 0.0]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1.0, 2.0], "got 2 values for 3 completions"),
        ([1.0] * 4, "got 4 values for 3 completions"),
        (1.0, "got 1.0, expected a list of 3 values"),
        ("abc", "got 'abc', expected a list of 3 values"),
        ([1.0, "2", 3.0], "got '2', expected a number or None"),
        ([1.0, 2j, 3.0], r"got 2j, expected a number or None"),
    ],
)
def test_anything_but_a_list_of_numbers_is_an_error(values, message):
    with pytest.raises(InvalidOutputError, match=message):
        outcomes(values)


def failing(error, *, per_sample, caught=Exception):
    def reward(group, **options):
        if any(each.text == "b" for each in group):
            raise error
        return [1.0 for _ in group]

    return [each for part in outcomes_of(reward, {}, GROUP, per_sample=per_sample, caught=caught) for each in part]


def test_an_exception_costs_one_completion_or_the_group():
    failure = Failure(kind="error", text="KeyError: 'gold'")
    assert failing(KeyError("gold"), per_sample=True) == [1.0, failure, 1.0]
    assert failing(KeyError("gold"), per_sample=False) == [failure] * 3


def test_only_the_given_exceptions_are_caught():
    with pytest.raises(SystemExit):
        failing(SystemExit(3), per_sample=True)
    assert failing(SystemExit(3), per_sample=True, caught=BaseException)[1] == Failure(
        kind="error", text="SystemExit: 3"
    )


def test_a_reward_may_raise_the_error_itself():
    with pytest.raises(InvalidOutputError, match="no list"):
        failing(InvalidOutputError("no list"), per_sample=True, caught=BaseException)
