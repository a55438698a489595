import json
import shutil
from dataclasses import fields
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from trl.trainer.grpo_config import GRPOConfig

from rlassay.config.model import HubModel, Lora
from rlassay.config.settings import Diagnostics
from rlassay.config.training import GRPOArguments, RLConfig
from rlassay.files import sha256
from rlassay.layout import Layout
from rlassay.models.tuning import part_of
from rlassay.records import read_rows
from rlassay.signals import Masking
from rlassay.training.process import RefusedError
from rlassay.training.rl import generation_batches, grpo_arguments, measures_kl, run_rl, signal_plan
from rlassay.training.sft import run_sft
from tests.config.studies import study
from tests.evaluation.tiny import only
from tests.models.hubs import vision_model
from tests.training.conftest import run_in_two
from tests.training.short_run import (
    MAX_STEPS,
    RUN,
    fresh_layout,
    load_short,
    policy_of,
    proof,
    rollouts,
    timeless_metrics,
)


def test_the_plan_of_signals_takes_every_option_of_perception():
    options = {"probability": 0.3, "block": 4, "mode": "grey", "estimator": "js", "mask_per": "prompt"}
    changed = study(signals__perception=options)
    plan = signal_plan(changed, changed.arms["base"].recipe, Diagnostics())

    assert plan.masking == Masking(probability=0.3, block=4, mode="grey")
    assert (plan.estimator, plan.mask_per) == ("js", "prompt")


@pytest.mark.parametrize(
    ("asked", "hub", "lora", "rl", "measured"),
    [
        (None, False, False, {}, True),
        (None, True, False, {}, False),
        (None, True, True, {}, True),
        (True, True, False, {}, True),
        (False, False, False, {}, False),
        (True, False, False, {"beta": 0.04}, False),
        (True, False, False, {"kl": {}}, False),
    ],
)
def test_the_kl_is_measured_where_that_needs_no_second_copy_of_a_hub_model_or_where_asked(
    asked: bool | None, hub: bool, lora: bool, rl: dict[str, Any], measured: bool
):
    recipe = study(**{f"rl__{name}": value for name, value in rl.items()}).arms["base"].recipe
    if hub:
        model = HubModel(kind="hub", name="a/model", lora=Lora(r=2) if lora else None)
        recipe = recipe.model_copy(update={"model": model})
    assert measures_kl(recipe, Diagnostics(compute_kl_metrics=asked)) == measured


def test_the_manifest_holds_the_steps_and_the_digest_of_the_weights(uninterrupted: Layout, tmp_path: Path):
    written = proof(uninterrupted)
    policy = policy_of(load_short(tmp_path))
    weights = uninterrupted.root / RUN / written["weights"]
    assert (written["steps"], written["max_steps"], written["resumes"]) == (MAX_STEPS, MAX_STEPS, [])
    assert written["fingerprint"] == policy.fingerprint
    assert written["sha256"] == {"model.safetensors": sha256(weights / "model.safetensors")}
    assert written["generated_tokens"] == sum(row["token_count"] for row in rollouts(uninterrupted))
    assert written["seconds"] > 0


def test_rl_changes_the_weights_of_the_warm_start(uninterrupted: Layout, tmp_path: Path):
    warm_start = only(load_short(tmp_path), "sft").folder
    digest = sha256(uninterrupted.state(warm_start) / "weights" / "model.safetensors")
    assert proof(uninterrupted)["inputs"]["warm_start/model.safetensors"] == digest
    assert proof(uninterrupted)["sha256"]["model.safetensors"] != digest


def test_every_completion_of_every_step_is_kept(uninterrupted: Layout):
    rows = rollouts(uninterrupted)
    prompts = {row.prompt_id for row in read_rows(uninterrupted.split("train"))}
    assert len(rows) == 8 * MAX_STEPS
    assert [row["step"] for row in rows] == [1 + index // 8 for index in range(len(rows))]
    assert [row["sample"] for row in rows] == [0, 1, 2, 3] * (2 * MAX_STEPS)
    assert {row["prompt_id"] for row in rows} == prompts
    weights = {"choice_accuracy": 1.0, "think_answer_format": 0.5, "soft_overlong": 1.0}
    for row in rows:
        assert all(row[f"weighted.{name}"] == weight * row[f"raw.{name}"] for name, weight in weights.items())
        assert row["reward"] == pytest.approx(sum(row[f"weighted.{name}"] for name in weights))
    assert len({row["reward"] for row in rows}) > 1


def test_the_metrics_of_a_step_are_those_of_its_completions(uninterrupted: Layout):
    logged = timeless_metrics(uninterrupted)
    assert [line["step"] for line in logged] == list(range(1, MAX_STEPS + 1))
    rows = rollouts(uninterrupted)
    for line in logged:
        of_step = [row for row in rows if row["step"] == line["step"]]
        for name in ("choice_accuracy", "think_answer_format", "soft_overlong"):
            assert line[f"rewards/{name}/mean"] == pytest.approx(sum(row[f"raw.{name}"] for row in of_step) / 8)
        assert line["reward"] == pytest.approx(sum(row["reward"] for row in of_step) / 8)
        assert line["completions/clipped_ratio"] == pytest.approx(sum(not row["finished"] for row in of_step) / 8)
        assert line["completions/mean_length"] == pytest.approx(sum(row["token_count"] for row in of_step) / 8)


def test_the_kl_from_the_warm_start_is_logged_without_a_penalty(uninterrupted: Layout):
    first, *later = [line["kl"] for line in timeless_metrics(uninterrupted)]
    assert first == pytest.approx(0, abs=1e-6)
    assert later[-1] > 1e-6
    assert {line["beta"] for line in timeless_metrics(uninterrupted)} == {0.0}


def test_all_arguments_of_trl_are_written_out(uninterrupted: Layout):
    written = json.loads((uninterrupted.state(RUN) / "trl_arguments.json").read_text(encoding="utf-8"))
    assert set(written) >= {field.name for field in fields(GRPOConfig)}
    assert (written["vespo_k_neg"], written["top_k"], written["max_steps"]) == (3.0, 0, MAX_STEPS)


def test_the_first_groups_are_recorded_token_by_token(uninterrupted: Layout):
    texts = {(row["step"], row["prompt_id"], row["sample"]): row["completion"] for row in rollouts(uninterrupted)}
    shards = sorted(uninterrupted.tokens(RUN).iterdir())
    records = [row for path in shards for row in pq.read_table(path).to_pylist()]
    assert len(records) == 8 * MAX_STEPS  # both groups of each step
    for row in records:
        assert "".join(row["tokens"]) == texts[row["step"], row["prompt_id"], row["sample"]]
        assert row["weight"] == [1.0] * len(row["tokens"])


def test_the_logs_for_people_have_every_step(uninterrupted: Layout):
    state = uninterrupted.state(RUN)
    completions = (state / "rollout_results.md").read_text(encoding="utf-8")
    weights = (state / "token_weights.md").read_text(encoding="utf-8")
    for step in range(1, MAX_STEPS + 1):
        assert f"\n## Step {step}\n" in completions
        assert f"\n## Step {step}\n" in weights
    first = rollouts(uninterrupted)[0]
    assert f"**Prompt {first['prompt_id']}**" in completions
    assert all(f"    {line}\n" in completions for line in first["completion"].splitlines())
    assert "(1.00)" in weights


def test_another_seed_gives_other_completions_from_the_first_batch_on(
    layout: Layout, uninterrupted: Layout, tmp_path: Path
):
    study = load_short(tmp_path, rl__max_steps=2)
    other = "runs/base/seed2"
    run_rl(study, layout, policy_of(study, other))
    texts = [row["completion"] for row in rollouts(layout, other)]
    assert texts[:8] != [row["completion"] for row in rollouts(uninterrupted)][:8]


def test_without_a_warm_start_the_divergence_is_from_the_model_as_it_is(tmp_path: Path):
    edits: dict[str, Any] = {"sft": None, "rl__beta": 0.1}
    study, layout = load_short(tmp_path, **edits), fresh_layout(tmp_path / "results")
    run_rl(study, layout, policy_of(study))
    divergences = [line["kl"] for line in timeless_metrics(layout)]
    assert divergences[0] == pytest.approx(0, abs=1e-6)
    assert divergences[-1] > 1e-4


def test_adapters_resume_exactly_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    hub = {"kind": "hub", "name": str(vision_model(tmp_path / "hub")), "dtype": "float32", "lora": {"r": 4}}
    edits: dict[str, Any] = {"model": hub, "rl__beta": 0.05}
    study, layout = load_short(tmp_path, **edits), fresh_layout(tmp_path / "results")
    run_sft(study, layout, only(study, "sft"))
    other = Layout(root=tmp_path / "other")
    shutil.copytree(layout.root, other.root)
    run_rl(study, layout, policy_of(study))
    run_in_two(study, other, 6, monkeypatch)
    assert list(proof(other)["sha256"]) == ["adapter_model.safetensors"]
    # The adapter names its base, whose path differs, beside its weights and not in them.
    assert proof(other)["sha256"] == proof(layout)["sha256"]
    assert timeless_metrics(other) == timeless_metrics(layout)


def test_a_frozen_vision_tower_keeps_its_weights(layout: Layout, tmp_path: Path):
    study = load_short(tmp_path, rl__max_steps=2, rl__tune={}, rl__entropy_coef=0.5)
    run_rl(study, layout, policy_of(study))
    start = load_file(layout.state(only(study, "sft").folder) / "weights" / "model.safetensors")
    trained = load_file(layout.root / RUN / proof(layout)["weights"] / "model.safetensors")
    moved = {part_of(name) for name in start if not torch.equal(start[name], trained[name])}
    assert moved == {"language_model", "connector"}


def test_a_warm_start_that_is_not_trained_yet_is_an_error(tmp_path: Path):
    study, layout = load_short(tmp_path), fresh_layout(tmp_path / "results")
    with pytest.raises(ValueError, match=r"sft/\w+ is not trained yet: there is no .*sft\.json"):
        run_rl(study, layout, policy_of(study))
    with pytest.raises(ValueError, match="is not a run of an arm"):
        run_rl(study, layout, only(study, "sft"))


def test_fewer_gpus_than_declared_are_refused_before_anything_is_touched(layout: Layout, tmp_path: Path):
    study = load_short(tmp_path, gpus=64)
    with pytest.raises(RefusedError, match=r"the study declares gpus: 64, but this job sees \d+"):
        run_rl(study, layout, policy_of(study))
    assert not layout.state(RUN).exists()


def test_the_run_needs_as_many_generation_batches_as_it_has_steps_and_reuse(tmp_path: Path):
    edits: dict[str, Any] = {"rl__steps_per_generation": 2, "rl__num_iterations": 3, "rl__save_steps": 6}
    recipe = policy_of(load_short(tmp_path, **edits)).recipe
    # 8 steps of one micro-batch each, 2 x 3 micro-batches per generation batch; 8 x 2 completions are 4 groups.
    assert generation_batches(recipe.rl, grpo_arguments(recipe, 5, tmp_path, on_cpu=True)) == (4, 2)


def test_every_setting_of_the_study_reaches_trl(tmp_path: Path):
    edits: dict[str, Any] = {
        "rl__loss_type": "cispo",
        "rl__epsilon_high": 5.0,
        "rl__scale_rewards": "batch",
        "rl__steps_per_generation": 3,
        "rl__num_iterations": 2,
        "rl__save_steps": 6,
        "rl__warmup_steps": 1,
        "rl__temperature": 0.7,
    }
    recipe = policy_of(load_short(tmp_path, **edits)).recipe
    arguments = grpo_arguments(recipe, 5, tmp_path, on_cpu=True)
    ours = {"advantage", "kl", "guard", "dynamic_sampling", "replay", "train_on", "tune", "beam_sampling"}
    ours |= {"engine", "max_tokens_per_micro_batch", "common_random_numbers"}
    assert set(RLConfig.model_fields) - set(GRPOArguments.model_fields) == ours
    for name in GRPOArguments.model_fields:
        assert getattr(arguments, name) == getattr(recipe.rl, name), name
    assert arguments.reward_weights == [1.0, 0.5, 1.0]
    assert (arguments.seed, arguments.use_cpu, arguments.bf16, arguments.top_k) == (5, True, False, 0)
    assert arguments.report_to == []
