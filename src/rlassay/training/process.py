"""The process of a training job: its lock, signals, GPUs, memory and workflow.

A job refuses to run (`RefusedError`) where it cannot succeed: another process holds its run directory, or the machine
has fewer GPUs than the study declares.
"""

import os
import platform
import resource
import signal
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path, PurePath
from types import FrameType
from typing import Any, TypeVar, cast

import psutil
from filelock import Timeout

from rlassay.config.fingerprints import package_version
from rlassay.files import read_json
from rlassay.layout import LOCK, RUN_RECORD
from rlassay.locks import file_lock, patience
from rlassay.ranks import LONGEST_WAIT, PROGRESS, is_launched, spans_machines

Value = TypeVar("Value")

SECONDS_FOR_A_PROBE = 2.0
"""Seconds that a job waits for the lock, which `rlassay.progress.is_held` holds for an instant."""
BYTES_PER_MB = 2**20
COMPARED = ("torch", "transformers", "trl", "accelerate", "deepspeed", "vllm", "rlassay")
"""Libraries of which the machines of a job must have equal versions, or none."""


class RefusedError(RuntimeError):
    """A job cannot run here and now; the message gives the reason and the remedy."""


class RunBusyError(RefusedError):
    """Another process is training in this run directory."""


@contextmanager
def locked(state: Path) -> Generator[None, None, None]:
    """Hold the lock of a `state/` folder, or raise RunBusyError with its holder.

    The error names pid and host. The lock of a process that has ended is free, `kill -9` included.
    """
    lock = file_lock(state / LOCK, patience(state / LOCK, SECONDS_FOR_A_PROBE))
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
    """Turn SIGTERM and Ctrl-C into SystemExit 143 and 130.

    A job can then record its status.
    """

    def leave(number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)  # a second signal ends the process immediately
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
    visible = visible_gpus()
    if visible < declared:
        raise RefusedError(
            f"the study declares gpus: {declared}, but this job sees {visible}. Raise the cap "
            "(`resources: gpu=` in profiles/default/profile.yaml), free a device, or lower `gpus` in the study."
        )


def visible_gpus() -> int:
    """Number of GPUs that this process sees."""
    import torch

    return torch.cuda.device_count()


def refuse_other_launchers() -> None:
    """Refuse a job that another launcher than ours has started as one of several processes.

    Errors: RefusedError naming their number.
    """
    started = os.environ.get("WORLD_SIZE", "1")
    if not is_launched() and started != "1":
        raise RefusedError(
            f"something has started this job {started} times (WORLD_SIZE), such as torchrun or accelerate. Start it "
            "once, by `python -m rlassay.cli.stages`: it starts the processes that the study declares itself."
        )


def join_processes(declared: int, *, on_cpu: bool) -> None:
    """Join the processes that share this job, and check their number against the study's.

    Errors: RefusedError naming both counts, where the launcher started fewer or none.
    """
    if declared == 1 and not is_launched():
        return
    joined: int = _processes(cpu=on_cpu, timeout=LONGEST_WAIT).num_processes if is_launched() else 1
    if joined != declared:
        raise RefusedError(
            f"the study declares {declared} processes for each job, but {joined} share this one. Start it with "
            "`python -m rlassay.cli.stages`, which launches the processes itself; do not use torchrun or accelerate."
        )
    if spans_machines():
        _check_versions()


def _check_versions() -> None:
    """Refuse a job, in all of its processes, if its machines have different libraries.

    Errors: RefusedError naming two machines and the libraries that differ.
    """
    own = {name: package_version(name) or "none" for name in COMPARED}
    (host, main), *others = _of_all((platform.node(), {"python": platform.python_version(), **own}))
    for other, versions in others:
        differing = [f"{name} {main[name]} and {found}" for name, found in versions.items() if found != main[name]]
        if differing:
            raise RefusedError(
                f"{host} and {other} share this job and have different libraries: {', '.join(differing)}. Let all "
                "nodes see one environment, under the same path."
            )


def _processes(**options: Any) -> Any:
    """Accelerate's state of the processes that share this job."""
    import accelerate  # pyright: ignore[reportMissingTypeStubs] - takes seconds to import

    return cast(Any, accelerate).PartialState(**options)


def wait_for_all() -> None:
    """Wait until every process that shares this job has reached this call."""
    if is_launched():
        _processes().wait_for_everyone()


def of_main(value: Value) -> Value:
    """The value that the main process of this job has."""
    if is_launched():
        import accelerate  # pyright: ignore[reportMissingTypeStubs] - takes seconds to import

        return cast(Any, accelerate).utils.broadcast_object_list([value])[0]
    return value


def _of_all(value: Value) -> list[Value]:
    """The values that the processes of this job have, in their order."""
    import accelerate  # pyright: ignore[reportMissingTypeStubs] - takes seconds to import

    return cast(Any, accelerate).utils.gather_object([value])


def leave_processes() -> None:
    """Leave the group of processes that share this job, once all of them are done."""
    if is_launched():
        with PROGRESS.watched():
            _processes().wait_for_everyone()
        _processes().destroy_process_group()


def restorable(trainer: Any) -> Any:
    """Make a trainer able to load its checkpoints on several CPU processes, and return it.

    The device of such a process is `cpu:0`, to which `torch.load` cannot map tensors.
    """
    if is_launched() and trainer.args.device.type == "cpu":
        import torch

        trainer.args.__dict__["_setup_devices"] = torch.device("cpu")
    return trainer


def peak_memory_mb() -> float:
    """Peak memory of this process in MiB: of all GPUs used, else resident memory."""
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
