"""Rewards that obey a completion's text: mistakes that a user may make."""

import ctypes
import math
import os
import re
import sys
import time
from typing import Any


def obeys(item: dict[str, Any]) -> Any:
    """Do `print`, `raise`, ...; score any other text by its length in tokens over ten."""
    said = item["response"]
    if said in ACTIONS:
        ACTIONS[said]()
    if said in VALUES:
        return VALUES[said]
    return item["response_length"] / 10


def group_obeys(items: list[dict[str, Any]]) -> list[Any]:
    """The same for a group; one value is missing if a text is `too few`."""
    values = [obeys(item) for item in items]
    return values[1:] if any(item["response"] == "too few" for item in items) else values


def never_ending_search(item: dict[str, Any]) -> float:
    """A search that takes 2^40 steps without letting another thread run."""
    return float(re.match(r"(a+)+$", "a" * 40 + "b") is not None)


def _raise() -> None:
    raise KeyError("gold")


def _interrupt() -> None:
    raise KeyboardInterrupt


def _print() -> None:
    print("to the output", "x" * 100_000)
    print("to the errors", file=sys.stderr)
    os.write(1, b'{"reply": 7}\n')


def _read() -> None:
    assert sys.stdin.read() == ""
    assert os.read(0, 10) == b""


ACTIONS = {
    "raise": _raise,
    "interrupt": _interrupt,
    "sys.exit": lambda: sys.exit(3),
    "os._exit": lambda: os._exit(3),
    "segfault": lambda: ctypes.string_at(0),
    "sleep": lambda: time.sleep(3600),
    "print": _print,
    "read": _read,
}
VALUES = {"nan": math.nan, "inf": -math.inf, "text": "good", "none": None}
