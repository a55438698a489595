"""What attention mass says of each completion: dominance and efficiency of text and image, by layers. Pure."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from rlassay.credit import attention_efficiency, modality_dominance
from rlassay.signals.segments import LAYER_SEGMENTS, SEGMENTS, layer_segments

TEXT, VISION = SEGMENTS.index("text"), SEGMENTS.index("vision")


@dataclass(frozen=True, kw_only=True)
class AttentionReading:
    """What was read off the attention of B completions."""

    dominance_BT: Float[Tensor, "batch time"]
    """Modality dominance of the row that predicted each token; NaN without an image or without a token."""
    per_completion: dict[str, Float[Tensor, "batch"]]
    """`modality_dominance/<layers>`, `attention_efficiency_text/<layers>` and `attention_efficiency_vision/<layers>` of
    all rows together, for each of the layer segments that the model has; `text_tokens` and `vision_tokens`, how many
    prompt tokens these rest on. NaN without an image."""


def read_attention(
    mass: Float[Tensor, "layers batch time segments"],
    segments: Int[Tensor, "batch keys"],
    *,
    scheme: Literal["thirds", "paper"],
    dominance: str | int,
) -> AttentionReading:
    """Readings of attention mass, whose layers are averaged before ratios are formed.

    Args:
        mass: per layer, completion, row and key segment; 0 in rows without a token.
        segments: (B, P+C), the segment of each key.
        scheme: how layers are parted.
        dominance: layers of `dominance_BT`: a layer segment, or how many of the last.

    Errors: ValueError when the model has too few layers for the segment `dominance`.

    Source: "When Language Overrules" (arXiv 2508.10552), eqs. 1-4; mass before ratio as in JuncyLu/trl_DAPO.
    """
    text_tokens, vision_tokens = ((segments == each).sum(dim=1) for each in (TEXT, VISION))
    ranges = layer_segments(len(mass), scheme)
    chosen = range(max(0, len(mass) - dominance), len(mass)) if isinstance(dominance, int) else ranges[dominance]
    if not chosen:
        raise ValueError(f"signals.attention.dominance: {dominance!r} has no layer in a model of {len(mass)}")
    rows = mass[list(chosen)].mean(dim=0)
    counts = (text_tokens[:, None], vision_tokens[:, None])
    per_completion = {"text_tokens": text_tokens.float(), "vision_tokens": vision_tokens.float()}
    for name, layers in ranges.items():
        if layers:
            total = mass[list(layers)].mean(dim=0).sum(dim=1)
            text, vision = total[:, TEXT], total[:, VISION]
            of_text, of_vision = (text, vision, text_tokens, vision_tokens), (vision, text, vision_tokens, text_tokens)
            per_completion[f"modality_dominance/{name}"] = modality_dominance(*of_text)
            efficiencies = {"text": attention_efficiency(*of_text), "vision": attention_efficiency(*of_vision)}
            for kind, values in efficiencies.items():
                defined = torch.where(vision_tokens > 0, values, math.nan)  # without an image text has its fair share
                per_completion[f"attention_efficiency_{kind}/{name}"] = defined
    return AttentionReading(
        dominance_BT=modality_dominance(rows[..., TEXT], rows[..., VISION], *counts), per_completion=per_completion
    )


def completion_signals(per_completion: Mapping[str, Float[Tensor, "batch"]]) -> list[dict[str, float]]:
    """The readings of each completion by name, for rewards; those that are not defined are left out."""
    columns = {name: values.tolist() for name, values in per_completion.items()}
    rows = zip(*columns.values(), strict=True)
    return [{name: value for name, value in zip(columns, row, strict=True) if not math.isnan(value)} for row in rows]


def columns_of(readings: Sequence[Mapping[str, float]]) -> dict[str, Float[Tensor, "batch"]]:
    """Readings of completions as one tensor for each name; NaN where one is not defined."""
    names = sorted({name for each in readings for name in each})
    return {name: torch.tensor([each.get(name, math.nan) for each in readings]) for name in names}


def attention_metrics(columns: Mapping[str, Float[Tensor, "batch"]], ratio: float) -> dict[str, float]:
    """What is logged of readings: means over the completions for which they are defined.

    For each layer segment `attention/<layers>/` with `mdi`, `aei_text`, `aei_vision`, `text_ratio` MDI / (1 + MDI),
    `vision_ratio` 1 / (1 + MDI), `mdi_balance` clip(1 - |ln MDI| / ln R, 0, 1) and `mdi_penalty` 1 - balance; and how
    many tokens they rest on, `attention/text_tokens` and `attention/vision_tokens`.

    Args:
        columns: readings of the whole batch.
        ratio: R.

    Source: the metrics of JuncyLu/trl_DAPO, branch trl.
    """
    found = {f"attention/{name}": columns[name] for name in ("text_tokens", "vision_tokens") if name in columns}
    for layers in LAYER_SEGMENTS:
        if f"modality_dominance/{layers}" in columns:
            dominance = columns[f"modality_dominance/{layers}"]
            balance = (1 - dominance.log().abs() / math.log(ratio)).clamp(0, 1)
            values = {
                "mdi": dominance,
                "aei_text": columns[f"attention_efficiency_text/{layers}"],
                "aei_vision": columns[f"attention_efficiency_vision/{layers}"],
                "text_ratio": dominance / (1 + dominance),
                "vision_ratio": 1 / (1 + dominance),
                "mdi_balance": balance,
                "mdi_penalty": 1 - balance,
            }
            found |= {f"attention/{layers}/{name}": value for name, value in values.items()}
    finite = {name: values[torch.isfinite(values)] for name, values in found.items()}
    return {name: values.mean().item() for name, values in finite.items() if len(values)}


def vision_keys(segments: Int[Tensor, "batch keys"], rows: Sequence[int]) -> Int[Tensor, "some keys"]:
    """For each of some samples, its image tokens numbered from 0; -1 elsewhere."""
    is_vision = segments[list(rows)] == VISION
    return torch.where(is_vision, is_vision.long().cumsum(dim=1) - 1, -1)
