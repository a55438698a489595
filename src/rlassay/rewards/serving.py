"""The inner side of `child_process`: answers questions, one JSON line each, until its input or its parent ends."""

import fcntl
import json
import os
import select
import time
from collections.abc import Callable, Iterator
from threading import Thread
from typing import Any, TextIO, cast

LIFELINE = "RLASSAY_LIFELINE"
"""Environment variable with the number of a pipe that closes when the parent ends."""
_GLANCE = 1.0  # s between two looks at whether the parent still lives


def serve(load: Callable[[], Callable[[Any], Any]]) -> None:
    """Load once, then answer every question with `{"reply": ...}`, or with `{"error": ...}` when it raises.

    An answer that is an iterator gives one reply after the other. Questions and replies go through pipes of their own:
    what libraries print ends in the error output, and what they read is empty.
    """
    Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    _end_with_pipe(int(os.environ[LIFELINE]))
    # Open to the very end: the parent takes its end for the end of the process, all last words printed.
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    questions = os.fdopen(os.dup(0), encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    answer = load()
    _say(replies, {"reply": "ready"})
    for line in questions:
        for message in _messages(answer, json.loads(line)):
            _say(replies, message)


def _messages(answer: Callable[[Any], Any], question: Any) -> Iterator[dict[str, Any]]:
    try:
        reply = answer(question)
        for each in cast(Iterator[Any], reply) if isinstance(reply, Iterator) else [reply]:
            yield {"reply": each}
    except Exception as error:  # whatever it is, the parent raises it again
        yield {"error": f"{type(error).__name__}: {error}"}


def _say(replies: TextIO, message: dict[str, Any]) -> None:
    print(json.dumps(message), file=replies, flush=True)


def _end_with(parent: int) -> None:
    """End this process, even in the middle of a question, when another one becomes its parent."""
    while os.getppid() == parent:
        time.sleep(_GLANCE)
    os._exit(1)


def _end_with_pipe(lifeline: int) -> None:
    """Have the kernel end this process when the pipe closes, even where a library never lets another thread run.

    A pipe set to O_ASYNC raises SIGIO, which ends a process unless it handles it.
    """
    os.set_inheritable(lifeline, False)
    fcntl.fcntl(lifeline, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(lifeline, fcntl.F_SETFL, fcntl.fcntl(lifeline, fcntl.F_GETFL) | os.O_ASYNC)
    if select.select([lifeline], [], [], 0)[0]:  # it closed before
        os._exit(1)
