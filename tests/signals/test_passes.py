"""Passes that process shared prompts once give the same scores."""

from typing import Any

import pytest
import torch
from torch import Tensor

from rlassay.signals import SEGMENTS, ModelInputs, ScoringConfig, attention_mass, teacher_forced
from rlassay.signals.passes import ModelPass, can_share, scoring_mode
from tests.signals import make

CLOSE = 1e-5
CPU = torch.device("cpu")


def doubled(make_batch: Any) -> ModelInputs:
    """Each prompt of a batch twice, the second time with other tokens after it, and in another order."""
    batch, length = make_batch()
    size = len(batch["input_ids"])
    rows = [*range(size), *reversed(range(size))]
    tokens = {name: batch[name][rows] for name in batch if not name.startswith(("pixel", "image"))}
    tokens["input_ids"][size:, -length:] = tokens["input_ids"][size:, -length:].roll(1, dims=1)
    images: list[dict[str, Tensor]] = [{}] * size
    if "pixel_values" in batch:
        grids = batch["image_grid_thw"]
        pixels = batch["pixel_values"].split(grids.prod(dim=1).tolist())
        images = [
            {"pixel_values": each, "image_grid_thw": grid[None]} for each, grid in zip(pixels, grids, strict=True)
        ]
    return ModelInputs(
        by_token=tokens,
        by_image=tuple(images[row] for row in rows),
        completion_length=length,
        system_lengths=(0,) * len(rows),
        prompts=tuple(rows),
    )


CASES = {
    "llama": (make.llama, make.text_batch),
    "learned positions": (make.gpt2, make.text_batch),
    "qwen_vl": (make.qwen_vl, make.qwen_batch),
}


@pytest.mark.parametrize("case", CASES)
def test_sharing_prompts_does_not_change_the_scores(case: str):
    model, inputs = CASES[case][0](), doubled(CASES[case][1])
    alone = ModelInputs(**{**vars(inputs), "prompts": tuple(range(len(inputs)))})
    segments = torch.arange(inputs.by_token["input_ids"].shape[1]) % len(SEGMENTS)
    segments = segments.expand(len(inputs), -1).masked_fill(inputs.by_token["attention_mask"] == 0, -1)

    expected = teacher_forced(model, alone, ScoringConfig(), segment_ids=segments)
    seen: list[tuple[int, ...]] = []
    first = [each for name, each in model.get_decoder().named_modules() if name.endswith(("layers.0.mlp", "h.0.mlp"))]
    hook = first[0].register_forward_hook(lambda *all: seen.append(tuple(all[-1].shape[:2])))
    scores = teacher_forced(model, inputs, ScoringConfig(), segment_ids=segments)
    hook.remove()

    prompt_length = segments.shape[1] - inputs.completion_length
    assert seen == [(len(inputs) // 2, prompt_length), (len(inputs), inputs.completion_length - 1)]
    for name in ("per_token_logps", "entropy_BT", "attention_mass"):
        assert torch.allclose(vars(scores)[name], vars(expected)[name], atol=CLOSE), name


@pytest.mark.parametrize("batch_size", [1, 2, 4])
def test_scores_do_not_depend_on_which_rows_share_a_batch(batch_size: int):
    model, inputs = make.llama(), doubled(make.text_batch)

    scores = teacher_forced(model, inputs, ScoringConfig(batch_size=batch_size))

    assert torch.allclose(
        scores.per_token_logps, teacher_forced(model, inputs, ScoringConfig()).per_token_logps, atol=CLOSE
    )


def test_a_completion_of_one_token_needs_only_its_prompt():
    model, inputs = make.llama(), doubled(make.text_batch)
    tokens = {name: values[:, : -inputs.completion_length + 1] for name, values in inputs.by_token.items()}
    inputs = ModelInputs(**{**vars(inputs), "by_token": tokens, "completion_length": 1})
    segments = torch.where(tokens["attention_mask"] == 1, 0, -1)

    scores = teacher_forced(model, inputs, ScoringConfig(), segment_ids=segments)

    expected = attention_mass(model, inputs.batch(range(6), CPU), segments, 1, num_segments=len(SEGMENTS))
    assert scores.attention_mass is not None
    assert torch.allclose(scores.attention_mass, expected, atol=CLOSE)


def test_models_that_do_not_keep_all_keys_cannot_share_prompts():
    inputs = doubled(make.text_batch)
    shared = inputs.shared_prompts(range(6), CPU)

    assert can_share(make.llama().base_model, make.llama().config, shared)
    assert not can_share(make.gemma().base_model, make.gemma().config, shared)  # sliding windows
    different = inputs.shared_prompts(range(3), CPU)
    assert not can_share(make.llama().base_model, make.llama().config, different)
    bidirectional = {**inputs.by_token, "token_type_ids": torch.zeros_like(inputs.by_token["input_ids"])}
    typed = ModelInputs(**{**vars(inputs), "by_token": bidirectional})
    assert not can_share(make.llama().base_model, make.llama().config, typed.shared_prompts(range(6), CPU))


def test_text_after_images_does_not_inherit_their_positions():
    model = make.qwen_vl()
    with_images = doubled(make.qwen_batch)
    teacher_forced(model, with_images, ScoringConfig())
    text = doubled(make.text_batch)
    batch = text.batch(range(6), CPU)

    with scoring_mode(model):
        expected = ModelPass(model, batch, text.completion_length).logits(slice(None))
        shared = ModelPass(model, batch, text.completion_length, text.shared_prompts(range(6), CPU))

    is_token = batch["attention_mask"][:, -text.completion_length :].bool()
    assert torch.allclose(shared.logits(slice(None))[is_token], expected[is_token], atol=1e-4)
