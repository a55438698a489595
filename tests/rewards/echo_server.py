"""A child process for tests: `python -m tests.rewards.echo_server [refuse]`."""

import os
import sys
import time
from typing import Any

from rlassay.rewards.sandbox.child_process import serve


def load():
    """Load a function that obeys its question."""
    if "refuse" in sys.argv:
        raise ValueError("there is no model 'x'")
    os.write(1, b"to the descriptor\n")
    return answer


def answer(question: Any) -> Any:
    print("to the output")
    if isinstance(question, dict) and "each" in question:
        return (answer(each) for each in question["each"])
    if question == "read":
        return sys.stdin.read()
    if question == "raise":
        raise ZeroDivisionError("by zero")
    if question == "die":
        print("the last words", file=sys.stderr, flush=True)
        os._exit(3)
    if question == "sleep":
        time.sleep(3600)
    return question


if __name__ == "__main__":
    serve(load)
