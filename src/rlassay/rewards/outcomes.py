"""What comes of judging completions: values, and failures that cost nobody else anything."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Literal, cast, get_args

from rlassay.records import Completion

FailureKind = Literal["error", "timeout", "crash", "not_finite"]
FAILURE_KINDS: tuple[FailureKind, ...] = get_args(FailureKind)
"""An exception; a time-out; the death of the process; NaN or infinity."""


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Why a completion, or its whole group, could not be judged."""

    kind: FailureKind
    """What happened."""
    text: str
    """The exception's words, or what else is known."""


Outcome = float | None | Failure
"""A value; None where the reward says that it cannot judge; a failure."""


class RewardError(Exception):
    """A reward cannot be worked with, so that the run stops; the text names the reward and says what to do."""


class WrongOutputError(RewardError, ValueError):
    """A reward gave something that is no list of numbers and Nones, one per completion."""


def judged(
    reward: Callable[..., object],
    options: Mapping[str, object],
    completions: Sequence[Completion],
    *,
    per_sample: bool,
    caught: type[BaseException] = Exception,
) -> Iterator[list[Outcome]]:
    """The outcomes of one completion after the other, or with `per_sample` false of the whole group at once.

    Args:
        reward: `f(completions, **options) -> list of float or None`.
        options: keyword options of `reward`.
        completions: one prompt's group.
        per_sample: hand over one completion at a time, so that a failure costs that one alone.
        caught: which exceptions of the reward are failures; all others pass through.

    Raises:
        WrongOutputError: another number of values than completions, or a value that is no number.
    """
    for group in [[completion] for completion in completions] if per_sample else [completions]:
        try:
            values = reward(group, **options)
        except WrongOutputError:
            raise
        except caught as error:
            text = f"{type(error).__name__}: {error}"
            yield [Failure(kind="error", text=text) for _ in group]
            continue
        yield _checked(values, len(group))


def _checked(values: object, count: int) -> list[Outcome]:
    if not isinstance(values, Sequence) or isinstance(values, str):
        raise WrongOutputError(f"got {values!r}, expected a list of {count} values")
    listed = list(cast(Sequence[object], values))
    if len(listed) != count:
        raise WrongOutputError(f"got {len(listed)} values for {count} completions")
    return [_outcome(value) for value in listed]


def _outcome(value: object) -> Outcome:
    if value is None:
        return None
    if not isinstance(value, Real):
        raise WrongOutputError(f"got {value!r}, expected a number or None")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    return number if math.isfinite(number) else Failure(kind="not_finite", text=f"got {number}")
