"""The study of `examples/`, run as the README says, from its 40 rows and its reward file to a report."""

import json
import re
import shlex
import shutil
from pathlib import Path

from tests.launcher import Launcher
from tests.workflow.project import ROOT, Project, new_project

STUDY = "examples/own_study.yaml"


def run_planned(project: Project, launcher: Launcher) -> None:
    """Run the jobs that Snakemake plans, in its order, each in a process that has the libraries already.

    That Snakemake itself starts jobs, `test_real_study.py` tests.
    """
    plan = project.start("snakemake", "--cores", "2", "-np", "ablation_report", "--config", f"study={STUDY}").end()
    jobs = re.findall(r'python -m rlassay.cli.stages (\w+) "\$@"(.*?) 2?>>', plan)
    assert len(jobs) == 19
    given = ["--study", STUDY, "--scale", "null", "--engine", "null", "--results", "results"]
    log = project.folder / "log"
    for stage, options in jobs:
        job = launcher.start([stage, *given, *shlex.split(options)], log, folder=str(project.folder))
        assert job.wait() == 0, log.read_text()


def test_the_example_study_runs_from_its_rows_and_reward_file_to_a_report(launcher: Launcher, tmp_path: Path):
    project = new_project(tmp_path / "project")
    shutil.copytree(ROOT / "examples", project.folder / "examples")
    project.edit("config/config.yaml", "  uri: sqlite:///mlflow.db", "  enabled: false")

    run_planned(project, launcher)

    results = project.folder / "results/own_study"
    splits = json.loads((results / "data/data.json").read_text())["splits"]
    report = json.loads((results / "report/report.json").read_text())
    assert {name: split["rows"] for name, split in splits.items()} == {"sft": 16, "train": 16, "test": 8}
    assert [arm["name"] for arm in report["arms"]] == ["accuracy_only", "with_brevity"]
    assert report["complete"]
    assert len(report["verdicts"]) == 1


def test_the_example_is_as_small_as_the_readme_says():
    study = (ROOT / "examples/own_study.yaml").read_text().splitlines()
    rows = [
        line
        for split in ("sft", "train", "test")
        for line in (ROOT / f"examples/{split}.jsonl").read_text().splitlines()
    ]

    assert len([line for line in study if not line.startswith("#")]) == 16
    assert len(rows) == 40
