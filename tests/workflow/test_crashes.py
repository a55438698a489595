"""After `kill -9` of a job, of Snakemake, of everything, the same command goes on, to the same weights and report."""

import json
import random
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import psutil
import pytest

from tests.workflow.project import Project

RUN = "runs/sharp/seed1"
FoundT = TypeVar("FoundT")


@pytest.fixture
def project(finished: Project, tmp_path: Path) -> Iterator[Project]:
    """The finished project with one arm and the report unmade; nothing that it starts outlives the test."""
    project = finished.copy(tmp_path / "project")
    for unmade in ("runs/sharp", "report"):
        shutil.rmtree(project.results / unmade)
    yield project
    end_all(project)


def end_all(project: Project) -> None:
    """End every process that works in the project's folder."""
    for process in psutil.process_iter(["cwd"]):
        if process.info["cwd"] == str(project.folder):
            process.kill()


def wait_for(look: Callable[[], FoundT | None], seconds: float = 400) -> FoundT:
    """What `look` finds, as soon as it finds something."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = look()
        if found:
            return found
        time.sleep(0.02)
    raise TimeoutError("waited in vain")


def job_at(project: Project, attempt: int, step: int, run: str = RUN) -> Callable[[], psutil.Process | None]:
    """Looks for the process that trains a run, once its given attempt has logged a step."""

    def look() -> psutil.Process | None:
        state = project.results / run / "state"
        try:
            about = json.loads((state / "run.json").read_text())
            steps = [json.loads(line)["step"] for line in (state / "metrics.jsonl").read_text().splitlines()]
        except (FileNotFoundError, json.JSONDecodeError):
            return None
        reached = len(about["attempts"]) == attempt and steps and steps[-1] >= step
        return psutil.Process(about["pid"]) if reached else None

    return look


def comparable(project: Project) -> dict[str, Any]:
    """`report.json` without what differs between runs of the same: times, machines, resumes and addresses in MLflow."""
    content = json.loads((project.results / "report/report.json").read_text())
    return {key: value for key, value in content.items() if key not in ("cost", "resumes", "provenance", "mlflow")}


def manifest(project: Project, run: str = RUN) -> dict[str, Any]:
    return json.loads((project.results / run / "train.json").read_text())


def doubled_metrics(project: Project) -> list[tuple[object, ...]]:
    """Metrics that MLflow holds more than once for one run and step."""
    question = "select run_uuid, key, step from metrics group by run_uuid, key, step having count(*) > 1"
    with sqlite3.connect(project.folder / "mlflow.db") as store:
        return store.execute(question).fetchall()


def test_whatever_is_killed_the_same_command_goes_on(project: Project, finished: Project):
    # 1. A job is killed; meanwhile a second Snakemake is refused, and the first goes on with the rest.
    first = project.start_snakemake()
    wait_for(job_at(project, attempt=1, step=2)).kill()
    assert "Another Snakemake is running on results/smallest" in project.snakemake(fails=True)
    first.end(fails=True)

    # 2. Snakemake is killed; its job lives on, here frozen, and the next Snakemake is told so.
    second = project.start_snakemake()
    orphan = wait_for(job_at(project, attempt=2, step=3))
    second.process.kill()
    second.process.wait()
    orphan.suspend()
    assert f"in use by process {orphan.pid}" in project.snakemake(fails=True)
    orphan.kill()

    # 3. Everything is killed, at any time.
    seconds = random.uniform(2, 12)
    print(f"killing everything after {seconds:.2f} s")
    third = project.start_snakemake()
    time.sleep(seconds)
    third.kill_all()

    project.snakemake()

    steps = [resume["step"] for resume in manifest(project)["resumes"]]
    assert len(steps) >= 2
    assert min(steps) > 0
    for run in (RUN, "runs/sharp/seed2"):
        assert manifest(project, run)["sha256"] == manifest(finished, run)["sha256"]
    assert comparable(project) == comparable(finished)
    assert doubled_metrics(project) == []
