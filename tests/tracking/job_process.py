"""A job as `rlassay.cli` runs it, without the training: `python -m tests.tracking.job_process JSON`."""

import json
import sys
import time
from pathlib import Path
from typing import Any

from rlassay.config.settings import Settings, Tracking
from rlassay.layout import Layout
from rlassay.tracking import follow, process
from rlassay.training.process import locked, signals_as_exceptions
from tests.tracking.folders import STEPS, FakeJob, small_study

process.PATIENCE = 100  # machines that run tests are busy


def main(folder: str, root: str, uri: str, ends: str, first: int = 1) -> None:
    """Log steps from `first` on; then finish, crash, or wait for a signal, depending on `ends`."""
    study = small_study(("base", "plain", "third", "fourth"))
    layout = Layout(root=Path(root) / study.id)
    job = FakeJob.of(study, layout, folder)
    settings = Settings(results=root, tracking=Tracking(uri=uri, interval=0.2))
    layout.state(folder).mkdir(parents=True, exist_ok=True)
    with follow(study, layout, settings, folder), locked(layout.state(folder)), signals_as_exceptions():
        if first > 1:
            job.cut_back(first - 1)
        attempts = [(0, 0.0, 50.0), (first - 1, 60.0, None)] if first > 1 else [(0, 0.0, None)]
        job.note("running", attempts)
        try:
            _work(job, range(first, STEPS + 1), ends)
        except SystemExit:
            job.note("killed")
            raise
        except ValueError as error:
            job.note("failed", error=str(error))
            raise
        job.note("finished")


def _work(job: FakeJob, steps: range, ends: str) -> None:
    if ends == "crash":
        steps = range(steps.start, 3)
    elif ends == "wait":
        steps = range(steps.start, 5)
    for step in steps:
        job.log([step], at=float(steps.start))
        time.sleep(0.02)
    if ends == "crash":
        raise ValueError("out of ideas")
    if ends == "wait":
        print("waiting", flush=True)
        time.sleep(600)


if __name__ == "__main__":
    given: dict[str, Any] = json.loads(sys.argv[1])
    main(**given)
