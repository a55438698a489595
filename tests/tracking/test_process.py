"""Jobs that feed MLflow while they work: real processes, a real store, and trackers that are down or slow."""

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psutil
import pytest

from rlassay.config.settings import Settings, Tracking
from rlassay.tracking import follow
from rlassay.tracking.sync import sync_study
from tests.tracking.folders import STEPS, FakeJob, small_folder, small_study
from tests.tracking.reading import Reader

ROOT = Path(__file__).parents[2]
ARMS = ("base", "plain", "third", "fourth")
ALL = [(step, step / 10) for step in range(1, STEPS + 1)]


def start(results: Path, uri: str, arm: str, ends: str, first: int = 1) -> subprocess.Popen[str]:
    """A job process in a process group of its own; it prints `waiting` when it waits for a signal."""
    given = {"folder": f"runs/{arm}/seed1", "root": str(results), "uri": uri, "ends": ends, "first": first}
    return subprocess.Popen(
        [sys.executable, "-m", "tests.tracking.job_process", json.dumps(given)],
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def until(holds: Callable[[], bool], seconds: float = 60.0) -> None:
    """Wait until something holds."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "the condition never held"
        time.sleep(0.05)


def wait_for_signal(job: subprocess.Popen[str]) -> None:
    """Return when the job has logged its steps and waits."""
    assert job.stdout is not None
    assert job.stdout.readline() == "waiting\n"


def stored_steps(database: Path, key: str = "reward") -> list[int]:
    """The steps of `reward` in a store that may not be there yet."""
    with suppress(sqlite3.OperationalError), closing(sqlite3.connect(database)) as connection:
        found = connection.execute("SELECT step FROM metrics WHERE key = ? ORDER BY step", (key,))
        return [step for (step,) in found]
    return []


def test_four_jobs_create_one_store_that_shows_how_each_ended(tmp_path: Path) -> None:
    study = small_study(ARMS)
    small_folder(tmp_path, study)
    database = tmp_path / "mlflow.db"
    ends = dict(zip(ARMS, ("finish", "crash", "wait", "wait"), strict=True))
    jobs = {arm: start(tmp_path, f"sqlite:///{database}", arm, how) for arm, how in ends.items()}
    wait_for_signal(jobs["third"])
    jobs["third"].terminate()
    wait_for_signal(jobs["fourth"])
    (feeder,) = psutil.Process(jobs["fourth"].pid).children()
    os.killpg(jobs["fourth"].pid, signal.SIGKILL)
    printed = {arm: job.communicate(timeout=120) for arm, job in jobs.items()}
    assert [jobs[arm].returncode for arm in ARMS] == [0, 1, 128 + signal.SIGTERM, -signal.SIGKILL], printed
    until(lambda: not feeder.is_running())  # it ends without anyone waiting for it
    warnings = [line for _, errors in printed.values() for line in errors.splitlines() if "warning" in line]
    assert warnings == []

    reader = Reader(database)
    found = {arm: reader.run(f"{arm} seed 1 rl") for arm in ARMS}
    assert [found[arm].info.status for arm in ARMS] == ["FINISHED", "FAILED", "KILLED", "KILLED"]
    assert [reader.run(arm).info.status for arm in ARMS] == ["FINISHED", "FAILED", "KILLED", "KILLED"]
    steps = [[step for step, _ in reader.points(found[arm], "reward")] for arm in ARMS]
    assert steps == [[1, 2, 3, 4, 5, 6], [1, 2], [1, 2, 3, 4], [1, 2, 3, 4]]
    with closing(sqlite3.connect(database)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_after_kill_9_of_job_and_feeder_the_next_attempt_continues_the_same_run(reader: Reader, tmp_path: Path) -> None:
    small_folder(tmp_path, small_study(ARMS))
    killed = start(tmp_path, reader.uri, "base", "wait")
    wait_for_signal(killed)
    (feeder,) = psutil.Process(killed.pid).children()
    until(lambda: stored_steps(reader.path) != [])
    feeder.kill()
    killed.kill()
    killed.communicate(timeout=60)
    run = reader.run("base seed 1 rl")
    assert run.info.status == "RUNNING"  # no process was left to update it

    resumed = start(tmp_path, reader.uri, "base", "finish", first=3)
    assert resumed.wait(timeout=120) == 0, resumed.communicate()
    resumed.communicate()
    after = reader.run("base seed 1 rl")
    assert (after.info.run_id, after.info.status) == (run.info.run_id, "FINISHED")
    assert reader.points(after, "reward") == ALL
    assert reader.duplicates() == []


@pytest.fixture
def job(tmp_path: Path) -> FakeJob:
    study = small_study()
    return FakeJob.of(study, small_folder(tmp_path, study), "runs/base/seed1")


def work(job: FakeJob, uri: str) -> float:
    """Do a job's work while MLflow at `uri` is fed; return how long the end of `follow` took, seconds."""
    settings = Settings(study="small", results=str(job.layout.root.parent), tracking=Tracking(uri=uri, interval=0.2))
    with follow(job.study, job.layout, settings, job.policy.folder):
        begun = time.monotonic()
        job.note("running")
        job.log(range(1, STEPS + 1))
        job.note("finished")
        worked = time.monotonic() - begun
        assert worked < 20  # the body does not wait for MLflow
        time.sleep(1.0)
        begun = time.monotonic()
    return time.monotonic() - begun


def test_a_tracker_that_is_down_gives_one_warning(
    job: FakeJob, reader: Reader, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rlassay.tracking.process.PATIENCE", 100)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        uri = f"http://127.0.0.1:{unused.getsockname()[1]}"
        assert work(job, uri) < 100  # most of it is the import of MLflow
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith(f"warning: MLflow at {uri} is behind (")
    assert line.endswith(f"rlassay mlflow-sync --study small --results {job.layout.root.parent} --uri {uri}")

    sync_study(job.study, job.layout, reader.uri)  # the warning's command, with the tracker back
    assert reader.points(reader.run("base seed 1 rl"), "reward") == ALL


class Sleeper(BaseHTTPRequestHandler):
    """Answers nothing for a long time."""

    def do_GET(self) -> None:
        time.sleep(60)

    do_POST = do_GET


@pytest.fixture
def slow_server() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Sleeper)
    server.daemon_threads = True
    server.block_on_close = False
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_a_tracker_that_hangs_is_waited_for_a_bounded_time(
    job: FakeJob, slow_server: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rlassay.tracking.process.PATIENCE", 2)
    assert 1.0 < work(job, slow_server) < 50  # the server sleeps for 60 s
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith(f"warning: MLflow at {slow_server} is behind (")


def test_the_machine_is_measured_while_a_job_trains_if_asked_for(
    job: FakeJob, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.2")
    key = "system/cpu_utilization_percentage"
    for asked in (False, True):
        tracking = Tracking(uri=reader.uri, interval=0.2, system_metrics=asked)
        with follow(job.study, job.layout, Settings(tracking=tracking), job.policy.folder), job.at_work():
            job.note("running")
            job.log([1 + asked])
            until(lambda asked=asked: len(stored_steps(reader.path)) == 1 + asked)
            if asked:
                until(lambda: len(stored_steps(reader.path, key)) > 1)
        assert (stored_steps(reader.path, key) != []) == asked
    steps = stored_steps(reader.path, key)
    assert steps == sorted(set(steps))


def test_errors_of_the_body_are_raised(job: FakeJob, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "rlassay.tracking.process.sys.executable", "/no/such/python"
    )  # the feeder does not start either
    settings = Settings(tracking=Tracking(uri="sqlite:////nowhere/mlflow.db"))
    with pytest.raises(ValueError, match="the work"), follow(job.study, job.layout, settings, "runs/base/seed1"):
        raise ValueError("the work")


def test_nothing_is_started_when_tracking_is_off(job: FakeJob) -> None:
    before = psutil.Process().children()  # other tests may have left a worker process
    with follow(job.study, job.layout, Settings(tracking=Tracking(enabled=False)), "runs/base/seed1"):
        assert psutil.Process().children() == before
