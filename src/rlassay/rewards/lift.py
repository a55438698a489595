"""From a scorer of one completion to a reward of a group."""

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Concatenate, ParamSpec

from rlassay.records import Completion

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
