"""After `kill -9` of a job, of Snakemake, of everything, the same command goes on, to the same weights and report.

Seeds come in rounds, so that there are looks to kill too.
"""

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

RUN = "runs/sharp/seed3"
LOOKS = ("looks/look1.json", "looks/look2.json")
FoundT = TypeVar("FoundT")


@pytest.fixture
def in_rounds(finished: Project, tmp_path: Path) -> Iterator[Callable[[str], Project]]:
    """Makes copies of the finished project whose study has rounds: look 1 has all its runs, look 2 needs two more."""
    made: list[Project] = []

    def make(name: str) -> Project:
        project = finished.copy(tmp_path / name)
        made.append(project)
        project.edit("config/studies/smallest.yaml", "seeds: [1, 2]", "seeds: {start: 2, max: 3, stop: decided}")
        shutil.rmtree(project.results / "report")
        return project

    yield make
    for project in made:
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


def job_at(project: Project, run: str, *, attempt: int, step: int) -> Callable[[], psutil.Process | None]:
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


def manifest(project: Project, run: str) -> dict[str, Any]:
    return json.loads((project.results / run / "train.json").read_text())


def doubled_metrics(project: Project) -> list[tuple[object, ...]]:
    """Metrics that MLflow holds more than once for one run and step."""
    question = "select run_uuid, key, step from metrics group by run_uuid, key, step having count(*) > 1"
    with sqlite3.connect(project.folder / "mlflow.db") as store:
        return store.execute(question).fetchall()


def trained(project: Project) -> dict[str, int]:
    """Run -> when it was finished, in nanoseconds."""
    manifests = sorted(project.results.glob("runs/*/*/train.json"))
    return {str(file.parent.relative_to(project.results)): file.stat().st_mtime_ns for file in manifests}


def kill_everything(project: Project, moment: Callable[[], object]) -> tuple[dict[str, int], int]:
    """Start the study and kill everything at a moment; the runs that were finished then, and the number of looks."""
    started = project.start_snakemake()
    wait_for(moment)
    started.kill_all()
    return trained(project), sum((project.results / look).exists() for look in LOOKS)


def kill_a_job(project: Project) -> None:
    """Kill a job; meanwhile a second Snakemake is refused, and the first goes on with the rest."""
    first = project.start_snakemake()
    wait_for(job_at(project, RUN, attempt=1, step=2)).kill()
    assert "Another Snakemake is running on results/smallest" in project.snakemake(fails=True)
    first.end(fails=True)
    assert set(trained(project)) >= {RUN.replace("sharp", "plain")}


def kill_snakemake(project: Project) -> None:
    """Kill Snakemake; its job lives on, here frozen, and the next Snakemake says so."""
    second = project.start_snakemake()
    orphan = wait_for(job_at(project, RUN, attempt=2, step=3))
    second.process.kill()
    second.process.wait()
    orphan.suspend()
    assert f"in use by process {orphan.pid}" in project.snakemake(fails=True)
    orphan.kill()


def after(seconds: float) -> Callable[[], bool]:
    """Whether so many seconds have passed from now on."""
    end = time.monotonic() + seconds
    return lambda: time.monotonic() > end


def test_whatever_is_killed_the_same_command_goes_on(in_rounds: Callable[[str], Project]):
    undisturbed, killed = in_rounds("undisturbed"), in_rounds("killed")
    printed = undisturbed.snakemake()
    assert "Look 1 of 2 at 2 seeds: continue: 'sharp'" in printed
    assert "Look 2 of 2 at 3 seeds" in printed
    before = trained(killed)

    in_look_1 = kill_everything(killed, (killed.results / "logs/decide-1.log").exists)
    kill_a_job(killed)
    kill_snakemake(killed)
    seconds = random.uniform(2, 12)
    print(f"killing everything after {seconds:.2f} s")
    at_any_time = kill_everything(killed, after(seconds))
    with_look_2 = kill_everything(killed, (killed.results / LOOKS[1]).exists)
    last = killed.snakemake()

    assert in_look_1 == (before, 0)
    assert with_look_2 == (trained(killed), 2)
    assert at_any_time[0].items() <= trained(killed).items()  # no run is trained again once it is finished
    steps = [resume["step"] for resume in manifest(killed, RUN)["resumes"]]
    assert len(steps) >= 2
    assert min(steps) > 0
    assert trained(killed).keys() == trained(undisturbed).keys() > before.keys()
    for run in trained(killed):
        assert manifest(killed, run)["sha256"] == manifest(undisturbed, run)["sha256"]
    for look in LOOKS:
        assert (killed.results / look).read_bytes() == (undisturbed.results / look).read_bytes()
    assert comparable(killed) == comparable(undisturbed)
    assert all(verdict["sentence"] in last for verdict in comparable(undisturbed)["verdicts"])
    assert doubled_metrics(killed) == []
    assert killed.planned() == set()
