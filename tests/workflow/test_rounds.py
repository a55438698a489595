"""Seeds in rounds, killed while a look decides and while a round trains: the same command ends as without a kill."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.workflow.project import Project
from tests.workflow.test_crashes import comparable, end_all, job_at, manifest, wait_for

NEW_RUN = "runs/sharp/seed3"
LOOKS = ("looks/look1.json", "looks/look2.json")


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


def trained(project: Project) -> dict[str, int]:
    """Run -> when it was finished, in nanoseconds."""
    manifests = sorted(project.results.glob("runs/*/*/train.json"))
    return {str(file.parent.relative_to(project.results)): file.stat().st_mtime_ns for file in manifests}


def test_rounds_of_seeds_that_are_killed_end_as_those_that_are_not(in_rounds: Callable[[str], Project]):
    undisturbed, killed = in_rounds("undisturbed"), in_rounds("killed")
    first = undisturbed.snakemake()
    assert "Look 1 of 2 at 2 seeds: continue: 'sharp'" in first
    assert "Look 2 of 2 at 3 seeds" in first
    before = trained(killed)

    # 1. While look 1 decides; 2. while its round trains; 3. when look 2 has written what it decided.
    moments: list[Callable[[], object]] = [
        (killed.results / "logs/decide-1.log").exists,
        job_at(killed, attempt=1, step=2, run=NEW_RUN),
        (killed.results / LOOKS[1]).exists,
    ]
    finished_at_kill: list[dict[str, int]] = []
    looks_at_kill: list[int] = []
    for moment in moments:
        started = killed.start_snakemake()
        wait_for(moment)
        started.kill_all()
        finished_at_kill.append(trained(killed))
        looks_at_kill.append(sum((killed.results / look).exists() for look in LOOKS))
    last = killed.snakemake()

    after = trained(killed)
    assert looks_at_kill == [0, 1, 2]
    assert finished_at_kill[0] == before
    assert manifest(killed, NEW_RUN)["resumes"][0]["step"] > 0
    assert set(finished_at_kill[2]) == set(after) == set(trained(undisturbed))
    for seen in finished_at_kill:  # no run is trained again once it is finished
        assert seen == {run: after[run] for run in seen}
    for look in LOOKS:
        assert (killed.results / look).read_bytes() == (undisturbed.results / look).read_bytes()
    assert comparable(killed) == comparable(undisturbed)
    assert all(verdict["sentence"] in last for verdict in comparable(undisturbed)["verdicts"])
    assert killed.planned() == set()
