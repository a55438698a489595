"""Feed MLflow from the files of a job, in a process beside it: the job neither imports MLflow nor waits for it."""

import json
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass

from rlassay.config.settings import Settings
from rlassay.config.study import Study
from rlassay.layout import Layout

# MERGED FROM tracking.job: What a job tells the process that feeds MLflow for it.


@dataclass(frozen=True, kw_only=True)
class FeedJob:
    """The one line that the feeding process reads."""

    study: str
    """The resolved study, as JSON."""
    root: str
    """Folder of its results."""
    policy: str | None
    """The policy that the job works on; None feeds the whole study."""
    uri: str
    """Tracking URI."""
    interval: float
    """Seconds between two batches."""
    patience: int
    """Seconds after the end of the job within which MLflow must have taken the rest."""
    backfill: str
    """The command that writes later what is missing now."""

    def to_json(self) -> str:
        """The line."""
        return json.dumps(asdict(self)) + "\n"

    @classmethod
    def from_json(cls, line: str) -> "FeedJob":
        """The job behind a line of `to_json`."""
        return cls(**json.loads(line))

    def warning(self, reason: str) -> str:
        """One line for the user."""
        first = " ".join(reason.split())[:200]
        return (
            f"warning: MLflow at {self.uri} is behind ({first}). The files on disk are complete and nothing waits "
            f"for it; to fill it in later: {self.backfill}"
        )


# MERGED FROM tracking.process: Feed MLflow from the files of a job, in a process beside it: the job neither
# imports MLflow nor waits for it.

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
