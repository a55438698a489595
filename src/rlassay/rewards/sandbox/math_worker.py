"""The process behind `math_accuracy`: compares pairs of mathematical answers."""

import re
from collections.abc import Callable
from importlib import import_module
from typing import Any

from rlassay.rewards.sandbox.child_process import serve

_COMMAND = re.compile(r"\\[A-Za-z]+")
_PROSE = re.compile(r"\$|(?!(?:sqrt|sin|cos|tan|log|ln|exp|pi|mod)\b)\b[A-Za-z]{2,}")


def judge_pairs() -> Callable[[list[str]], bool | None]:
    """From [gold, answer] to whether they are the same; None where the gold answer cannot be parsed."""
    library: Any = import_module("math_verify")

    def judge(pair: list[str]) -> bool | None:
        """The parent keeps the time; the library's own alarm is off."""
        gold, answer = (library.parse(_marked(text), parsing_timeout=None) for text in pair)
        return bool(library.verify(gold, answer, timeout_seconds=None)) if gold else None

    return judge


def _marked(text: str) -> str:
    """A bare formula as a box, which is what the library looks for; prose and marked formulas stay."""
    is_prose = "\\boxed" in text or _PROSE.search(_COMMAND.sub(" ", text))
    return text if is_prose else rf"\boxed{{{text}}}"


if __name__ == "__main__":
    serve(judge_pairs)
