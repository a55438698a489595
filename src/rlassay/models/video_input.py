# pyright: basic
# transformers' processors are untyped.
"""Pass clips to a processor's video input, and build the model inputs of one prompt."""

from collections.abc import Sequence
from math import ceil
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rlassay.config.model import HubModel
from rlassay.images import Clip

FASTEST = 2.0
"""Most frames per second of which Qwen2.5-VL in transformers 5.17 knows the order."""


def video_input_problem(processor: Any) -> str | None:
    """Why clips cannot go to a processor's video input; None if they can.

    The text ends a sentence about the model. Clips of unequal numbers of frames share a batch only where their patches
    are listed one after the other, with a grid for each clip, as those of Qwen-VL; others stack clips, or list their
    frames among those of images.
    """
    # A processor has a video processor only if its model knows videos.
    if not hasattr(processor, "video_processor"):
        return "has no video input"
    if "video_grid_thw" not in processor.video_processor.model_input_names:
        kind = type(processor).__name__
        return f"has no grid for each clip ({kind}), so that clips of unequal numbers of frames cannot share a batch"
    return None


def clip_problem(config: HubModel, processor: Any) -> str | None:
    """Why a model cannot be shown clips as its section says; None if it can."""
    problem = video_input_problem(processor) if config.clips.show == "video" else None
    return problem and f"model.clips.show: video, but {config.name!r} {problem}; take 'frames'"


def video_options(clips: Sequence[Clip]) -> dict[str, Any]:
    """Keyword arguments that give a processor clips whose frames are already chosen; empty without clips.

    The metadata give the times of the frames: without them processors assume 24 frames per second, and without
    `do_sample_frames=False` some drop frames again. Qwen2.5-VL gets at most two frames per second.
    """
    if not clips:
        return {}
    from transformers.video_utils import VideoMetadata

    metadata: list[Any] = []
    videos: list[Any] = []
    for clip in clips:
        # Two frames share their tokens: the last of an odd number is shown twice, and Qwen3-VL refuses a single one.
        repeats = 2 if len(clip.frames) == 1 else 1
        fps = clip.fps or 1.0  # of a single frame it may be unknown
        indices = [round(time * fps) for time in clip.times] * repeats
        # Transformers truncates the seconds between two frames' tokens in Qwen2.5-VL, which reads them from the total:
        # above two frames per second all would have one time. Other processors, and vLLM, compute times from indices.
        slowest = ceil(len(indices) / FASTEST * fps)
        total = max(len(indices), round(clip.duration * fps), slowest)
        metadata.append(VideoMetadata(total_num_frames=total, fps=fps, duration=clip.duration, frames_indices=indices))
        videos.append(np.stack([np.asarray(frame) for frame in clip.frames * repeats]))
    return {"videos": videos, "video_metadata": metadata, "do_sample_frames": False}


def vllm_media(media: Sequence[Any]) -> dict[str, list[Any]]:
    """A prompt's images and clips in vLLM's form, with all frames of each clip."""
    images, clips = images_and_clips(media)
    options = video_options(clips)
    names = ("total_num_frames", "fps", "duration", "frames_indices")
    fixed = {"do_sample_frames": False, "video_backend": "opencv"}  # vLLM requires the name of a known reader
    videos = [
        (frames, {name: getattr(about, name) for name in names} | fixed)
        for frames, about in zip(options.get("videos", []), options.get("video_metadata", []), strict=True)
    ]
    return {name: values for name, values in (("image", images), ("video", videos)) if values}


def images_and_clips(media: Sequence[Any]) -> tuple[list[Any], list[Clip]]:
    """The images among the media of a prompt, and the clips among them."""
    clips = [item for item in media if isinstance(item, Clip)]
    return [item for item in media if not isinstance(item, Clip)], clips


def identities(media: Sequence[Any]) -> list[int]:
    """The `id` of each image and frame.

    Equal media of a study are the same object while they are cached.
    """
    return [id(image) for item in media for image in (item.frames if isinstance(item, Clip) else (item,))]


def process_prompt(
    processor: Any, text: str, media: Sequence[Any], *, with_special_tokens: bool = False
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The processor's tensors of one prompt: those per position, then those of its media.

    Args:
        processor: a processor with a chat template's text as input.
        text: the rendered prompt.
        media: PIL images of the prompt in their order, and clips in theirs.
        with_special_tokens: whether the text lacks the begin-of-sequence token; a chat template has written it.
    """
    options: dict[str, Any] = {"return_tensors": "pt", "add_special_tokens": with_special_tokens}
    images, clips = images_and_clips(media)
    made = processor(text=[text], images=images or None, **video_options(clips), **options)
    tensors = {
        name: values if isinstance(values, Tensor) else torch.tensor(values)
        for name, values in made.items()
        if name != "video_metadata"
    }
    per_token = tensors["input_ids"].shape
    by_token = {name: values[0] for name, values in tensors.items() if values.shape == per_token}
    return by_token, {name: values for name, values in tensors.items() if name not in by_token}
