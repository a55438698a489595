"""The smallest study on a real Slurm of two nodes, with kills, a requeue, a drained node and a cancelled job."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.cluster.slurm import ask, cluster, jobs, missing
from tests.workflow.project import Project, Started
from tests.workflow.test_crashes import comparable, job_at, manifest, wait_for

SEEDS = ("runs/sharp/seed1", "runs/sharp/seed2")


@pytest.fixture(scope="module")
def slurm() -> Iterator[Path]:
    reason = missing()
    if reason is not None:
        pytest.skip(reason)
    with cluster() as folder:
        yield folder


@pytest.fixture
def project(slurm: Path, finished: Project, tmp_path: Path) -> Iterator[Project]:
    """The finished project with one arm and the report unmade; nothing that it starts outlives the test."""
    project = finished.copy(tmp_path / "project")
    for unmade in ("runs/sharp", "report"):
        shutil.rmtree(project.results / unmade)
    yield project
    ask("scancel", "--user=root")
    for process in psutil.process_iter(["cwd"]):
        if process.info["cwd"] == str(project.folder):
            process.kill()


def start(project: Project) -> Started:
    """Start a Snakemake that sends the study's jobs to Slurm."""
    command = ["snakemake", "--profile", "profiles/slurm", "ablation_report", "--config", "study=smallest"]
    return project.start(*command)


def test_a_study_on_slurm_ends_with_the_numbers_of_a_local_run(project: Project, finished: Project):
    # 1. Snakemake is killed; its jobs live on.
    first = start(project)
    wait_for(job_at(project, SEEDS[0], attempt=1, step=2)).suspend()  # so that it cannot finish before it is requeued
    wait_for(lambda: len(jobs("rl_train")) == 2)
    first.process.kill()
    first.process.wait()
    (job,) = jobs(f"rl_train_wildcards_{SEEDS[0].replace('/', '_')}")
    asked = ask("scontrol", "show", "job", job)
    assert "TimeLimit=1-00:00:00" in asked
    assert "mem=2500M" in asked

    # 2. One job is requeued, as preemption does; a node is drained: its job goes on, no other starts there.
    ask("scontrol", "requeue", job)
    ask("scontrol", "update", "nodename=n2", "state=drain", "reason=test")

    # 3. The next Snakemake finds both, waits, and sends neither again. One job is cancelled, and sent again.
    second = start(project)
    cancelled = wait_for(lambda: jobs("generate", "RUNNING"))[0]
    ask("scancel", cancelled)
    ask("scontrol", "update", "nodename=n2", "state=resume")
    printed = second.end()

    assert "jobs that an earlier Snakemake has sent to Slurm" in printed
    assert f"{job} (" in printed
    assert len(jobs("rl_train")) == 2
    assert len(jobs("generate")) == 3  # two, and the cancelled one
    assert manifest(project, SEEDS[0])["resumes"][0]["step"] >= 1
    for run in SEEDS:
        assert manifest(project, run)["sha256"] == manifest(finished, run)["sha256"]
    assert comparable(project) == comparable(finished)
    assert "Page: results/smallest/report/index.html" in printed  # the verdicts, which a job printed on its node

    # 4. The log has both attempts, and a job had as many threads as it asked for.
    log = (project.results / "logs" / SEEDS[0] / "train.log").read_text()
    assert log.count("== ") >= 2

    # 5. What ended while no Snakemake ran is known like the rest: a change of the study makes it again.
    project.edit("config/studies/smallest.yaml", "temperature: 0.7", "temperature: 0.8")
    assert {f"Train {run}" for run in SEEDS} <= project.planned()
