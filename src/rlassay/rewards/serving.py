"""The inner side of `child_process`: answers questions, one JSON line each, until its input or its parent ends."""

import json
import os
import sys
import time
from collections.abc import Callable
from threading import Thread
from typing import Any, TextIO

_GLANCE = 1.0  # s between two looks at whether the parent still lives


def serve(load: Callable[[], Callable[[Any], Any]]) -> None:
    """Load once, then answer every question with `{"reply": ...}`, or with `{"error": ...}` when it raises.

    Replies go through a pipe of their own: what libraries print ends in the error output.
    """
    Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    # Open to the very end: the parent takes its end for the end of the process, all last words printed.
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    answer = load()
    _say(replies, {"reply": "ready"})
    for line in sys.stdin:
        _say(replies, _reply(answer, json.loads(line)))


def _reply(answer: Callable[[Any], Any], question: Any) -> dict[str, Any]:
    try:
        return {"reply": answer(question)}
    except Exception as error:  # whatever it is, the parent raises it again
        return {"error": f"{type(error).__name__}: {error}"}


def _say(replies: TextIO, message: dict[str, Any]) -> None:
    print(json.dumps(message), file=replies, flush=True)


def _end_with(parent: int) -> None:
    """End this process, even in the middle of a question, when another one becomes its parent."""
    while os.getppid() == parent:
        time.sleep(_GLANCE)
    os._exit(1)
