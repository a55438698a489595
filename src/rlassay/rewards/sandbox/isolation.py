"""Rewards judged in a process of their own: what hangs, crashes or prints there does not reach the job."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

from rlassay.records import Completion
from rlassay.rewards import is_per_sample
from rlassay.rewards.outcomes import Failure, FailureKind, Outcome, RewardError, WrongOutputError
from rlassay.rewards.sandbox.child_process import ChildDeathError, ChildError, child_process

WORKER = "rlassay.rewards.sandbox.worker"
_LOADING = 120.0  # s, for what a reward imports


def judge_in_worker(
    name: str, options: Mapping[str, object], completions: Sequence[Completion], *, timeout: float
) -> list[Outcome]:
    """The outcomes of one of `REWARDS` on one prompt's completions, judged in the job's worker process.

    The process starts with the first question and serves all rewards. One that takes too long is killed; the next
    completion finds a new one. A reward that judges completions singly loses the one that failed, any other the group.

    Args:
        name: a key of `REWARDS`.
        options: its options.
        completions: one prompt's group.
        timeout: seconds for each completion; a reward that needs the group at once has them for each of it.

    Raises:
        WrongOutputError: another number of values than completions, or a value that is no number.
        RewardError: the reward cannot be loaded.
    """
    outcomes: list[Outcome] = []
    while len(outcomes) < len(completions):
        outcomes += _attempt(name, options, completions[len(outcomes) :], timeout)
    return outcomes


def _attempt(
    name: str, options: Mapping[str, object], completions: Sequence[Completion], timeout: float
) -> list[Outcome]:
    """Outcomes in order, up to the end or to the first piece that the process did not survive."""
    size = 1 if is_per_sample(name, options) else len(completions)
    seconds = timeout * size
    limits = [_LOADING] + [seconds] * (len(completions) // size)
    question = _question(name, options, completions) | {"per_sample": size == 1}
    replies, problem = child_process(WORKER).ask_in_turn(question, limits)
    if not replies and isinstance(problem, ChildDeathError):  # it may have died since the last question
        replies, problem = child_process(WORKER).ask_in_turn(question, limits)
    if not replies:
        raise RewardError(f"it cannot be loaded: {problem}")
    outcomes = [_off_the_wire(each) for reply in replies[1:] for each in reply]
    if problem is None:
        return outcomes
    if isinstance(problem, ChildError) and not isinstance(problem, ChildDeathError):
        raise WrongOutputError(str(problem).removeprefix(f"{WrongOutputError.__name__}: "))
    late = isinstance(problem, TimeoutError)
    text = f"no value within {seconds:g} s" if late else str(problem)
    return outcomes + [Failure(kind="timeout" if late else "crash", text=text)] * size


def _question(name: str, options: Mapping[str, object], completions: Sequence[Completion]) -> dict[str, Any]:
    """What the worker is asked; the row that a group shares is written once."""
    row = completions[0].row
    if any(each.row is not row and each.row != row for each in completions):
        raise ValueError(f"reward {name}: got completions of several prompts, expected those of one")
    return {
        "reward": name,
        "options": dict(options),
        "row": row.model_dump_json(),
        "completions": [[each.text, each.token_count, each.finished, each.signals] for each in completions],
    }


def _off_the_wire(outcome: float | list[str] | None) -> Outcome:
    if isinstance(outcome, list):
        return Failure(kind=cast(FailureKind, outcome[0]), text=outcome[1])
    return outcome
