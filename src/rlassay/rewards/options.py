"""Checks of reward options, before any job starts."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from functools import wraps
from typing import Any, Concatenate, Literal, ParamSpec, TypeVar, get_args, get_origin, get_type_hints

from rlassay.records import Completion

# MERGED FROM rewards.lift: From a scorer of one completion to a reward of a group.

Options = ParamSpec("Options")
Reward = Callable[..., list[float | None]]
"""One prompt's completions, and the reward's own options by keyword, to one value per completion."""
_LIFTED: set[Reward] = set()


def lift(
    score: Callable[Concatenate[Completion, Options], float | None],
) -> Callable[Concatenate[Sequence[Completion], Options], list[float | None]]:
    """A reward that judges every completion of a group by itself."""

    @wraps(score)
    def reward(completions: Sequence[Completion], *args: Options.args, **options: Options.kwargs) -> list[float | None]:
        return [score(completion, *args, **options) for completion in completions]

    _LIFTED.add(reward)
    return reward


def is_lifted(reward: Reward) -> bool:
    """Whether a reward was made by `lift`, so that its completions may as well be handed over one at a time."""
    return reward in _LIFTED


# MERGED FROM rewards.options: Checks of reward options, before any job starts.


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


# MERGED FROM rewards.group: All rewards of one prompt's group at once.


def score_with(
    names_and_options: Mapping[str, Mapping[str, object]],
    completions: Sequence[Completion],
    rewards: Mapping[str, Reward],
) -> dict[str, list[float | None]]:
    """One value per completion and reward.

    Raises:
        ValueError: an unknown reward, or one that gives another number of values; both are named.
    """
    scores: dict[str, list[float | None]] = {}
    for name, options in names_and_options.items():
        if name not in rewards:
            raise ValueError(f"unknown reward {name!r}; known: {', '.join(sorted(rewards))}")
        values = rewards[name](completions, **options)
        if len(values) != len(completions):
            raise ValueError(f"reward {name}: got {len(values)} values for {len(completions)} completions")
        scores[name] = values
    return scores


# MERGED FROM rewards.settings: Rewards with more options than a signature should list.

SettingsT = TypeVar("SettingsT")


def configured(
    settings: type[SettingsT],
) -> Callable[[Callable[[Sequence[Completion], SettingsT], list[float | None]]], Reward]:
    """Turn `f(completions, settings)` into a reward whose keyword options are the fields of a dataclass.

    Names, types, defaults and ranges of the options stand in the dataclass; its `__post_init__` raises ValueError.
    """

    def decorate(score: Callable[[Sequence[Completion], SettingsT], list[float | None]]) -> Reward:
        @wraps(score)
        def reward(completions: Sequence[Completion], **options: Any) -> list[float | None]:
            return score(completions, settings(**options))

        parameters = inspect.signature(settings).parameters.values()
        first = inspect.Parameter("completions", inspect.Parameter.POSITIONAL_OR_KEYWORD)
        options = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in parameters]
        reward.__dict__["__signature__"] = inspect.Signature([first, *options])
        reward.__annotations__ = get_type_hints(settings)
        return reward

    return decorate
