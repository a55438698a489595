"""The process in which rewards judge, where nothing that they do reaches the job: `python -m` this module."""

from collections.abc import Callable, Iterator
from typing import Any

from rlassay.records import Completion, PromptRow
from rlassay.rewards import REWARDS
from rlassay.rewards.outcomes import Failure, Outcome, judged
from rlassay.rewards.sandbox.child_process import serve

WireOutcome = float | list[str] | None
"""An outcome as JSON has it; a failure is its kind and its text."""


def load() -> Callable[[dict[str, Any]], Iterator[Any]]:
    """A function that answers a question of `isolation`: "ready", then the outcomes of one piece after the other."""
    return _judge


def _judge(question: dict[str, Any]) -> Iterator[Any]:
    reward, options = REWARDS[question["reward"]], question["options"]
    row = PromptRow.model_validate_json(question["row"])
    group = [
        Completion(text=text, token_count=token_count, finished=finished, row=row, signals=signals)
        for text, token_count, finished, signals in question["completions"]
    ]
    reward([], **options)  # imports what it needs, on a clock of its own
    yield "ready"
    # Not even sys.exit or an exception of nobody's kind ends this process.
    for outcomes in judged(reward, options, group, per_sample=question["per_sample"], caught=BaseException):
        yield [_on_the_wire(outcome) for outcome in outcomes]


def _on_the_wire(outcome: Outcome) -> WireOutcome:
    return [outcome.kind, outcome.text] if isinstance(outcome, Failure) else outcome


if __name__ == "__main__":
    serve(load)
