"""The study of `examples/`, run as the README says, from its 40 rows and its reward file to a report."""

import json
import shutil
from pathlib import Path

from tests.launcher import Launcher
from tests.workflow.project import ROOT, new_project

STUDY = "examples/own_study.yaml"


def test_the_example_study_runs_from_its_rows_and_reward_file_to_a_report(launcher: Launcher, tmp_path: Path):
    project = new_project(tmp_path / "project")
    shutil.copytree(ROOT / "examples", project.folder / "examples")
    project.edit("config/config.yaml", "  uri: sqlite:///mlflow.db", "  enabled: false")

    assert len(project.run_planned(launcher, STUDY)) == 19

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
