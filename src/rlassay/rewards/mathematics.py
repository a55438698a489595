"""Reward for the right mathematical answer."""

import logging
import re
from collections.abc import Sequence
from functools import cache
from importlib import import_module
from typing import Any

from rlassay.answers import extract_answer
from rlassay.records import Completion
from rlassay.rewards.grading.equality import same_answer
from rlassay.rewards.outcomes import value_of
from rlassay.rewards.reward import separable
from rlassay.rewards.sandbox.child_process import SERVING
from rlassay.rewards.sandbox.isolation import score_in_worker

_LONGEST = 2_000  # characters of an answer that are parsed, from the end
_SYMBOLS = re.compile(r"\\[A-Za-z]+|[A-Za-z]")
_BASE = re.compile(r"(?<=\d)_\{?(\d{1,2})")
_PRIMES = re.compile(r"'|\\prime")
_DIGITS = 30  # of numerical values that are compared


@separable
def math_accuracy(completions: Sequence[Completion], *, timeout: int | float = 5.0) -> list[float | None]:
    """1 if the stated answer equals the gold answer mathematically, else 0.

    1/2 equals 0.5, and x+1 equals 1+x. `extract_answer` finds both answers; `rewards.grading.equality.same_answer` has
    the rules. Numbers, quantities, lists and words are compared directly, two formulas by math-verify. It runs in the
    reward worker; any other caller sends its question there, so that threads may call this and nothing can hang. None
    for a row whose gold answer is blank, and for a comparison that fails or takes too long.

    Departures from math-verify, which ignores these differences: case (`e` and `E`, `x` and `X`), primes (`f'(2)` and
    `f(2)`), and digits beyond the sixth decimal, so that `1/2004!` is not `1/2006!`. Like math-verify it reads
    `1 234` as 1234, and `50%` as 50 or 0.5.

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
    """The value, with formulas compared in the worker, or here if `worker_timeout` is None."""
    gold, answer = (extract_answer(text)[-_LONGEST:] for text in (completion.row.answer, completion.text))
    if not gold:
        return None
    try:
        equal = same_answer(gold, answer, _same_formulas if worker_timeout is None else _in_worker)
    except _FormulasError:
        assert worker_timeout is not None
        return _accuracy_from_worker(completion, worker_timeout)
    return None if equal is None else float(equal)


class _FormulasError(Exception):
    """The answers have formulas, which this process does not compare."""


def _in_worker(gold: str, answer: str) -> bool | None:
    raise _FormulasError(gold, answer)


def _accuracy_from_worker(completion: Completion, timeout: float) -> float | None:
    (outcome,) = score_in_worker(math_accuracy, {}, [completion], per_sample=True, timeout=timeout)
    return value_of(outcome)


def _same_formulas(gold: str, answer: str) -> bool | None:
    """Whether math-verify finds two formulas equal, and the parts that it ignores are equal too; None if it fails."""
    bases = _BASE.findall(gold), _BASE.findall(answer)
    if all(bases) and bases[0] != bases[1]:
        return False
    if not _same_symbols(gold, answer) or len(_PRIMES.findall(gold)) != len(_PRIMES.findall(answer)):
        return False
    library = _math_verify()
    try:
        # Its own timeouts are off, since they need signals; the worker's parent watches the time.
        parsed_gold, parsed = (
            library.parse(rf"\boxed{{{text}}}", parsing_timeout=None, fallback_mode="no_fallback")
            for text in (gold, answer)
        )
        if not (parsed_gold and parsed):
            return False
        equal = bool(library.verify(parsed_gold, parsed, timeout_seconds=None))
        return equal and _same_values(parsed_gold[0], parsed[0])
    except Exception:  # sympy raises many kinds of errors on malformed formulas
        return None


def _same_symbols(gold: str, answer: str) -> bool:
    """False if the two formulas write a symbol in different case (`x` and `X`)."""
    ones, others = (set(_SYMBOLS.findall(text)) for text in (gold, answer))
    swapped = {symbol.swapcase() if len(symbol) == 1 else _other_case(symbol) for symbol in ones - others}
    return not swapped & (others - ones)


def _other_case(command: str) -> str:
    """A command with its first letter in the other case: `\\pi` for `\\Pi`."""
    return command[0] + command[1].swapcase() + command[2:]


def _same_values(one: Any, other: Any) -> bool:
    """Whether two numbers agree to six digits; math-verify rounds to six decimals, which makes all tiny ones equal."""
    if not (getattr(one, "is_number", False) and getattr(other, "is_number", False)):
        return True
    values = [_parts(number) for number in (one, other)]
    return all(abs(a - b) <= min(1, max(abs(a), abs(b))) * 10**-6 or a == b for a, b in zip(*values, strict=True))


def _parts(number: Any) -> tuple[Any, Any]:
    """Real and imaginary part of a sympy number, to 30 digits of any size."""
    return number.evalf(_DIGITS).as_real_imag()


@cache
def _math_verify() -> Any:
    """The library, which has no types; it is imported late, since that takes half a second."""
    logging.getLogger("math_verify").setLevel(logging.ERROR)  # or it warns that its timeouts are off
    return import_module("math_verify")
