"""Images with parts hidden, to measure what a completion owes to the image."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from PIL import Image, ImageFilter

from rlassay.models.hub import Processor
from rlassay.signals.inputs import ModelInputs, with_images

NOISE_STD = 189
"""Standard deviation of the noise, in pixel values from 0 to 255."""
BLUR_RADIUS = 6
"""Radius of the blur, pixels."""
GREY = 128
"""Pixel value of grey."""

Mode = Literal["black", "noise", "blur", "grey"]


@dataclass(frozen=True, kw_only=True)
class Masking:
    """How to hide parts of an image."""

    probability: float = 0.5
    """Chance of each block to be hidden."""
    block: int = 14
    """Side of a block, pixels."""
    mode: Mode = "black"
    """What a hidden block shows: black, the image under Gaussian noise, the blurred image, or grey."""


def masked_images(images: Sequence[Image.Image], masking: Masking, generator: np.random.Generator) -> list[Image.Image]:
    """Copies of images in which each block of a grid from the top left corner is hidden or not by chance.

    Args:
        images: of any mode and size; blocks at the right and the bottom may be partial.
        masking: probability, block, mode.
        generator: decides everything; `generator` of `randomness` makes it a matter of the completion alone.

    Errors: ValueError if the probability is not in [0, 1] or the block is empty.

    Source: VPPO's patch masking (`perc_utils.py` of huaixuheqing/VPPO-RL), of 14-pixel blocks with probability 0.5;
    it hides the whole image by noise, blur or grey, which is a probability of 1 here. Its masks are not seeded.
    """
    if not (0 <= masking.probability <= 1 and masking.block > 0):
        raise ValueError(f"masking: got {masking}, expected a probability in [0, 1] and a block of 1 pixel or more")
    return [_masked(image.convert("RGB"), masking, generator) for image in images]


def masked_inputs(
    processor: Processor,
    inputs: ModelInputs,
    images: Sequence[Sequence[Image.Image] | None],
    generators: Sequence[np.random.Generator],
    masking: Masking,
) -> ModelInputs:
    """The same prompts and completions with masked images; samples without an image stay as they are.

    Blocks lie on the image as the model sees it: where the processor first resizes an image to a number of patches
    (Qwen-VL), on the resized image, so that a block of the size of a patch hides whole patches.

    Args:
        processor: the model's.
        inputs: prompts and completions with the original images.
        images: of each sample.
        generators: one per sample.
        masking: probability, block, mode.
    """
    masked = []
    for about, of_sample, generator in zip(inputs.by_image, images, generators, strict=True):
        seen = _resized(processor, about, of_sample or ())
        masked.append(masked_images(seen, masking, generator))
    return with_images(processor, inputs, masked)


def _masked(image: Image.Image, masking: Masking, generator: np.random.Generator) -> Image.Image:
    pixels = np.asarray(image)
    height, width, _ = pixels.shape
    blocks = generator.random((-(-height // masking.block), -(-width // masking.block))) < masking.probability
    hidden = blocks.repeat(masking.block, axis=0).repeat(masking.block, axis=1)[:height, :width, None]
    return Image.fromarray(np.where(hidden, _instead(image, pixels, masking.mode, generator), pixels))


def _instead(image: Image.Image, pixels: Any, mode: Mode, generator: np.random.Generator) -> Any:
    """What hidden pixels show."""
    match mode:
        case "black":
            return np.zeros_like(pixels)
        case "grey":
            return np.full_like(pixels, GREY)
        case "blur":
            return np.asarray(image.filter(ImageFilter.GaussianBlur(BLUR_RADIUS)))
        case "noise":
            noisy = pixels + generator.normal(0, NOISE_STD, pixels.shape)
            return noisy.clip(0, 255).astype(pixels.dtype)


def _resized(processor: Any, about: dict[str, Any], images: Sequence[Image.Image]) -> list[Image.Image]:
    if "image_grid_thw" not in about:
        return list(images)
    of_images: Any = processor.image_processor
    side = of_images.patch_size
    sizes = [(columns * side, rows * side) for _, rows, columns in about["image_grid_thw"].tolist()]
    return [image.convert("RGB").resize(size, of_images.resample) for image, size in zip(images, sizes, strict=True)]
