"""The type of rewards, decorators that make one, and the check of its options."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from types import UnionType
from typing import Any, Concatenate, Literal, ParamSpec, TypeVar, Union, get_args, get_origin, get_type_hints

from rlassay.names import nearest, one_of, unknown
from rlassay.records import Completion

Reward = Callable[..., list[float | None]]
"""`reward(completions, **options)`: a value for each completion of one prompt. None where it cannot score it."""
Options = ParamSpec("Options")
OptionsT = TypeVar("OptionsT")
_SEPARABLE: set[Reward] = set()


def per_completion(
    score: Callable[Concatenate[Completion, Options], float | None],
) -> Callable[Concatenate[Sequence[Completion], Options], list[float | None]]:
    """Make a reward from a function that scores one completion."""

    @wraps(score)
    def reward(completions: Sequence[Completion], *args: Options.args, **options: Options.kwargs) -> list[float | None]:
        return [score(completion, *args, **options) for completion in completions]

    return separable(reward)


def separable(
    reward: Callable[Concatenate[Sequence[Completion], Options], list[float | None]],
) -> Callable[Concatenate[Sequence[Completion], Options], list[float | None]]:
    """Declare that a reward scores each completion by itself.

    The worker may then pass them one at a time.
    """
    _SEPARABLE.add(reward)
    return reward


def is_separable(reward: Reward) -> bool:
    """Whether a reward scores each completion by itself (made by `per_completion`, or declared `separable`)."""
    return reward in _SEPARABLE


def with_options(
    options_type: type[OptionsT],
) -> Callable[[Callable[[Sequence[Completion], OptionsT], list[float | None]]], Reward]:
    """Make a reward from `f(completions, options)`, where `options` is a dataclass.

    The fields of the dataclass become the reward's keyword options, with their names, types and defaults. Ranges are
    checked in its `__post_init__`, which raises ValueError. Use it for more options than a signature should list.
    """

    def decorate(score: Callable[[Sequence[Completion], OptionsT], list[float | None]]) -> Reward:
        @wraps(score)
        def reward(completions: Sequence[Completion], **options: Any) -> list[float | None]:
            return score(completions, options_type(**options))

        fields = inspect.signature(options_type).parameters.values()
        first = inspect.Parameter("completions", inspect.Parameter.POSITIONAL_OR_KEYWORD)
        options = [field.replace(kind=inspect.Parameter.KEYWORD_ONLY) for field in fields]
        reward.__dict__["__signature__"] = inspect.Signature([first, *options])
        reward.__annotations__ = get_type_hints(options_type)
        return reward

    return decorate


def check_options(name: str, options: Mapping[str, object], rewards: Mapping[str, Reward]) -> None:
    """Raise ValueError unless a reward exists and accepts the options.

    Names and types are compared with the reward's signature; a call on an empty group then checks the ranges.

    Args:
        name: the reward.
        options: keyword options from a study.
        rewards: all rewards by name.

    Raises:
        ValueError: an unknown reward or option (the nearest known one is named), a missing option, a wrong type, a
            value out of range.
    """
    if name not in rewards:
        raise ValueError(unknown("reward", name, sorted(rewards)))
    reward = rewards[name]
    parameters = dict(list(inspect.signature(reward).parameters.items())[1:])
    types = get_type_hints(reward)
    for option, value in options.items():
        if option not in parameters:
            names = sorted(parameters)
            known = f"expected {one_of(names)}{nearest(option, names)}" if names else "it takes no options"
            raise ValueError(f"unknown option {option!r}; {known}")
        _check_type(f"option {option!r}", value, types[option])
    for option, parameter in parameters.items():
        if parameter.default is inspect.Parameter.empty and option not in options:
            raise ValueError(f"option {option!r} is missing; expected {types[option].__name__}")
    reward([], **options)


def _check_type(what: str, value: object, expected: Any) -> None:
    """Raise ValueError for a wrong type; float accepts an int, only bool accepts a bool, a Literal its values."""
    if get_origin(expected) is Literal:
        if value not in get_args(expected):
            raise ValueError(f"{what}: got {value!r}; expected one of {', '.join(map(repr, get_args(expected)))}")
        return
    union = get_origin(expected) in (Union, UnionType)
    kinds = tuple(get_origin(kind) or kind for kind in (get_args(expected) if union else (expected,)))
    accepted = (int, float) if expected is float else kinds
    if not isinstance(value, accepted) or (isinstance(value, bool) and expected is not bool):
        raise ValueError(f"{what}: got {value!r}; expected {' or '.join(kind.__name__ for kind in kinds)}")
