"""Learning curves: means and bands over seeds, of runs that logged different steps."""

import numpy as np
import pandas as pd
import pytest

from rlassay.report.curves import MAX_POINTS, build_curves
from rlassay.report.gather import Results
from rlassay.report.numbers import Series
from tests.report.by_hand import hand_results


def _run(values: dict[int, float]) -> pd.DataFrame:
    return pd.DataFrame({"reward": values}).rename_axis("step")


def _series(*runs: pd.DataFrame) -> Series:
    results = hand_results({"base": np.zeros((len(runs), 2)), "sft": np.zeros((1, 2))})
    metrics = dict(zip(results.rows["base"].folders.values(), runs, strict=True))
    (curve,) = build_curves(Results(**(vars(results) | {"metrics": metrics})), 0.95)
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


def test_steps_that_nobody_logged_are_left_out():
    assert _series(_run({1: 1.0, 2: np.nan, 3: 3.0})).steps == (1, 3)


def test_a_long_run_is_averaged_over_equal_stretches():
    length = 2 * MAX_POINTS
    series = _series(_run({step: float(step) for step in range(1, length + 1)}))
    assert len(series.steps) == MAX_POINTS
    # The first stretch holds steps 1 and 2, the last ends with the last step.
    assert (series.steps[0], series.mean[0]) == (2, 1.5)
    assert (series.steps[-1], series.mean[-1]) == (length, length - 0.5)


def test_curves_of_every_reward_of_lengths_and_of_the_policy(results: Results):
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


def test_recorded_times_are_no_curves(results: Results):
    assert not any("time" in curve.metric for curve in build_curves(results, 0.95))
