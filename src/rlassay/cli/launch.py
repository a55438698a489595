"""Start a stage as several processes by `accelerate launch`, and end all if one fails.

`torch.distributed` ends all ranks when one ends. This module also detects a rank that is stopped or hangs outside of
Python, by its missing signs of life (`rlassay.ranks`), a job whose ranks all wait, and a job that finishes no step for
too long. However this process ends, its ranks end too.
"""

import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil

from rlassay import ranks
from rlassay.cli.cluster import nodes
from rlassay.cli.common import USER_ERROR
from rlassay.config import Study
from rlassay.config.settings import Resources
from rlassay.files import read_json
from rlassay.training.process import signals_as_exceptions

SILENCE = 30.0
"""Seconds without a sign of life after which a rank counts as hanging."""
IDLE = 30.0
"""Seconds without progress or CPU work on all ranks before a job counts as hanging."""
STILL = 600.0
"""Seconds without progress on all ranks, even with busy CPUs, as in waiting for GPUs."""
POLL = 0.5
"""Seconds between two looks at the ranks."""
PATIENCE = 20.0
"""Seconds that ranks get to end by themselves."""
STACKS_SECONDS = 1.0
"""Seconds that a rank gets to print its stacks."""
FAILED = 1


def launch(
    study: Study, arguments: Sequence[str], resources: Resources, shared: Path, note: Callable[[str], None] = print
) -> int:
    """Run `python -m rlassay.cli.stages <arguments>` as `study.num_processes` ranks; the exit code of the job.

    The code is 0, 2 where a rank refused the job, 1 where one failed, died or hung. SIGTERM and Ctrl-C end the ranks
    and raise SystemExit.

    Args:
        study: gives the numbers of processes and machines.
        arguments: those of the stage.
        resources: the CPU threads of each process, and how long a step may take.
        shared: folder for the signs of life of ranks on several machines, which all of them see.
        note: called with the reason why the job failed, which its ranks may have been unable to record.

    Errors: RefusedError for several machines outside of Slurm; see `cluster.nodes.meeting`.
    """
    command = _command(study, [*_options(study), *arguments])
    place = shared if study.nodes > 1 else None
    with TemporaryDirectory(prefix=".rlassay-ranks-", dir=place) as name, signals_as_exceptions():
        folder = Path(name)
        launcher = subprocess.Popen(
            command,
            env=_environment(study, folder, resources.threads),
            start_new_session=True,  # Ctrl-C is for this process, which ends the ranks in order
            preexec_fn=partial(ranks.die_with_parent, signal.SIGTERM),  # noqa: PLW1509  # this process has no threads
        )
        try:
            status = _watch(launcher, folder, study.num_processes, resources.hang_minutes, note)
        finally:
            _end(launcher, folder)
        if status and (refusal := ranks.refused(folder)).exists():
            print(f"error: {refusal.read_text(encoding='utf-8')}", file=sys.stderr)
            return USER_ERROR
        if status:
            note(f"the processes of the job ended with status {status}; the log has the first one's last words")
        return FAILED if status else 0


def _command(study: Study, options: list[str]) -> list[str]:
    if study.nodes > 1:
        return nodes.command(study, options)
    return [sys.executable, "-m", "accelerate.commands.launch", *options]


def _options(study: Study) -> list[str]:
    config = files("rlassay") / "launch" / "ddp.yaml"
    return ["--config_file", str(config), "--num_processes", str(study.num_processes), "-m", "rlassay.cli.stages"]


def _environment(study: Study, folder: Path, threads: int) -> dict[str, str]:
    chosen = {"ACCELERATE_USE_CPU": "true", "DS_ACCELERATOR": "cpu"} if study.gpus == 0 else {}
    if study.gpus and study.strategy == "fsdp2":
        # Accelerate joins processes before the trainer can choose a backend. Whole checkpoints and offloaded weights
        # are exchanged between CPUs, which NCCL cannot do; accelerate adds gloo for that where these are set.
        chosen = {"ACCELERATE_USE_FSDP": "true", "FSDP_STATE_DICT_TYPE": "FULL_STATE_DICT"}
    return os.environ | chosen | {ranks.FOLDER: str(folder), "OMP_NUM_THREADS": str(threads)}


def _watch(
    launcher: "subprocess.Popen[bytes]", folder: Path, count: int, hang_minutes: float, note: Callable[[str], None]
) -> int:
    """The exit status of the launcher; it is ended when a rank hangs."""
    silent = dict.fromkeys(range(count), 0.0)
    last: dict[int, dict[str, Any] | None] = dict.fromkeys(range(count))
    looked = time.monotonic()
    while launcher.poll() is None:
        time.sleep(POLL)
        # Where the whole machine was suspended, the ranks were too: one look counts as two at most.
        passed, looked = min(time.monotonic() - looked, 2 * POLL), time.monotonic()
        for number in silent:
            sign = read_json(ranks.alive(folder, number))
            # A rank that has ended is not hanging: others may still write results.
            lives = sign is not None and (sign != last[number] or _has_ended(sign))
            silent[number] = 0.0 if lives else silent[number] + passed
            last[number] = sign
        problem = _silence(silent, last, hang_minutes) or _standstill(last, hang_minutes)
        if problem is not None:
            _report(problem, folder, note)
            return FAILED
    return launcher.returncode


def _silence(silent: dict[int, float], signs: dict[int, dict[str, Any] | None], hang_minutes: float) -> str | None:
    """Message that names the ranks without a sign of life for too long; None if there are none.

    Before its first sign a rank may wait for the launchers of other machines.
    """
    limits = {number: 60 * hang_minutes if sign is None else SILENCE for number, sign in signs.items()}
    hanging = [number for number, seconds in silent.items() if seconds > limits[number]]
    if not hanging:
        return None
    names = ", ".join(map(str, hanging))
    return f"rank {names} of {len(silent)} has shown no sign of life for {limits[hanging[0]]:g} s"


def _standstill(signs: dict[int, dict[str, Any] | None], hang_minutes: float) -> str | None:
    """Message that no rank has made progress for too long; None if one has, or has ended."""
    running = [sign for sign in signs.values() if sign is not None and not sign["ended"]]
    if len(running) < len(signs):
        return None
    for key, limit in (("idle", IDLE), ("still", STILL)):
        if min(sign[key] for sign in running) > limit:
            return f"none of {len(signs)} ranks has made progress for {limit:g} s"
    if min(sign["stalled"] for sign in running) > 60 * hang_minutes:
        return (
            f"none of {len(signs)} ranks has finished a step, a batch of answers or the loading of its model for "
            f"{hang_minutes:g} minutes (resources.hang_minutes in config/config.yaml)"
        )
    return None


def _report(problem: str, folder: Path, note: Callable[[str], None]) -> None:
    reason = f"{problem}; the job ends, and resumes from its newest checkpoint when it is started again"
    note(reason)
    print(f"error: {reason}. The stacks of the ranks that can still print them:", file=sys.stderr, flush=True)
    for name, process in _ranks_here(folder):  # in turn, since all print to one log
        print(f"{name}:", file=sys.stderr, flush=True)
        _signal(process, ranks.STACKS)
        time.sleep(STACKS_SECONDS)


def _end(launcher: "subprocess.Popen[bytes]", folder: Path) -> None:
    """End the launcher, which ends its ranks, then kill any rank that still runs."""
    if launcher.poll() is None:
        launcher.terminate()
        with suppress(subprocess.TimeoutExpired):
            launcher.wait(PATIENCE)
    for _, process in _ranks_here(folder):
        _signal(process, signal.SIGKILL)
    if launcher.poll() is None:
        launcher.kill()
        launcher.wait()


def _ranks_here(folder: Path) -> list[tuple[str, int]]:
    """Name and process id of each rank on this machine; srun ends those on other machines."""
    signs = {file.name.split(".")[0]: read_json(file) for file in sorted(folder.glob("*.alive.json"))}
    return [(name, sign["pid"]) for name, sign in signs.items() if sign is not None and _is_here(sign)]


def _signal(process: int, number: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.kill(process, number)


def _has_ended(sign: dict[str, Any]) -> bool:
    """Whether a rank has recorded its end, or its process is gone from this machine."""
    return sign["ended"] or (_is_here(sign) and not psutil.pid_exists(sign["pid"]))


def _is_here(sign: dict[str, Any]) -> bool:
    """Whether a rank runs on this machine, so that its process id means something here."""
    return sign["host"] == platform.node()
