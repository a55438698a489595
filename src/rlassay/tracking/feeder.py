"""The process that feeds MLflow while a job works: `python -m rlassay.tracking.feeder`, started by `follow`.

It reads one JSON line from its standard input and feeds until that input ends, which it does however the job ends,
`kill -9` included; then it writes the rest within a bounded time and goes. All that it tells MLflow it reads from the
job's files, so that it can be killed at any moment and continued by another.
"""

import logging
import os
import select
import signal
import sys
import time
from pathlib import Path
from types import FrameType

from rlassay.config.policies import policies
from rlassay.config.study import Study
from rlassay.layout import Layout
from rlassay.tracking.process import FeedJob
from rlassay.tracking.store import Store, limit_waiting
from rlassay.tracking.sync import Feed, sync_policies, sync_report

NICENESS = 5  # training goes first, but a job at its end must not wait long for its feeder
PAUSES = (0.0, 1.0)  # seconds before each attempt at the end: what failed once may have been a busy moment


class Feeder:
    """Feeds one job's results, and complains at most once."""

    def __init__(self, job: FeedJob) -> None:
        self.job = job
        self.study = Study.model_validate_json(job.study)
        self.layout = Layout(root=Path(job.root))
        self._store: Store | None = None
        self._feed: Feed | None = None
        self._warned = False

    def attempt(self, last: bool = False) -> bool:
        """Bring the store up to date; False, and one line of warning, when that did not work."""
        try:
            self._update(last)
        except Exception as error:  # whatever is wrong with the tracker, training goes on
            self.warn(f"{type(error).__name__}: {error}")
            return False
        return True

    def _update(self, last: bool) -> None:
        if self._store is None:
            self._store = Store(self.job.uri, self.study.id, self.layout.tracking)
        if self.job.policy is None:
            sync_policies(self._store, self.study, self.layout, done=lambda what: None)
            if last:  # before, the job may be writing it
                sync_report(self._store, self.study, self.layout)
            return
        if self._feed is None:
            self._feed = Feed(self._store, self.study, self.layout, policies(self.study)[self.job.policy])
        if last:
            self._feed.finish()
        else:
            self._feed.update()

    def warn(self, reason: str) -> None:
        """One line, once."""
        if not self._warned:
            self._warned = True
            print(self.job.warning(reason), file=sys.stderr, flush=True)


def main() -> int:
    """Feed until standard input ends; 0 when the store then has everything."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # meant for the job, whose end is noticed anyway
    os.nice(NICENESS)
    logging.disable(logging.CRITICAL)  # MLflow and urllib3 repeat themselves; `warn` says it once
    limit_waiting(seconds=5, retries=0)
    feeder = Feeder(FeedJob.from_json(sys.stdin.readline()))
    feeder.attempt()
    while not select.select([sys.stdin], [], [], feeder.job.interval)[0]:
        feeder.attempt()
    _leave_in_time(feeder)
    for pause in PAUSES:
        time.sleep(pause)
        if feeder.attempt(last=True):
            return 0
    return 1


def _leave_in_time(feeder: Feeder) -> None:
    """End this process in time, wherever it hangs."""

    def leave(number: int, frame: FrameType | None) -> None:
        feeder.warn(f"it did not take everything within {feeder.job.patience} s")
        os._exit(1)

    signal.signal(signal.SIGALRM, leave)
    signal.alarm(feeder.job.patience)


if __name__ == "__main__":
    raise SystemExit(main())
