"""A finished study to which references are added: they become rows, and nothing is trained or decided again."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForImageTextToText

from rlassay.records import CompletionRow, read_rows
from tests.launcher import Launcher
from tests.workflow.project import Project
from tests.workflow.test_dag import REPORT, STUDY

REFERENCES = """
references:
  released: {path: ./kept/model, label: as released, compare: true}
  adapted: {path: ./kept/adapter, label: an adapter}
"""


@pytest.fixture
def project(finished: Project, tmp_path: Path) -> Project:
    """The finished project with two references: the weights of a run, and an adapter on them that changes nothing."""
    project = finished.copy(tmp_path / "project")
    kept = project.folder / "kept"
    shutil.copytree(project.results / "runs/plain/seed1/state/weights", kept / "model")
    model: Any = AutoModelForImageTextToText.from_pretrained(str(kept / "model"))  # pyright: ignore[reportUnknownMemberType]
    # LoRA begins with B = 0: the adapter answers greedily as the model does.
    get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"])).save_pretrained(str(kept / "adapter"))
    project.append(STUDY, REFERENCES)
    return project


def report(project: Project) -> dict[str, Any]:
    return json.loads((project.results / "report/report.json").read_text())


def greedy(folder: Path) -> list[tuple[str, str]]:
    """Prompt and text of the greedy completions of a policy."""
    rows = read_rows(folder / "eval/test.completions.jsonl", CompletionRow)
    return [(row.prompt_id, row.text) for row in rows if row.mode == "greedy"]


def shown(content: dict[str, Any], label: str) -> list[dict[str, Any]]:
    """The cells of a row of the main table."""
    (row,) = [row for row in content["tables"]["main"]["rows"] if row["label"] == label]
    return row["cells"]


def test_references_become_rows_and_are_compared_only_if_declared(
    finished: Project, project: Project, launcher: Launcher
):
    jobs = project.planned()
    stages = project.run_planned(launcher)

    before, after = report(finished), report(project)
    asked = {job for job in jobs if "references/" in job}
    assert sorted(job.split("/")[-2] for job in asked) == ["adapted", "adapted", "released", "released"]
    assert jobs == asked | {REPORT}
    assert sorted(stages) == ["ablation_report", "generate", "generate", "score", "score"]
    # Greedy decoding draws no random numbers, so that the weights of a run answer as the run does.
    own = greedy(project.results / "runs/plain/seed1")
    folders = sorted(project.results.glob("references/*/*"))
    assert [greedy(folder) for folder in folders] == [own, own]
    assert len({text for _, text in own}) > 1
    assert all(cell["mean"] is not None for label in ("as released", "an adapter") for cell in shown(after, label))
    assert shown(after, "sharp") == shown(before, "sharp")
    assert after["verdicts"] == before["verdicts"]
    assert {(one["arm"], one["reference"]) for one in after["references"]} == {
        ("plain", "released"),
        ("sharp", "released"),
    }
    page = (project.results / "report/index.html").read_text()
    assert "as released" in page
    assert "an adapter" in page


def test_val_only_answers_with_the_references_and_trains_nothing(project: Project):
    shutil.rmtree(project.results / "runs")

    jobs = project.planned("val_only")

    assert len({job for job in jobs if job.startswith("Answer test with references/")}) == 2
    assert not any(job.startswith(("Train", "Warm start")) for job in jobs)
