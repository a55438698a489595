"""Reward for the right mathematical answer."""

import logging
import re
from collections.abc import Sequence
from decimal import Decimal
from functools import cache
from importlib import import_module
from typing import Any

from rlassay.answers import extract_answer
from rlassay.records import Completion
from rlassay.rewards.outcomes import value_of
from rlassay.rewards.reward import separable
from rlassay.rewards.sandbox.child_process import SERVING
from rlassay.rewards.sandbox.isolation import score_in_worker

_LONGEST = 2_000  # characters of an answer that are parsed, from the end
_NUMBER = re.compile(r"\$?\s?(-?\d{1,40}(?:,\d{3}){0,12}(?:\.\d{1,40})?)\s?\$?\.?", re.ASCII)
_COMMAND = re.compile(r"\\[A-Za-z]+")
_PROSE = re.compile(r"\$|(?!(?:sqrt|sin|cos|tan|log|ln|exp|pi|mod)\b)\b[A-Za-z]{2,}")


@separable
def math_accuracy(completions: Sequence[Completion], *, timeout: int | float = 5.0) -> list[float | None]:
    """1 if the stated answer equals the gold answer mathematically (1/2 and 0.5, x+1 and 1+x), else 0.

    `extract_answer` finds both answers. None for a row whose gold answer is not a formula, and for a comparison that
    fails or takes too long. Plain numbers are compared at once, all else by math-verify. In the reward worker it runs
    in process; any other caller asks the worker, so that threads may call this and nothing can hang.

    Args:
        completions: one prompt's group.
        timeout: seconds for each completion. In a study it overrides `rewards.math_accuracy.timeout`.

    Raises:
        ValueError: `timeout` is not positive.
        RewardError: math-verify cannot be imported.
    """
    if not timeout > 0:
        raise ValueError(f"timeout: got {timeout}; expected more than 0 seconds")
    if SERVING.is_set():
        _math_verify()  # also for an empty group, with which the worker loads a reward before it starts the clock
        return [_accuracy(completion, None) for completion in completions]
    return [_accuracy(completion, float(timeout)) for completion in completions]


def _accuracy(completion: Completion, worker_timeout: float | None) -> float | None:
    """The value, with formulas compared in the worker, or in this process where `worker_timeout` is None."""
    gold, answer = (extract_answer(text)[-_LONGEST:] for text in (completion.row.answer, completion.text))
    if not gold:
        return None
    equal = answer == gold or _same_numbers(gold, answer)
    if equal is None:
        if worker_timeout is not None:
            return _accuracy_from_worker(completion, worker_timeout)
        equal = _same_formulas(gold, answer)
    return None if equal is None else float(equal)


def _accuracy_from_worker(completion: Completion, timeout: float) -> float | None:
    (outcome,) = score_in_worker(math_accuracy, {}, [completion], per_sample=True, timeout=timeout)
    return value_of(outcome)


def _same_numbers(gold: str, answer: str) -> bool | None:
    """Whether two plain numbers are equal; None where one is not a plain number, or where rounding may decide."""
    numbers = [_NUMBER.fullmatch(text) for text in (gold, answer)]
    if numbers[0] is None or numbers[1] is None:
        return None if answer else False
    one, other = (Decimal(number[1].replace(",", "")) for number in numbers if number)
    if one == other or (one == int(one) and other == int(other)):
        return one == other
    return None


def _same_formulas(gold: str, answer: str) -> bool | None:
    """Whether math-verify finds two answers equal; None where it cannot parse the gold one, or fails."""
    library = _math_verify()
    try:
        # Its own timeouts are off, since they need signals; the worker's parent watches the time.
        parsed_gold, parsed = (library.parse(_boxed(text), parsing_timeout=None) for text in (gold, answer))
        return bool(library.verify(parsed_gold, parsed, timeout_seconds=None)) if parsed_gold else None
    except Exception:  # sympy raises many kinds of errors on malformed formulas
        return None


@cache
def _math_verify() -> Any:
    """The library, which has no types; it is imported late, since that takes half a second."""
    logging.getLogger("math_verify").setLevel(logging.ERROR)  # or it warns that its timeouts are off
    return import_module("math_verify")


def _boxed(text: str) -> str:
    """A bare formula in a box, which the library looks for; prose and marked formulas are left as they are."""
    is_prose = "\\boxed" in text or _PROSE.search(_COMMAND.sub(" ", text))
    return text if is_prose else rf"\boxed{{{text}}}"
