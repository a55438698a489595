"""Feed MLflow from the files of a job, in a process beside it: the job neither imports MLflow nor waits for it."""

import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from rlassay.config.settings import Settings
from rlassay.config.study import Study
from rlassay.layout import Layout
from rlassay.tracking.job import FeedJob

PATIENCE = 10
"""Seconds that a training job waits, at most, for MLflow to take the rest."""
PATIENCE_AT_THE_END = 90
"""The same for the report, which brings every run of the study up to date and which no job waits for."""


@contextmanager
def follow(study: Study, layout: Layout, settings: Settings, policy: str | None = None) -> Iterator[None]:
    """Keep MLflow up to date while the body runs; nothing that goes wrong with MLflow reaches the body.

    At the end it waits a bounded time for the rest to be written. However the body ends, the run says so: finished,
    failed, or killed.

    Args:
        study: the study.
        layout: where its files lie.
        settings: `tracking` says whether, where and how often.
        policy: folder of the policy that the body trains; None brings the whole study up to date, report included.
    """
    if not settings.tracking.enabled:
        yield
        return
    job = FeedJob(
        study=study.model_dump_json(),
        root=str(layout.root),
        policy=policy,
        uri=settings.tracking.uri,
        interval=settings.tracking.interval,
        patience=PATIENCE_AT_THE_END if policy is None else PATIENCE,
        backfill=backfill_command(settings),
    )
    feeder = _start(job)
    try:
        yield
    finally:
        if feeder is not None:
            _finish(feeder, job)


def backfill_command(settings: Settings) -> str:
    """The command that writes to MLflow what it lacks."""
    scale = [] if settings.scale is None else ["--scale", settings.scale]
    where = ["--results", settings.results, "--uri", settings.tracking.uri]
    return shlex.join(["rlassay", "mlflow-sync", "--study", settings.study, *scale, *where])


def _start(job: FeedJob) -> "subprocess.Popen[str] | None":
    command = [sys.executable, "-m", "rlassay.tracking.feeder"]
    try:
        # A session of its own: Ctrl-C at the terminal ends the job, and the feeder then writes how it ended.
        feeder = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, start_new_session=True
        )
        assert feeder.stdin is not None
        feeder.stdin.write(job.to_json())
        feeder.stdin.flush()
    except OSError as error:
        print(job.warning(str(error)), file=sys.stderr)
        return None
    return feeder


def _finish(feeder: "subprocess.Popen[str]", job: FeedJob) -> None:
    assert feeder.stdin is not None
    with suppress(OSError):  # it is gone already
        feeder.stdin.close()
    try:
        feeder.wait(job.patience + 2)
    except subprocess.TimeoutExpired:
        feeder.kill()
        feeder.wait()
        print(job.warning("it hangs"), file=sys.stderr)
