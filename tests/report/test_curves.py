"""Learning curves: means and bands over seeds, also for runs that logged different steps."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from rlassay.report.curves import CREDIT_CURVES, MAX_POINTS, build_curves, credit_metrics
from rlassay.report.gather import Results
from rlassay.report.numbers import Series
from rlassay.report.read.training import read_rollouts
from tests.report.by_hand import hand_results


def _run(values: dict[int, float]) -> pd.DataFrame:
    return pd.DataFrame({"reward": values}).rename_axis("step")


def _series(*runs: pd.DataFrame) -> Series:
    results = hand_results({"base": np.zeros((len(runs), 2)), "sft": np.zeros((1, 2))})
    metrics = dict(zip(results.rows["base"].folders.values(), runs, strict=True))
    (curve,) = build_curves(replace(results, **({"metrics": metrics})), 0.95)
    assert (curve.metric, curve.group) == ("reward", "reward")
    return curve.series[0]


def test_mean_and_band_by_hand():
    # Step 1: 1, 2, 3, so the reach is 4.302653 / sqrt(3) = 2.484138. Step 2: only two runs logged it. Step 3: only one.
    series = _series(_run({1: 1.0, 2: 5.0}), _run({1: 2.0, 2: 7.0, 3: 9.0}), _run({1: 3.0}))
    assert series.steps == (1, 2, 3)
    assert series.mean == (2.0, 6.0, 9.0)
    assert series.low[0] == pytest.approx(2 - 2.484138, abs=1e-6)
    # Two runs: s = sqrt(2), t(1) = 12.706205, reach 12.706205.
    assert series.high[1] == pytest.approx(6 + 12.706205, abs=1e-6)
    assert (series.low[2], series.high[2]) == (None, None)
    assert series.num_seeds == 3


def test_bands_of_shares_and_of_rewards_from_0_to_1_stay_inside(results: Results):
    curves = build_curves(_apart(results), 0.95)
    bounded = {curve.metric: (0.0, 1.0) for curve in curves if curve.unit == "share"}
    bounded |= {"rewards/choice_accuracy/mean": (0.0, 1.0), "rewards/soft_overlong/mean": (-1.0, 0.0)}
    bounded |= {"entropy": (0.0, np.inf), "completions/mean_length": (0.0, np.inf)}
    for curve in curves:
        low, high = bounded.get(curve.metric, (-np.inf, np.inf))
        ends = [end for series in curve.series for end in (*series.low, *series.high) if end is not None]
        assert min(ends) >= low, curve.metric
        assert max(ends) <= high, curve.metric
    free = next(curve for curve in curves if curve.metric == "reward")
    assert min(end for series in free.series for end in series.low if end is not None) < 0


def _apart(results: Results) -> Results:
    """The results with logged values of seed 1 near the ends of their range, so that linear bands leave it."""
    values = {
        "completions/clipped_ratio": 0.9,
        "rewards/choice_accuracy/mean": 0.95,
        "rewards/soft_overlong/mean": -0.9,
        "entropy": 9.0,
        "completions/mean_length": 900.0,
    }
    metrics = {
        folder: frame.assign(**(values | {"reward": 9.0})) if folder.endswith("seed1") else frame
        for folder, frame in results.metrics.items()
    }
    return replace(results, **({"metrics": metrics}))


def test_steps_without_a_value_are_left_out():
    assert _series(_run({1: 1.0, 2: np.nan, 3: 3.0})).steps == (1, 3)


def test_a_long_run_is_averaged_over_equal_spans():
    length = 2 * MAX_POINTS
    series = _series(_run({step: float(step) for step in range(1, length + 1)}))
    assert len(series.steps) == MAX_POINTS
    # The first span holds steps 1 and 2, the last ends with the last step.
    assert (series.steps[0], series.mean[0]) == (2, 1.5)
    assert (series.steps[-1], series.mean[-1]) == (length, length - 0.5)


def test_curves_of_rewards_lengths_and_policy(results: Results):
    curves = {curve.metric: curve for curve in build_curves(results, 0.95)}
    assert {
        "rewards/choice_accuracy/mean",
        "rewards/soft_overlong/mean",
        "completions/clipped_ratio",
        "entropy",
    } <= set(curves)
    assert "kl" not in curves
    assert [series.arm for series in curves["entropy"].series] == list(results.study.arms)
    first = [results.metrics[f"runs/base/seed{seed}"]["reward"].iloc[0] for seed in (1, 2, 3)]
    assert curves["reward"].series[0].mean[0] == pytest.approx(np.mean(first), abs=1e-6)


def test_metrics_of_a_custom_reward_have_curves_among_the_rewards():
    metric = "rewards/brevity/metrics/long_words"
    runs = [_run({1: 0.25, 2: 0.5}) for _ in range(3)]
    for run, counts in zip(runs, ([3.0, 8.0], [4.0, 6.0], [np.nan, 13.0]), strict=True):
        run[metric] = counts
    results = hand_results({"base": np.zeros((3, 2)), "sft": np.zeros((1, 2))})
    metrics = dict(zip(results.rows["base"].folders.values(), runs, strict=True))
    reward, curve = build_curves(replace(results, **({"metrics": metrics})), 0.95)
    assert reward.metric == "reward"
    assert (curve.metric, curve.title, curve.group) == (metric, "brevity: long words", "reward")
    # Step 1: the third run returned none. Step 2: (8 + 6 + 13) / 3.
    assert [series.mean for series in curve.series] == [(3.5, 9.0)]


def test_times_have_no_curves(results: Results):
    assert not any("time" in curve.metric for curve in build_curves(results, 0.95))


def test_credit_curves_are_in_the_order_of_the_page(credit_results: Results):
    curves = [curve for curve in build_curves(credit_results, 0.95) if curve.group in CREDIT_CURVES]
    assert [curve.metric for curve in curves if curve.group == "attention"] == [
        f"attention/all/{name}" for name in ("mdi", "mdi_balance", "aei_text", "aei_vision")
    ]
    assert [curve.metric.split("/")[1] for curve in curves if curve.group == "layers"][:3] == [
        "early",
        "middle",
        "late",
    ]
    assert {curve.metric for curve in curves if curve.group == "scaling"} == {
        "scaling_factor_mean",
        "dynamic_scaling_max",
        "scale_spread",
    }
    by_name = {curve.metric: curve for curve in curves}
    assert [one.arm for one in by_name["attention/late/mdi"].series] == ["accuracy_only", "format_only", "dr_grpo"]
    assert [one.arm for one in by_name["scale_spread"].series] == ["dr_grpo"]
    # .2 + .01 at step 1 in every seed
    assert by_name["sensitivity_score_mean"].series[0].mean[0] == pytest.approx(0.21)
    assert "entropy_token_fraction" not in by_name


def test_a_third_of_the_layers_that_is_all_of_them_has_no_curve():
    runs = [_run({1: 0.25, 2: 0.5}) for _ in range(3)]
    for run in runs:
        run["attention/all/mdi"] = run["attention/late/mdi"] = [1.0, 2.0]
        run["attention/early/mdi"] = [1.0, 2.5]
    results = hand_results({"base": np.zeros((3, 2)), "sft": np.zeros((1, 2))})
    metrics = dict(zip(results.rows["base"].folders.values(), runs, strict=True))
    found = [curve.metric for curve in build_curves(replace(results, **({"metrics": metrics})), 0.95)]
    assert found == ["reward", "attention/all/mdi", "attention/early/mdi"]


def test_without_signals_there_are_no_credit_curves(results: Results):
    assert not [curve for curve in build_curves(results, 0.95) if curve.group in CREDIT_CURVES]


def test_the_spread_of_the_scale_by_hand(tmp_path):
    # Factors .8, 1, 1.2: mean 1, deviation sqrt((.04 + 0 + .04) / 3).
    frame = pd.DataFrame({"step": 1, "token_count": 5, "scale": np.array([0.8, 1.0, 1.2], dtype=np.float32)})
    frame.to_parquet(tmp_path / "step000001.parquet")
    read = read_rollouts(tmp_path)
    assert read["scale_spread"].tolist() == pytest.approx([np.sqrt(0.08 / 3)], abs=1e-6)
    frame.assign(scale=np.nan).astype({"scale": "float32"}).to_parquet(tmp_path / "step000001.parquet")
    assert read_rollouts(tmp_path)["scale_spread"].isna().all()
    frame.drop(columns="scale").to_parquet(tmp_path / "step000001.parquet")
    assert "scale_spread" not in read_rollouts(tmp_path)


def test_the_spread_of_the_scale_is_a_metric_of_its_run():
    made = hand_results({"base": np.zeros((1, 2)), "sft": np.zeros((1, 2))})
    metrics = pd.DataFrame({"reward": [0.1, 0.2]}, index=pd.Index([1, 2], name="step"))
    rollouts = pd.DataFrame({"scale_spread": [0.5]}, index=pd.Index([2], name="step"))
    changes = {"metrics": {"runs/base/seed1": metrics}, "rollouts": {"runs/base/seed1": rollouts}}
    joined = credit_metrics(replace(made, **(changes)))["runs/base/seed1"]
    assert joined["scale_spread"].tolist() == pytest.approx([np.nan, 0.5], nan_ok=True)
    assert joined["reward"].tolist() == [0.1, 0.2]


def test_share_of_missing_images_has_a_curve_only_if_it_is_not_0():
    made = hand_results({"base": np.zeros((1, 2)), "dr_grpo": np.zeros((1, 2)), "sft": np.zeros((1, 2))})
    steps = pd.Index([1, 2], name="step")
    metrics = {
        "runs/base/seed1": pd.DataFrame({"no_image_fraction": [0.0, np.nan], "reward": 1.0}, index=steps),
        "runs/dr_grpo/seed1": pd.DataFrame({"no_image_fraction": [0.0, 0.25], "reward": 1.0}, index=steps),
    }
    curves = {curve.metric: curve for curve in build_curves(replace(made, **({"metrics": metrics})), 0.95)}
    assert [one.arm for one in curves["no_image_fraction"].series] == ["dr_grpo"]
    assert curves["no_image_fraction"].series[0].mean == (0.0, 0.25)
    assert [one.arm for one in curves["reward"].series] == ["base", "dr_grpo"]
