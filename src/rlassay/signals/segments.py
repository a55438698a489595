"""Segments of key positions (text, image, system, ...) and of layers (early, middle, late)."""

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from rlassay.models.hub import Processor
from rlassay.models.policy import tokenizer_of
from rlassay.signals.inputs import ModelInputs

SEGMENTS = ("text", "vision", "system", "special", "generated")
"""Segments of keys by id. They are instruction text, image and video tokens, system block, control tokens,
completion."""

LAYER_SEGMENTS = ("early", "middle", "late", "all")
"""Segments of layers."""


def segment_ids(inputs: ModelInputs, processor: Processor, config: Any) -> Int[Tensor, "batch keys"]:
    """The segment of each position, an index into `SEGMENTS`; -1 for padding and after a completion's end.

    A prompt token is `vision` if it is an image or video token, else `special` (a control token), else `system`, else
    `text` (the instruction). Every completion token is `generated`.

    Args:
        inputs: prompts and completions.
        processor: its tokenizer names the control tokens.
        config: the model's config, which names the image and video tokens.

    Source: the masks of JuncyLu/trl_DAPO (branch main), which uses the same text in numerator and denominator of MDI.
    """
    ids = inputs.by_token["input_ids"]
    tokenizer = tokenizer_of(processor)
    visible = inputs.by_token["attention_mask"].bool()
    prompt_length = ids.shape[1] - inputs.completion_length
    positions = torch.arange(ids.shape[1], device=ids.device)
    system_lengths = torch.tensor(inputs.system_lengths, device=ids.device)
    starts = visible.long().argmax(dim=1)  # of the prompts, after their padding
    is_system = positions < (starts + system_lengths)[:, None]
    segments = torch.full_like(ids, SEGMENTS.index("text"))
    segments[is_system] = SEGMENTS.index("system")
    segments[_among(ids, tokenizer.all_special_ids)] = SEGMENTS.index("special")
    segments[_among(ids, vision_token_ids(config))] = SEGMENTS.index("vision")
    segments[:, prompt_length:] = SEGMENTS.index("generated")
    return segments.masked_fill(~visible, -1)


def vision_token_ids(config: Any) -> list[int]:
    """Ids of the image and video placeholder tokens; empty for a text model.

    Args:
        config: a transformers model's config.
    """
    known = config.to_dict()
    names = [f"{kind}_token_{word}" for kind in ("image", "video") for word in ("id", "index")]
    return sorted({known[name] for name in names if known.get(name) is not None})


def vision_grid(inputs: ModelInputs, sample: int, segments: Int[Tensor, "batch keys"]) -> tuple[int, ...] | None:
    """Rows and columns of a sample's vision tokens on its image.

    The number of frames comes first if there are several. None if unknown. Known for one image or clip per prompt, and
    for several images with as many tokens each: from the processor's grid (Qwen-VL; two frames of a clip may share
    their tokens), or, where one image becomes one tensor, if the tokens fill squares (LLaVA).

    Args:
        inputs: prompts and completions.
        sample: index of the sample.
        segments: result of `segment_ids`.
    """
    count = int((segments[sample] == SEGMENTS.index("vision")).sum())
    tensors = inputs.by_image[sample]
    if count == 0 or ("pixel_values" in tensors) == ("pixel_values_videos" in tensors):
        return None
    grids = tensors.get("image_grid_thw", tensors.get("video_grid_thw"))
    if grids is not None:
        return _grid_of_patches(grids, count)
    pixels = tensors.get("pixel_values")
    if pixels is None or pixels.ndim != 4 or count % len(pixels):
        return None
    side = math.isqrt(count // len(pixels))
    return _with_frames(len(pixels), side, side) if len(pixels) * side * side == count else None


def _grid_of_patches(grids: Int[Tensor, "media axes"], count: int) -> tuple[int, ...] | None:
    """Frames, rows and columns of `count` tokens, from the patches of each image or clip; None if these differ."""
    first, *others = [tuple(map(int, grid)) for grid in grids]
    frames, rows, columns = first
    if (frames > 1 and others) or any(grid != first for grid in others):
        return None
    frames = frames * len(grids)
    merged = math.isqrt(frames * rows * columns // count)  # patches along the side of one token
    return _with_frames(frames, rows // merged, columns // merged)


def _with_frames(frames: int, rows: int, columns: int) -> tuple[int, ...]:
    return (rows, columns) if frames == 1 else (frames, rows, columns)


def layer_segments(num_layers: int, scheme: Literal["thirds", "paper"] = "thirds") -> dict[str, range]:
    """Layer indices of each of `LAYER_SEGMENTS`; an empty range where a model has too few layers.

    Args:
        num_layers: L.
        scheme: `thirds` cuts at `L // 3` and twice that, so that `late` has the remainder; `paper` takes the first two,
            the middle two (`L // 2 - 1` and `L // 2`) and the last two.

    Source: `thirds`: JuncyLu/trl_DAPO (branch trl); `paper`: LangOverrule's code for the MDI paper.
    """
    everything = range(num_layers)
    if scheme == "thirds":
        third = num_layers // 3
        early, middle, late = everything[:third], everything[third : 2 * third], everything[2 * third :]
    else:
        half = num_layers // 2
        early, middle, late = everything[:2], everything[max(half - 1, 0) : half + 1], everything[-2:]
    return dict(zip(LAYER_SEGMENTS, (early, middle, late, everything), strict=True))


def _among(ids: Int[Tensor, "batch keys"], some: Sequence[int]) -> Bool[Tensor, "batch keys"]:
    return torch.isin(ids, torch.tensor(list(some), dtype=ids.dtype, device=ids.device))


def vision_keys(segments: Int[Tensor, "batch keys"], rows: Sequence[int]) -> Int[Tensor, "some keys"]:
    """Image tokens of some samples, numbered from 0 in each; -1 at other positions."""
    is_vision = segments[list(rows)] == SEGMENTS.index("vision")
    return torch.where(is_vision, is_vision.long().cumsum(dim=1) - 1, -1)
