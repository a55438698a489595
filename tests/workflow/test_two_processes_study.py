"""The committed study `two_processes` from plan to report: the files of one local process, in the same schema.

Half of its arms, one seed and a few steps of the scale `tiny`, as `digits`, which it extends, for comparison.
"""

import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from rlassay.layout import Layout, shard
from rlassay.records import CompletionRow, read_rows
from tests.launcher import Launcher
from tests.schemas import differences
from tests.workflow.project import Project, new_project

DIGITS, TINY = "config/studies/digits.yaml", "config/scales/tiny.yaml"


@pytest.fixture(scope="module")
def results(launcher: Launcher, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Layout]:
    """Study -> its results, by the jobs that Snakemake plans."""
    project = new_project(tmp_path_factory.mktemp("project"))
    project.edit("config/config.yaml", "  uri: sqlite:///mlflow.db", "  enabled: false")
    project.edit(TINY, "seeds: [1, 2]", "seeds: [1]")
    project.edit(TINY, "max_steps: 100", "max_steps: 10")
    project.edit(DIGITS, arms_from(project, "format_only"), "")
    made: dict[str, Layout] = {}
    for study, processes in (("two_processes", 2), ("digits", 1)):
        stages = project.run_planned(launcher, study, "tiny", processes)
        assert [stages.count(stage) for stage in ("sft_train", "rl_train", "generate", "score")] == [1, 2, 4, 4]
        made[study] = Layout(root=project.folder / f"results/{study}-tiny")
    return made


def arms_from(project: Project, arm: str) -> str:
    """The end of the study's file, from the first line of an arm."""
    text = (project.folder / DIGITS).read_text()
    return text[text.index(f"  {arm}:\n") :]


def test_two_processes_write_the_files_of_one_in_the_same_schema(results: dict[str, Layout]):
    two, one = (results[study].root for study in ("two_processes", "digits"))
    assert differences(two, one) == ["report/report.json: .config.processes in one only"]


def test_what_is_lost_or_of_another_kind_is_found(results: dict[str, Layout], tmp_path: Path):
    original = results["digits"].root / "runs/base/seed1"
    run = tmp_path / "seed1"
    shutil.copytree(original, run)
    (run / "eval/test.sampler.json").unlink()
    record = json.loads((run / "train.json").read_text())
    del record["seconds"], record["sha256"]["model.safetensors"]
    (run / "train.json").write_text(json.dumps(record | {"steps": "4"}))
    file = run / "state/rollouts/step000002.parquet"
    pq.write_table(pq.read_table(file).drop_columns("completion"), file)
    assert differences(run, original) == [
        "eval/test.sampler.json: in one only",
        "state/rollouts/step000002.parquet: .completion in one only",
        "train.json: .seconds in one only",
        "train.json: .sha256.model.safetensors in one only",
        "train.json: .steps is number or text",
    ]


def test_the_report_of_two_processes_is_complete_and_every_batch_has_the_completions_of_both(
    results: dict[str, Layout],
):
    two, one = results["two_processes"], results["digits"]
    report = json.loads((two.report / "report.json").read_text())
    assert report["complete"]
    assert [verdict["arm"] for verdict in report["verdicts"]] == ["accuracy_only"]
    for step in range(1, 5):
        shards = [pq.read_table(shard(each.rollouts("runs/base/seed1"), step)) for each in (two, one)]
        assert [len(each) for each in shards] == [32, 16]
        assert len(shards[0]["prompt_id"].unique()) == 8


def test_before_training_both_studies_have_the_same_completions(results: dict[str, Layout]):
    answers: list[list[CompletionRow]] = []
    for layout in results.values():
        (file,) = layout.root.glob("models/*/eval/test.completions.jsonl")
        answers.append(list(read_rows(file, CompletionRow)))
    assert answers[0] == answers[1]
    assert len(answers[0]) == 24 * 5
