"""Score completions in the job's worker, where rewards may hang, crash or print harmlessly."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from rlassay.records import Completion, PromptRow
from rlassay.rewards.outcomes import Failure, FailureKind, InvalidOutputError, RewardError, RewardOutcome, Scored
from rlassay.rewards.sandbox.child_process import ChildDeathError, ChildError, child_process

WORKER = "rlassay.rewards.sandbox.worker"
_LOAD_SECONDS = 120.0  # for the imports of a reward
_ROWS_KEPT = 1024
_row_json: dict[int, tuple[PromptRow, str]] = {}


def score_in_worker(
    reward: Callable[..., object],
    options: Mapping[str, object],
    completions: Sequence[Completion],
    *,
    per_sample: bool,
    timeout: float,
) -> list[RewardOutcome]:
    """Outcomes of a reward on one prompt's completions, scored in the worker process.

    The worker starts with the first question and serves all rewards of the job. When it exceeds the timeout it is
    killed; the next completion starts a new one. The worker imports the reward by its module and name, so the reward
    must be a function of a module.

    Args:
        reward: the reward.
        options: its options.
        completions: one prompt's group.
        per_sample: score one completion at a time, so that a failure costs that one alone and not the group.
        timeout: seconds for each completion; without `per_sample`, the group gets their sum.

    Raises:
        InvalidOutputError: another number of values than completions, or a value that is not a number.
        RewardError: the reward cannot be loaded.
        StartError: the worker does not start.
    """
    outcomes: list[RewardOutcome] = []
    size = 1 if per_sample else len(completions)
    while len(outcomes) < len(completions):
        rest = completions[len(outcomes) :]
        outcomes += _attempt(_question(reward, options, rest, per_sample), len(rest) // size, size, timeout)
    return outcomes


def _attempt(question: dict[str, Any], num_parts: int, size: int, timeout: float) -> list[RewardOutcome]:
    """Outcomes in order, up to the part on which the worker died, if any.

    A part has `size` completions.
    """
    seconds = timeout * size
    limits = [_LOAD_SECONDS] + [seconds] * num_parts
    replies, problem = child_process(WORKER).ask_for_replies(question, limits)
    if not replies and isinstance(problem, ChildDeathError):  # it may have died since the last question
        replies, problem = child_process(WORKER).ask_for_replies(question, limits)
    if not replies:
        raise RewardError(f"it cannot be loaded: {problem}")
    outcomes = [_from_json(outcome) for reply in replies[1:] for outcome in reply]
    if problem is None:
        return outcomes
    if isinstance(problem, ChildError) and not isinstance(problem, ChildDeathError):
        raise InvalidOutputError(str(problem).removeprefix(f"{InvalidOutputError.__name__}: "))
    late = isinstance(problem, TimeoutError)
    text = f"no value within {seconds:g} s" if late else str(problem)
    return outcomes + [Failure(kind="timeout" if late else "crash", text=text)] * size


def _question(
    reward: Callable[..., object], options: Mapping[str, object], completions: Sequence[Completion], per_sample: bool
) -> dict[str, Any]:
    row = completions[0].row
    if any(each.row is not row and each.row != row for each in completions):
        raise ValueError(f"reward {reward.__name__}: got completions of several prompts, expected those of one")
    return {
        "module": reward.__module__,
        "function": reward.__name__,
        "options": dict(options),
        "per_sample": per_sample,
        "row": _as_json(row),
        "completions": [[each.text, each.token_count, each.finished, each.signals] for each in completions],
    }


def _as_json(row: PromptRow) -> str:
    """The row as JSON, kept for the other rewards that score the same group."""
    kept = _row_json.get(id(row))
    if kept is None:
        if len(_row_json) >= _ROWS_KEPT:
            _row_json.clear()
        kept = _row_json[id(row)] = (row, row.model_dump_json())  # a row that is kept keeps its id
    return kept[1]


def _from_json(outcome: float | list[str] | dict[str, Any] | None) -> RewardOutcome:
    if isinstance(outcome, list):
        return Failure(kind=cast(FailureKind, outcome[0]), text=outcome[1])
    if isinstance(outcome, dict):
        return Scored(**outcome)
    return outcome
