"""One process per run directory, and signals that end it in good order."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from filelock import FileLock, Timeout

from rlassay.files import read_json
from rlassay.training.refused import RunBusyError

SECONDS_FOR_A_PROBE = 2.0  # `rlassay.progress.is_held` takes the lock for an instant


@contextmanager
def locked(state: Path) -> Iterator[None]:
    """Hold the lock of a `state/` folder, or raise RunBusyError naming pid and host of its holder.

    The kernel frees it however the process ends, `kill -9` included.
    """
    lock = FileLock(state / "lock", timeout=SECONDS_FOR_A_PROBE)
    try:
        lock.acquire()
    except Timeout:
        holder = read_json(state / "run.json") or {}
        who = f"process {holder.get('pid', 'unknown')} on {holder.get('host', 'an unknown host')}"
        raise RunBusyError(
            f"{state.parent} is in use by {who}: another Snakemake, or a job that outlived one. "
            "Wait for it to finish or stop it, then run the same command again."
        ) from None
    try:
        yield
    finally:
        lock.release()


@contextmanager
def signals_as_exceptions() -> Iterator[None]:
    """Turn SIGTERM and Ctrl-C into SystemExit 143 and 130, so that a job can note its status before it goes."""

    def leave(number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)  # a second signal ends the process at once
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, leave) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
