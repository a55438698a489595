import math

import numpy as np
import pytest

from rlassay.rewards.outcomes import Failure, WrongOutputError, judged
from tests.rewards.make import completion

GROUP = [completion(text) for text in "abc"]


def outcomes(values, *, singly=False, caught=Exception):
    """Of a reward that gives `values`, or of one completion those of its letter."""

    def reward(group, **options):
        assert options == {"scale": 2}
        return [values["abc".index(each.text)] for each in group] if singly else values

    return [each for part in judged(reward, {"scale": 2}, GROUP, singly=singly, caught=caught) for each in part]


@pytest.mark.parametrize("singly", [False, True])
def test_numbers_and_none_pass(singly):
    values = outcomes([1, None, np.float32(0.5)], singly=singly)
    assert values == [1.0, None, 0.5]
    assert [type(value) for value in values] == [float, type(None), float]


@pytest.mark.parametrize(
    ("value", "text"), [(math.nan, "got nan"), (-math.inf, "got -inf"), (10**400, "got inf"), (np.nan, "got nan")]
)
@pytest.mark.parametrize("singly", [False, True])
def test_what_is_not_finite_fails_alone(value, text, singly):
    assert outcomes([1.0, value, 0.0], singly=singly) == [1.0, Failure(kind="not_finite", text=text), 0.0]


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
def test_what_is_no_list_of_numbers_is_an_error(values, message):
    with pytest.raises(WrongOutputError, match=message):
        outcomes(values)


def failing(error, *, singly, caught=Exception):
    def reward(group, **options):
        if any(each.text == "b" for each in group):
            raise error
        return [1.0 for _ in group]

    return [each for part in judged(reward, {}, GROUP, singly=singly, caught=caught) for each in part]


def test_an_exception_costs_one_completion_or_the_group():
    failure = Failure(kind="error", text="KeyError: 'gold'")
    assert failing(KeyError("gold"), singly=True) == [1.0, failure, 1.0]
    assert failing(KeyError("gold"), singly=False) == [failure] * 3


def test_only_what_shall_be_caught_is():
    with pytest.raises(SystemExit):
        failing(SystemExit(3), singly=True)
    assert failing(SystemExit(3), singly=True, caught=BaseException)[1] == Failure(kind="error", text="SystemExit: 3")


def test_a_reward_may_say_itself_that_its_output_is_wrong():
    with pytest.raises(WrongOutputError, match="no list"):
        failing(WrongOutputError("no list"), singly=True, caught=BaseException)
