"""The smallest study, real at every stage, from one command to its report."""

import base64
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.house.test_readme import expand
from tests.workflow.project import ROOT, Project

RUNS = ("runs/plain/seed1", "runs/plain/seed2", "runs/sharp/seed1", "runs/sharp/seed2")


def read(file: Path) -> dict[str, Any]:
    return json.loads(file.read_text())


def test_the_terminal_ends_with_the_verdicts_and_the_page(finished: Project):
    printed = (finished.folder / "make.txt").read_text()
    verdicts = read(finished.results / "report/report.json")["verdicts"]

    assert [verdict["arm"] for verdict in verdicts] == ["sharp"]
    assert all(verdict["sentence"] in printed for verdict in verdicts)
    assert "results/smallest/report/index.html" in printed


@pytest.mark.parametrize("run", RUNS)
def test_a_run_leaves_what_the_layout_promises(finished: Project, run: str):
    manifest = read(finished.results / run / "train.json")
    expected = ("state/metrics.jsonl", "eval/test.completions.jsonl", "eval/test.scores.parquet")

    assert (manifest["steps"], manifest["max_steps"], manifest["resumes"]) == (8, 8, [])
    assert [name for name in expected if not (finished.results / run / name).is_file()] == []
    assert len(list((finished.results / run / "state/rollouts").glob("step*.parquet"))) == 8


def test_every_training_job_changes_the_weights(finished: Project):
    sentinels = [*finished.results.glob("sft/*/sft.json"), *(finished.results / run / "train.json" for run in RUNS)]

    assert len({read(manifest)["sha256"]["model.safetensors"] for manifest in sentinels}) == 5


def test_every_metric_is_a_row_of_the_glossary(finished: Project):
    rewards = ("choice_accuracy", "think_answer_format")
    lines = [file.read_text().splitlines()[0] for file in finished.results.rglob("metrics.jsonl")]
    logged = {name for line in lines for name in json.loads(line)}
    scored = {name for file in finished.results.rglob("*.scores.parquet") for name in pd.read_parquet(file)["metric"]}
    table = re.findall(r"^\| (`.*?) \|", (ROOT / "GLOSSARY.md").read_text(), flags=re.MULTILINE)
    explained = {name for cell in table for code in re.findall(r"`([^`]+)`", cell) for name in expand(code)}

    assert len(scored) > len(rewards)
    names = {re.sub("|".join(rewards), "<name>", name) for name in logged} | scored
    assert sorted(names - explained) == []


def test_every_job_leaves_a_log_and_its_cost(finished: Project):
    logs = {file.relative_to(finished.results / "logs").with_suffix("") for file in finished.results.rglob("*.log")}
    costs = finished.results.rglob("benchmarks/**/*.tsv")

    assert {file.relative_to(finished.results / "benchmarks").with_suffix("") for file in costs} == logs
    assert {Path(run) / "train" for run in RUNS} < logs


def test_the_report_is_whole_without_a_network(finished: Project):
    report = finished.results / "report"

    assert (report / "report.md").is_file()
    assert len(list(report.glob("tables/*.csv"))) > 0
    assert len(list(report.glob("figures/*.svg"))) > 0
    assert read(report / "report.json")["complete"]


def test_snakemakes_own_report_holds_the_page(finished: Project, tmp_path: Path):
    project = finished.copy(tmp_path / "project")
    project.snakemake("--report", "snakemake.html")
    written = (project.folder / "snakemake.html").read_text()

    assert base64.b64encode((project.results / "report/index.html").read_bytes()).decode() in written
    assert "The smallest study that is real at every stage" in written


def test_a_second_run_has_nothing_to_do(finished: Project):
    assert "Nothing to be done" in finished.snakemake()


def test_a_report_of_what_is_finished_is_not_taken_for_the_whole(finished: Project, tmp_path: Path):
    project = finished.copy(tmp_path / "project")
    for unmade in ("runs/sharp", "report"):
        shutil.rmtree(project.results / unmade)

    printed = project.snakemake("partial_report")

    assert "results/smallest/partial_report/index.html" in printed
    assert not read(project.results / "partial_report/report.json")["complete"]
    assert "Train runs/sharp/seed1" in project.planned()


def test_a_forced_run_trains_again_from_step_0_to_the_same_weights(finished: Project, tmp_path: Path):
    project = finished.copy(tmp_path / "project")
    before = {run: (project.results / run / "train.json").stat().st_mtime_ns for run in RUNS}
    first = read(project.results / RUNS[3] / "train.json")

    manifest = f"results/smallest/{RUNS[3]}/train.json"
    project.snakemake(manifest, "--forcerun", manifest)

    again = read(project.results / RUNS[3] / "train.json")
    assert (again["sha256"], again["resumes"]) == (first["sha256"], [])
    after = {run: (project.results / run / "train.json").stat().st_mtime_ns for run in RUNS}
    assert [run for run in RUNS if after[run] != before[run]] == [RUNS[3]]
