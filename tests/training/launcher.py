"""Real training processes for tests that kill them, that import the libraries only once.

Run as a program, it imports what `rl_train` needs once and then forks one process per line of arguments. A forked
process is as killable as any other, and holds locks of its own.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

SECONDS = 60


class Launcher:
    """The program, seen from the tests."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "tests.training.launcher"]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def start(self, arguments: list[str], log: Any) -> "Attempt":
        """One `rl_train` with these arguments; its output is appended to `log`."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps([arguments, str(log)]) + "\n")
        self.process.stdin.flush()
        return Attempt(self, int(self.process.stdout.readline()))

    def exit_status(self, pid: int) -> int:
        """Wait for a forked process; minus the signal's number if one ended it."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(pid) + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def close(self) -> None:
        """End the program."""
        self.process.communicate()


class Attempt:
    """One forked `rl_train`."""

    def __init__(self, launcher: Launcher, pid: int) -> None:
        self.launcher = launcher
        self.pid = pid

    def send(self, number: int) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    def wait(self) -> int:
        """Its exit status, once it has ended."""
        return self.launcher.exit_status(self.pid)


def wait_until(condition: Callable[[], bool], seconds: float = SECONDS) -> None:
    """Return as soon as `condition` holds; AssertionError if that takes too long."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited for {seconds:g} s"
        time.sleep(0.01)


def _serve() -> None:
    import rlassay.training.rl  # noqa: F401
    from rlassay.cli.stages import main

    for line in sys.stdin:
        request = json.loads(line)
        if isinstance(request, int):
            print(os.waitstatus_to_exitcode(os.waitpid(request, 0)[1]), flush=True)
            continue
        arguments, log = request
        pid = os.fork()
        if pid:
            print(pid, flush=True)
            continue
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(output, 1)
        os.dup2(output, 2)
        status: Any = 1
        try:
            status = main(["rl_train", *arguments])
        except SystemExit as left:
            status = left.code
        except BaseException:
            sys.excepthook(*sys.exc_info())
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    _serve()
