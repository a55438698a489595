"""The warm start: learning, resuming, and the images that it reads."""

import json
from pathlib import Path

import datasets
import pytest
import torch
from peft import LoraModel
from PIL import Image
from safetensors.torch import load_file
from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling

from rlassay.config import Study
from rlassay.layout import Layout
from rlassay.models.policy import ChatFormat, build_policy, load_policy, training_rows
from rlassay.records import read_rows, write_rows
from rlassay.training.rl import run_rl
from rlassay.training.sft import MERGE_TOLERANCE, run_sft, sft_dataset
from rlassay.training.state import Run
from tests.evaluation.tiny import layout_with_data, only, tiny_study
from tests.models.hubs import text_model, vision_model


def train(root: Path, study: Study) -> tuple[Layout, dict[str, torch.Tensor]]:
    layout = layout_with_data(root)
    policy = only(study, "sft")
    run_sft(study, layout, policy)
    return layout, load_file(layout.state(policy.folder) / "weights/model.safetensors")


def losses(layout: Layout, study: Study) -> list[float]:
    lines = layout.metrics(only(study, "sft").folder).read_text().splitlines()
    return [json.loads(line)["loss"] for line in lines]


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> tuple[Layout, dict[str, torch.Tensor]]:
    return train(tmp_path_factory.mktemp("trained"), tiny_study())


def test_the_manifest_records_the_steps(trained):
    policy = only(tiny_study(), "sft")
    manifest = json.loads(trained[0].train_manifest(policy.folder, policy.stage).read_bytes())

    assert (manifest["steps"], manifest["max_steps"], manifest["fingerprint"]) == (3, 3, policy.fingerprint)
    assert (trained[0].root / policy.folder / manifest["weights"]).is_dir()


def test_every_step_is_logged(trained):
    lines = [json.loads(line) for line in trained[0].metrics(only(tiny_study(), "sft").folder).read_text().splitlines()]

    assert [line["step"] for line in lines] == [1, 2, 3]
    assert {"time", "loss", "learning_rate", "grad_norm"} <= lines[0].keys()


def test_the_same_seed_trains_the_same_weights(trained, tmp_path):
    torch.manual_seed(99)

    assert same(train(tmp_path / "again", tiny_study())[1], trained[1])


def test_another_seed_trains_other_weights(trained, tmp_path):
    assert not same(train(tmp_path / "other", tiny_study(sft__seed=1))[1], trained[1])


def test_training_resumes_after_a_kill(trained, tmp_path, monkeypatch):
    study = tiny_study()
    layout = layout_with_data(tmp_path / "killed")
    with monkeypatch.context() as patched:
        patched.setattr(Run, "finish", _vanish)
        with pytest.raises(KeyboardInterrupt):
            run_sft(study, layout, only(study, "sft"))
    run = layout.state(only(study, "sft").folder)
    _forget_checkpoint(run, 3)

    run_sft(study, layout, only(study, "sft"))

    manifest = json.loads(layout.train_manifest(only(study, "sft").folder, "sft").read_bytes())
    assert [resume["step"] for resume in manifest["resumes"]] == [2]
    assert same(load_file(run / "weights/model.safetensors"), trained[1])


def test_a_kill_after_the_last_checkpoint_adds_no_step(tmp_path, monkeypatch):
    study = tiny_study(sft__max_steps=4)  # an epoch has three, so that the last checkpoint lies within one
    layout = layout_with_data(tmp_path / "killed")
    with monkeypatch.context() as patched:
        patched.setattr(Run, "finish", _vanish)
        with pytest.raises(KeyboardInterrupt):
            run_sft(study, layout, only(study, "sft"))

    run_sft(study, layout, only(study, "sft"))

    manifest = json.loads(layout.train_manifest(only(study, "sft").folder, "sft").read_bytes())
    assert (manifest["steps"], [resume["step"] for resume in manifest["resumes"]]) == (4, [3])


def test_the_loss_falls(tmp_path):
    study = tiny_study(sft__max_steps=25, sft__learning_rate=1e-2, sft__save_steps=25)
    layout, _ = train(tmp_path / "longer", study)
    curve = losses(layout, study)

    assert sum(curve[-3:]) / 3 < 0.5 * curve[0]


def test_only_the_completion_is_learned(tmp_path):
    """The loss is the mean over completion tokens, computed here without TRL from the untrained model."""
    study = tiny_study(sft__per_device_train_batch_size=12, sft__max_steps=1)
    layout, _ = train(tmp_path / "one", study)

    assert losses(layout, study)[0] == pytest.approx(_expected_first_loss(study, layout), rel=1e-5)


def test_trl_reads_the_stored_pixels(tmp_path):
    """TRL's collator makes the same batch as from the files opened by `datasets.Image`."""
    study, layout = tiny_study(), layout_with_data(tmp_path / "pixels")
    rows = list(read_rows(layout.split("sft")))[:3]
    gradient = Image.linear_gradient("L")
    gradient.save(layout.data / rows[0].media[0].path)
    Image.merge("RGB", [gradient.rotate(90 * turn) for turn in range(3)]).save(layout.data / rows[1].media[0].path)
    _, processor = build_policy(only(study, "sft").recipe.model, training_rows(layout))
    chat_format = ChatFormat(processor=processor, with_format_instruction=False)
    opened = sft_dataset(rows, chat_format, layout.data)
    columns = {
        "prompt": [chat_format.prompt(row) for row in rows],
        "completion": [chat_format.completion(str(row.demonstration)) for row in rows],
        "images": [[str(layout.data / item.path) for item in row.media] for row in rows],
    }
    stored = datasets.Dataset.from_dict(columns).cast_column("images", datasets.List(datasets.Image()))

    collator = DataCollatorForVisionLanguageModeling(processor, completion_only_loss=True)
    batch, expected = (collator([dataset[index] for index in range(3)]) for dataset in (opened, stored))

    assert opened[0]["images"][0].mode == "RGB"
    assert batch.keys() == expected.keys() >= {"input_ids", "pixel_values", "labels"}
    assert len(batch["pixel_values"].unique()) > 10  # gradients, not flat images
    assert all(torch.equal(batch[name], expected[name]) for name in expected)


def test_adapters_are_merged_into_full_weights(tmp_path):
    folder = text_model(tmp_path / "hub")
    model = {"kind": "hub", "name": str(folder), "dtype": "float32", "lora": {"r": 2}}
    study = tiny_study(model=model, sft__learning_rate=0.1)
    layout = layout_with_data(tmp_path / "lora")
    for split in ("sft", "train"):
        rows = [row.model_copy(update={"media": ()}) for row in read_rows(layout.split(split))]
        write_rows(layout.split(split), rows)
    policy = only(study, "sft")

    run_sft(study, layout, policy)

    weights = layout.state(policy.folder) / "weights"
    assert not (weights / "adapter_config.json").exists()
    before, after = load_file(folder / "model.safetensors"), load_file(weights / "model.safetensors")
    assert before.keys() == after.keys()
    changed = {name.split(".")[-2] for name in before if not torch.equal(before[name], after[name])}
    assert changed == {f"{name}_proj" for name in ("q", "k", "v", "o", "gate", "up", "down")}
    load_policy(policy.recipe.model, weights)


def test_adapters_of_a_vision_model_are_merged(tmp_path, monkeypatch):
    model = {"kind": "hub", "name": str(vision_model(tmp_path / "hub")), "dtype": "float32", "lora": {"r": 2}}
    study = tiny_study(model=model, sft__learning_rate=0.1)
    layout, policy = layout_with_data(tmp_path / "lora"), only(study, "sft")
    seen = recording_merges(monkeypatch)
    run_sft(study, layout, policy)

    weights = layout.state(policy.folder) / "weights"
    assert not (weights / "adapter_config.json").exists()
    with torch.no_grad():
        merged = load_policy(policy.recipe.model, weights)[0](IDS).logits
        assert torch.allclose(merged, seen[0], atol=1e-4)
        assert not torch.allclose(load_policy(policy.recipe.model, tmp_path / "hub")[0](IDS).logits, merged, atol=1e-2)


def test_adapters_in_half_precision_are_merged_within_its_rounding(without_images, tmp_path, monkeypatch):
    """bfloat16 keeps 8 bits, so merging rounds each weight by up to 1/256 of itself: some percent of a logit in all.

    A merge of half of the adapter is off by far more, and is refused.
    """
    model = {"kind": "hub", "name": str(text_model(tmp_path / "hub")), "dtype": "bfloat16", "lora": {"r": 2}}
    study = tiny_study(model=model, sft__learning_rate=0.1)
    policy = only(study, "sft")
    seen = recording_merges(monkeypatch)
    run_sft(study, without_images, policy)

    weights = without_images.state(policy.folder) / "weights"
    assert not (weights / "adapter_config.json").exists()
    with torch.no_grad():
        merged = load_policy(policy.recipe.model, weights)[0](IDS).logits
        start = load_policy(policy.recipe.model, tmp_path / "hub")[0](IDS).logits
    assert merged.dtype == torch.bfloat16
    trained, scale = seen[0].float(), seen[0].float().abs().max()
    assert (merged.float() - trained).abs().max() <= MERGE_TOLERANCE["torch.bfloat16"] * scale
    # What training changed is well above the tolerance, so that a merge which loses it would be noticed.
    assert (start.float() - trained).abs().max() > 4 * MERGE_TOLERANCE["torch.bfloat16"] * scale


@pytest.fixture
def without_images(tmp_path):
    layout = layout_with_data(tmp_path / "lora")
    for split in ("sft", "train", "test"):
        rows = [row.model_copy(update={"media": ()}) for row in read_rows(layout.split(split))]
        write_rows(layout.split(split), rows)
    return layout


def adapted_study(folder: Path, *targets: str) -> Study:
    lora = {"r": 2, "target_modules": targets}
    model = {"kind": "hub", "name": str(text_model(folder, tied=True)), "dtype": "float32", "lora": lora}
    return tiny_study(model=model, sft__learning_rate=0.1, **SHORT_RL)


SHORT_RL = {
    "rl__max_steps": 1,
    "rl__save_steps": 1,
    "rl__per_device_train_batch_size": 8,
    "rl__num_generations": 4,
    "rl__max_completion_length": 4,
    "rl__beta": 0.1,
}
IDS = torch.tensor([[5, 6, 7, 8, 9]])


def recording_merges(monkeypatch, *, error: float = 0.0) -> list[torch.Tensor]:
    """The logits of each trained model before its adapter is merged; merging adds `error` to the head's weights."""
    seen: list[torch.Tensor] = []
    merge = LoraModel.merge_and_unload

    def recorded(self, *args, **options):
        with torch.no_grad():
            seen.append(self.eval()(IDS).logits)
            merged = merge(self, *args, **options)
            merged.get_output_embeddings().weight += error
        return merged

    monkeypatch.setattr(LoraModel, "merge_and_unload", recorded)
    return seen


@pytest.mark.filterwarnings(
    "ignore:Model with `tie_word_embeddings=True`",
    "ignore:Model has `tie_word_embeddings=True`",
    "ignore:Setting `save_embedding_layers`",
)
@pytest.mark.parametrize("targets", [("embed_tokens",), ("embed_tokens", "q_proj"), ("q_proj",)], ids=str)
def test_a_merged_model_with_tied_embeddings_computes_what_was_trained(targets, without_images, tmp_path, monkeypatch):
    study = adapted_study(tmp_path / "hub", *targets)
    seen = recording_merges(monkeypatch)
    policy = only(study, "sft")
    run_sft(study, without_images, policy)

    weights = without_images.state(policy.folder) / "weights"
    assert not (weights / "adapter_config.json").exists()
    assert not (weights.parent / "adapter").exists()
    with torch.no_grad():
        assert torch.allclose(load_policy(policy.recipe.model, weights)[0](IDS).logits, seen[0], atol=1e-4)
        assert not torch.equal(load_policy(policy.recipe.model, tmp_path / "hub")[0](IDS).logits, seen[0])


def test_an_adapter_that_cannot_be_merged_is_kept_and_trained_on(without_images, tmp_path, monkeypatch, caplog):
    study = adapted_study(tmp_path / "hub", "q_proj", "v_proj")
    seen = recording_merges(monkeypatch, error=1.0)
    policy = only(study, "sft")
    run_sft(study, without_images, policy)

    weights = without_images.state(policy.folder) / "weights"
    assert (weights / "adapter_config.json").exists()
    assert "Merging the adapter would change the logits by up to" in caplog.text
    with torch.no_grad():
        assert torch.allclose(load_policy(policy.recipe.model, weights)[0](IDS).logits, seen[0], atol=1e-5)

    run = only(study, "rl")
    run_rl(study, without_images, run)

    trained = without_images.state(run.folder) / "weights"
    before, after = load_file(weights / "adapter_model.safetensors"), load_file(trained / "adapter_model.safetensors")
    assert before.keys() == after.keys()
    load_policy(run.recipe.model, trained)


def test_a_row_without_demonstration_is_named(tmp_path):
    study = tiny_study()
    layout = layout_with_data(tmp_path / "bare")
    rows = list(read_rows(layout.split("sft")))
    rows[2] = rows[2].model_copy(update={"demonstration": None})
    write_rows(layout.split("sft"), rows)

    with pytest.raises(ValueError, match=r"sft.jsonl:3: demonstration: missing"):
        run_sft(study, layout, only(study, "sft"))


def test_a_policy_of_another_stage_is_refused(tmp_path):
    study = tiny_study()

    with pytest.raises(ValueError, match=r"runs/base/seed1 is not a warm start"):
        run_sft(study, Layout(root=tmp_path), only(study, "rl"))


def test_fewer_gpus_than_declared_are_refused(tmp_path):
    study = tiny_study(gpus=64)

    with pytest.raises(RuntimeError, match=r"gpus: 64"):
        run_sft(study, layout_with_data(tmp_path / "gpus"), only(study, "sft"))


def _vanish(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def _forget_checkpoint(state: Path, step: int) -> None:
    for file in (state / f"checkpoints/checkpoint-{step}").iterdir():
        file.unlink()


def _expected_first_loss(study: Study, layout: Layout) -> float:
    model, processor = build_policy(only(study, "sft").recipe.model, training_rows(layout))
    total, count = 0.0, 0
    for row in read_rows(layout.split("sft")):
        options = " ".join(f"({letter}){choice}" for letter, choice in zip("ABCD", row.choices, strict=True))
        prompt = f"<|user|><image>{row.question}\n{options}<|assistant|>"
        image = Image.open(layout.data / row.media[0].path)
        whole = processor(text=f"{prompt}{row.demonstration}<eos>", images=[image], return_tensors="pt")
        length = processor(text=prompt, images=[image], return_tensors="pt")["input_ids"].shape[1]
        logps = torch.log_softmax(model(**whole).logits[0, length - 1 : -1], dim=-1)
        total -= logps.gather(1, whole["input_ids"][0, length:, None]).sum().item()
        count += whole["input_ids"].shape[1] - length
    return total / count
