"""Where a study was made: machine, commit, dates and the time of its evaluation."""

import subprocess

from rlassay.files import write_json
from rlassay.report.findings.provenance import build_provenance, commit, evaluation_cost, machine, provenance_summary
from rlassay.report.findings.records import Provenance
from rlassay.report.gather import gather
from tests.report.conftest import SETTINGS

FACTS = Provenance(
    began=1_795_813_163.0,
    ended=1_795_816_800.0,
    hosts=("alpha",),
    host="alpha",
    machine="Chip 9000, 2 CPUs, Linux, Python 3.11.7",
    commit="0123456789",
    evaluation_jobs=0,
    evaluation_seconds=0.0,
)


def test_dates_machine_and_commit_in_words():
    # 1,795,813,163 s are 20,784 days and 75,563 s: 27 November 2026, 20:59.
    assert provenance_summary(FACTS) == (
        "Trained from 2026-11-27 20:59 to 2026-11-27 22:00 UTC. Machine: Chip 9000, 2 CPUs, Linux, Python 3.11.7. "
        "Commit 0123456789."
    )
    elsewhere = FACTS.model_copy(update={"hosts": ("beta", "gamma"), "began": None, "commit": ""})
    assert provenance_summary(elsewhere) == (
        "Trained on beta and gamma; the report was written on Chip 9000, 2 CPUs, Linux, Python 3.11.7."
    )
    assert evaluation_cost(FACTS) == ""
    timed = FACTS.model_copy(update={"evaluation_jobs": 2, "evaluation_seconds": 61.0})
    assert evaluation_cost(timed) == "2 evaluation jobs took 1 min 01 s of wall time in total."


def test_the_processor_is_named_where_the_system_names_it(tmp_path):
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nmodel name\t: Chip   9000\nmodel name\t: Chip 9000\n")
    assert machine(tmp_path / "cpuinfo").startswith("Chip 9000, ")
    assert ", Python 3." in machine(tmp_path / "absent")


def test_a_commit_says_whether_files_differ_from_it(tmp_path):
    assert commit(tmp_path) == ""
    file = tmp_path / "file"
    file.write_text("a")
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "-q"], ["add", "file"], [*who, "commit", "-qm", "a"]):
        subprocess.run(["git", "-C", tmp_path, *command], check=True)
    clean = commit(tmp_path)
    assert len(clean) == 10
    file.write_text("b")
    assert commit(tmp_path) == f"{clean} with local changes"


def test_records_and_benchmarks_of_the_jobs_are_read(copied):
    study, layout = copied
    write_json(layout.run_record("runs/base/seed1"), {"host": "alpha", "started": 10.0, "ended": 30.0})
    write_json(layout.run_record("runs/base/seed2"), {"host": "beta", "started": 5.0, "ended": None})
    for job, seconds in (("generate-test", 20.5), ("score-test", 3.0)):
        file = layout.benchmark("runs/base/seed1", job)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"s\th:m:s\n{seconds}\t0:00:20\n")
    layout.benchmark("runs/base/seed2", "score-test").parent.mkdir(parents=True, exist_ok=True)
    layout.benchmark("runs/base/seed2", "score-test").write_text("torn")

    found = build_provenance(gather(study, layout, SETTINGS))

    assert (found.began, found.ended) == (5.0, 30.0)
    assert set(found.hosts) >= {"alpha", "beta"}
    assert (found.evaluation_jobs, found.evaluation_seconds) == (2, 23.5)
