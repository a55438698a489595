"""Masked images: the pixels that change, and the model's input."""

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from rlassay.signals import Masking, ModelInputs, generator, masked_images, masked_inputs
from tests.signals import make


def masked(size: tuple[int, int] = (30, 44), seed: int = 0, **options: Any) -> np.ndarray:
    image = Image.new("RGB", size, (200, 100, 50))
    return np.asarray(masked_images([image], Masking(**options), np.random.default_rng(seed))[0])


def test_whole_blocks_from_the_top_left_corner_are_masked_and_the_last_are_partial():
    pixels = masked()

    assert pixels.shape == (44, 30, 3)
    kinds = set()
    for top in range(0, 44, 14):
        for left in range(0, 30, 14):
            block = pixels[top : top + 14, left : left + 14].reshape(-1, 3)
            assert len(np.unique(block, axis=0)) == 1
            kinds.add(tuple(block[0].tolist()))
    assert kinds == {(200, 100, 50), (0, 0, 0)}


@pytest.mark.parametrize(("probability", "share"), [(0.0, 0.0), (0.5, 0.5), (0.8, 0.8), (1.0, 1.0)])
def test_each_block_is_masked_with_the_probability(probability: float, share: float):
    hidden = masked((100, 100), probability=probability, block=1) == 0

    # 10,000 blocks: standard error 0.005 at most.
    assert hidden.mean() == pytest.approx(share, abs=0.02)
    assert (hidden.all(axis=2) == hidden.any(axis=2)).all()


def test_grey_noise_and_blur_fill_the_same_blocks():
    black, grey, noise = (masked(mode=mode) for mode in ("black", "grey", "noise"))
    hidden = black[..., 0] == 0

    assert (grey[hidden] == 128).all()
    assert (grey[~hidden] == black[~hidden]).all()
    assert (noise[~hidden] == black[~hidden]).all()
    # Around 100, a deviation of 189 leaves 30 % of the values below 0 and 21 % above 255.
    assert (noise[hidden][:, 1] == 0).mean() == pytest.approx(0.30, abs=0.06)
    assert (noise[hidden][:, 1] == 255).mean() == pytest.approx(0.21, abs=0.06)

    edge = Image.new("RGB", (40, 20))
    edge.paste("white", (20, 0, 40, 20))
    blurred = np.asarray(masked_images([edge], Masking(probability=1.0, mode="blur"), np.random.default_rng(0))[0])
    assert (np.diff(blurred[10, 10:30, 0].astype(int)) > 0).all()


def test_the_generator_decides_the_mask_and_images_of_a_sample_differ():
    assert (masked(seed=1) == masked(seed=1)).all()
    assert (masked(seed=1) != masked(seed=2)).any()
    image = Image.new("RGB", (80, 80), "white")
    first, second = masked_images([image, image], Masking(), generator(1, 2, "a", 0, "mask"))
    assert first != second
    assert masked_images([image], Masking(), generator(1, 2, "a", 0, "mask")) == [first]


def test_without_blocks_whole_images_are_masked():
    images = [Image.new("RGB", (30, 44), "white") for _ in range(200)]
    values = [
        np.unique(np.asarray(each)).tolist()
        for each in masked_images(images, Masking(block=None), generator(0, 1, "p", 0, "m"))
    ]
    assert all(value in ([0], [255]) for value in values)
    assert 70 < values.count([0]) < 130  # of 200 with probability .5: a deviation of 7


@pytest.mark.parametrize("wrong", [{"probability": 1.5}, {"block": 0}])
def test_an_impossible_masking_is_refused(wrong: dict[str, Any]):
    with pytest.raises(ValueError, match=r"masking: got .*, expected a probability in \[0, 1\] and a block of 1 pixel"):
        masked(**wrong)


def test_each_sample_gets_its_own_mask_and_text_stays_text():
    _, processor = make.tiny_vlm()
    inputs = make.vlm_inputs(processor)
    white = [Image.new("RGB", (16, 16), "white")]
    generators = [generator(0, 1, "p", sample, "mask") for sample in range(4)]

    after = masked_inputs(processor, inputs, [white, white, None, white], generators, Masking(block=4))

    pixels = [each["pixel_values"] for each in after.by_image if each]
    assert after.has_image == [True, True, False, True]
    assert [sorted(each.unique().tolist()) for each in pixels] == [[-1.0, 1.0]] * 3
    assert not torch.equal(pixels[0], pixels[1])
    assert not torch.equal(pixels[0], pixels[2])


def test_on_qwen_blocks_are_whole_patches_of_the_resized_image():
    _, processor = make.tiny_vlm()
    image_processor = Qwen2VLImageProcessorPil(size={"shortest_edge": 56 * 56, "longest_edge": 112 * 112})
    processor.image_processor = image_processor
    image = Image.new("RGB", (150, 61), "white")  # no multiple of anything
    made = dict(image_processor(images=[image], return_tensors="pt"))
    token = torch.zeros(1, 1, dtype=torch.long)
    inputs = ModelInputs(
        by_token={"input_ids": token}, by_image=(made,), completion_length=1, system_lengths=(0,), prompts=(0,)
    )

    after = masked_inputs(processor, inputs, [[image]], [np.random.default_rng(0)], Masking())

    # One row per patch of 14 x 14 pixels: white throughout or black throughout, per channel.
    patches = after.by_image[0]["pixel_values"].view(-1, 3, 2 * 14 * 14)
    white = made["pixel_values"].view(-1, 3, 2 * 14 * 14)
    is_white = torch.isclose(patches, white).all(dim=(1, 2))
    spread = patches.amax(dim=2) - patches.amin(dim=2)
    assert 0.2 < is_white.float().mean() < 0.8
    assert float(spread.max()) < 1e-5
    assert bool((patches[~is_white] < 0).all())
