"""Local inputs that change make the jobs run again that depend on them; a `touch` makes none run."""

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.workflow.conftest import fake
from tests.workflow.project import Project, new_project

STUDY = "config/studies/smallest.yaml"
DATA = "data: {kind: digits, splits: {sft: 256, train: 32, test: 8}}"
TABLE = """data:
  kind: table
  origin: {kind: parquet, folder: charts}
  columns: {images: image}
  splits: {sft: null, train: null, test: null}"""
TRAINED = {f"Train runs/{arm}/seed{seed}" for arm in ("plain", "sharp") for seed in (1, 2)}


def write_table(folder: Path, split: str, answer: str) -> None:
    pq.write_table(pa.table({"question": ["?"], "answer": [answer], "image": ["a.png"]}), folder / f"{split}.parquet")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A study of a local table with images and a local model, finished as far as Snakemake can tell."""
    project = new_project(tmp_path / "project")
    charts, model = project.folder / "charts", project.folder / "llm"
    for folder in (charts, model):
        folder.mkdir()
    for split in ("sft", "train", "test"):
        write_table(charts, split, split)
    (charts / "a.png").write_bytes(b"one image")
    (model / "model.safetensors").write_bytes(b"weights")
    model_line = "model: {kind: tiny_vlm, layers: 1, width: 32, vision_layers: 1, vision_width: 16}"
    project.edit(STUDY, model_line, "model: {kind: hub, name: llm}")
    project.edit(STUDY, DATA, TABLE)
    monkeypatch.chdir(project.folder)
    fake(project)
    return project


def test_jobs_follow_the_contents_of_local_inputs(project: Project):
    assert project.planned() == set()
    for file in [*Path("charts").iterdir(), Path("llm/model.safetensors")]:
        os.utime(file, (1, 1))
    assert project.planned() == set()

    write_table(Path("charts"), "train", "another")
    assert {"Prepare the data", *TRAINED} <= project.planned()
    write_table(Path("charts"), "train", "train")
    assert project.planned() == set()

    Path("charts/a.png").write_bytes(b"another image")
    assert {"Prepare the data", *TRAINED} <= project.planned()
    Path("charts/a.png").write_bytes(b"one image")

    Path("llm/model.safetensors").write_bytes(b"WEIGHTS")
    jobs = project.planned()
    assert jobs > TRAINED
    assert "Prepare the data" not in jobs
    assert any(job.startswith("Warm start") for job in jobs)
