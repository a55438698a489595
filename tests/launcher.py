"""Real processes for tests, forked from a program that imports the libraries only once.

An import of what `rl_train` needs takes nine seconds of CPU time. A forked process is as killable as any other, and
holds locks of its own; what it shares with the others is the seed of Python's hashes.
"""

import importlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
SECONDS = 60
STAGES = ("rlassay.training.rl", "rlassay.evaluation.by_transformers")


class Launcher:
    """The program, seen from the tests."""

    def __init__(self, *modules: str) -> None:
        """Import these modules; without any, those of training and evaluation."""
        command = [sys.executable, "-m", "tests.launcher", *(modules or STAGES)]
        # Not where the test is that needs it first, which may have changed its folder.
        self.process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def start(self, arguments: list[str], log: Path, module: str = "rlassay.cli.stages", **options: Any) -> "Attempt":
        """One `python -m module` with these arguments; its output is appended to `log`.

        Options are `folder`, in which it works, `environment`, added to the tests' own, and `path`, where Python looks
        first for modules.
        """
        request = {"module": module, "arguments": [str(each) for each in arguments], "log": str(log), **options}
        (pid,) = self._answer(request)
        return Attempt(self, pid)

    def run_ranks(
        self, module: str, arguments: list[str], processes: int, log: Path, folder: str = ".", **environment: str
    ) -> None:
        """Run a module in `folder` as the ranks of one job on CPU, by gloo, as `torchrun` does; they must succeed."""
        of_ranks = environments(processes, **environment)
        ranks = [self.start(arguments, log, module, folder=folder, environment=each) for each in of_ranks]
        statuses = self._answer([rank.pid for rank in ranks])
        assert statuses == [0] * processes, log.read_text()[-3000:]

    def exit_status(self, pid: int) -> int:
        """Wait for a forked process; minus the signal's number if one ended it."""
        (status,) = self._answer([pid])
        return status

    def _answer(self, request: dict[str, Any] | list[int]) -> list[int]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def close(self) -> None:
        """End the program."""
        self.process.communicate()


class Attempt:
    """One forked process."""

    def __init__(self, launcher: Launcher, pid: int) -> None:
        self.launcher = launcher
        self.pid = pid

    def send(self, number: int) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    def wait(self) -> int:
        """Its exit status, once it has ended."""
        return self.launcher.exit_status(self.pid)


def environments(processes: int, **others: str) -> list[dict[str, str]]:
    """The environment variables of the ranks of one job, which meet at a free port; `others` are added to each."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1"}
    shared |= {"MASTER_PORT": str(port), "ACCELERATE_USE_CPU": "true", **others}
    return [shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(processes)]


def wait_until(condition: Callable[[], bool], seconds: float = SECONDS) -> None:
    """Return as soon as `condition` holds; AssertionError if that takes too long."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited for {seconds:g} s"
        time.sleep(0.01)


def _serve(modules: list[str]) -> None:
    for module in modules:
        importlib.import_module(module)
    for line in sys.stdin:
        request = json.loads(line)
        if isinstance(request, list):
            print(json.dumps(_statuses(request)), flush=True)
            continue
        pid = os.fork()
        if not pid:
            _run(**request)
        print(json.dumps([pid]), flush=True)
    os._exit(0)  # Python would take seconds to free all libraries


def _statuses(pids: list[int]) -> list[int]:
    """Exit statuses of processes, once all have ended; as soon as one fails, the others are killed."""
    found: dict[int, int] = {}
    while len(found) < len(pids):
        time.sleep(0.01)
        for pid in set(pids) - found.keys():
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                found[pid] = os.waitstatus_to_exitcode(status)
        if any(found.values()):
            for pid in set(pids) - found.keys():
                os.kill(pid, signal.SIGKILL)
    return [found[pid] for pid in pids]


def _run(
    module: str,
    arguments: list[str],
    log: str,
    folder: str = ".",
    environment: dict[str, str] | None = None,
    path: str | None = None,
) -> None:
    """Run a module as the program of this process, and end it."""
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for number in (1, 2):
        os.dup2(output, number)
    os.environ.update(environment or {})
    os.chdir(folder)
    sys.path[:0] = [path] if path else []
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.argv = [module, *arguments]
    status: Any = 0
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as left:
        status = left.code or 0
    except BaseException as error:
        traceback.print_exception(error)
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    _serve(sys.argv[1:])
