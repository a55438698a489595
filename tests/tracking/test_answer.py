"""The champion of a study, and its version in MLflow's model registry."""

import json
from pathlib import Path
from typing import Any

import pytest

from rlassay.files import sha256
from rlassay.tracking.answer import choose_champion, runs_view
from rlassay.tracking.sync import sync_study
from tests.tracking.folders import FakeJob, small_folder, small_study
from tests.tracking.reading import Reader

KEY = "test/accuracy/sampled"
SCORES = {"base": (0.25, 0.75, 0.5), "plain": (0.9, 0.5, 0.6), "third": (0.8, 0.9, 0.7)}


def numbers(outcomes: dict[str, tuple[str, float]], **scores: tuple[float | None, ...]) -> dict[str, Any]:
    """The part of report.json that decides; `outcomes`: arm -> verdict and effect."""
    found = {arm: scores.get(arm, SCORES[arm]) for arm in SCORES}
    means = {arm: [score for score in by_seed if score is not None] for arm, by_seed in found.items()}
    cells = {
        arm: {"mean": sum(means[arm]) / len(means[arm]) if means[arm] else None, "low": 0.1, "high": 0.9}
        | {"by_seed": list(by_seed), "num_seeds": len(by_seed), "num_items": 2}
        for arm, by_seed in found.items()
    }
    rows = [{"row": arm, "kind": "arm", "label": arm, "cells": [{}, cells[arm]]} for arm in SCORES]
    empty = {"mean": None, "low": None, "high": None}
    for row in rows:
        row["cells"][0] = empty
    columns = [{"key": "test/rouge/sampled", "primary": False}, {"key": KEY, "primary": True}]
    verdicts = [
        {"arm": arm, "outcome": outcome, "sentence": f"{arm} is {outcome}.", "difference": {"effect": effect}}
        for arm, (outcome, effect) in outcomes.items()
    ]
    return {
        "study": {"baseline": "base"},
        "arms": [{"name": arm, "seeds": [1, 2, 3], "weights": {"accuracy": 1.0}} for arm in SCORES],
        "tables": {"main": {"columns": columns, "rows": rows}},
        "verdicts": verdicts,
    }


def chosen(outcomes: dict[str, tuple[str, float]], **scores: tuple[float | None, ...]) -> tuple[str, int] | None:
    champion = choose_champion(numbers(outcomes, **scores))
    return None if champion is None else (champion.arm, champion.seed)


@pytest.mark.parametrize(
    ("outcomes", "expected"),
    [
        # of two better arms the one with the larger effect; its mean is 0.8, and seed 1 has just that
        ({"plain": ("better", 0.1), "third": ("better", 0.3)}, ("third", 1)),
        # a larger effect that is not resolved does not count; mean of plain 0.667, nearest is 0.6
        ({"plain": ("better", 0.1), "third": ("not resolved", 0.3)}, ("plain", 3)),
        # none is better: the baseline keeps the title; its mean 0.5 is that of seed 3
        ({"plain": ("equivalent", 0.0), "third": ("not resolved", 0.3)}, ("base", 3)),
        ({"plain": ("worse", -0.2), "third": ("seed variance not measured", 0.3)}, ("base", 3)),
        ({}, ("base", 3)),
    ],
)
def test_only_an_arm_that_is_better_replaces_the_baseline(
    outcomes: dict[str, tuple[str, float]], expected: tuple[str, int]
) -> None:
    assert chosen(outcomes) == expected


def test_the_seed_is_the_one_nearest_to_the_mean() -> None:
    assert chosen({}, base=(0.25, 0.75, 1.0)) == ("base", 2)  # mean 0.667
    assert chosen({}, base=(0.25, 0.75, None)) == ("base", 1)  # both 0.25 away: the first
    assert chosen({}, base=(None, None, None)) is None
    why = choose_champion(numbers({"plain": ("better", 0.1)}))
    assert why is not None
    assert why.why.startswith("plain is better. Of its seeds, seed 3 has the score")
    assert why.why.endswith("nearest to the mean: 0.6, of a mean of 0.6667.")


class Study:
    """A finished study of three arms on disk, with a report and one file of weights per run."""

    def __init__(self, root: Path) -> None:
        self.study = small_study(arms=SCORES, seeds=(1, 2, 3))
        self.layout = small_folder(root, self.study)
        self.jobs = {
            (arm, seed): FakeJob.of(self.study, self.layout, f"runs/{arm}/seed{seed}")
            for arm in SCORES
            for seed in (1, 2, 3)
        }
        for arm, seed in self.jobs:
            self.train(arm, seed, f"{arm} {seed}")
        for one in (("plain", 3), ("third", 1)):  # the others need no runs in MLflow
            self.jobs[one].note("finished")

    def train(self, arm: str, seed: int, weights: str) -> None:
        """Write a run's weights and manifest."""
        folder = self.layout.state(f"runs/{arm}/seed{seed}") / "weights"
        folder.mkdir(exist_ok=True, parents=True)
        (folder / "model.safetensors").write_text(weights)
        (folder / "config.json").write_text("{}")
        manifest = {"weights": "state/weights", "sha256": {"model.safetensors": sha256(folder / "model.safetensors")}}
        self.layout.train_manifest(f"runs/{arm}/seed{seed}").write_text(json.dumps(manifest))

    def report(self, outcomes: dict[str, tuple[str, float]]) -> None:
        """Write the report on the weights that are on disk."""
        content = numbers(outcomes)
        content["policies"] = [
            {"policy": folder, "sha256": sha256(self.layout.state(folder) / "weights/model.safetensors")}
            for folder in (job.policy.folder for job in self.jobs.values())
        ]
        self.layout.report.mkdir(exist_ok=True)
        (self.layout.report / "report.json").write_text(json.dumps(content))
        (self.layout.report / "index.html").write_text("<p>page")

    def sync(self, reader: Reader) -> None:
        sync_study(self.study, self.layout, reader.uri, register_champion=True)


@pytest.fixture
def finished(tmp_path: Path) -> Study:
    return Study(tmp_path / "results")


def versions(reader: Reader) -> dict[str, str]:
    """Version -> content of its weights."""
    found = reader.client.search_model_versions("name = 'small'")
    return {str(one.version): (Path(str(one.source)) / "model.safetensors").read_text() for one in found}


def alias(reader: Reader) -> str:
    return str(reader.client.get_model_version_by_alias("small", "champion").version)


def test_the_champion_is_registered_once_and_replaced_by_a_better_one(finished: Study, reader: Reader) -> None:
    finished.report({"plain": ("better", 0.1), "third": ("not resolved", 0.3)})
    finished.sync(reader)
    assert versions(reader) == {"1": "plain 3"}
    assert alias(reader) == "1"
    version = reader.client.get_model_version("small", "1")
    assert version.run_id == reader.run("plain seed 3 rl").info.run_id
    assert str(version.description).startswith("plain is better. ")
    note = reader.run("report").data.tags["mlflow.note.content"]
    link = "http://127.0.0.1:5000/#/models/small/versions/1"
    assert note.endswith(f"Champion: arm 'plain', seed 3, [as a model]({link}).")

    before = reader.dump()
    finished.sync(reader)
    assert reader.dump() == before

    finished.report({"plain": ("better", 0.1), "third": ("better", 0.3)})
    finished.sync(reader)
    assert versions(reader) == {"1": "plain 3", "2": "third 1"}
    assert alias(reader) == "2"

    finished.report({"plain": ("better", 0.1), "third": ("not resolved", 0.3)})  # its weights have a version already
    finished.sync(reader)
    assert len(versions(reader)) == 2
    assert alias(reader) == "1"


def test_weights_that_the_report_is_not_about_are_not_registered(finished: Study, reader: Reader) -> None:
    finished.report({"plain": ("better", 0.1)})
    finished.train("plain", 3, "trained again")
    finished.sync(reader)
    assert reader.client.search_registered_models() == []
    finished.report({"plain": ("better", 0.1)})
    finished.sync(reader)
    assert versions(reader) == {"1": "trained again"}


def test_nothing_is_registered_unless_asked_for(finished: Study, reader: Reader) -> None:
    finished.report({"plain": ("better", 0.1)})
    sync_study(finished.study, finished.layout, reader.uri)
    assert reader.client.search_registered_models() == []
    assert "Champion" not in reader.run("report").data.tags["mlflow.note.content"]


@pytest.mark.parametrize(("held_out", "columns"), [(None, ["reward"]), ("test/pass@8", ["reward", "test/pass_at_8"])])
def test_training_runs_are_listed_by_arm_with_columns_of_their_metrics(
    held_out: str | None, columns: list[str]
) -> None:
    view = json.loads(runs_view(held_out))
    assert view["selectedColumns"] == [f"metrics.`{name}`" for name in [*columns, "entropy", "kl"]]
    assert view["groupBy"]["groupByKeys"] == [{"mode": "tag", "groupByData": "rlassay.arm_label"}]
    # and their curves come first, in the same order
    assert [chart["metricKey"] for chart in view["compareRunCharts"]] == [*columns, "entropy", "kl"]
    (section,) = view["compareRunSections"]
    assert {chart["metricSectionId"] for chart in view["compareRunCharts"]} == {section["uuid"]}
