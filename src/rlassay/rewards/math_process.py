"""A process of its own for symbolic mathematics: it can be stopped in the middle, from whatever thread asks."""

import atexit
import json
import os
import select
import subprocess
import sys
from functools import cache
from threading import Lock

from rlassay.rewards import math_worker

_START = 120.0  # s, for the imports
_PROGRAM = f"from {math_worker.__name__} import serve; serve()"


class MathProcess:
    """Starts with the first question, and again after one that took too long."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._process: subprocess.Popen[str] | None = None
        atexit.register(self.stop)

    def is_equal(self, gold: str, answer: str, seconds: float) -> bool | None:
        """Whether two mathematical answers are the same; None if `gold` is no formula or the time is up.

        Errors: RuntimeError if the process does not start.
        """
        with self._lock:
            if self._process is None:
                self._process = _start()
            line = _ask(self._process, json.dumps([gold, answer]), seconds)
            if not line:
                self.stop()
        return json.loads(line) if line else None

    def running(self) -> int | None:
        """Its process id, while it runs."""
        return None if self._process is None else self._process.pid

    def stop(self) -> None:
        """End the process, if there is one."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


@cache
def math_process(pid: int) -> MathProcess:
    """The one that belongs to the program `pid`: a forked program must not talk into its parent's pipes."""
    return MathProcess()


def is_equal(gold: str, answer: str, seconds: float) -> bool | None:
    """`MathProcess.is_equal` of this program's own process."""
    return math_process(os.getpid()).is_equal(gold, answer, seconds)


def _start() -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", _PROGRAM],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    if not _reply(process, _START):
        process.kill()
        process.communicate()
        raise RuntimeError("math_accuracy: its process did not start; is math-verify installed?")
    return process


def _ask(process: subprocess.Popen[str], line: str, seconds: float) -> str:
    """The reply, or nothing when the time is up or the process has died."""
    assert process.stdin is not None
    try:
        process.stdin.write(line + "\n")
        process.stdin.flush()
    except BrokenPipeError:
        return ""
    return _reply(process, seconds)


def _reply(process: subprocess.Popen[str], seconds: float) -> str:
    assert process.stdout is not None
    ready, _, _ = select.select([process.stdout], [], [], seconds)
    return process.stdout.readline() if ready else ""
