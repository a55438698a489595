"""Ranks of a job in several processes, and their signs of life for the launcher.

A launcher (`rlassay.cli.launch`) starts a job as several processes, ranks 0 to N - 1. Rank 0 alone writes the files of
the job. Every rank keeps changing a file in the launcher's folder, which shows that the rank runs and states for how
long it has made no progress and finished no step. The launcher ends all ranks if a file no longer changes, if no rank
makes progress, or if one ends.
"""

import atexit
import ctypes
import faulthandler
import os
import platform
import signal
import sys
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path

import psutil

from rlassay.files import write_json

LONGEST_WAIT = timedelta(days=7)
"""Longest wait for slower ranks; the launcher ends ranks that hang."""
FOLDER = "RLASSAY_RANKS"
"""Environment variable of the launched processes: the folder for their signs of life."""
BEAT = 1.0
"""Seconds between two signs of life."""
BUSY = 0.02
"""Least seconds of CPU time per second for a process to count as working."""
BUSY_CHILDREN = 0.3
"""The same for its child processes; MLflow's process, which mostly sleeps, uses less."""
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
    """Number of this process among its job's processes on this machine, from 0.

    It uses the GPU of that number.
    """
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
    """The file that a rank keeps changing.

    It has `{"pid", "host", "beats", "ended"}` and the seconds of `Progress`.
    """
    return folder / f"rank{number}.alive.json"


def refused(folder: Path) -> Path:
    """The file with the reason why the job was refused, for a user's mistake."""
    return folder / "refused"


def note_refusal(reason: str) -> None:
    """Pass the reason of a refusal to the launcher.

    The launcher prints the first one, and exits with the code of a refusal.
    """
    with suppress(FileExistsError), refused(Path(os.environ[FOLDER])).open("x", encoding="utf-8") as file:
        file.write(reason)


def show_life() -> None:
    """Start the signs of life; also print stacks on `STACKS`, and end with the launcher.

    It does nothing in a process that no launcher has started.
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
    """Have the kernel send this process a signal when its parent ends; does nothing outside of Linux."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(number))


class Progress:
    """Time for which the main thread has made no progress, measured by a second thread.

    The time in one place of the code (`idle`, `still`) counts while the process trains, answers or waits for other
    ranks (`watched`); before that it may wait for a download or a lock. The time since the last finished step
    (`stalled`) counts from the start, and also shows a loop that never ends. Neither grows while the process waits for
    something with a time limit of its own (`patient`).
    """

    def __init__(self) -> None:
        self.idle = 0.0
        """Seconds in which the main thread stayed in place and no CPU worked for it."""
        self.still = 0.0
        """Seconds in which the main thread stayed in place. The CPU may be busy, as when it waits for a GPU."""
        self.stalled = 0.0
        """Seconds since the last finished step, batch of answers or phase."""
        self._finished = self._seen = 0
        self._watched = 0
        self._patient = 0
        self._looked = time.monotonic()
        self._place: tuple[tuple[int, int], ...] = ()
        self._own = self._below = 0.0

    @contextmanager
    def watched(self) -> Generator[None, None, None]:
        """In the body the job ends if no rank makes progress."""
        self.finish_step()
        self._watched += 1
        try:
            yield
        finally:
            self._watched -= 1
            self.finish_step()

    @contextmanager
    def patient(self) -> Generator[None, None, None]:
        """Let this rank wait in the body for something with its own time limit.

        It must not wait for another rank.
        """
        self._patient += 1
        try:
            yield
        finally:
            self._patient -= 1

    def finish_step(self) -> None:
        """Note that a step, a batch of answers or a phase is done.

        One phase is the loading of the model.
        """
        self._finished += 1

    def look(self) -> None:
        """Compare with the last look; called by the thread that gives the signs of life."""
        # A process that was suspended has missed looks: one counts as two at most.
        passed, self._looked = min(time.monotonic() - self._looked, 2 * BEAT), time.monotonic()
        place, before = _place_of_main_thread(), self._place
        own, worked = time.process_time() - time.thread_time(), self._own
        self._place, self._own = place, own
        finished, seen = self._finished, self._seen
        self._seen = finished
        self.stalled = 0.0 if self._patient or finished != seen else self.stalled + passed
        if not self._watched or self._patient or place != before or _waits_for_disk():
            self.idle = self.still = 0.0
            return
        self.still += passed
        idle = own - worked < BUSY * passed and not self._children_work(passed)
        self.idle = self.idle + passed if idle else 0.0

    def _children_work(self, passed: float) -> bool:
        before, self._below = self._below, _cpu_seconds_of_children()
        return self._below - before > BUSY_CHILDREN * passed


PROGRESS = Progress()
"""The progress of this process."""


def _place_of_main_thread() -> tuple[tuple[int, int], ...]:
    """The position of the main thread in each function that it has entered."""
    main = threading.main_thread().ident
    assert main is not None
    frame = sys._current_frames().get(main)  # pyright: ignore[reportPrivateUsage]  # documented, whatever its name
    place: list[tuple[int, int]] = []
    while frame is not None:
        place.append((id(frame), frame.f_lasti))
        frame = frame.f_back
    return tuple(place)


def _waits_for_disk() -> bool:
    return psutil.Process().status() == psutil.STATUS_DISK_SLEEP


def _cpu_seconds_of_children() -> float:
    total = 0.0
    for child in psutil.Process().children(recursive=True):
        try:
            times = child.cpu_times()
        except psutil.Error:  # it has ended
            continue
        total += times.user + times.system
    return total


def _beat(file: Path, over: threading.Event) -> None:
    beats = 0
    while True:
        beats += 1
        ended = over.is_set()
        PROGRESS.look()
        sign = {"pid": os.getpid(), "host": platform.node(), "beats": beats, "ended": ended}
        try:
            write_json(file, sign | {"idle": PROGRESS.idle, "still": PROGRESS.still, "stalled": PROGRESS.stalled})
        except OSError:  # the launcher has ended and removed its folder
            return
        if ended:
            return
        over.wait(BEAT)


def _end(over: threading.Event, beating: threading.Thread) -> None:
    """Record that this process has ended, for a launcher on another machine."""
    over.set()
    beating.join(2 * BEAT)
