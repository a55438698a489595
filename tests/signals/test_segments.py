"""Segments of keys and layers."""

from dataclasses import replace

import pytest
import torch

from rlassay.signals import SEGMENTS, ModelInputs, layer_segments, segment_ids, vision_grid, vision_token_ids
from tests.signals import make


def test_each_position_belongs_to_its_segment():
    model, processor = make.tiny_vlm()
    inputs = make.vlm_inputs(processor, samples=(0, 2))

    segments = segment_ids(inputs, processor, model.config)

    names = [[SEGMENTS[index] if index >= 0 else "-" for index in row] for row in segments.tolist()]
    words = [
        len(processor.tokenizer(text)["input_ids"]) for text in ("Think first, then answer.", "Which digit is larger?")
    ]
    prompt = ["special", *["system"] * words[0], "special", *["vision"] * 16, *["text"] * words[1], "special"]
    assert names[0] == [*prompt, *["generated"] * inputs.completion_length]
    question = len(processor.tokenizer("(A)3 (B)7 digit is")["input_ids"])
    padding = len(prompt) - question - 2
    answer = ["generated", *["-"] * (inputs.completion_length - 1)]
    assert names[1] == [*["-"] * padding, "special", *["text"] * question, "special", *answer]


def test_vision_tokens_are_named_by_the_config():
    assert vision_token_ids(make.qwen_vl().config) == [50, 51]
    assert vision_token_ids(make.llama().config) == []
    model, processor = make.tiny_vlm()
    assert vision_token_ids(model.config) == [processor.image_token_id]


def test_the_grid_of_vision_tokens_is_known_for_one_image_per_prompt():
    model, processor = make.tiny_vlm()
    inputs = make.vlm_inputs(processor)
    segments = segment_ids(inputs, processor, model.config)

    assert [vision_grid(inputs, sample, segments) for sample in range(4)] == [(4, 4), (4, 4), None, (4, 4)]

    fewer = segments.clone()
    fewer[0, (segments[0] == SEGMENTS.index("vision")).nonzero()[0]] = -1  # 15 tokens fill no square
    assert vision_grid(inputs, 0, fewer) is None
    four = {"pixel_values": torch.zeros(4, 3, 16, 16)}  # frames of a clip, 2 x 2 tokens each
    assert vision_grid(replace(inputs, by_image=(four,) * 4), 0, segments) == (4, 2, 2)
    two = {"pixel_values": torch.zeros(2, 3, 16, 16)}
    assert vision_grid(replace(inputs, by_image=(two,) * 4), 0, segments) is None


def test_qwen_grids_count_patches_several_of_which_become_one_token():
    batch, length = make.qwen_batch()
    grids = batch["image_grid_thw"]
    by_image = tuple({"pixel_values": torch.zeros(1, 1), "image_grid_thw": grid[None]} for grid in grids)
    tokens = {name: batch[name] for name in ("input_ids", "attention_mask")}
    inputs = ModelInputs(
        by_token=tokens, by_image=by_image, completion_length=length, system_lengths=(0, 0), prompts=(0, 1)
    )
    segments = torch.where(batch["input_ids"] == 50, SEGMENTS.index("vision"), 0)

    assert [vision_grid(inputs, sample, segments) for sample in range(2)] == [(2, 3), (1, 2)]
    both = ({"pixel_values": torch.zeros(1, 1), "image_grid_thw": grids},) * 2
    assert vision_grid(replace(inputs, by_image=both), 0, segments) is None
    # 6 tokens of 24 patches: three images of 2 x 4, or a clip of three moments; two clips are unknown.
    small = torch.tensor([[1, 2, 4]])
    images = {"pixel_values": torch.zeros(1, 1), "image_grid_thw": small.repeat(3, 1)}
    clip = {"pixel_values_videos": torch.zeros(1, 1), "video_grid_thw": small * torch.tensor([3, 1, 1])}
    assert vision_grid(replace(inputs, by_image=(images,) * 2), 0, segments) == (3, 1, 2)
    assert vision_grid(replace(inputs, by_image=(clip,) * 2), 0, segments) == (3, 1, 2)
    clips = {**clip, "video_grid_thw": clip["video_grid_thw"].repeat(2, 1)}
    assert vision_grid(replace(inputs, by_image=(clips,) * 2), 0, segments) is None
    assert vision_grid(replace(inputs, by_image=({**images, **clip},) * 2), 0, segments) is None


@pytest.mark.parametrize(
    ("num_layers", "scheme", "expected"),
    [
        (7, "thirds", ([0, 1], [2, 3], [4, 5, 6])),
        (2, "thirds", ([], [], [0, 1])),
        (28, "paper", ([0, 1], [13, 14], [26, 27])),
        (7, "paper", ([0, 1], [2, 3], [5, 6])),
        (1, "paper", ([0], [0], [0])),
    ],
)
def test_layers_are_divided_into_segments(num_layers: int, scheme: str, expected: tuple[list[int], ...]):
    segments = {name: list(layers) for name, layers in layer_segments(num_layers, scheme).items()}

    assert segments == dict(zip(("early", "middle", "late", "all"), (*expected, list(range(num_layers))), strict=True))
