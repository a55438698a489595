"""Reward for the right mathematical answer."""

import re
from collections.abc import Sequence
from decimal import Decimal

from rlassay.answers import extract_answer
from rlassay.records import Completion
from rlassay.rewards.sandbox.child_process import ChildError, child_process

WORKER = "rlassay.rewards.sandbox.math_worker"
_LONGEST = 2_000  # characters of an answer that are parsed, from the end
_NUMBER = re.compile(r"\$?\s?(-?\d{1,40}(?:,\d{3}){0,12}(?:\.\d{1,40})?)\s?\$?\.?", re.ASCII)


def math_accuracy(completions: Sequence[Completion], *, timeout: int | float = 5.0) -> list[float | None]:
    """1 if the stated answer is mathematically the gold one (1/2 and 0.5, x+1 and 1+x), else 0.

    Both answers are what `extract_answer` finds. None for a row whose gold answer is no formula, and for a comparison
    that takes too long. Plain numbers are compared here; all else by math-verify in a process of its own, so that
    threads may call this, and nothing can hang.

    Args:
        completions: one prompt's group.
        timeout: seconds for each completion.

    Raises:
        ValueError: `timeout` is not positive.
        RuntimeError: math-verify does not start.
    """
    if not timeout > 0:
        raise ValueError(f"timeout: got {timeout}; expected more than 0 seconds")
    return [_accuracy(completion, float(timeout)) for completion in completions]


def _accuracy(completion: Completion, timeout: float) -> float | None:
    gold, answer = (extract_answer(text)[-_LONGEST:] for text in (completion.row.answer, completion.text))
    if not gold:
        return None
    equal = answer == gold or _same_numbers(gold, answer)
    if equal is None:
        equal = _is_equal(gold, answer, timeout)
    return None if equal is None else float(equal)


def _same_numbers(gold: str, answer: str) -> bool | None:
    """Whether two plain numbers are the same; None where one is no plain number, or where rounding may decide."""
    numbers = [_NUMBER.fullmatch(text) for text in (gold, answer)]
    if numbers[0] is None or numbers[1] is None:
        return None if answer else False
    one, other = (Decimal(number[1].replace(",", "")) for number in numbers if number)
    if one == other or (one == int(one) and other == int(other)):
        return one == other
    return None


def _is_equal(gold: str, answer: str, seconds: float) -> bool | None:
    try:
        return child_process(WORKER).ask([gold, answer], seconds)
    except (TimeoutError, ChildError):
        return None
