"""Performance profiles over prompts and KL against score: values by hand, and when there is nothing to show."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from rlassay.config.algorithm import KLConfig
from rlassay.report.findings.profiles import build_frontier, build_profiles, last_kl, profile_rows, shares_at
from rlassay.report.gather import Results
from rlassay.report.page import write_page
from rlassay.report.run import build_content
from rlassay.stats import seed_band, share_interval
from tests.report.by_hand import hand_results
from tests.report.conftest import SETTINGS
from tests.report.fake_content import fake_content

BASE = np.array([[0.0, 0.5, 1.0, 1.0], [0.5, 0.5, 0.5, 1.0]])
OTHER = np.array([[0.5, 0.5, 0.5, 0.5], [0.5, 0.5, 0.5, 1.0]])


def two_arms(base: np.ndarray = BASE, other: np.ndarray = OTHER) -> Results:
    return hand_results({"base": base, "accuracy_only": other, "sft": np.zeros((1, base.shape[1]))})


def test_a_profile_is_the_share_of_prompts_at_or_above_each_score():
    found = build_profiles(two_arms(), 0.95)
    assert found is not None
    assert (found.thresholds, found.num_items) == ((0.0, 0.5, 1.0), 4)
    base, other = found.series
    # Seed 1 of base: 4, 3 and 2 of 4 prompts reach 0, .5 and 1; seed 2: 4, 4 and 1.
    assert base.mean == (1.0, 0.875, 0.375)
    assert other.mean == (1.0, 1.0, 0.125)
    band = seed_band(np.array([[1.0, 0.75, 0.5], [1.0, 1.0, 0.25]]), 0.95)
    assert band.low[1] < 0
    assert band.high[1] > 1  # with two seeds it is wider than shares can be
    # t(1) = 12.706205; both seeds' half-widths at .875 and .375 are 12.706205 x .125.
    ends = [share_interval(mean, 12.706205 * 0.125) for mean in (0.875, 0.375)]
    assert base.low == pytest.approx((1.0, ends[0][0], ends[1][0]), abs=1e-6)
    assert base.high == pytest.approx((1.0, ends[0][1], ends[1][1]), abs=1e-6)
    assert all(0 < low < high < 1 for low, high in ends)
    assert [row["mean"] for row in profile_rows(found)] == [*base.mean, *other.mean]


def test_a_mean_over_samples_reaches_its_own_threshold():
    third = np.array([[np.mean([1.0, 0.0, 0.0])]])
    assert shares_at(third, np.array([0.333333, 0.34])).tolist() == [[1.0, 0.0]]


def test_a_prompt_that_a_run_has_not_scored_is_left_out_of_all_profiles():
    found = build_profiles(two_arms(other=np.where(np.arange(4) == 3, np.nan, OTHER)), 0.95)
    assert found is not None
    assert found.num_items == 3
    assert found.series[0].mean == pytest.approx((1.0, 5 / 6, 1 / 6), abs=1e-6)


def test_a_continuous_metric_has_evenly_spaced_thresholds():
    base = np.linspace(-3, 2, 200).reshape(2, 100)
    found = build_profiles(two_arms(base, base), 0.95)
    assert found is not None
    assert len(found.thresholds) == 33
    assert (found.thresholds[0], found.thresholds[-1]) == (-3.0, 2.0)
    assert np.ptp(np.diff(found.thresholds)) < 1e-9


def test_there_is_no_profile_where_it_says_no_more_than_the_mean():
    assert build_profiles(two_arms(np.round(BASE), np.round(OTHER)), 0.95) is None
    assert build_profiles(hand_results({"base": BASE, "sft": np.zeros((1, 4))}), 0.95) is None


def with_kl(results: Results, logged: dict[str, list[float]], **rl: Any) -> Results:
    """The results with a logged KL per seed, the same at all of twenty steps but the first eighteen."""
    steps = pd.Index(range(1, 21), name="step")
    metrics = {
        folder: pd.DataFrame({"kl": [9.0] * 18 + [value - 0.01, value + 0.01]} if value else {"loss": 0.0}, index=steps)
        for arm, values in logged.items()
        for folder, value in zip(results.rows[arm].folders.values(), values, strict=True)
    }
    study = results.study
    arm = study.arms["accuracy_only"]
    changed = arm.recipe.model_copy(update={"rl": arm.recipe.rl.model_copy(update=rl)})
    arms = study.arms | {"accuracy_only": arm.model_copy(update={"recipe": changed})}
    return replace(results, metrics=metrics, study=study.model_copy(update={"arms": arms}))


def test_the_frontier_has_the_kl_of_the_last_tenth_and_the_score_of_each_run():
    found = build_frontier(with_kl(two_arms(), {"base": [0.2, 0.4], "accuracy_only": [0.1, 0.3]}))
    assert found is not None
    assert [(run.arm, run.seed, run.kl, run.score) for run in found.runs] == [
        ("base", 1, 0.2, 0.625),
        ("base", 2, 0.4, 0.625),
        ("accuracy_only", 1, 0.1, 0.5),
        ("accuracy_only", 2, 0.3, 0.625),
    ]
    assert found.left_out == ()


@pytest.mark.parametrize(
    ("kl", "rl"),
    [
        ({"base": [0.2, 0.4], "accuracy_only": [0.0, 0.0]}, {}),
        ({"base": [0.2, 0.4], "accuracy_only": [0.1, 0.3]}, {"kl": KLConfig(kind="abs")}),
        ({"base": [0.2, 0.4], "accuracy_only": [0.1, 0.3]}, {"sync_ref_model": True}),
    ],
    ids=["one arm measured it", "no estimate of the KL", "the reference moves"],
)
def test_there_is_no_frontier_of_one_arm(kl: dict[str, list[float]], rl: dict[str, Any]):
    assert build_frontier(with_kl(two_arms(), kl, **rl)) is None


def test_an_arm_without_kl_is_named():
    three = hand_results({"base": BASE, "accuracy_only": OTHER, "dr_grpo": OTHER, "sft": np.zeros((1, 4))})
    kl = {"base": [0.2, 0.4], "accuracy_only": [0.0, 0.0], "dr_grpo": [0.1, 0.3]}
    found = build_frontier(with_kl(three, kl))
    assert found is not None
    assert found.left_out == ("accuracy_only",)
    assert {run.arm for run in found.runs} == {"base", "dr_grpo"}


def test_the_last_tenth_counts_logged_steps_alone():
    assert last_kl(np.array([np.nan, np.nan])) is None
    assert last_kl(np.array([0.5, 0.3, np.nan])) == 0.3
    assert last_kl(np.array([1.0] * 9 + [2.0, 3.0])) == 2.5


def test_both_figures_are_drawn_with_their_data(tmp_path: Path):
    results = with_kl(two_arms(), {"base": [0.2, 0.4], "accuracy_only": [0.1, 0.3]})
    found = {"profiles": build_profiles(results, 0.95), "frontier": build_frontier(results)}
    write_page(fake_content().model_copy(update=found), tmp_path)

    page = (tmp_path / "index.html").read_text()
    assert "<summary>Scores over prompts, KL against score</summary>" in page
    assert "accuracy + format 62.5 at 0.3; accuracy only 56.2 at 0.2" in page
    rows = (tmp_path / "figures/frontier.csv").read_text().splitlines()
    assert rows[:2] == ["arm,seed,kl,score", "base,1,0.2,0.625"]
    assert len((tmp_path / "figures/profiles.csv").read_text().splitlines()) == 1 + 2 * 3
    assert {"frontier.svg", "profiles.svg"} <= {file.name for file in (tmp_path / "figures").iterdir()}
    assert "(figures/frontier.svg)" in (tmp_path / "report.md").read_text()


def test_the_report_of_files_has_a_profile_of_every_arm(results: Results):
    content = build_content(results, SETTINGS.report)
    assert content.profiles is not None
    assert [series.arm for series in content.profiles.series] == list(results.study.arms)
    # At 0 every prompt counts; the integral over the thresholds is the mean.
    main = content.tables["main"]
    rows = {row.row: row.cells[0].mean for row in main.rows}
    for series in content.profiles.series:
        steps = np.diff((0.0, *content.profiles.thresholds))
        area = float(np.sum(steps * np.array(series.mean, dtype=float)))
        assert area == pytest.approx(rows[series.arm], abs=1e-5)
    assert content.frontier is None
