"""The job's side of tracking: start and end a process that feeds MLflow.

The process reads the job's files. The job neither imports MLflow (which takes seconds) nor waits for it, so this module
must not import it either. The feeding process is `feeder.py`, a program of its own.
"""

import json
import shlex
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass

from rlassay.config.settings import Settings
from rlassay.config.study import Study
from rlassay.layout import Layout

PATIENCE = 10
"""Most seconds that a training job's end waits for MLflow to accept the rest."""
REPORT_PATIENCE = 90
"""Longest time, seconds, for the report, which syncs every run of the study; no later job waits for it."""


@dataclass(frozen=True, kw_only=True)
class FeedJob:
    """Settings of the feeding process, sent to it as one JSON line."""

    study: str
    """The resolved study, as JSON."""
    root: str
    """Folder of the study's results."""
    policy: str | None
    """Folder of the policy that the job trains; None feeds the whole study."""
    uri: str
    """Tracking URI."""
    interval: float
    """Seconds between two batches."""
    patience: int
    """Seconds after the end of the job within which MLflow must accept the rest."""
    system_metrics: bool
    """Whether the use of the machine is measured while the job trains."""
    register_champion: bool
    """Whether the best arm of a finished study is registered as a model."""
    backfill: str
    """The command that writes missing values later."""

    def to_json(self) -> str:
        """The settings as one line."""
        return json.dumps(asdict(self)) + "\n"

    @classmethod
    def from_json(cls, line: str) -> "FeedJob":
        """The settings from a line of `to_json`."""
        return cls(**json.loads(line))

    def warning(self, reason: str) -> str:
        """A warning of one line for the user."""
        first = " ".join(reason.split())[:200]
        return (
            f"warning: MLflow at {self.uri} is behind ({first}). The files on disk are complete and nothing waits "
            f"for it; to fill it in later: {self.backfill}"
        )


@contextmanager
def follow(study: Study, layout: Layout, settings: Settings, policy: str | None = None) -> Generator[None]:
    """Keep MLflow up to date while the body runs; errors of MLflow never reach the body.

    At the end it waits a bounded time for the rest to be written. The MLflow run shows how the body ended: finished,
    failed or killed.

    Args:
        study: the study.
        layout: paths of its files.
        settings: `tracking` decides whether, where and how often.
        policy: folder of the policy that the body trains; None syncs the whole study, including the report.
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
        patience=REPORT_PATIENCE if policy is None else PATIENCE,
        system_metrics=settings.tracking.system_metrics,
        register_champion=settings.tracking.register_champion,
        backfill=backfill_command(settings),
    )
    feeder = _start(job)
    try:
        yield
    finally:
        if feeder is not None:
            _finish(feeder, job)


def backfill_command(settings: Settings) -> str:
    """The command that writes missing values to MLflow."""
    scale = [] if settings.scale is None else ["--scale", settings.scale]
    scale += [] if settings.engine is None else ["--engine", settings.engine]
    where = ["--results", settings.results, "--uri", settings.tracking.uri]
    return shlex.join(["rlassay", "mlflow-sync", "--study", settings.study, *scale, *where])


def _start(job: FeedJob) -> "subprocess.Popen[str] | None":
    command = [sys.executable, "-m", "rlassay.tracking.feeder"]
    try:
        # In its own session, so that Ctrl-C ends only the job: the feeder then writes how the job ended.
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
    with suppress(OSError):  # the feeder has already ended
        feeder.stdin.close()
    try:
        feeder.wait(job.patience + 2)
    except subprocess.TimeoutExpired:
        feeder.kill()
        feeder.wait()
        print(job.warning("the feeder does not end"), file=sys.stderr)
