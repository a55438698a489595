"""The reward taken apart."""

import numpy as np
import pandas as pd
import pytest

from rlassay.report.evidence import RewardPart
from rlassay.report.gather import Results
from rlassay.report.reward_parts import build_reward_parts
from tests.report.by_hand import hand_results


def _rollouts(seed: int) -> pd.DataFrame:
    """Twenty steps of four completions: the first two steps are a tenth, and so are the last two."""
    steps = np.arange(1, 21)
    frame = pd.DataFrame(index=pd.Index(steps, name="step"))
    for reward in ("choice_accuracy", "think_answer_format", "soft_overlong"):
        frame[f"raw.{reward}"] = (steps + seed) * 0.1
        frame[f"weighted.{reward}"] = (steps + seed) * 0.05
        frame[f"judged.{reward}"] = 2.0 if reward == "choice_accuracy" else 4.0
    return frame.assign(tokens=40.0, completions=4.0)


def _taken_apart(
    results: Results, rollouts: dict[str, pd.DataFrame], metrics: dict[str, pd.DataFrame] | None = None
) -> list[RewardPart]:
    """The parts of these rollouts; without metrics, nothing about single groups was logged."""
    logged = metrics or {folder: pd.DataFrame() for folder in rollouts}
    return build_reward_parts(Results(**(vars(results) | {"rollouts": rollouts, "metrics": logged})), 0.95)


def test_parts_by_hand():
    results = hand_results({"base": np.zeros((3, 2)), "sft": np.zeros((1, 2))})
    rollouts = {folder: _rollouts(seed) for seed, folder in results.rows["base"].folders.items() if seed}
    accuracy, form, overlong = _taken_apart(results, rollouts)
    # Seed s, steps 1 and 2: 0.1 (1 + s + 2 + s) over 4 judged completions = 0.025 (3 + 2 s): .125, .175, .225.
    assert accuracy.first.mean == pytest.approx(0.175)
    assert accuracy.first.high == pytest.approx(0.175 + 4.302653 * 0.05 / np.sqrt(3), abs=1e-6)
    # Steps 19 and 20: 0.025 (39 + 2 s), mean over s = 2: 1.075.
    assert accuracy.last.mean == pytest.approx(1.075)
    # Added to the sum: 0.05 (39 + 2 s) over 8 completions, judged or not, mean 0.26875.
    assert accuracy.weighted_last.mean == pytest.approx(0.26875)
    assert (accuracy.first.num_seeds, accuracy.first.num_items, accuracy.first.covers) == (3, 8, "seeds")
    assert (accuracy.not_judged, form.not_judged) == (0.5, 0.0)
    assert [part.role for part in (accuracy, form, overlong)] == ["trained", "trained", "observer"]


def test_how_a_reward_judged_by_hand():
    results = hand_results({"base": np.zeros((2, 2)), "sft": np.zeros((1, 2))})
    folders = [folder for seed, folder in results.rows["base"].folders.items() if seed]
    rollouts = {folder: _rollouts(seed) for seed, folder in enumerate(folders)}
    rollouts[folders[0]]["failed.choice_accuracy.timeout"] = [0.0] * 18 + [1.0, 2.0]
    rollouts[folders[1]]["failed.choice_accuracy.timeout"] = 0.0
    rollouts[folders[1]]["failed.choice_accuracy.crash"] = [0.0] * 19 + [1.0]
    metrics = {
        folder: pd.DataFrame(
            {
                "rewards/choice_accuracy/frac_zero_std": [0.5, 1.0],
                "rewards/think_answer_format/frac_zero_std": [0.8, 0.9],
                "rewards/soft_overlong/frac_zero_std": [1.0, 1.0],
                "rewards/choice_accuracy/correlation/length": [shift, np.nan],
                "rewards/choice_accuracy/correlation/think_answer_format": [0.25, 0.75],
                "rewards/choice_accuracy/correlation/soft_overlong": [np.nan, np.nan],
            }
        )
        for folder, shift in zip(folders, (0.1, -0.5), strict=True)
    }
    parts = _taken_apart(results, rollouts, metrics)
    accuracy, form, overlong = parts
    assert (accuracy.failed, form.failed) == ({"timeout": 3, "crash": 1}, {})
    assert [part.same_in_group for part in parts] == [0.75, 0.85, 1.0]
    # An observer owes nobody a difference.
    assert [part.silent for part in parts] == [False, True, False]
    # Undefined steps do not count; a correlation is logged under the earlier reward.
    assert accuracy.correlations == {"think_answer_format": 0.5, "soft_overlong": None, "length": -0.2}
    assert form.correlations == {"choice_accuracy": 0.5, "soft_overlong": None, "length": None}
    assert overlong.correlations["choice_accuracy"] is None


def test_every_arm_and_reward_has_a_part(results: Results):
    parts = build_reward_parts(results, 0.95)
    assert [(part.arm, part.reward) for part in parts] == [
        (name, reward) for name, arm in results.study.arms.items() for reward in arm.recipe.rewards
    ]
    assert all(part.weighted_last.mean == 0 for part in parts if part.role == "observer")


def test_an_arm_without_a_run_has_no_part():
    results = hand_results({"base": np.zeros((1, 2)), "dr_grpo": np.zeros((0, 2)), "sft": np.zeros((1, 2))})
    rollouts = {"runs/base/seed1": _rollouts(1)}
    parts = _taken_apart(results, rollouts)
    assert {part.arm for part in parts} == {"base"}
    assert parts[0].first.covers == "nothing"
