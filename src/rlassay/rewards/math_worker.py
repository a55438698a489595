"""The other end of `math_process`: judges pairs of mathematical answers, one JSON line each, until its input ends."""

import json
import os
import re
import sys
from importlib import import_module
from typing import Any

_COMMAND = re.compile(r"\\[A-Za-z]+")
_PROSE = re.compile(r"\$|(?!(?:sqrt|sin|cos|tan|log|ln|exp|pi|mod)\b)\b[A-Za-z]{2,}")


def serve() -> None:
    """Answer true, false, or null where the gold answer cannot be parsed; nothing else reaches the output."""
    library: Any = import_module("math_verify")
    with os.fdopen(os.dup(1), "w") as replies:
        os.dup2(2, 1)
        print(json.dumps("ready"), file=replies, flush=True)
        for line in sys.stdin:
            gold, answer = json.loads(line)
            print(json.dumps(_judge(library, gold, answer)), file=replies, flush=True)


def _judge(library: Any, gold: str, answer: str) -> bool | None:
    """The parent keeps the time; the library's own alarm is off."""
    gold_parsed = library.parse(_marked(gold), parsing_timeout=None)
    if not gold_parsed:
        return None
    return bool(library.verify(gold_parsed, library.parse(_marked(answer), parsing_timeout=None), timeout_seconds=None))


def _marked(text: str) -> str:
    """A bare formula as a box, which is what the library looks for; prose and marked formulas stay."""
    is_prose = "\\boxed" in text or _PROSE.search(_COMMAND.sub(" ", text))
    return text if is_prose else rf"\boxed{{{text}}}"
