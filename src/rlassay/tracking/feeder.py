"""The process that feeds MLflow during a job: `python -m rlassay.tracking.feeder`, started by `follow`.

It is a separate program because it imports MLflow, which a job must not (see `process.py`). It reads one JSON line from
its standard input and feeds until that input ends, which happens however the job ends, `kill -9` included. Then it
writes the rest within a bounded time and exits. Everything that it sends to MLflow comes from the job's files, so that
it can be killed at any time and another one can continue.
"""

import logging
import os
import select
import signal
import sys
import time
from pathlib import Path
from types import FrameType

from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

from rlassay.config.policies import policies
from rlassay.config.study import Study
from rlassay.layout import Layout
from rlassay.tracking.process import FeedJob
from rlassay.tracking.store import Store, limit_waiting
from rlassay.tracking.sync import Feed, sync_policies, sync_report

NICENESS = 5  # training has priority, but a job must not wait long for its feeder at the end
PAUSES = (0.0, 1.0)  # seconds before each attempt at the end: a failure may be due to a busy moment


class Feeder:
    """Feeds one job's results to MLflow, and warns at most once."""

    def __init__(self, job: FeedJob) -> None:
        self.job = job
        self.study = Study.model_validate_json(job.study)
        self.layout = Layout(root=Path(job.root))
        self._store: Store | None = None
        self._feed: Feed | None = None
        self._monitor: SystemMetricsMonitor | None = None
        self._warned = False

    def attempt(self, last: bool = False) -> bool:
        """Bring the store up to date; on failure warn in one line and return False."""
        try:
            self._update(last)
        except Exception as error:  # no error of the tracker may stop training
            self.warn(f"{type(error).__name__}: {error}")
            return False
        return True

    def _update(self, last: bool) -> None:
        if self._store is None:
            self._store = Store(self.job.uri, self.study.id, self.layout.tracking)
        if self.job.policy is None:
            sync_policies(self._store, self.study, self.layout, done=lambda _: None)
            if last:  # earlier, the job may still be writing it
                sync_report(self._store, self.study, self.layout, self.job.register_champion)
            return
        if self._feed is None:
            self._feed = Feed(self._store, self.study, self.layout, policies(self.study)[self.job.policy])
        if last:
            if self._monitor is not None:
                self._monitor.finish()  # before the run ends: it writes to no other
            self._feed.finish()
        else:
            self._feed.update()
            self._watch_machine(self._feed.run_id)

    def _watch_machine(self, run_id: str) -> None:
        """Have MLflow measure the machine for a run, if the settings request it; an empty id means no run yet."""
        if self.job.system_metrics and self._monitor is None and run_id:
            self._monitor = SystemMetricsMonitor(run_id, resume_logging=True, tracking_uri=self.job.uri)
            self._monitor.start()

    def warn(self, reason: str) -> None:
        """Print one warning line, once."""
        if not self._warned:
            self._warned = True
            print(self.job.warning(reason), file=sys.stderr, flush=True)


def main() -> int:
    """Feed until standard input ends; return 0 if the store then has everything."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # meant for the job; its end closes our input
    os.nice(NICENESS)
    logging.disable(logging.CRITICAL)  # MLflow and urllib3 repeat their warnings; `warn` prints one
    limit_waiting(seconds=5, retries=0)
    feeder = Feeder(FeedJob.from_json(sys.stdin.readline()))
    feeder.attempt()
    while not select.select([sys.stdin], [], [], feeder.job.interval)[0]:
        feeder.attempt()
    _exit_in_time(feeder)
    for pause in PAUSES:
        time.sleep(pause)
        if feeder.attempt(last=True):
            return 0
    return 1


def _exit_in_time(feeder: Feeder) -> None:
    """End this process after `patience` seconds, even if it hangs."""

    def exit_late(number: int, frame: FrameType | None) -> None:
        feeder.warn(f"it did not accept everything within {feeder.job.patience} s")
        os._exit(1)

    signal.signal(signal.SIGALRM, exit_late)
    signal.alarm(feeder.job.patience)


if __name__ == "__main__":
    raise SystemExit(main())
