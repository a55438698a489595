"""Signals and credit inside real runs of a vision-language model."""

import math
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from rlassay.config.settings import Diagnostics
from rlassay.layout import Layout
from rlassay.training.rl import run_rl
from tests.training.conftest import copied
from tests.training.short_run import RUN, load_short, policy_of, proof, rollouts, timeless_metrics

STEPS = 2
REWARDS: dict[str, Any] = {
    "rewards__modality_balance": {"weight": 0.5, "options": {"ratio": 40.0}},
    "rewards__vision_gain": {"weight": 0.0, "options": {"min_spread": 0.0}},
}
PERCEPTION = [
    {"kind": "entropy_filter", "fraction": 0.25},
    {"kind": "perception_filter", "fraction": 0.25},
    {"kind": "trajectory_scaling", "min_scale": 0.9},
]
CONTROLS = [
    {"kind": "attention_weights", "sigma": 1.0, "negative_scale": 0.5},
    {"kind": "random_filter", "fraction": 0.5},
]
LOUD = Diagnostics()
QUIET = Diagnostics(realtime_rollout_logging=False, compute_attention_metrics=False, compute_kl_metrics=False)


def run(warm_started: Path, folder: Path, diagnostics: Diagnostics = LOUD, **edits: Any) -> Layout:
    folder.mkdir(exist_ok=True)
    study, layout = load_short(folder, rl__max_steps=STEPS, **edits), copied(warm_started, folder)
    run_rl(study, layout, policy_of(study), diagnostics)
    return layout


def token_rows(layout: Layout) -> list[dict[str, Any]]:
    return [row for path in sorted(layout.tokens(RUN).iterdir()) for row in pq.read_table(path).to_pylist()]


@pytest.fixture(scope="module")
def filtered(warm_started: Path, tmp_path_factory: pytest.TempPathFactory) -> Layout:
    """A run with both filters, scaling and rewards that read the attention."""
    edits = {"credit": PERCEPTION, "signals__perception": {"block": 4}, "rl__gradient_accumulation_steps": 2}
    edits |= {"rl__steps_per_generation": 2, "rl__per_device_train_batch_size": 4}
    return run(warm_started, tmp_path_factory.mktemp("filtered"), **edits, **REWARDS)


def test_rewards_read_the_measured_attention(filtered: Layout):
    for row in rollouts(filtered):
        dominance = row["signal.modality_dominance/late"]
        balance = max(0.0, 1 - abs(math.log(dominance)) / math.log(40))
        assert row["raw.modality_balance"] == pytest.approx(2 * balance - 1, abs=1e-5)
        assert 0 <= row["raw.vision_gain"] <= 1
        assert row["signal.vision_tokens"] == 16


def test_metrics_describe_the_signals_and_the_selected_tokens(filtered: Layout):
    rows = rollouts(filtered)
    for line in timeless_metrics(filtered):
        of_step = [row for row in rows if row["step"] == line["step"]]
        dominances = [row["signal.modality_dominance/all"] for row in of_step]
        assert line["attention/all/mdi"] == pytest.approx(sum(dominances) / len(dominances), rel=1e-4)
        assert line["scaling_factor_mean"] == pytest.approx(1.0, abs=1e-4)
        assert line["dynamic_scaling_max"] == pytest.approx(max(row["scale"] for row in of_step), abs=1e-4)
        assert 0.25 <= line["entropy_token_fraction"] <= line["combined_token_fraction"] <= 1
        assert line["sensitivity_score_mean"] > 0
        assert line["low_var_kl_mean_selected"] >= line["low_var_kl_mean_rejected"]
        assert line["no_image_fraction"] == 0


def test_recorded_tokens_have_their_signals_and_weights(filtered: Layout):
    for row in token_rows(filtered):
        count = len(row["tokens"])
        assert len(row["weight"]) == len(row["entropy"]) == len(row["perception"]) == len(row["dominance"]) == count
        kept = math.ceil(0.25 * count)
        by_entropy = sorted(row["entropy"], reverse=True)[kept - 1]
        by_perception = sorted(row["perception"], reverse=True)[kept - 1]
        for weight, entropy, perception in zip(row["weight"], row["entropy"], row["perception"], strict=True):
            if entropy > by_entropy or perception > by_perception:
                assert weight == pytest.approx(row["scale"])
            elif entropy < by_entropy and perception < by_perception:
                assert weight == 0
        assert len(row["vision_attention"]) == 16
        assert row["vision_grid"] == [4, 4]
        assert 0 < sum(row["vision_attention"]) < 1


def test_the_logs_for_people_show_attention_and_weights(filtered: Layout):
    state = filtered.state(RUN)
    attention = (state / "attention_diagnostics.md").read_text(encoding="utf-8")
    assert attention.count("| late |") == attention.count("## Step") == STEPS
    assert "(0.00)" in (state / "token_weights.md").read_text(encoding="utf-8")


def test_controls_are_the_same_in_every_attempt_and_train_other_weights(warm_started: Path, tmp_path: Path):
    edits = {"credit": CONTROLS, "credit_denominator": "selected", "signals__attention": {"dominance": "all"}}
    edits |= {"arms": {"base": {"label": "base"}}, **REWARDS}
    first, again = (run(warm_started, tmp_path / name, **edits) for name in ("first", "again"))
    assert proof(first)["sha256"] == proof(again)["sha256"]
    uniform = run(warm_started, tmp_path / "uniform", **REWARDS)
    assert proof(first)["sha256"] != proof(uniform)["sha256"]
    assert rollouts(first)[0]["completion"] == rollouts(uniform)[0]["completion"]


def test_measuring_does_not_change_the_trained_weights(warm_started: Path, tmp_path: Path):
    measured = run(warm_started, tmp_path / "measured")
    quiet = run(warm_started, tmp_path / "quiet", QUIET)
    assert proof(measured)["sha256"] == proof(quiet)["sha256"]
    assert "signal.modality_dominance/late" in rollouts(measured)[0]
    assert "signal.modality_dominance/late" not in rollouts(quiet)[0]
    assert all("kl" in line for line in timeless_metrics(measured))
    assert all("kl" not in line for line in timeless_metrics(quiet))
    assert not list(quiet.state(RUN).glob("*.md"))


def test_signals_of_one_arm_are_measured_in_all(warm_started: Path, tmp_path: Path):
    arms = {"base": {"label": "base"}, "filtered": {"from": "base", "varies": ["credit"], "credit": PERCEPTION[1:2]}}
    layout = run(warm_started, tmp_path, QUIET, arms=arms)
    rows = token_rows(layout)
    assert all(row["weight"] == [1.0] * len(row["tokens"]) for row in rows)
    assert sum(sum(row["perception"]) for row in rows) > 0
