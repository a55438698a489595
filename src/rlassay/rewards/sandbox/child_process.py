"""A process of its own for rewards that may hang or crash, or that need libraries which this package does not load."""

import atexit
import fcntl
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import cache
from threading import Lock, Thread
from typing import Any, TextIO, cast

# MERGED FROM rewards.serving: The inner side of `child_process`: answers questions, one JSON line each, until
# its input or its parent ends.

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


# MERGED FROM rewards.child_process: A process of its own for rewards that may hang or crash, or that need
# libraries which this package does not load.

LOADING = 3600.0
"""Seconds that a model may take to load; it may have to come from the hub first."""
_SHOWN = 12  # lines of its error output that an error quotes
_QUOTED = 1000  # bytes of them, from the end
_PIECE = 65_536  # bytes of its replies that are read at once


class StartError(RuntimeError):
    """A child process does not start; the text quotes the end of what it printed."""


class ChildError(RuntimeError):
    """A child process raised while it answered; the text says what."""


class ChildDeathError(ChildError):
    """A child process died; the text has its last words."""


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
        self._process: subprocess.Popen[bytes] | None = None
        self._input = self._output = -1
        self._received = b""
        self._printed: deque[bytes] = deque(maxlen=_SHOWN)
        self._reader: Thread | None = None
        self._failure: str | None = None
        self._owner = os.getpid()
        self._lifeline = -1
        atexit.register(self.stop)

    def ask(self, question: Any, seconds: float) -> Any:
        """Its reply to a question, both of the types that JSON has.

        Errors: TimeoutError when the time is up: it is killed, and the next question starts another one.
        ChildDeathError if it dies, likewise. ChildError if it raises. StartError if it does not start, which is tried
        once.
        """
        replies, problem = self.ask_in_turn(question, [seconds])
        if problem is not None:
            raise problem
        return replies[0]

    def ask_in_turn(self, question: Any, limits: Sequence[float]) -> tuple[list[Any], Exception | None]:
        """The replies to a question that several answer, one for each limit in seconds, and what kept the rest away.

        Errors: StartError; the other errors of `ask` come as the second value.
        """
        replies: list[Any] = []
        with self._lock:
            if self._failure is not None:
                raise StartError(self._failure)
            if self._process is None:
                self._start()
            line = json.dumps(question).encode() + b"\n"
            try:
                for seconds in limits:
                    replies.append(self._exchange(line, seconds))
                    line = b""
            except (TimeoutError, ChildError) as error:
                return replies, error
        return replies, None

    def running(self) -> int | None:
        """Its process id, while it runs."""
        return None if self._process is None else self._process.pid

    def stop(self) -> None:
        """End the process, if there is one; a forked program leaves its parent's alone."""
        if self._process is not None and self._reader is not None and os.getpid() == self._owner:
            os.close(self._lifeline)
            self._process.kill()
            self._process.wait()
            self._reader.join(1)
            for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
                assert pipe is not None
                pipe.close()
            self._process = None

    def _start(self) -> None:
        ends, self._lifeline = os.pipe()
        # A session of its own: Ctrl-C or a signal to the job's group leaves it to the job how the child ends.
        self._process = subprocess.Popen(
            self.command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,
            pass_fds=[ends],
            env=os.environ | {LIFELINE: str(ends)},
        )
        os.close(ends)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._input, self._output = self._process.stdin.fileno(), self._process.stdout.fileno()
        os.set_blocking(self._input, False)  # a child that does not read must not hold up who asks
        self._received = b""
        self._printed = deque(maxlen=_SHOWN)
        self._reader = Thread(target=self._printed.extend, args=(self._process.stderr,), daemon=True)
        self._reader.start()
        try:
            self._exchange(b"", self.start_seconds)
        except (ChildError, TimeoutError) as error:
            self._failure = f"{self.command[2]} does not start: {error}"
            raise StartError(self._failure) from None

    def _exchange(self, line: bytes, seconds: float) -> Any:
        """Send a line, if there is one, and wait for the reply."""
        deadline = time.monotonic() + seconds
        try:
            self._send(line, deadline)
            reply = self._receive(deadline)
        except TimeoutError:
            self.stop()
            raise TimeoutError(f"no reply within {seconds:g} s") from None
        except BrokenPipeError:
            reply = b""
        except BaseException:  # an interrupted exchange would leave its reply to the next question
            self.stop()
            raise
        if not reply:
            raise ChildDeathError(self._death())
        message = json.loads(reply)
        if "error" in message:
            raise ChildError(message["error"])
        return message["reply"]

    def _death(self) -> str:
        """How it ended, and its last words."""
        assert self._process is not None
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(1)
        status = self._process.poll()
        self.stop()
        how = "its output closed" if status is None else f"exit status {status}"
        if status is not None and status < 0:
            how = signal.Signals(-status).name
        printed = b"".join(self._printed)[-_QUOTED:].decode("utf-8", "replace").strip()
        return f"the process died ({how})" + (f"; it printed last:\n{printed}" if printed else "")

    def _send(self, line: bytes, deadline: float) -> None:
        while line:
            _wait(self._input, select.POLLOUT, deadline)
            line = line[os.write(self._input, line) :]

    def _receive(self, deadline: float) -> bytes:
        """One line; nothing when there are no more."""
        while b"\n" not in self._received:
            _wait(self._output, select.POLLIN, deadline)
            more = os.read(self._output, _PIECE)
            if not more:
                return b""
            self._received += more
        line, _, self._received = self._received.partition(b"\n")
        return line


def _wait(descriptor: int, event: int, deadline: float) -> None:
    """Return when a pipe is ready or broken; TimeoutError at the deadline."""
    poll = select.poll()
    poll.register(descriptor, event)
    if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
        raise TimeoutError


_CREATION = Lock()


def child_process(module: str, *arguments: str, start_seconds: float = 120.0) -> ChildProcess:
    """The one of its kind in this program; a forked program must not talk into its parent's pipes, and gets another."""
    with _CREATION:
        return _child(os.getpid(), module, arguments, start_seconds)


@cache
def _child(_: int, module: str, arguments: tuple[str, ...], start_seconds: float) -> ChildProcess:
    return ChildProcess(module, arguments, start_seconds)
