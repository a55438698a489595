"""Held-out curves by hand: points by step and token, arms at equal tokens, runs that kept fewer weights."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from rlassay.report.findings.held_out import build_held_out, equal_rows, held_out_rows
from rlassay.report.findings.records import HeldOut
from rlassay.report.gather import Results
from rlassay.report.page import write_page
from tests.report.by_hand import _scores, hand_results
from tests.report.fake_content import fake_content

PROMPTS = ["p000", "p001"]


def by_hand(tokens: dict[str, list[int]], curve: dict[str, list[float]]) -> Results:
    """Two arms x two seeds of ten steps, curve at step 5; `tokens` per step and `curve` scores by arm.

    Start: 0. Trained: `base` 1 and .5, `accuracy_only` 1 and 1.
    """
    start = np.zeros((1, 2))
    results = hand_results({"base": np.array([[1.0, 1.0], [0.5, 0.5]]), "accuracy_only": np.ones((2, 2)), "sft": start})
    evaluation = results.study.evaluation.model_copy(update={"every": 5})
    study = results.study.model_copy(update={"evaluation": evaluation})
    runs = [(arm, folder) for arm in tokens for folder in results.rows[arm].folders.values()]
    steps = pd.Index(range(1, 11), name="step")
    return replace(
        results,
        study=study,
        manifests={folder: {"steps": 10} for _, folder in runs},
        metrics={folder: pd.DataFrame({"time/step": 360.0}, index=steps) for _, folder in runs},
        rollouts={
            folder: pd.DataFrame({"generated": float(tokens[arm][place % 2])}, index=steps)
            for place, (arm, folder) in enumerate(runs)
        },
        curves={
            folder: {5: _scores(PROMPTS, np.full(2, curve[arm][place % 2]), 4)}
            for place, (arm, folder) in enumerate(runs)
        },
    )


def usual() -> Results:
    return by_hand({"base": [10, 10], "accuracy_only": [20, 30]}, {"base": [0.5, 0.25], "accuracy_only": [0.8, 0.6]})


def test_points_by_step_token_and_hour():
    found = build_held_out(usual(), 0.95)
    assert found is not None
    assert (found.set, found.every, found.missing) == ("test", 5, ())
    base, other = found.curves[0].series
    assert [point.step for point in base.points] == [0, 5, 10]
    assert [point.score.mean for point in base.points] == [0.0, 0.375, 0.75]
    # The shared warm start is one policy; the others have a line per seed.
    assert [point.score.num_seeds for point in base.points] == [1, 2, 2]
    assert base.points[1].score.by_seed == (0.5, 0.25)
    assert [point.tokens for point in base.points] == [0, 50, 100]
    assert [point.tokens for point in other.points] == [0, 125, 250]
    assert [point.hours for point in base.points] == [0.0, 0.5, 1.0]


def test_arms_at_equal_tokens():
    # 100 tokens: all of base. accuracy_only with 20 a step has them at step 5; with 30 a step, step 5 is beyond them,
    # and its last point within is the start.
    found = build_held_out(usual(), 0.95)
    assert found is not None
    assert found.equal is not None
    base, other = found.equal.arms
    assert found.equal.tokens == 100
    assert (base.steps, base.tokens, base.score.by_seed, base.difference) == (10.0, 100, (1.0, 0.5), None)
    assert other.score.by_seed == (0.8, 0.0)
    assert (other.steps, other.tokens) == (2.5, 50)
    assert other.difference is not None
    assert other.difference.effect == pytest.approx((0.8 + 0.0) / 2 - 0.75)
    assert other.difference.num_seeds == 2


def with_start(results: Results, seeds: dict[int, float]) -> Results:
    """The results with a warm start per seed, of these scores."""
    start = results.rows["sft"].policies[0]
    own = tuple(replace(start, seed=seed) for seed in seeds)
    scores = {(one.folder, "test"): _scores(PROMPTS, np.full(2, seeds[one.seed or 0]), 4) for one in own}
    rows = results.rows | {"sft": replace(results.rows["sft"], policies=own)}
    return replace(results, rows=rows, scores=results.scores | scores)


def test_a_run_at_step_0_has_the_score_of_its_own_start():
    # Only the run of seed 2 is finished, and it has no later step within 100 tokens: not the start of seed 1.
    results = with_start(usual(), {1: 0.1, 2: 0.3})
    second = replace(results.rows["accuracy_only"], policies=results.rows["accuracy_only"].policies[1:])
    found = build_held_out(replace(results, rows=results.rows | {"accuracy_only": second}), 0.95)
    assert found is not None
    assert found.equal is not None
    other = found.equal.arms[1]
    assert (other.steps, other.score.by_seed) == (0.0, (0.3,))
    assert other.difference is not None
    assert other.difference.effect == pytest.approx(0.3 - 0.5)


def test_a_start_that_is_not_evaluated_yet_leaves_a_gap():
    found = build_held_out(with_start(usual(), {1: 0.1}), 0.95)
    assert found is not None
    assert found.equal is not None
    assert found.equal.arms[1].score.by_seed == (0.8, None)
    nothing = build_held_out(with_start(usual(), {}), 0.95)
    assert nothing is not None
    assert nothing.curves[0].series[0].points[0].score.mean is None


def test_at_equal_tokens_per_step_the_comparison_is_that_of_the_last_step():
    found = build_held_out(
        by_hand({"base": [10, 10], "accuracy_only": [10, 10]}, {"base": [0.5, 0.2], "accuracy_only": [0.1, 0.3]}), 0.95
    )
    assert found is not None
    assert found.equal is not None
    assert [one.score.by_seed for one in found.equal.arms] == [(1.0, 0.5), (1.0, 1.0)]
    assert [one.steps for one in found.equal.arms] == [10.0, 10.0]


def test_a_step_that_one_seed_lacks_is_left_out_and_named():
    results = usual()
    second = results.rows["base"].folders[2]
    found = build_held_out(replace(results, curves=results.curves | {second: {}}), 0.95)
    assert found is not None
    assert [point.step for point in found.curves[0].series[0].points] == [0, 10]
    assert found.missing == (f"{second}: 5",)


def test_runs_without_times_have_no_hours():
    results = usual()
    folder = results.rows["base"].folders[1]
    untimed = results.metrics[folder].drop(columns="time/step").assign(loss=0.0)
    found = build_held_out(replace(results, metrics=results.metrics | {folder: untimed}), 0.95)
    assert found is not None
    assert {point.hours for point in found.curves[0].series[0].points} == {None}


def test_without_the_setting_there_is_no_curve():
    assert build_held_out(hand_results({"base": np.ones((2, 2)), "sft": np.zeros((1, 2))}), 0.95) is None


def test_rows_of_the_files():
    found = build_held_out(usual(), 0.95)
    assert found is not None
    rows = [row for row in held_out_rows(found) if row["column"] == "test/choice_accuracy/sampled"]
    assert [(row["arm"], row["step"], row["mean"]) for row in rows[:3]] == [
        ("base", 0, 0.0),
        ("base", 5, 0.375),
        ("base", 10, 0.75),
    ]
    assert [row.get("difference.effect") for row in equal_rows(found)] == [None, pytest.approx(-0.35)]
    assert [(row["budget"], row["tokens"]) for row in equal_rows(found)] == [(100, 100), (100, 50)]


def test_the_page_shows_curves_and_the_table_at_equal_tokens(tmp_path: Path):
    found = build_held_out(usual(), 0.95)
    assert found is not None
    content = fake_content()
    # The arms of the fake study take the place of those that are worked by hand.
    text = found.model_dump_json()
    for arm, one in zip(("base", "accuracy_only"), content.arms, strict=False):
        text = text.replace(f'"arm":"{arm}"', f'"arm":"{one.name}"')
    write_page(content.model_copy(update={"held_out": HeldOut.model_validate_json(text)}), tmp_path)

    page, figures = (tmp_path / "index.html").read_text(), {file.name for file in (tmp_path / "figures").iterdir()}
    assert 'id="held_out"' in page
    assert "within 100 generated tokens" in page
    names = {f"held_out_choice_accuracy_sampled_{over}" for over in ("step", "tokens", "hours")}
    assert {f"{name}.{ending}" for name in names for ending in ("svg", "csv")} <= figures
    assert "Within 100 generated tokens" in (tmp_path / "report.md").read_text()
