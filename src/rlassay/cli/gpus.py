"""Hand out the GPUs of this machine: jobs side by side never share one.

Each GPU has a lock file, which the kernel frees however a job ends. A job sees the GPUs that it holds and no other.
"""

import os
import sys
import time
from collections.abc import Generator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from rlassay.training.process import RefusedError, visible_gpus

VISIBLE = "CUDA_VISIBLE_DEVICES"
LOCKS = Path("/tmp/rlassay-gpus")
"""Folder of the lock files, for all users of this machine, whatever their temporary folder."""
CLUSTER = "SLURM_JOB_ID"
"""Environment variable that is set where a cluster has assigned GPUs to the job. They are numbered for the job
alone."""
POLL = 1.0
"""Seconds between two attempts."""


@contextmanager
def handed_out(count: int, locks: Path | None = None, beside: int = 0) -> Generator[list[str], None, None]:
    """Hold `count` GPUs while the body runs, with `CUDA_VISIBLE_DEVICES` naming them; wait while others hold them.

    Args:
        count: GPUs of the job; 0 changes nothing.
        locks: folder of the lock files; None takes `LOCKS`.
        beside: how many of them are for a process beside the job, see `set_aside`.

    Errors: RefusedError naming both counts, where the machine has fewer.
    """
    if count == 0 or CLUSTER in os.environ:
        yield []
        return
    devices = _devices()
    if len(devices) < count:
        also = f" and {beside} for evaluation.while_training" if beside else ""
        raise RefusedError(
            f"the study declares gpus: {count - beside}{also}, but this job sees {len(devices)}"
            f"{' (' + ', '.join(devices) + ')' if devices else ''}. Lower `gpus` in the study, or run it on a machine "
            f"that has them; {VISIBLE} limits which GPUs a job sees."
        )
    folder = locks or LOCKS
    folder.mkdir(parents=True, exist_ok=True)
    if locks is None:
        with suppress(PermissionError):  # the folder of another user, who has opened it to all
            folder.chmod(0o777)
    before = os.environ.get(VISIBLE)
    with ExitStack() as held:
        os.environ[VISIBLE] = ",".join(own := _taken(devices, count, folder, held))
        try:
            yield own
        finally:
            _restore(before)


@contextmanager
def set_aside(count: int) -> Generator[dict[str, str], None, None]:
    """Hide the last `count` GPUs of this job in the body; yields an environment that shows only these.

    Args:
        count: GPUs for a process beside the job; 0 changes nothing.
    """
    if count == 0:
        yield dict(os.environ)
        return
    devices, before = _devices(), os.environ.get(VISIBLE)
    os.environ[VISIBLE] = ",".join(devices[:-count])
    try:
        yield os.environ | {VISIBLE: ",".join(devices[-count:])}
    finally:
        _restore(before)


def _restore(before: str | None) -> None:
    if before is None:
        del os.environ[VISIBLE]
    else:
        os.environ[VISIBLE] = before


def _devices() -> list[str]:
    """The GPUs that this process may use, as `CUDA_VISIBLE_DEVICES` names them."""
    given = os.environ.get(VISIBLE)
    if given is not None:
        return [name.strip() for name in given.split(",") if name.strip() not in ("", "-1")]
    numbered = (path.name.removeprefix("nvidia") for path in Path("/dev").glob("nvidia*"))
    count = sum(name.isdigit() for name in numbered) or visible_gpus()  # WSL has no device files
    # CUDA counts from 0, unlike the device files: a container with GPU 3 has only nvidia3.
    return [str(index) for index in range(count)]


def _taken(devices: list[str], count: int, folder: Path, held: ExitStack) -> list[str]:
    """Lock `count` devices at once or none, so that two jobs cannot deadlock."""
    waits = False
    while True:
        with ExitStack() as attempt:
            own: list[str] = []
            for device in devices:
                lock = FileLock(folder / f"{device}.lock", timeout=0, mode=0o666)
                try:
                    attempt.enter_context(lock)
                except Timeout:
                    continue
                own.append(device)
                if len(own) == count:
                    held.push(attempt.pop_all())
                    return own
        if not waits:
            print(f"waiting for {count} of the GPUs {', '.join(devices)}: other jobs hold them", file=sys.stderr)
            waits = True
        time.sleep(POLL)
