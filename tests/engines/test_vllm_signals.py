"""Signals of completions that vLLM sampled: sampled now where vLLM is installed, and as stored everywhere."""

from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import pytest
import torch
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from rlassay.signals import (
    ModelInputs,
    ScoringConfig,
    TokenScores,
    model_inputs,
    segment_ids,
    teacher_forced,
    vision_grid,
)
from tests.engines.completions import Completions, conversations, pictures, sample, stored
from tests.engines.qwen import qwen_model, qwen_processor, qwen_tokenizer, save_qwen
from tests.engines.vllm_process import needs_torchvision, needs_vllm, vllm_process
from tests.signals.make import eager_mass

CLOSE = 1e-5
BETWEEN_ENGINES = 1e-4
GRIDS = [(2, 2), (3, 2), None]


@pytest.fixture(scope="module", params=[pytest.param("sampled now", marks=needs_vllm), "stored"])
def completions(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Completions]:
    if request.param == "stored":
        yield stored()
    else:
        with vllm_process():
            yield sample(save_qwen(tmp_path_factory.mktemp("qwen")))


@pytest.fixture(scope="module")
def model() -> Any:
    return qwen_model(qwen_tokenizer()).eval()


def as_vllm_read(completions: Completions) -> ModelInputs:
    """Inputs from vLLM's own token ids and the images, padded by hand."""
    before, after = (max(map(len, ids)) for ids in (completions.prompt_ids, completions.completion_ids))
    ids = torch.zeros(3, before + after, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, (prompt, completion) in enumerate(zip(completions.prompt_ids, completions.completion_ids, strict=True)):
        place = slice(before - len(prompt), before + len(completion))
        ids[row, place], mask[row, place] = torch.tensor(prompt + completion), 1
    image_id = qwen_tokenizer().convert_tokens_to_ids("<|image_pad|>")
    is_image = (ids == image_id) & (torch.arange(before + after) < before)
    pixels = Qwen2VLImageProcessorPil(min_pixels=28 * 28, max_pixels=28 * 28 * 16)
    return ModelInputs(
        by_token={"input_ids": ids, "attention_mask": mask, "mm_token_type_ids": is_image.long()},
        by_image=tuple(dict(pixels(images=each, return_tensors="pt")) if each else {} for each in pictures()),
        completion_length=after,
        system_lengths=(0, 0, 0),
        prompts=(0, 1, 2),
    )


def scored(model: Any, inputs: ModelInputs) -> TokenScores:
    return teacher_forced(
        model, inputs, ScoringConfig(), segment_ids=segment_ids(inputs, qwen_tokenizer(), model.config)
    )


def test_log_probs_are_those_of_vllm_and_attention_mass_is_that_of_eager_attention(
    model: Any, completions: Completions
):
    inputs = as_vllm_read(completions)
    segments = segment_ids(inputs, qwen_tokenizer(), model.config)

    scores = scored(model, inputs)

    for measured, logps in zip(scores.per_token_logps, completions.logps, strict=True):
        assert measured[: len(logps)].tolist() == pytest.approx(logps, abs=BETWEEN_ENGINES)
        assert not measured[len(logps) :].any()
    assert [vision_grid(inputs, sample, segments) for sample in range(3)] == GRIDS
    batch = inputs.batch(range(3), model.device)
    expected = eager_mass(deepcopy(model), batch, segments, inputs.completion_length)
    assert scores.attention_mass is not None
    torch.testing.assert_close(scores.attention_mass, expected, rtol=0, atol=CLOSE)


@needs_torchvision
def test_signals_are_the_same_when_the_processor_makes_the_inputs(model: Any, completions: Completions):
    by_hand = as_vllm_read(completions)
    length = by_hand.completion_length
    ids, mask = (by_hand.by_token[name][:, -length:] for name in ("input_ids", "attention_mask"))

    # Twice: completions with a prompt in common have it read once.
    inputs = model_inputs(qwen_processor(), conversations() * 2, pictures() * 2, ids.repeat(2, 1), mask.repeat(2, 1))

    assert inputs.prompts == (0, 1, 2) * 2
    assert inputs.by_token.keys() == by_hand.by_token.keys()
    for name, values in by_hand.by_token.items():
        assert torch.equal(inputs.by_token[name], values.repeat(2, 1)), name
    both, once = scored(model, inputs), scored(model, by_hand)
    assert both.attention_mass is not None
    assert once.attention_mass is not None
    torch.testing.assert_close(both.per_token_logps, once.per_token_logps.repeat(2, 1), rtol=0, atol=CLOSE)
    torch.testing.assert_close(both.entropy_BT, once.entropy_BT.repeat(2, 1), rtol=0, atol=CLOSE)
    torch.testing.assert_close(both.attention_mass, once.attention_mass.repeat(1, 2, 1, 1), rtol=0, atol=CLOSE)
