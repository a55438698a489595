"""This process among those that share one job: its rank, and the sign of life that their launcher watches.

A launcher (`rlassay.cli.launch`) starts a job as several processes, ranks 0 to N - 1. Files of a job are written by
rank 0 alone. Every rank shows that it runs by changing a file in the launcher's folder; where a file no longer
changes, or a rank ends, the launcher ends all of them.
"""

import atexit
import ctypes
import faulthandler
import os
import platform
import signal
import sys
import threading
from datetime import timedelta
from pathlib import Path

from rlassay.files import write_json

LONGEST_WAIT = timedelta(days=7)
"""Longest wait for slower ranks; the launcher ends ranks that hang."""
FOLDER = "RLASSAY_RANKS"
"""Environment variable of the launched processes: the folder for their signs of life."""
BEAT = 1.0
"""Seconds between two signs of life."""
STACKS = signal.SIGUSR2
"""The signal on which a rank prints the stacks of its threads."""
_PR_SET_PDEATHSIG = 1


def is_launched() -> bool:
    """Whether a launcher has started this process as one of several."""
    return FOLDER in os.environ


def rank() -> int:
    """Number of this process among those of its job, from 0."""
    return int(os.environ["RANK"]) if is_launched() else 0


def local_rank() -> int:
    """Number of this process among those of its job on this machine, from 0: the GPU that it uses."""
    return int(os.environ["LOCAL_RANK"]) if is_launched() else 0


def world_size() -> int:
    """Processes that share the job."""
    return int(os.environ["WORLD_SIZE"]) if is_launched() else 1


def spans_machines() -> bool:
    """Whether several machines share the job."""
    return is_launched() and int(os.environ["LOCAL_WORLD_SIZE"]) < world_size()


def is_main() -> bool:
    """Whether this process writes the files of the job."""
    return rank() == 0


def alive(folder: Path, number: int) -> Path:
    """The file that a rank keeps changing: `{"pid", "host", "beats", "ended"}`."""
    return folder / f"rank{number}.alive.json"


def refused(folder: Path) -> Path:
    """The file that says that the job was refused for a mistake of the user's."""
    return folder / "refused"


def note_refusal() -> None:
    """Tell the launcher that the job was refused, so that it ends with the exit code for that."""
    if is_launched():
        refused(Path(os.environ[FOLDER])).touch()


def show_life() -> None:
    """Print stacks when asked to, end with the launcher, and keep showing that this process runs.

    Nothing happens in a process that no launcher has started.
    """
    if not is_launched():
        return
    faulthandler.register(STACKS, file=sys.__stderr__ or sys.stderr, all_threads=True)
    die_with_parent(signal.SIGKILL)
    file, over = alive(Path(os.environ[FOLDER]), rank()), threading.Event()
    beating = threading.Thread(target=_beat, args=(file, over), daemon=True)
    beating.start()
    atexit.register(_end, over, beating)


def die_with_parent(number: int) -> None:
    """Have the kernel send this process a signal when its parent ends; Linux only, elsewhere nothing happens."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(number))


def _beat(file: Path, over: threading.Event) -> None:
    beats = 0
    while True:
        beats += 1
        ended = over.is_set()
        try:
            write_json(file, {"pid": os.getpid(), "host": platform.node(), "beats": beats, "ended": ended})
        except OSError:  # the launcher has ended and removed its folder
            return
        if ended:
            return
        over.wait(BEAT)


def _end(over: threading.Event, beating: threading.Thread) -> None:
    """Say that this process has ended, which a launcher on another machine cannot see."""
    over.set()
    beating.join(2 * BEAT)
