"""Outcomes of scoring completions: values, and failures, which do not affect other completions."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Literal, cast, get_args

from rlassay.records import Completion

FailureKind = Literal["error", "timeout", "crash", "not_finite"]
"""An exception; a timeout; the death of the process; NaN or infinity."""
FAILURE_KINDS: tuple[FailureKind, ...] = get_args(FailureKind)


@dataclass(frozen=True, kw_only=True)
class Failure:
    """The reason why a reward could not score a completion, or the whole group."""

    kind: FailureKind
    """Kind of the failure."""
    text: str
    """The message of the exception, or other details."""


@dataclass(frozen=True, kw_only=True)
class Scored:
    """A value with metrics of the same completion, which are logged and never trained on."""

    value: float | None
    """The value; None where the reward cannot score the completion."""
    metrics: Mapping[str, float]
    """Finite numbers by name."""


RewardOutcome = float | Scored | Failure | None
"""A value, with or without metrics; None where the reward cannot score the completion; or a failure of the reward."""


def value_of(outcome: RewardOutcome) -> float | None:
    """The number of an outcome; None if scoring failed or the reward cannot score the completion."""
    if isinstance(outcome, Failure):
        return None
    return outcome.value if isinstance(outcome, Scored) else outcome


class RewardError(Exception):
    """A reward cannot be used, which stops the run; the text names the reward and the remedy."""


class InvalidOutputError(RewardError, ValueError):
    """A reward returned something other than a list of numbers and Nones, one per completion."""


def outcomes_of(
    reward: Callable[..., object],
    options: Mapping[str, object],
    completions: Sequence[Completion],
    *,
    per_sample: bool,
    caught: type[BaseException] = Exception,
) -> Iterator[list[RewardOutcome]]:
    """Score completions and turn exceptions into failures: a list per completion, or per group.

    Args:
        reward: `f(completions, **options) -> list of float, Scored or None`.
        options: keyword options of `reward`.
        completions: one prompt's group.
        per_sample: pass one completion at a time, so that an exception fails that one alone.
        caught: exceptions of the reward that become failures; all others propagate.

    Raises:
        InvalidOutputError: another number of values than completions, or a value that is not a number.
    """
    for group in [[completion] for completion in completions] if per_sample else [completions]:
        try:
            values = reward(group, **options)
        except InvalidOutputError:
            raise
        except caught as error:
            text = " ".join([f"{type(error).__name__}: {error}", *(f"({note})" for note in notes_of(error))])
            yield [Failure(kind="error", text=text) for _ in group]
            continue
        yield _checked(values, len(group))


def notes_of(error: BaseException) -> list[str]:
    """Notes of an exception, such as the line of a user's file."""
    return getattr(error, "__notes__", [])


def _checked(values: object, count: int) -> list[RewardOutcome]:
    if not isinstance(values, Sequence) or isinstance(values, str):
        raise InvalidOutputError(f"got {values!r}, expected a list of {count} values")
    listed = list(cast(Sequence[object], values))
    if len(listed) != count:
        raise InvalidOutputError(f"got {len(listed)} values for {count} completions")
    return [_outcome(value) for value in listed]


def _outcome(value: object) -> RewardOutcome:
    if value is None:
        return None
    if isinstance(value, Scored):
        outcome = _outcome(value.value)
        return outcome if isinstance(outcome, Failure) else value
    if not isinstance(value, Real):
        raise InvalidOutputError(f"got {value!r}, expected a number or None")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    return number if math.isfinite(number) else Failure(kind="not_finite", text=f"got {number}")
