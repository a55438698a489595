"""Rewards with more options than a signature should list."""

import inspect
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, TypeVar, get_type_hints

from rlassay.records import Completion
from rlassay.rewards.lift import Reward

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
