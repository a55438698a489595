"""Checks of reward options, before any job starts."""

import inspect
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any, Literal, get_args, get_origin, get_type_hints

from rlassay.rewards.lift import Reward


def check_options(name: str, options: Mapping[str, object], rewards: Mapping[str, Reward]) -> None:
    """Compare options with the reward's signature, then let the reward judge their ranges on an empty group.

    Raises:
        ValueError: an unknown reward or option (with the nearest known one), a missing option, a wrong type, a value
            out of range.
    """
    if name not in rewards:
        raise ValueError(f"unknown reward {name!r}; {_known(name, list(rewards))}")
    reward = rewards[name]
    parameters = dict(list(inspect.signature(reward).parameters.items())[1:])
    types = get_type_hints(reward)
    for option, value in options.items():
        if option not in parameters:
            raise ValueError(f"unknown option {option!r}; {_known(option, list(parameters))}")
        _check_type(f"option {option!r}", value, types[option])
    for option, parameter in parameters.items():
        if parameter.default is inspect.Parameter.empty and option not in options:
            raise ValueError(f"option {option!r} is missing; expected {types[option].__name__}")
    reward([], **options)


def _known(got: str, names: list[str]) -> str:
    if not names:
        return "it takes no options"
    nearest = get_close_matches(got, names, n=1)
    return f"known: {', '.join(sorted(names))}" + (f"; did you mean {nearest[0]!r}?" if nearest else "")


def _check_type(what: str, value: object, expected: Any) -> None:
    """An int passes for a float; a bool passes for nothing but a bool; a Literal lists what passes."""
    if get_origin(expected) is Literal:
        if value not in get_args(expected):
            raise ValueError(f"{what}: got {value!r}; expected one of {', '.join(map(repr, get_args(expected)))}")
        return
    kinds: tuple[type, ...] = get_args(expected) or (expected,)
    accepted = (int, float) if expected is float else kinds
    if not isinstance(value, accepted) or (isinstance(value, bool) and expected is not bool):
        raise ValueError(f"{what}: got {value!r}; expected {' or '.join(kind.__name__ for kind in kinds)}")
