"""A child process that answers questions over a pipe.

`ChildProcess` is the parent's side, `serve` the child's. The process is for code that may hang or crash, or that needs
libraries which the parent does not load. Questions and replies are lines of JSON. The child ends with its parent, even
in the middle of a question.
"""

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
from threading import Event, Lock, Thread
from typing import Any, TextIO, cast

MODEL_LOAD_SECONDS = 3600.0
"""Seconds that a model may take to load; it may have to be downloaded first."""
SERVING = Event()
"""Set in a child process that runs `serve`."""
LIFELINE = "RLASSAY_LIFELINE"
"""Environment variable with the number of a pipe that closes when the parent ends."""
_PARENT_CHECK_SECONDS = 1.0  # between two checks whether the parent is alive
_QUOTED_LINES = 12  # of stderr, in an error
_QUOTED_BYTES = 1000  # of these, from the end
_READ_BYTES = 65_536


class StartError(RuntimeError):
    """The child process did not start; the message quotes the end of its stderr."""


class ChildError(RuntimeError):
    """A child process raised an exception while it answered; the text has its type and message."""


class ChildDeathError(ChildError):
    """A child process died; the text quotes the end of its stderr."""


class ChildProcess:
    """`python -m <module> <arguments>`, started by the first question.

    It answers one question at a time, from any thread, and ends with the program that started it.
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
        self._stderr_tail: deque[bytes] = deque(maxlen=_QUOTED_LINES)
        self._stderr_reader: Thread | None = None
        self._failure: str | None = None
        self._owner = os.getpid()
        self._lifeline = -1
        atexit.register(self.stop)

    def ask(self, question: Any, seconds: float) -> Any:
        """The reply to a question; both are values that JSON can hold.

        Raises:
            TimeoutError: no reply in time. The process is killed; the next question starts another.
            ChildDeathError: the process died; the next question starts another.
            ChildError: the process raised an exception; it lives on.
            StartError: the process does not start, which is tried once only.
        """
        replies, problem = self.ask_for_replies(question, [seconds])
        if problem is not None:
            raise problem
        return replies[0]

    def ask_for_replies(self, question: Any, limits: Sequence[float]) -> tuple[list[Any], Exception | None]:
        """A question's several replies, and the error that ended them early or None.

        Args:
            question: a value that JSON can hold.
            limits: seconds for each expected reply.

        Raises:
            StartError: the process does not start; the other errors of `ask` are returned.
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

    def pid(self) -> int | None:
        """Its process id while it runs, else None."""
        return None if self._process is None else self._process.pid

    def stop(self) -> None:
        """Kill the process, if there is one; a forked program leaves its parent's child alone."""
        if self._process is not None and self._stderr_reader is not None and os.getpid() == self._owner:
            os.close(self._lifeline)
            self._process.kill()
            self._process.wait()
            self._stderr_reader.join(1)
            for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
                assert pipe is not None
                pipe.close()
            self._process = None

    def _start(self) -> None:
        child_end, self._lifeline = os.pipe()
        # A session of its own: Ctrl-C and signals to the job's group reach the job alone, which then ends the child.
        self._process = subprocess.Popen(
            self.command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,
            pass_fds=[child_end],
            env=os.environ | {LIFELINE: str(child_end)},
        )
        os.close(child_end)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._input, self._output = self._process.stdin.fileno(), self._process.stdout.fileno()
        os.set_blocking(self._input, False)  # a child that does not read must not block the parent
        self._received = b""
        self._stderr_tail = deque(maxlen=_QUOTED_LINES)
        self._stderr_reader = Thread(target=self._stderr_tail.extend, args=(self._process.stderr,), daemon=True)
        self._stderr_reader.start()
        try:
            self._exchange(b"", self.start_seconds)
        except (ChildError, TimeoutError) as error:
            self._failure = f"{self.command[2]} does not start: {error}"
            raise StartError(self._failure) from None

    def _exchange(self, line: bytes, seconds: float) -> Any:
        """Send a line, unless it is empty, and wait for a reply."""
        deadline = time.monotonic() + seconds
        try:
            self._send(line, deadline)
            reply = self._receive(deadline)
        except TimeoutError:
            self.stop()
            raise TimeoutError(f"no reply within {seconds:g} s") from None
        except BrokenPipeError:
            reply = b""
        except BaseException:  # after an interrupted exchange, the next question would get this one's reply
            self.stop()
            raise
        if not reply:
            raise ChildDeathError(self._death())
        message = json.loads(reply)
        if "error" in message:
            raise ChildError(message["error"])
        return message["reply"]

    def _death(self) -> str:
        """The cause of the process's death, and the end of its stderr."""
        assert self._process is not None
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(1)
        status = self._process.poll()
        self.stop()
        how = "its output closed" if status is None else f"exit status {status}"
        if status is not None and status < 0:
            how = signal.Signals(-status).name
        printed = b"".join(self._stderr_tail)[-_QUOTED_BYTES:].decode("utf-8", "replace").strip()
        return f"the process died ({how})" + (f"; end of its stderr:\n{printed}" if printed else "")

    def _send(self, line: bytes, deadline: float) -> None:
        while line:
            _wait(self._input, select.POLLOUT, deadline)
            line = line[os.write(self._input, line) :]

    def _receive(self, deadline: float) -> bytes:
        """One line; empty when the pipe has closed."""
        while b"\n" not in self._received:
            _wait(self._output, select.POLLIN, deadline)
            more = os.read(self._output, _READ_BYTES)
            if not more:
                return b""
            self._received += more
        line, _, self._received = self._received.partition(b"\n")
        return line


def _wait(descriptor: int, event: int, deadline: float) -> None:
    """Return when a pipe is ready or broken; raise TimeoutError at the deadline."""
    poll = select.poll()
    poll.register(descriptor, event)
    if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
        raise TimeoutError


_CREATION = Lock()


def child_process(module: str, *arguments: str, start_seconds: float = 120.0) -> ChildProcess:
    """The one child process with this module and these arguments in this program.

    A forked process gets one of its own, since it must not use its parent's pipes.
    """
    with _CREATION:
        return _cached_child(os.getpid(), module, arguments, start_seconds)


@cache
def _cached_child(_pid: int, module: str, arguments: tuple[str, ...], start_seconds: float) -> ChildProcess:
    return ChildProcess(module, arguments, start_seconds)


def serve(load: Callable[[], Callable[[Any], Any]]) -> None:
    """In the child: load once, then answer questions until the input or parent ends.

    A reply is `{"reply": ...}`, or `{"error": ...}` if the answer raises. An answer that is an iterator gives several
    replies. Libraries cannot disturb the exchange: their prints go to stderr, and their stdin is empty.

    Args:
        load: returns the function that answers questions.
    """
    SERVING.set()
    Thread(target=_exit_with_parent, args=(os.getppid(),), daemon=True).start()
    _exit_with_lifeline(int(os.environ[LIFELINE]))
    # Never closed: its end must reach the parent after the last output on stderr, when the process ends.
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    questions = os.fdopen(os.dup(0), encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    answer = load()
    _write_line(replies, {"reply": "ready"})
    for line in questions:
        for message in _messages(answer, json.loads(line)):
            _write_line(replies, message)


def _messages(answer: Callable[[Any], Any], question: Any) -> Iterator[dict[str, Any]]:
    try:
        reply = answer(question)
        for each in cast(Iterator[Any], reply) if isinstance(reply, Iterator) else [reply]:
            yield {"reply": each}
    except Exception as error:  # the parent raises it again
        yield {"error": f"{type(error).__name__}: {error}"}


def _write_line(replies: TextIO, message: dict[str, Any]) -> None:
    print(json.dumps(message), file=replies, flush=True)


def _exit_with_parent(parent: int) -> None:
    """End this process, even in the middle of a question, when its parent changes."""
    while os.getppid() == parent:
        time.sleep(_PARENT_CHECK_SECONDS)
    os._exit(1)


def _exit_with_lifeline(lifeline: int) -> None:
    """Have the kernel end this process when the pipe closes.

    It does so even if a library blocks all other threads. A pipe set to O_ASYNC raises SIGIO, which ends a process
    unless it handles it.
    """
    os.set_inheritable(lifeline, False)
    fcntl.fcntl(lifeline, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(lifeline, fcntl.F_SETFL, fcntl.fcntl(lifeline, fcntl.F_GETFL) | os.O_ASYNC)
    if select.select([lifeline], [], [], 0)[0]:  # it closed before
        os._exit(1)
