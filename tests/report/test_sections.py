"""Sections without evaluation scores: design, rewards, data, provenance and cost."""

import hashlib
import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from rlassay.config.algorithm import KLConfig
from rlassay.config.study import Study
from rlassay.layout import Layout
from rlassay.records import Media, PromptRow, write_rows
from rlassay.report.findings.design import build_design
from rlassay.report.gather import Results, ResultsError, gather
from rlassay.report.numbers import RewardPart
from rlassay.report.sections import (
    LONGEST,
    build_collapses,
    build_commands,
    build_cost,
    build_policies,
    build_resumes,
    build_reward_parts,
    build_splits,
    clip_facts,
    sample_rows,
)
from tests.report.by_hand import hand_results
from tests.report.conftest import SETTINGS
from tests.report.synthetic import Size, synthetic_study

# Design.


def _with(study: Study, arm: str, **changes: object) -> Study:
    return study.model_copy(update={"arms": study.arms | {arm: study.arms[arm].model_copy(update=changes)}})


def test_every_difference_is_a_row_with_the_value_of_every_arm():
    design = build_design(synthetic_study(Size()))
    rows = {row.key: row for row in design.rows}
    assert set(rows) == {
        "rewards.think_answer_format.weight",
        "rewards.choice_accuracy.weight",
        "rl.loss_type",
        "rl.scale_rewards",
    }
    assert rows["rl.loss_type"].values == {
        "base": '"dapo"',
        "accuracy_only": '"dapo"',
        "format_only": '"dapo"',
        "dr_grpo": '"dr_grpo"',
    }
    assert rows["rl.loss_type"].declared_by == ("dr_grpo",)
    assert design.sentence.startswith("Confound check passed")


def test_an_undeclared_difference_is_a_confound():
    study = _with(synthetic_study(Size()), "dr_grpo", varies=("rl.loss_type",))
    design = build_design(study)
    row = next(row for row in design.rows if row.key == "rl.scale_rewards")
    assert (row.declared_by, row.confounds) == ((), ("dr_grpo",))
    assert design.sentence == (
        "Confounded, because arms differ from the baseline without declaring it: 'dr grpo' in rl.scale_rewards."
    )


def test_a_section_above_a_difference_declares_it_and_null_is_a_value():
    study = synthetic_study(Size(arms=("base", "dr_grpo")))
    recipe = study.arms["dr_grpo"].recipe
    recipe = recipe.model_copy(update={"rl": recipe.rl.model_copy(update={"epsilon_high": 0.28})})
    design = build_design(_with(study, "dr_grpo", recipe=recipe, varies=("rl",)))
    row = next(row for row in design.rows if row.key == "rl.epsilon_high")
    assert row.values == {"base": "null", "dr_grpo": "0.28"}
    assert row.declared_by == ("dr_grpo",)


def test_an_arm_that_lacks_the_key_has_no_value():
    study = synthetic_study(Size(arms=("base", "dr_grpo")))
    recipe = study.arms["dr_grpo"].recipe
    fewer = {name: reward for name, reward in recipe.rewards.items() if name != "soft_overlong"}
    design = build_design(_with(study, "dr_grpo", recipe=recipe.model_copy(update={"rewards": fewer})))
    row = next(row for row in design.rows if row.key == "rewards.soft_overlong")
    assert set(row.values) == {"base"}
    assert row.confounds == ("dr_grpo",)


def test_a_section_of_another_kind_is_shown_by_the_keys_that_differ():
    study = synthetic_study(Size(arms=("base", "accuracy_only", "dr_grpo")))
    controller = {"kind": "adaptive", "target": 0.1, "horizon": 50.0}
    kls = {"base": {}, "accuracy_only": {"where": "reward"}, "dr_grpo": {"kind": "mse", "controller": controller}}
    for name, kl in kls.items():
        recipe = study.arms[name].recipe
        rl = recipe.rl.model_copy(update={"kl": KLConfig.model_validate(kl)})
        study = _with(study, name, recipe=recipe.model_copy(update={"rl": rl}), varies=("rl", "rewards"))
    rows = {row.key: row for row in build_design(study).rows}
    assert not {"rl.kl", "rl.kl.controller"} & set(rows)
    assert rows["rl.kl.kind"].values == {"base": '"low_var_kl"', "accuracy_only": '"low_var_kl"', "dr_grpo": '"mse"'}
    assert rows["rl.kl.kind"].declared_by == ("dr_grpo",)
    assert rows["rl.kl.where"].declared_by == ("accuracy_only",)
    assert rows["rl.kl.controller.horizon"].values == {"dr_grpo": "50.0"}
    confounded = build_design(_with(study, "dr_grpo", varies=("rl.loss_type", "rl.scale_rewards")))
    assert "'dr grpo' in rl.kl.kind" in confounded.sentence


def test_one_arm_cannot_be_confounded():
    design = build_design(synthetic_study(Size(arms=("base",))))
    assert (design.rows, design.sentence) == ((), "The study has one arm, so nothing can be confounded.")


# Rewards during training.


def _rollouts(seed: int) -> pd.DataFrame:
    """Twenty steps of four completions, so two steps are a tenth."""
    steps = np.arange(1, 21)
    frame = pd.DataFrame(index=pd.Index(steps, name="step"))
    for reward in ("choice_accuracy", "think_answer_format", "soft_overlong"):
        frame[f"raw.{reward}"] = (steps + seed) * 0.1
        frame[f"weighted.{reward}"] = (steps + seed) * 0.05
        frame[f"scored.{reward}"] = 2.0 if reward == "choice_accuracy" else 4.0
    return frame.assign(tokens=40.0, completions=4.0)


def _reward_parts(
    results: Results, rollouts: dict[str, pd.DataFrame], metrics: dict[str, pd.DataFrame] | None = None
) -> list[RewardPart]:
    """The reward parts of these rollouts; without `metrics`, nothing was logged per group."""
    logged = metrics or {folder: pd.DataFrame() for folder in rollouts}
    return build_reward_parts(replace(results, **({"rollouts": rollouts, "metrics": logged})), 0.95)


def test_parts_by_hand():
    results = hand_results({"base": np.zeros((3, 2)), "sft": np.zeros((1, 2))})
    rollouts = {folder: _rollouts(seed) for seed, folder in results.rows["base"].folders.items() if seed}
    accuracy, form, overlong = _reward_parts(results, rollouts)
    # Seed s, steps 1 and 2: 0.1 (1 + s + 2 + s) over 4 scored completions = 0.025 (3 + 2 s): .125, .175, .225.
    assert accuracy.first.mean == pytest.approx(0.175)
    assert accuracy.first.high == pytest.approx(0.175 + 4.302653 * 0.05 / np.sqrt(3), abs=1e-6)
    # Steps 19 and 20: 0.025 (39 + 2 s), mean over s = 2: 1.075.
    assert accuracy.last.mean == pytest.approx(1.075)
    # Contribution to the sum: 0.05 (39 + 2 s) over all 8 completions, mean 0.26875.
    assert accuracy.weighted_last.mean == pytest.approx(0.26875)
    assert (accuracy.first.num_seeds, accuracy.first.num_items, accuracy.first.covers) == (3, 8, "seeds")
    assert (accuracy.not_judged, form.not_judged) == (0.5, 0.0)
    assert [part.role for part in (accuracy, form, overlong)] == ["trained", "trained", "observer"]


def test_failures_variance_and_correlations_by_hand():
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
    parts = _reward_parts(results, rollouts, metrics)
    accuracy, form, overlong = parts
    assert (accuracy.failed, form.failed) == ({"timeout": 3, "crash": 1}, {})
    assert [part.same_in_group for part in parts] == [0.75, 0.85, 1.0]
    # A logged-only reward is not reported as zero-variance.
    assert [part.silent for part in parts] == [False, True, False]
    # Undefined steps are left out; a correlation is logged under the earlier reward.
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
    parts = _reward_parts(results, rollouts)
    assert {part.arm for part in parts} == {"base"}
    assert parts[0].first.covers == "nothing"


# Data.


def test_splits_are_sorted_and_have_counts(results: Results):
    splits = build_splits(results)
    assert [(one.split, one.rows) for one in splits] == [("sft", 64), ("test", 24), ("train", 32)]
    assert splits[0].refused == {
        "duplicate: nearly the same prompt is in the split 'sft'": 3,
        "gold answer does not score": 1,
        "leak: nearly the same image is in the split 'test'": 2,
    }
    assert [(one.duplicates, one.leaks) for one in splits] == [(3, 2), (0, 0), (0, 0)]
    assert [one.where for one in splits[0].faulty] == ["sft.json: record 3"]


def test_samples_are_evenly_spaced_and_complete(results: Results):
    (first, second, third) = build_splits(results)[1].samples
    # of 24 rows, the first, and those that begin after a third and after two thirds of the file
    assert first.question == "Which digit is on the left? (0)"
    for sample, place in ((second, 8), (third, 16)):
        assert abs(int(sample.question.split("(")[1].rstrip(")")) - place) <= 1
    assert (first.choices, first.answer) == (("1", "3", "5", "7"), "A")
    assert first.images == ("../data/images/pair.png",)
    assert (first.frames, first.clips) == ((1,), ())


def test_a_clip_is_described_with_the_frames_that_each_arm_shows():
    clip = Media(kind="video", path="clips/a.mp4", duration=3.0, fps=4.0, times=(0.0, 0.5, 1.0, 2.75))
    assert clip_facts(clip) == "a.mp4 (3 s, 4 frames/s; shown at 0, 0.5, 1, 2.75 s)"
    most = {"all": None, "as many": 4, "two frames": 2}
    assert clip_facts(clip, most) == (
        "a.mp4 (3 s, 4 frames/s; shown at 0, 0.5, 1, 2.75 s, to 'two frames' at 0, 2.75 s)"
    )
    assert clip_facts(clip.model_copy(update={"times": ()}), most) == "a.mp4"


def row(number: int, length: int = 10) -> PromptRow:
    return PromptRow(prompt_id=str(number), question="x" * length, answer="1")


@pytest.mark.parametrize(("rows", "count", "expected"), [(1, 3, 1), (2, 3, 2), (100, 3, 3), (100, 0, 0)])
def test_samples_are_distinct_and_at_most_the_rows(tmp_path, rows: int, count: int, expected: int):
    write_rows(tmp_path / "test.jsonl", [row(number) for number in range(rows)])
    found = [one.prompt_id for one in sample_rows(tmp_path / "test.jsonl", count)]
    assert len(found) == len(set(found)) <= expected
    assert found[:1] == ["0"][:expected]


def test_long_texts_are_shortened(copied: tuple[Study, Layout]):
    study, layout = copied
    write_rows(layout.split("train"), [row(0, 5000)])
    sample = next(split for split in build_splits(gather(study, layout, SETTINGS)) if split.split == "train").samples[0]
    assert sample.question == "x" * (LONGEST - 1) + "…"


def test_a_damaged_split_error_has_path_and_command(copied: tuple[Study, Layout]):
    study, layout = copied
    results = gather(study, layout, SETTINGS)
    layout.split("train").write_text("no row\n")
    with pytest.raises(ResultsError, match=r"train.jsonl is damaged .*byte 0.*make it again with: .*data.json"):
        build_splits(results)
    layout.split("train").unlink()
    with pytest.raises(ResultsError, match=r"train.jsonl is missing"):
        build_splits(results)


# Provenance and cost.


def test_every_trained_policy_has_provenance(results: Results):
    facts = build_policies(results)
    assert [one.row for one in facts] == ["sft"] + [arm for arm in results.study.arms for _ in range(3)]
    assert facts[0].seed is None
    assert facts[1].sha256 == hashlib.sha256(b"runs/base/seed1").hexdigest()
    assert (facts[1].steps, facts[1].max_steps) == (10, 10)


def test_several_weight_files_have_one_digest(results: Results):
    files = {"b.safetensors": "2", "a.safetensors": "1"}
    manifests = results.manifests | {"runs/base/seed1": results.manifests["runs/base/seed1"] | {"sha256": files}}
    facts = build_policies(replace(results, **({"manifests": manifests})))
    text = json.dumps({"a.safetensors": "1", "b.safetensors": "2"})
    assert facts[1].sha256 == hashlib.sha256(text.encode()).hexdigest()


def test_costs_are_from_manifests_and_timed_steps(results: Results):
    cost = {one.policy: one for one in build_cost(results)}
    run = cost["runs/dr_grpo/seed2"]
    assert (run.seconds, run.generated_tokens, run.peak_memory_mb) == (12.5, 10_000, 512.0)
    assert set(run.seconds_per_step) == {"step", "generation", "reward"}
    assert run.seconds_per_step["generation"] == 0.5
    shared = next(one for one in cost.values() if one.policy.startswith("sft/"))
    assert shared.seconds_per_step == {}


def test_resumes_have_their_steps(results: Results):
    resumed = results.manifests["runs/base/seed1"] | {"resumes": [{"step": 4, "time": 1.0}, {"step": 8, "time": 2.0}]}
    manifests = results.manifests | {"runs/base/seed1": resumed}
    found = {one.policy: one.steps for one in build_resumes(replace(results, **({"manifests": manifests})))}
    assert found["runs/base/seed1"] == (4, 8)
    assert found["runs/base/seed2"] == ()


def test_a_run_that_its_guard_ended_is_listed_with_the_reason(results: Results):
    assert build_collapses(results) == []
    ended = {"step": 7, "reason": "entropy was 0.01, below min_entropy 0.05 for 5 steps in a row"}
    manifest = results.manifests["runs/base/seed1"]
    manifests = results.manifests | {"runs/base/seed1": manifest | {"collapsed": ended, "max_steps": 20}}
    (found,) = build_collapses(replace(results, manifests=manifests))
    assert found.model_dump() == ended | {"policy": "runs/base/seed1", "max_steps": 20}


def test_every_run_has_a_command_that_trains_it_again(results: Results):
    commands = build_commands(results)
    assert len(commands) == 1 + 12
    assert commands[1].target == "base, seed 1"
    assert f"-R {results.layout.root}/runs/base/seed1/train.json" in commands[1].command
