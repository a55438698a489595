"""A process of its own for rewards that may hang or crash, or that need libraries which this package does not load."""

import atexit
import json
import os
import subprocess
import sys
from collections import deque
from contextlib import suppress
from functools import cache
from threading import Event, Lock, Thread, Timer
from typing import Any

LOADING = 3600.0
"""Seconds that a model may take to load; it may have to come from the hub first."""
_SHOWN = 12  # lines of its error output that an error quotes


class StartError(RuntimeError):
    """A child process does not start; the text quotes the end of what it printed."""


class ChildError(RuntimeError):
    """A child process died, or raised while it answered; the text says which."""


class ChildProcess:
    """`python -m <module> <arguments>`, started by the first question; `rewards.serving` is its inner side.

    It answers one question at a time, from whatever thread, and ends with the program that started it.
    """

    def __init__(self, module: str, arguments: tuple[str, ...] = (), start_seconds: float = 120.0) -> None:
        """
        Args:
            module: dotted name of a module that calls `serve`.
            arguments: its command line.
            start_seconds: how long it may take to load.
        """
        self.command = [sys.executable, "-m", module, *arguments]
        self.start_seconds = start_seconds
        self._lock = Lock()
        self._process: subprocess.Popen[str] | None = None
        self._printed: deque[str] = deque(maxlen=_SHOWN)
        self._reader: Thread | None = None
        self._failure: str | None = None
        atexit.register(self.stop)

    def ask(self, question: Any, seconds: float) -> Any:
        """Its reply to a question, both of the types that JSON has.

        Errors: TimeoutError when the time is up: it is killed, and the next question starts another one. ChildError if
        it dies, likewise, or raises. StartError if it does not start, which is tried once.
        """
        with self._lock:
            if self._failure is not None:
                raise StartError(self._failure)
            if self._process is None:
                self._start()
            return self._exchange(json.dumps(question) + "\n", seconds)

    def running(self) -> int | None:
        """Its process id, while it runs."""
        return None if self._process is None else self._process.pid

    def stop(self) -> None:
        """End the process, if there is one."""
        if self._process is not None and self._reader is not None:
            self._process.kill()
            self._process.wait()
            self._reader.join(1)
            for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
                assert pipe is not None
                with suppress(BrokenPipeError):  # it still holds what the process never read
                    pipe.close()
            self._process = None

    def _start(self) -> None:
        # A session of its own: Ctrl-C or a signal to the job's group leaves it to the job how the child ends.
        self._process = subprocess.Popen(
            self.command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
        )
        self._printed = deque(maxlen=_SHOWN)
        self._reader = Thread(target=self._printed.extend, args=(self._process.stderr,), daemon=True)
        self._reader.start()
        try:
            self._exchange("", self.start_seconds)
        except (ChildError, TimeoutError) as error:
            self._failure = f"{self.command[2]} does not start: {error}"
            raise StartError(self._failure) from None

    def _exchange(self, line: str, seconds: float) -> Any:
        """Send a line, if there is one, and wait for the reply; killing it frees a write and a read alike."""
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        expired = Event()
        timer = Timer(seconds, _expire, (process, expired))
        timer.start()
        try:
            process.stdin.write(line)
            process.stdin.flush()
            reply = process.stdout.readline()
        except BrokenPipeError:
            reply = ""
        except BaseException:  # an interrupted exchange would leave its reply to the next question
            self.stop()
            raise
        finally:
            timer.cancel()
            timer.join()
        if expired.is_set() or not reply:
            self.stop()
        if expired.is_set():
            raise TimeoutError(f"no reply within {seconds:g} s")
        return self._opened(reply)

    def _opened(self, reply: str) -> Any:
        message = json.loads(reply) if reply else {"error": "the process died"}
        if "error" in message:
            printed = "".join(self._printed).strip() if self._process is None else ""
            raise ChildError(message["error"] + (f"; it printed last:\n{printed}" if printed else ""))
        return message["reply"]


_CREATION = Lock()


def child_process(module: str, *arguments: str, start_seconds: float = 120.0) -> ChildProcess:
    """The one of its kind in this program; a forked program must not talk into its parent's pipes, and gets another."""
    with _CREATION:
        return _child(os.getpid(), module, arguments, start_seconds)


@cache
def _child(_: int, module: str, arguments: tuple[str, ...], start_seconds: float) -> ChildProcess:
    return ChildProcess(module, arguments, start_seconds)


def _expire(process: "subprocess.Popen[str]", expired: Event) -> None:
    expired.set()
    process.kill()
