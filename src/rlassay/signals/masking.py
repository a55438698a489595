"""Mask random blocks of images, to measure how much a completion depends on the image."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, cast, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from torch import Tensor

from rlassay.images import Clip
from rlassay.models.video_input import images_and_clips
from rlassay.signals.inputs import ModelInputs, with_images

NOISE_STD = 189
"""Standard deviation of the noise, in pixel values from 0 to 255."""
BLUR_RADIUS = 6
"""Radius of the blur, pixels."""
GREY = 128
"""Pixel value of grey."""

Pixels = NDArray[np.uint8]
Media = Sequence[Image.Image | Clip]
Mode = Literal["black", "noise", "blur", "grey"]


@dataclass(frozen=True, kw_only=True)
class Masking:
    """How to mask an image."""

    probability: float = 0.5
    """Probability that a block is masked."""
    block: int | None = 14
    """Side of a block, pixels; None masks whole images, and whole frames of clips."""
    mode: Mode = "black"
    """Content of a masked block: black, noisy image (Gaussian), blurred image, or grey."""

    def __post_init__(self) -> None:
        """Raise ValueError for a probability outside [0, 1], an empty block or an unknown mode."""
        empty = self.block is not None and self.block < 1
        if not (0 <= self.probability <= 1 and self.mode in get_args(Mode)) or empty:
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
    noise, blur and grey there mask the whole image, which is a probability of 1 here. Its masks are not seeded. Whole
    frames of clips (no block) are our own addition.
    """
    return [_masked(image.convert("RGB"), masking, generator) for image in images]


def masked_inputs(
    processor: Any,
    inputs: ModelInputs,
    images: Sequence[Sequence[Image.Image | Clip] | None],
    generators: Sequence[np.random.Generator],
    masking: Masking,
    masks: Sequence[Hashable] | None = None,
) -> ModelInputs:
    """The same prompts and completions with masked images; samples without an image are unchanged.

    Blocks are cut from the image as the model sees it. Where the processor first resizes an image to whole patches
    (Qwen-VL), they are cut from the resized image, so that a block of a patch's size masks whole patches.

    Args:
        processor: the model's processor.
        inputs: prompts and completions with the original images.
        images: PIL images of each sample, and its clips; each frame is masked like an image, with a mask of its own.
        generators: one per sample.
        masking: probability, block, mode.
        masks: a key per sample; samples of one prompt with equal keys share the mask that the generator of the first of
            them draws. None = each has its own.
    """
    keys = list(zip(inputs.prompts, range(len(inputs)) if masks is None else masks, strict=True))
    masked: dict[Hashable, Media] = {}
    for key, tensors, of_sample, generator in zip(keys, inputs.by_image, images, generators, strict=True):
        if key not in masked:
            masked[key] = _masked_media(processor, tensors, of_sample or (), generator, masking)
    numbers = {key: number for number, key in enumerate(masked)}
    return with_images(processor, inputs, [masked[key] for key in keys], [numbers[key] for key in keys])


def _masked_media(
    processor: Any, tensors: dict[str, Tensor], media: Media, generator: np.random.Generator, masking: Masking
) -> Media:
    """Images and clips of one prompt, masked at the size that the model sees."""
    pictures, clips = images_and_clips(media)
    resized = _resized(processor.image_processor, tensors.get("image_grid_thw"), pictures)
    masked: list[Image.Image | Clip] = [*masked_images(resized, masking, generator)]
    for number, clip in enumerate(clips):
        grid = tensors["video_grid_thw"][number].expand(len(clip.frames), 3)
        frames = _resized(processor.video_processor, grid, clip.frames)
        masked.append(replace(clip, frames=tuple(masked_images(frames, masking, generator))))
    return masked


def _masked(image: Image.Image, masking: Masking, generator: np.random.Generator) -> Image.Image:
    pixels: Pixels = np.asarray(image, dtype=np.uint8)
    height, width, _ = pixels.shape
    block = masking.block or max(height, width)
    blocks = generator.random((-(-height // block), -(-width // block))) < masking.probability
    is_masked = blocks.repeat(block, axis=0).repeat(block, axis=1)[:height, :width, None]
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


def _resized(processor: Any, grid: Tensor | None, images: Sequence[Image.Image]) -> list[Image.Image]:
    """Images at the size given by their image or video processor, where it resized them."""
    if grid is None:
        return list(images)
    side = processor.patch_size
    grids: list[list[int]] = cast(Any, grid).tolist()
    sizes = [(columns * side, rows * side) for _, rows, columns in grids]
    return [image.convert("RGB").resize(size, processor.resample) for image, size in zip(images, sizes, strict=True)]
