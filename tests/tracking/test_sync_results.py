"""Each number of evaluations and of the report reaches MLflow once."""

import json
import os
from pathlib import Path

import pytest

from rlassay.config.policies import policies
from rlassay.layout import Layout
from rlassay.tracking.links import read_links
from rlassay.tracking.runs import training_run
from rlassay.tracking.sync import sync_study
from tests.tracking.folders import START, FakeJob, small_folder, small_study
from tests.tracking.reading import Reader

RUN = "runs/base/seed1"


@pytest.fixture
def job(tmp_path: Path) -> FakeJob:
    study = small_study()
    return FakeJob.of(study, small_folder(tmp_path / "results", study), RUN)


def sync(job: FakeJob, reader: Reader) -> int:
    """Bring the store up to date; the number of values written."""
    return sync_study(job.study, job.layout, reader.uri)


def test_the_evaluation_has_a_run_of_its_own_and_a_new_value_is_a_new_step(job: FakeJob, reader: Reader) -> None:
    job.note("finished")
    job.write_manifest()
    job.score(accuracy=0.25, unscored=None)
    sync(job, reader)
    run = reader.run("base seed 1 evaluation")
    assert run.info.status == "FINISHED"
    assert run.data.metrics == {"test/accuracy/sampled": 0.25}
    assert [used.dataset.name for used in run.inputs.dataset_inputs] == ["test"]
    job.score(accuracy=0.5)
    sync(job, reader)
    assert reader.points(run, "test/accuracy/sampled") == [(0, 0.25), (1, 0.5)]


def test_the_duration_of_an_arm_is_that_of_its_training(job: FakeJob, reader: Reader) -> None:
    job.note("finished", [(0, 0.0, 100.0)])
    job.write_manifest()
    job.score(accuracy=0.25)  # its files are of now, long after the training
    sync(job, reader)
    arm, evaluation = reader.run("base"), reader.run("base seed 1 evaluation")
    assert (arm.info.status, arm.info.start_time, arm.info.end_time) == ("FINISHED", START * 1000, (START + 100) * 1000)
    assert evaluation.info.end_time > arm.info.end_time


def test_scores_older_than_the_weights_are_not_synced(job: FakeJob, reader: Reader) -> None:
    job.note("finished")
    job.score(accuracy=0.25)
    job.write_manifest()
    os.utime(job.layout.scores(RUN, "test"), (START, START))
    sync(job, reader)
    assert "base seed 1 evaluation" not in reader.runs()


def test_an_untrained_model_has_only_an_evaluation(job: FakeJob, reader: Reader) -> None:
    folder = next(folder for folder, policy in policies(job.study).items() if policy.stage == "model")
    FakeJob.of(job.study, job.layout, folder).score(accuracy=0.0)
    sync(job, reader)
    name = "Untrained model"
    assert set(reader.runs()) == {name, f"{name} evaluation"}


def test_the_report_gives_each_arm_its_numbers(job: FakeJob, reader: Reader) -> None:
    job.note("finished")
    write_report(job.layout, 0.4)
    sync(job, reader)
    base, plain = reader.run("base"), reader.run("plain")
    key = "test/accuracy/sampled"
    assert base.data.metrics == {key: 0.4, f"{key}/low": 0.3, f"{key}/high": 0.5, "num_seeds": 3.0, "num_items": 2.0}
    assert {name: plain.data.metrics[name] for name in ("effect", "effect/low", "effect/high", "p_holm")} == {
        "effect": -0.1,
        "effect/low": -0.2,
        "effect/high": 0.0,
        "p_holm": 0.04,
    }
    assert "p_value" not in plain.data.metrics  # null in the report
    assert reader.artifact(reader.run("report"), "report/index.html") == "<p>page"
    assert "plain is worse" in reader.run("report").data.tags["mlflow.note.content"]
    before = reader.dump()
    assert sync(job, reader) == 0
    assert reader.dump() == before
    write_report(job.layout, 0.45)
    assert sync(job, reader) == 2  # both arms
    assert reader.points(base, key) == [(0, 0.4), (1, 0.45)]


def test_the_link_opens_the_arms_with_columns_of_their_metrics(job: FakeJob, reader: Reader) -> None:
    job.note("finished")
    assert read_links(job.layout.tracking).arms == ""
    write_report(job.layout, 0.4)
    sync(job, reader)
    experiment = reader.client.get_experiment_by_name(job.study.id)
    links = read_links(job.layout.tracking)
    address = f"http://127.0.0.1:5000/#/experiments/{experiment.experiment_id}/runs"
    assert links.arms == f"{address}?viewStateShareKey=rlassay-arms"
    # one address for the training, and one for each row of the report
    assert links.runs == {RUN: f"{address}/{reader.run('base seed 1 rl').info.run_id}"}
    assert links.parents["runs/plain"] == f"{address}/{reader.run('plain').info.run_id}"
    assert len(links.parents) == 4
    report = f"[Report]({address}/{reader.run('report').info.run_id}/artifacts/report/index.html)"
    assert reader.run("plain").data.tags["mlflow.note.content"] == f"plain is worse {report}"
    assert reader.run("SFT").data.tags["mlflow.note.content"] == f"The policy before RL. {report}"
    assert reader.run("base").data.tags["mlflow.note.content"] == f"The baseline. {report}"
    assert report in experiment.tags["mlflow.note.content"]
    view = json.loads(experiment.tags["mlflow.sharedViewState.rlassay-arms"])
    key = "test/accuracy/sampled"
    assert view["selectedColumns"][1:4] == [f"metrics.`{name}`" for name in (key, f"{key}/low", f"{key}/high")]
    assert "metrics.`effect`" in view["selectedColumns"]
    assert view["orderByKey"] == f"metrics.`{key}`"
    # parallel coordinates of the weights that differ; base alone pays for the format
    (chart,) = view["compareRunCharts"]
    assert (chart["type"], chart["selectedParams"], chart["selectedMetrics"]) == ("PARALLEL", ["reward.format"], [key])
    (section,) = view["compareRunSections"]
    assert (section["uuid"], section["columns"]) == (chart["metricSectionId"], 1)
    assert view["isAccordionReordered"]  # else MLflow sorts its generated sections before this one, by name
    grouped = json.loads(experiment.tags["mlflow.sharedViewState.rlassay-runs"])
    assert grouped["groupBy"]["groupByKeys"] == [{"mode": "tag", "groupByData": "rlassay.arm_label"}]
    found = reader.client.search_runs([experiment.experiment_id], grouped["searchFilter"].replace(" AND ", " and "))
    assert {run.info.run_name for run in found} == {"base seed 1 rl"}
    # the filter shows the arms and what they start from, one run each
    shown = reader.client.search_runs([experiment.experiment_id], view["searchFilter"].replace(" AND ", " and "))
    assert {run.info.run_name for run in shown} == {"Untrained model", "SFT", "base", "plain"}
    assert "- plain is worse" in experiment.tags["mlflow.note.content"]


def test_a_run_has_its_arm_as_the_page_names_it(job: FakeJob) -> None:
    arms = {name: arm.model_copy(update={"label": f"the {name} one"}) for name, arm in job.study.arms.items()}
    tags = training_run(job.study.model_copy(update={"arms": arms}), job.policy, "first").tags
    assert (tags["rlassay.arm"], tags["rlassay.arm_label"]) == ("base", "the base one")


def write_report(layout: Layout, mean: float) -> None:
    cell = {"mean": mean, "low": 0.3, "high": 0.5, "num_seeds": 3, "num_items": 2, "covers": "seeds and items"}
    rows = [{"row": arm, "kind": "arm", "label": arm, "cells": [cell]} for arm in ("base", "plain")]
    difference = {"effect": -0.1, "low": -0.2, "high": 0.0, "p_value": None, "p_holm": 0.04}
    weights = ({"accuracy": 1.0, "format": 0.5}, {"accuracy": 1.0})
    content = {
        "arms": [{"name": arm, "weights": each} for arm, each in zip(("base", "plain"), weights, strict=True)],
        "tables": {"main": {"columns": [{"key": "test/accuracy/sampled", "primary": True}], "rows": rows}},
        "verdicts": [{"arm": "plain", "sentence": "plain is worse", "difference": difference}],
    }
    layout.report.mkdir(exist_ok=True)
    (layout.report / "report.json").write_text(json.dumps(content))
    (layout.report / "index.html").write_text("<p>page")
