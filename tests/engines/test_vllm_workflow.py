"""A whole study through Snakemake with vLLM, from data to the page, against the same study sampled by transformers."""

import re
import sys
from typing import Any

import pytest
import yaml

from rlassay.config import load_study
from rlassay.config.policies import policies
from rlassay.files import read_json
from rlassay.layout import Layout
from rlassay.models.vllm_engine import SAMPLER_GAP
from rlassay.records import CompletionRow, read_rows
from tests.engines.vllm_process import needs_vllm
from tests.launcher import Launcher
from tests.schemas import differences
from tests.training.short_run import timeless_metrics
from tests.workflow.project import SMALLEST, Project, new_project

pytestmark = [needs_vllm, pytest.mark.filterwarnings("ignore")]
WRITTEN: dict[str, Any] = yaml.safe_load(SMALLEST)
# One seed: intervals cover prompts alone, and are narrow enough for a difference to show. They do not cover how far two
# runs drift apart that sampled other completions, so the rate keeps that small.
STUDY: dict[str, Any] = WRITTEN | {
    "seeds": [1],
    "data": {"kind": "digits", "splits": {"sft": 256, "train": 32, "test": 24}},
    "rl": WRITTEN["rl"] | {"learning_rate": 1e-4},
}
RUNS = ("runs/plain/seed1", "runs/sharp/seed1")
BETWEEN_ENGINES = 0.01
OF_VLLM = (".versions.vllm", ".engine ", "sampling_logp_difference", "importance_sampling_ratio")
"""What vLLM adds: its version, its section of the study, and its gap to the trainer with the correction of it."""
OF_THIS_TEST = ("logs/", "benchmarks/", ".lock", "report/figures/profiles.")
"""What Snakemake writes, which ran one study alone, and a figure that needs prompts of three different scores."""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The project after `make ablation_report STUDY=smallest ENGINE=vllm`, whose environments this one replaces."""
    project = new_project(tmp_path_factory.mktemp("project"))
    (project.folder / "config/studies/smallest.yaml").write_text(yaml.safe_dump(STUDY, sort_keys=False))
    # A job has to set on its own what the tests of this folder set for themselves.
    for name in [each for each in project.environment if each.startswith(("VLLM_", "TORCHDYNAMO_"))]:
        del project.environment[name]
    snakemake = (sys.executable, "-m", "snakemake", "--cores", "1", "ablation_report")
    project.start(*snakemake, "--config", "study=smallest", "engine=vllm").end()
    return project


@pytest.fixture(scope="module")
def by_vllm(project: Project) -> tuple[Layout, dict[str, Any]]:
    """The study's results and the numbers of its report."""
    layout = Layout(root=project.folder / "results/smallest-vllm")
    return layout, read_json(layout.report / "report.json") or {}


@pytest.fixture(scope="module")
def by_transformers(project: Project, launcher: Launcher) -> tuple[Layout, dict[str, Any]]:
    """The same study with the other engine."""
    project.run_planned(launcher)
    layout = Layout(root=project.results)
    return layout, read_json(layout.report / "report.json") or {}


def cells(numbers: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    """Row and column -> cell of the main table."""
    table = numbers["tables"]["main"]
    keys = [column["key"] for column in table["columns"]]
    return {(row["row"], key): cell for row in table["rows"] for key, cell in zip(keys, row["cells"], strict=True)}


def overlap(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one["low"] <= other["high"] and other["low"] <= one["high"]


def test_the_page_names_the_engine_and_its_gap(by_vllm: tuple[Layout, dict[str, Any]]):
    layout, numbers = by_vllm
    gaps = [line[SAMPLER_GAP] for run in RUNS for line in timeless_metrics(layout, run)]

    assert numbers["complete"]
    assert len(gaps) == 16
    assert 0 < max(gaps) < BETWEEN_ENGINES
    assert f"differed from the trainer's by {sum(gaps) / 16:.2g} nats per token" in numbers["engines"]
    page = (layout.report / "index.html").read_text()
    assert re.search(r"RL sampled with vLLM \d+\.\d+\.\d+, the evaluation with vLLM \d+\.\d+\.\d+\.", page)


def test_both_engines_agree_in_every_column_within_their_intervals(
    by_vllm: tuple[Layout, dict[str, Any]], by_transformers: tuple[Layout, dict[str, Any]]
):
    ours, theirs = (cells(numbers) for numbers in (by_vllm[1], by_transformers[1]))
    assert ours.keys() == theirs.keys()
    assert [key for key in ours if not overlap(ours[key], theirs[key])] == []

    verdict, other = (numbers["verdicts"][0]["difference"] for numbers in (by_vllm[1], by_transformers[1]))
    assert overlap(verdict, other)
    # Narrow enough to mean something: of 24 prompts, and a share lies between 0 and 1.
    assert verdict["high"] - verdict["low"] < 0.6


def test_before_rl_both_engines_decode_the_same_greedy_completions(
    project: Project, by_vllm: tuple[Layout, dict[str, Any]], by_transformers: tuple[Layout, dict[str, Any]]
):
    layouts = (by_vllm[0], by_transformers[0])
    study = load_study(project.folder / "config/studies/smallest.yaml")
    before = [policy.folder for policy in policies(study).values() if policy.stage != "rl"]
    assert len(before) == 2
    for folder in before:
        texts = [
            [row.text for row in read_rows(each.completions(folder, "test"), CompletionRow) if row.mode == "greedy"]
            for each in layouts
        ]
        assert texts[0] == texts[1]
        assert len(texts[0]) == 24


def test_both_engines_write_the_same_files_in_the_same_schema(
    by_vllm: tuple[Layout, dict[str, Any]], by_transformers: tuple[Layout, dict[str, Any]]
):
    found = differences(by_vllm[0].root, by_transformers[0].root)
    of_vllm = [line for line in found if any(part in line for part in OF_VLLM)]

    assert [line for line in found if line not in of_vllm and not line.startswith(OF_THIS_TEST)] == []
    assert {line.split(":")[0] for line in of_vllm} >= {f"{run}/state/metrics.jsonl" for run in RUNS}
