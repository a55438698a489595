"""`primary.over`: a run's score on a prompt is its mean over the last points of the held-out curve."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from rlassay.config.study import Study
from rlassay.files import write_json
from rlassay.layout import Layout
from rlassay.report import run_report
from rlassay.report.findings.held_out import build_held_out
from rlassay.report.gather import Results, ResultsError, gather
from rlassay.report.tables import build_tables, primary_column, scores_of
from rlassay.report.verdicts import compare_with_baseline
from tests.report.by_hand import _scores, hand_results
from tests.report.conftest import SETTINGS

PROMPTS = ["p000", "p001"]
LAST = {"base": np.array([[1.0, 0.0], [0.5, 0.5]]), "accuracy_only": np.ones((2, 2)), "sft": np.zeros((1, 2))}


def averaging(study: Study, over: str | None, every: int) -> Study:
    """The study with a held-out curve, and an average over its last points."""
    evaluation = study.evaluation.model_copy(update={"every": every})
    primary = study.primary.model_copy(update={"over": over})
    return study.model_copy(update={"evaluation": evaluation, "primary": primary})


def by_hand(over: str | None, steps: int = 10) -> Results:
    """Two arms x two seeds x two prompts; points at 3, 6 and 9, at which both prompts score .3, .6 and .9."""
    results = hand_results(LAST)
    folders = [folder for arm in ("base", "accuracy_only") for folder in results.rows[arm].folders.values()]
    points = {step: _scores(PROMPTS, np.full(2, step / 10), 4) for step in (3, 6, 9)}
    curves = {folder: {step: found for step, found in points.items() if step < steps} for folder in folders}
    manifests = {folder: {"steps": steps} for folder in folders}
    return replace(results, study=averaging(results.study, over, 3), curves=curves, manifests=manifests)


@pytest.mark.parametrize(
    ("over", "steps", "first"),
    [
        (None, 10, [1.0, 0.0]),
        ("last_2", 10, [0.95, 0.45]),  # (.9 + 1) / 2, (.9 + 0) / 2
        ("last_3", 10, [2.5 / 3, 1.5 / 3]),  # .6, .9 and the last
        ("last_4", 10, [2.8 / 4, 1.8 / 4]),
        ("last_3", 5, [0.65, 0.15]),  # ended early: .3 and the last alone
        ("last_3", 9, [1.9 / 3, 0.9 / 3]),  # its last step is no point before it: .3, .6 and the last
    ],
)
def test_each_prompt_has_its_mean_over_the_last_checkpoints(over: str | None, steps: int, first: list[float]):
    results = by_hand(over, steps)
    column = primary_column(results)

    found = scores_of(results, results.rows["base"], column)

    assert found.shape == (2, 2)
    assert found[0] == pytest.approx(first)
    # The start is no run, so that it has no checkpoints.
    assert scores_of(results, results.rows["sft"], column).tolist() == [[0.0, 0.0]]


def test_differences_are_those_of_the_means():
    found = compare_with_baseline(by_hand("last_3"), 0.95, plan=False)[0]
    # accuracy_only (.6 + .9 + 1) / 3 on all prompts; base has .5 less on the mean of the last checkpoint alone.
    assert found.difference is not None
    assert found.difference.effect == pytest.approx(0.5 / 3, abs=1e-6)
    assert (found.difference.num_seeds, found.difference.num_items) == (2, 2)


def test_the_curve_keeps_its_own_last_point():
    results = by_hand("last_3")
    frames = dict.fromkeys(results.manifests, pd.DataFrame({"generated": 1.0, "time/step": 1.0}, index=range(1, 11)))
    found = build_held_out(replace(results, metrics=frames, rollouts=frames), 0.95)
    assert found is not None
    assert [point.score.mean for point in found.curves[0].series[0].points] == pytest.approx([0.0, 0.3, 0.6, 0.9, 0.5])


def with_curves(study: Study, layout: Layout, lost: str | None = None) -> Study:
    """Points at 4 and 8 of the ten steps for every run: all completions right at 4, all wrong at 8."""
    for arm in study.arms:
        for seed in study.seeds:
            folder = layout.run(arm, seed)
            last = pd.read_parquet(layout.scores(folder, "test"))
            points = [last.assign(step=step, value=float(step == 4)) for step in (4, 8)]
            layout.curve(folder, "test").parent.mkdir(parents=True)
            pd.concat(points).to_parquet(layout.curve(folder, "test"), index=False)
            steps = [8] if folder == lost else [4, 8]
            write_json(layout.curve_record(folder, "test"), {"key": "k", "steps": steps})
    return averaging(study, "last_3", 4)


def test_the_report_averages_and_says_so(copied: tuple[Study, Layout]):
    study, layout = copied
    plain = run_report(study, layout, SETTINGS)
    content = run_report(with_curves(study, layout), layout, SETTINGS)

    for before, after in zip(plain.tables["main"].rows, content.tables["main"].rows, strict=True):
        expected = before.cells[0].mean if before.kind != "arm" else ((before.cells[0].mean or 0.0) + 1 + 0) / 3
        assert after.cells[0].mean == pytest.approx(expected, abs=2e-6)
        assert after.cells[0].num_items == before.cells[0].num_items
    for before, after in zip(plain.verdicts, content.verdicts, strict=True):
        assert before.difference is not None
        assert after.difference is not None
        assert after.difference.effect == pytest.approx((before.difference.effect or 0.0) / 3, abs=2e-6)
    said = "averaged over the last 3 evaluated checkpoints of each run (one every 4 steps; the trained weights are one"
    assert said in " ".join((layout.report / "index.html").read_text().split())
    assert "scores of runs are means over their last 3 checkpoints" in (layout.report / "report.md").read_text()
    assert content.held_out is not None
    assert [point.step for point in content.held_out.curves[0].series[0].points] == [0, 4, 8, 10]


def test_pass_at_k_is_averaged_over_checkpoints_and_not_made_of_averages(copied: tuple[Study, Layout]):
    study, layout = copied
    plain = build_tables(gather(study, layout, SETTINGS), 0.95)["pass_at_k"]
    content = build_tables(gather(with_curves(study, layout), layout, SETTINGS), 0.95)["pass_at_k"]
    for before, after in zip(plain.rows, content.rows, strict=True):
        if before.kind == "arm":
            averaged = [((cell.mean or 0.0) + 1 + 0) / 3 for cell in before.cells]
            assert [cell.mean for cell in after.cells] == pytest.approx(averaged, abs=2e-6)


def test_a_point_whose_weights_are_gone_is_missing_and_not_left_out_of_the_mean(copied: tuple[Study, Layout]):
    study, layout = copied
    study = with_curves(study, layout, lost="runs/base/seed2")

    with pytest.raises(ResultsError, match=r"test\.step000004\.completions\.jsonl is missing") as caught:
        gather(study, layout, SETTINGS)
    assert f"-R {layout.train_manifest('runs/base/seed2')}" in str(caught.value)

    partial = gather(study, layout, SETTINGS, partial=True)
    assert partial.rows["base"].seeds == (1, 3)
    assert [one.needed_for for one in partial.missing] == ["base, seed 2"]


def test_a_look_at_sequential_seeds_waits_for_the_curve_only_if_it_decides(copied: tuple[Study, Layout]):
    study, layout = copied
    without = averaging(study, None, 4)
    assert gather(without, layout, SETTINGS, before=1).curves == {}
    with pytest.raises(ResultsError, match=r"curve/test\.scores\.parquet is missing"):
        gather(averaging(study, "last_2", 4), layout, SETTINGS, before=1)
    assert gather(with_curves(study, layout), layout, SETTINGS, before=1).curves != {}
