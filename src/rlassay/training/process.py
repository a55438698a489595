"""The process of a training job: its lock, signals, GPUs, memory and workflow.

A job refuses to run (`RefusedError`) where it cannot succeed: another process holds its run directory, or the machine
has fewer GPUs than the study declares.
"""

import resource
import signal
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path, PurePath
from types import FrameType

import psutil
from filelock import FileLock, Timeout

from rlassay.files import read_json
from rlassay.layout import LOCK, RUN_RECORD

SECONDS_FOR_A_PROBE = 2.0
"""How long a job waits for the lock: `rlassay.progress.is_held` takes it for an instant."""
BYTES_PER_MB = 2**20


class RefusedError(RuntimeError):
    """A job cannot run here and now; the message gives the reason and the remedy."""


class RunBusyError(RefusedError):
    """Another process is training in this run directory."""


@contextmanager
def locked(state: Path) -> Generator[None, None, None]:
    """Hold the lock of a `state/` folder, or raise RunBusyError naming pid and host of its holder.

    The kernel frees the lock however the process ends, `kill -9` included.
    """
    lock = FileLock(state / LOCK, timeout=SECONDS_FOR_A_PROBE)
    try:
        lock.acquire()
    except Timeout:
        holder = read_json(state / RUN_RECORD) or {}
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
def signals_as_exceptions() -> Generator[None, None, None]:
    """Turn SIGTERM and Ctrl-C into SystemExit 143 and 130, so that a job can record its status before it ends."""

    def leave(number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)  # a second signal ends the process at once
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, leave) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def require_gpus(declared: int) -> None:
    """Refuse to train with fewer GPUs than the study declares; Snakemake lowers requests silently.

    Errors: RefusedError naming both counts.
    """
    import torch

    visible = torch.cuda.device_count()
    if visible < declared:
        raise RefusedError(
            f"the study declares gpus: {declared}, but this job sees {visible}. Raise the cap "
            "(`resources: gpu=` in profiles/default/profile.yaml), free a device, or lower `gpus` in the study."
        )


def peak_memory_mb() -> float:
    """Peak memory of this process in MiB: of all its GPUs where it used any, otherwise resident memory."""
    import torch

    on_gpus = sum(torch.cuda.max_memory_allocated(index) for index in range(torch.cuda.device_count()))
    if on_gpus:
        return on_gpus / BYTES_PER_MB
    # Linux counts kibibytes, macOS bytes.
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / BYTES_PER_MB


def workflow_process() -> psutil.Process | None:
    """The nearest Snakemake above this process; None for a job that was started by hand."""
    for ancestor in psutil.Process().parents():
        try:
            if any(PurePath(part).name == "snakemake" for part in ancestor.cmdline()[:3]):
                return ancestor
        except psutil.Error:  # it has ended meanwhile, or belongs to another user
            continue
    return None
