"""The work of a study, counted by hand."""

from pathlib import Path

import pytest

from rlassay.cli.plans.estimates import (
    checkpoint_bytes,
    estimate_stages,
    parameters,
    rollout_completions,
    split_rows,
    weight_bytes,
)
from rlassay.config.model import HubModel, Lora, TinyLM, TinyVLM
from tests.config.studies import GONE, study


def stages(**edits: object) -> dict:
    """The estimates by stage."""
    return {stage.stage: stage for stage in estimate_stages(study(**edits))}


def test_the_built_in_study():
    found = stages()
    assert list(found) == ["prepare_data", "sft_train", "rl_train", "generate", "score", "ablation_report"]
    assert [stage.jobs for stage in found.values()] == [1, 1, 12, 14, 14, 1]
    assert (found["sft_train"].steps, found["sft_train"].completions) == (1200, 1200 * 64)
    # 4 arms x 3 seeds x 60 steps, 128 completions of at most 16 tokens each.
    assert (found["rl_train"].steps, found["rl_train"].completions) == (720, 720 * 128)
    assert found["rl_train"].tokens == 720 * 128 * 16
    # 12 runs, 1 warm start and the model, 400 prompts, 8 sampled completions and a greedy one.
    assert found["generate"].completions == found["score"].completions == 14 * 400 * 9
    assert found["generate"].tokens == 14 * 400 * 9 * 16


@pytest.mark.parametrize(
    ("rl", "processes", "expected"),
    [
        ({}, 1, 60 * 128),
        ({"gradient_accumulation_steps": 4}, 1, 60 * 4 * 128),
        ({"steps_per_generation": 4, "save_steps": 20}, 1, 15 * 128 * 4),
        ({"num_iterations": 2}, 1, 30 * 128),
        ({"num_iterations": 7, "save_steps": 7}, 1, 9 * 128),  # 60 / 7 = 8.6: the ninth batch is begun
        ({}, 4, 60 * 128 * 4),
    ],
)
def test_rollout_completions(rl: dict, processes: int, expected: int):
    edits = {f"rl__{key}": value for key, value in rl.items()}
    assert rollout_completions(study(**edits).arms["base"].recipe.rl, processes) == expected


def test_a_held_out_curve_evaluates_each_run_between_its_ends():
    # Steps 20 and 40 of 60, for 12 runs; a point answers 400 prompts with 8 sampled completions and a greedy one.
    found = stages(evaluation__every=20)["held_out_curve"]
    assert (found.jobs, found.completions) == (12, 12 * 2 * 400 * 9)
    assert found.tokens == 16 * 12 * 2 * 400 * 9
    assert "held_out_curve" not in stages()


def test_no_warm_start_is_no_job():
    found = stages(sft=GONE)["sft_train"]
    assert (found.jobs, found.steps, found.completions, found.disk) == (0, 0, 0, 0)


def test_rows_of_files_are_counted_where_they_are(tmp_path: Path):
    (tmp_path / "train.jsonl").write_text("{}\n" * 30)
    (tmp_path / "test.jsonl").write_text("{}\n" * 7)
    data = {"kind": "jsonl", "folder": str(tmp_path), "splits": {"train": 20, "test": None, "later": None}}
    edits = {"data": data, "sft": GONE, "rl__per_device_train_batch_size": 8}
    assert split_rows(study(**edits)) == {"train": 20, "test": 7, "later": None}
    assert stages(**edits)["prepare_data"].disk is None
    assert stages(**edits)["generate"].completions == 13 * 7 * 9
    unknown = stages(**edits, evaluation__sets=["test", "later"])
    assert (unknown["generate"].jobs, unknown["generate"].completions, unknown["score"].completions) == (26, None, None)


# Counted by torch on the built models.
@pytest.mark.parametrize(
    ("model", "counted"),
    [
        (TinyVLM(kind="tiny_vlm"), 1_000_576),
        (TinyVLM(kind="tiny_vlm", layers=2, width=64, vision_layers=1), 178_688),
        (TinyVLM(kind="tiny_vlm", vision_width=128, patch_size=8, image_size=32), 1_229_696),
        (TinyLM(kind="tiny_lm"), 904_320),
    ],
)
def test_parameters_of_a_built_in_model(model: TinyVLM | TinyLM, counted: int):
    assert parameters(model) == pytest.approx(counted, rel=0.02)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Qwen/Qwen2.5-0.5B-Instruct", 500_000_000),
        ("Qwen/Qwen2.5-VL-7B", 7_000_000_000),
        ("HuggingFaceTB/SmolLM2-135M", 135_000_000),
        ("models/70b-runs/mine", None),
        ("gpt2", None),
    ],
)
def test_parameters_of_a_hub_model_are_read_off_its_name(name: str, expected: int | None):
    assert parameters(HubModel(kind="hub", name=name)) == expected


def test_weights_by_type_and_adapters():
    assert weight_bytes(HubModel(kind="hub", name="x-1B")) == 2_000_000_000
    assert weight_bytes(HubModel(kind="hub", name="x-1B", dtype="float32")) == 4_000_000_000
    assert weight_bytes(HubModel(kind="hub", name="unknown")) is None
    # 9.2M of 1.54B parameters at rank 8, in two bytes each.
    adapters = weight_bytes(HubModel(kind="hub", name="x-1.54B", lora=Lora(r=8)))
    assert adapters == pytest.approx(2 * 9.2e6)


def test_disk():
    found = stages(model={"kind": "hub", "name": "x-1B"})
    assert found["rl_train"].disk >= 12 * 2_000_000_000
    # Three checkpoints at a time, each the weights and AdamW's two moments.
    assert checkpoint_bytes(study(model={"kind": "hub", "name": "x-1B"})) == 9 * 2_000_000_000
    assert checkpoint_bytes(study(model={"kind": "hub", "name": "x"})) is None
    assert stages(model={"kind": "hub", "name": "x"})["rl_train"].disk is None
