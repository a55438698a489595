"""Images with random blocks masked, to measure how much a completion depends on the image."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from rlassay.models.hub import Processor
from rlassay.signals.inputs import ModelInputs, with_images

NOISE_STD = 189
"""Standard deviation of the noise, in pixel values from 0 to 255."""
BLUR_RADIUS = 6
"""Radius of the blur, pixels."""
GREY = 128
"""Pixel value of grey."""

Pixels = NDArray[np.uint8]
Mode = Literal["black", "noise", "blur", "grey"]


@dataclass(frozen=True, kw_only=True)
class Masking:
    """How to mask an image."""

    probability: float = 0.5
    """Probability that a block is masked."""
    block: int = 14
    """Side of a block, pixels."""
    mode: Mode = "black"
    """Content of a masked block: black, the image with Gaussian noise, the blurred image, or grey."""

    def __post_init__(self) -> None:
        """Raise ValueError for a probability outside of [0, 1], an empty block or an unknown mode."""
        if not (0 <= self.probability <= 1 and self.block > 0 and self.mode in get_args(Mode)):
            raise ValueError(
                f"masking: got {self}, expected a probability in [0, 1] and a block of 1 pixel or more, and a mode "
                f"of {', '.join(get_args(Mode))}"
            )


def masked_images(images: Sequence[Image.Image], masking: Masking, generator: np.random.Generator) -> list[Image.Image]:
    """Copies of images with random blocks masked, in a grid from the top left corner.

    Args:
        images: any mode and size; blocks at the right and the bottom may be partial.
        masking: probability, block, mode.
        generator: draws the masks; `measuring.generator` gives one that depends on the completion alone.

    Source: VPPO's patch masking (`perc_utils.py` of huaixuheqing/VPPO-RL), of 14-pixel blocks with probability 0.5;
    noise, blur and grey there mask the whole image, which is a probability of 1 here. Its masks are not seeded.
    """
    return [_masked(image.convert("RGB"), masking, generator) for image in images]


def masked_inputs(
    processor: Processor,
    inputs: ModelInputs,
    images: Sequence[Sequence[Image.Image] | None],
    generators: Sequence[np.random.Generator],
    masking: Masking,
) -> ModelInputs:
    """The same prompts and completions with masked images; samples without an image are unchanged.

    Blocks are cut from the image as the model sees it. Where the processor first resizes an image to whole patches
    (Qwen-VL), they are cut from the resized image, so that a block of a patch's size masks whole patches.

    Args:
        processor: the model's processor.
        inputs: prompts and completions with the original images.
        images: PIL images of each sample.
        generators: one per sample.
        masking: probability, block, mode.
    """
    masked: list[list[Image.Image]] = []
    for tensors, of_sample, generator in zip(inputs.by_image, images, generators, strict=True):
        resized = _resized(processor, tensors, of_sample or ())
        masked.append(masked_images(resized, masking, generator))
    return with_images(processor, inputs, masked)


def _masked(image: Image.Image, masking: Masking, generator: np.random.Generator) -> Image.Image:
    pixels: Pixels = np.asarray(image, dtype=np.uint8)
    height, width, _ = pixels.shape
    blocks = generator.random((-(-height // masking.block), -(-width // masking.block))) < masking.probability
    is_masked = blocks.repeat(masking.block, axis=0).repeat(masking.block, axis=1)[:height, :width, None]
    return Image.fromarray(np.where(is_masked, _mask_content(image, pixels, masking.mode, generator), pixels))


def _mask_content(image: Image.Image, pixels: Pixels, mode: Mode, generator: np.random.Generator) -> Pixels:
    """Pixels that masked blocks show, for the whole image."""
    match mode:
        case "black":
            return np.zeros_like(pixels)
        case "grey":
            return np.full_like(pixels, GREY)
        case "blur":
            return np.asarray(image.filter(ImageFilter.GaussianBlur(BLUR_RADIUS)), dtype=np.uint8)
        case "noise":
            noisy = pixels + generator.normal(0, NOISE_STD, pixels.shape)
            return noisy.clip(0, 255).astype(np.uint8)


def _resized(processor: Any, tensors: dict[str, Any], images: Sequence[Image.Image]) -> list[Image.Image]:
    """Images at the size to which the processor resized them, where it did."""
    if "image_grid_thw" not in tensors:
        return list(images)
    image_processor: Any = processor.image_processor
    side = image_processor.patch_size
    sizes = [(columns * side, rows * side) for _, rows, columns in tensors["image_grid_thw"].tolist()]
    return [
        image.convert("RGB").resize(size, image_processor.resample) for image, size in zip(images, sizes, strict=True)
    ]
