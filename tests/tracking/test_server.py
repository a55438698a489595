"""Plain `mlflow ui` in the project root: what its web interface shows, and a sync through the same server."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rlassay.config import Settings
from rlassay.config.settings import Tracking
from rlassay.tracking import process
from rlassay.tracking.sync import sync_study
from tests.tracking.folders import STEPS, FakeJob, small_folder, small_study
from tests.tracking.reading import Reader


class Server:
    """A running `mlflow ui`."""

    def __init__(self, port: int) -> None:
        self.uri = f"http://127.0.0.1:{port}"

    def text(self, page: str, **query: str) -> str:
        """The answer to a GET request."""
        with urllib.request.urlopen(f"{self.uri}/{page}?{urllib.parse.urlencode(query)}", timeout=30) as answer:
            return answer.read().decode()

    def query_api(self, page: str, **query: str) -> Any:
        """The JSON answer of the tracking API."""
        return json.loads(self.text(f"ajax-api/2.0/mlflow/{page}", **query))

    def wait(self, process: "subprocess.Popen[bytes]") -> None:
        """Return when it answers."""
        end = time.monotonic() + 120
        while time.monotonic() < end and process.poll() is None:
            try:
                assert self.text("health") == "OK"
                return
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.2)
        raise AssertionError("mlflow ui did not start")


@pytest.fixture
def server(reader: Reader, tmp_path: Path) -> Iterator[Server]:
    """`mlflow ui` as a user starts it, in the folder of the database; only its port is chosen."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    command = [Path(sys.executable).with_name("mlflow"), "ui", "--port", str(port), "--workers", "1"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW")}
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        env=environment | {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        found = Server(port)
        found.wait(process)
        yield found
    finally:
        process.terminate()
        process.wait(30)


def test_mlflow_ui_shows_runs_and_artifacts_and_accepts_a_sync_over_http(
    reader: Reader, tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = small_study()
    job = FakeJob.of(study, small_folder(tmp_path / "results", study), "runs/base/seed1")
    job.note("finished")
    job.log(range(1, STEPS + 1))
    job.roll_out(1)
    sync_study(study, job.layout, reader.uri)

    experiment = server.query_api("experiments/get-by-name", experiment_name="small")["experiment"]
    run_id = reader.run("base seed 1 rl").info.run_id
    history = server.query_api("metrics/get-history", run_id=run_id, metric_key="reward")["metrics"]
    assert [point["step"] for point in history] == list(range(1, STEPS + 1))
    listed = server.query_api("artifacts/list", run_id=run_id)["files"]
    assert [file["path"] for file in listed] == ["config.yaml", "rollouts.json"]
    assert json.loads(server.text("get-artifact", run_id=run_id, path="rollouts.json"))["columns"][0] == "step"
    assert experiment["artifact_location"] == str(tmp_path / "mlartifacts/small")

    # The same folder fed through the server: a study of another name, artifacts uploaded over HTTP.
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")
    job.study = study.model_copy(update={"name": "remote"})
    assert sync_study(job.study, job.layout, server.uri) == 2 * STEPS
    assert sync_study(job.study, job.layout, server.uri) == 0
    remote = reader.runs("remote")["base seed 1 rl"][0]
    assert remote.info.status == "FINISHED"
    assert json.loads(server.text("get-artifact", run_id=remote.info.run_id, path="rollouts.json"))["data"] != []

    # A job whose settings name the server feeds it while it runs.
    monkeypatch.setattr(process, "PATIENCE", 90)
    job.study = study.model_copy(update={"name": "fed"})
    settings = Settings(tracking=Tracking(uri=server.uri, interval=0.2))
    with process.follow(job.study, job.layout, settings, "runs/base/seed1"):
        pass
    fed = reader.runs("fed")["base seed 1 rl"][0]
    points = server.query_api("metrics/get-history", run_id=fed.info.run_id, metric_key="reward")["metrics"]
    assert [point["step"] for point in points] == list(range(1, STEPS + 1))
