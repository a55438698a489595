import inspect
from dataclasses import dataclass

import pytest

from rlassay.rewards.lift import Reward
from rlassay.rewards.options import check_options
from rlassay.rewards.settings import configured
from tests.rewards.make import completion


@dataclass(frozen=True, kw_only=True)
class Scale:
    factor: float
    shift: float = 1.0

    def __post_init__(self) -> None:
        if self.factor == 0:
            raise ValueError("factor: got 0")


@configured(Scale)
def scaled(completions, options: Scale) -> list[float | None]:
    """Length times a factor."""
    return [options.factor * len(each.text) + options.shift for each in completions]


def test_options_are_the_fields():
    assert scaled([completion("ab"), completion("")], factor=3.0) == [7.0, 1.0]
    assert scaled([completion("ab")], factor=3.0, shift=2.0) == [8.0]


def test_the_signature_lists_them():
    parameters = inspect.signature(scaled).parameters
    assert list(parameters) == ["completions", "factor", "shift"]
    assert (scaled.__name__, scaled.__doc__) == ("scaled", "Length times a factor.")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "option 'factor' is missing; expected float"),
        ({"factor": "x"}, "option 'factor': got 'x'; expected float"),
        ({"factor": 1.0, "shfit": 1}, "did you mean 'shift'"),
        ({"factor": 0.0}, "factor: got 0"),
    ],
)
def test_they_are_checked_like_those_of_any_reward(options, message):
    rewards: dict[str, Reward] = {"scaled": scaled}
    with pytest.raises(ValueError, match=message):
        check_options("scaled", options, rewards)
