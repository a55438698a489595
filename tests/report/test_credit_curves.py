"""Learning curves of token credit."""

import numpy as np
import pandas as pd
import pytest

from rlassay.report.credit_curves import CREDIT_CURVES, credit_metrics
from rlassay.report.curves import build_curves
from rlassay.report.gather import Results
from rlassay.report.reading import read_rollouts
from tests.report.by_hand import hand_results


def test_curves_of_what_was_logged_in_the_order_of_the_page(credit_results: Results):
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


def test_without_signals_there_are_no_such_curves(results: Results):
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


def test_the_spread_joins_the_metrics_of_its_run():
    made = hand_results({"base": np.zeros((1, 2)), "sft": np.zeros((1, 2))})
    metrics = pd.DataFrame({"reward": [0.1, 0.2]}, index=pd.Index([1, 2], name="step"))
    rollouts = pd.DataFrame({"scale_spread": [0.5]}, index=pd.Index([2], name="step"))
    changes = {"metrics": {"runs/base/seed1": metrics}, "rollouts": {"runs/base/seed1": rollouts}}
    joined = credit_metrics(Results(**(vars(made) | changes)))["runs/base/seed1"]
    assert joined["scale_spread"].tolist() == pytest.approx([np.nan, 0.5], nan_ok=True)
    assert joined["reward"].tolist() == [0.1, 0.2]


def test_shortcomings_are_drawn_only_where_there_are_any():
    made = hand_results({"base": np.zeros((1, 2)), "dr_grpo": np.zeros((1, 2)), "sft": np.zeros((1, 2))})
    steps = pd.Index([1, 2], name="step")
    metrics = {
        "runs/base/seed1": pd.DataFrame({"no_image_fraction": [0.0, np.nan], "reward": 1.0}, index=steps),
        "runs/dr_grpo/seed1": pd.DataFrame({"no_image_fraction": [0.0, 0.25], "reward": 1.0}, index=steps),
    }
    curves = {curve.metric: curve for curve in build_curves(Results(**(vars(made) | {"metrics": metrics})), 0.95)}
    assert [one.arm for one in curves["no_image_fraction"].series] == ["dr_grpo"]
    assert curves["no_image_fraction"].series[0].mean == (0.0, 0.25)
    assert [one.arm for one in curves["reward"].series] == ["base", "dr_grpo"]
