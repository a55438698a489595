"""The worker process that scores completions for a job: `python -m rlassay.rewards.sandbox.worker`."""

from collections.abc import Callable, Iterator
from functools import lru_cache
from importlib import import_module
from typing import Any

from rlassay.records import Completion, PromptRow
from rlassay.rewards.outcomes import Failure, RewardOutcome, Scored, outcomes_of
from rlassay.rewards.sandbox.child_process import serve


def load() -> Callable[[dict[str, Any]], Iterator[Any]]:
    """Return the function that answers `isolation`: "ready", then outcomes part by part."""
    return _answer


def _answer(question: dict[str, Any]) -> Iterator[Any]:
    reward, options = getattr(import_module(question["module"]), question["function"]), question["options"]
    row = _row(question["row"])
    group = [
        Completion(text=text, token_count=token_count, finished=finished, row=row, signals=signals)
        for text, token_count, finished, signals in question["completions"]
    ]
    reward([], **options)  # lets it import its libraries before the clock of the first completion starts
    yield "ready"
    # BaseException, since sys.exit in a user's reward must not end this process.
    for outcomes in outcomes_of(reward, options, group, per_sample=question["per_sample"], caught=BaseException):
        yield [_to_json(outcome) for outcome in outcomes]


@lru_cache(maxsize=1024)
def _row(text: str) -> PromptRow:
    """The row, parsed once for all rewards that score its completions."""
    return PromptRow.model_validate_json(text)


def _to_json(outcome: RewardOutcome) -> float | list[str] | dict[str, Any] | None:
    """Convert an outcome to JSON.

    A value stays, with metrics it is an object, and a failure is kind and text.
    """
    if isinstance(outcome, Scored):
        return {"value": outcome.value, "metrics": dict(outcome.metrics)}
    return [outcome.kind, outcome.text] if isinstance(outcome, Failure) else outcome


if __name__ == "__main__":
    serve(load)
