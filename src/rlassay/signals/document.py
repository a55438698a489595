"""Attention of an encoder-decoder's completions to the tokens of their documents: cross-attention mass."""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from rlassay.models.hub import Model, Processor
from rlassay.signals.attention import attention_mass
from rlassay.signals.formulas import effective_number
from rlassay.signals.inputs import ModelInputs
from rlassay.signals.segments import SEGMENTS, layer_segments, segment_ids


@dataclass(frozen=True, kw_only=True)
class DocumentAttention:
    """Cross-attention of B completions to the text tokens of their documents, at most K."""

    mass_BK: Float[Tensor, "batch keys"]
    """Attention mass on each token, mean over completion tokens, late layers and heads; 0 after the document's last
    token. Control tokens, such as the end token, have the rest of 1."""
    token_ids: list[list[int]]
    """(B), the text tokens of each document in order, without control tokens."""
    per_completion: dict[str, Float[Tensor, "batch"]]
    """Statistics of each document, by name; NaN for a document without text tokens. `text_tokens` is their number; for
    each layer segment that the model has, `attended_tokens/<layers>` is the `effective_number` of document tokens."""


def document_attention(
    model: Model,
    inputs: ModelInputs,
    processor: Processor,
    layers: Literal["thirds", "paper"] = "thirds",
    batch_size: int | None = None,
) -> DocumentAttention:
    """Attention of completions to their documents, from teacher-forced passes of `attention_mass`.

    Args:
        model: an encoder-decoder.
        inputs: documents and completions.
        processor: its tokenizer names the control tokens.
        layers: how the decoder's layers are divided into segments, see `layer_segments`.
        batch_size: completions per pass; None takes all at once. Affects only time and memory.
    """
    config: Any = model.config
    is_text = segment_ids(inputs, processor, config) == SEGMENTS.index("text")
    keys = torch.where(is_text, is_text.long().cumsum(dim=1) - 1, -1)
    size, length, num_keys = len(inputs), inputs.completion_length, max(1, int(keys.max()) + 1)
    step, parts = batch_size or size, list[Tensor]()
    for first in range(0, size, step):
        rows = range(first, min(first + step, size))
        batch = inputs.batch(rows, model.device)
        mass = attention_mass(model, batch, keys[list(rows)].to(model.device), length, num_segments=num_keys)
        tokens = batch["attention_mask"][:, -length:].sum(dim=1)
        parts.append(mass.sum(dim=2) / tokens[:, None])  # rows after a completion's end are 0
    mass_LBK = torch.cat(parts, dim=1)
    ranges = {name: list(some) for name, some in layer_segments(len(mass_LBK), layers).items() if some}
    return DocumentAttention(
        mass_BK=mass_LBK[ranges["late"]].mean(dim=0),
        token_ids=[
            [int(token) for token in ids[chosen]]
            for ids, chosen in zip(inputs.by_token["input_ids"], is_text, strict=True)
        ],
        per_completion={"text_tokens": is_text.sum(dim=1).float().to(mass_LBK.device)}
        | {f"attended_tokens/{name}": effective_number(mass_LBK[some].mean(dim=0)) for name, some in ranges.items()},
    )


def check_recordable(model: Model) -> None:
    """Raise ValueError unless the cross-attention of an encoder-decoder can be recorded."""
    ids = torch.zeros((1, 2), dtype=torch.long, device=model.device)
    attention_mass(model, {"input_ids": ids, "attention_mask": torch.ones_like(ids)}, torch.zeros_like(ids), 1)
