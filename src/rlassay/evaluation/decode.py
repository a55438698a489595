"""Completions from a model: the one function that another engine would replace."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import GenerationConfig, ProcessorMixin

from rlassay.models import tokenizer_of
from rlassay.models.hub import Model, Processor


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """How to decode a batch."""

    sampled: bool
    """Whether to sample; False takes the likeliest token each time."""
    temperature: float
    """Temperature of the sampled distribution."""
    top_p: float
    """Nucleus of the sampled distribution."""
    max_completion_length: int
    """Longest completion, tokens."""
    seed: int
    """Seed of the sampling."""


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """One completion."""

    ids: list[int]
    """Its tokens, the end-of-sequence token included."""
    text: str
    """Without special tokens."""
    finished: bool
    """Whether it ended by itself."""


def decode_batch(
    model: Model,
    processor: Processor,
    conversations: Sequence[Any],
    images: Sequence[list[Any]],
    how: Decoding,
) -> list[Decoded]:
    """One completion per conversation; nothing but the arguments decides it.

    Args:
        conversations: chat messages of each prompt.
        images: PIL images of each prompt in the order in which it shows them; empty lists for text.
    """
    inputs = _inputs(processor, conversations, images).to(model.device)
    torch.manual_seed(how.seed)
    generate: Any = model.generate
    with torch.inference_mode():
        sequences = generate(**inputs, generation_config=_generation_config(model, processor, how))
    return _decoded(sequences[:, inputs["input_ids"].shape[1] :], processor, _eos_token_ids(model, processor))


def _inputs(processor: Processor, conversations: Sequence[Any], images: Sequence[list[Any]]) -> Any:
    texts: list[Any] = [
        processor.apply_chat_template(each, tokenize=False, add_generation_prompt=True) for each in conversations
    ]
    # The template has already written the begin-of-sequence token where there is one.
    options: dict[str, Any] = {"padding": True, "return_tensors": "pt", "add_special_tokens": False}
    if not isinstance(processor, ProcessorMixin):
        return processor(texts, **options)
    shown: Any = list(images) if any(images) else None
    return processor(text=texts, images=shown, **options)


def _generation_config(model: Model, processor: Processor, how: Decoding) -> GenerationConfig:
    # Every choice is spelled out: whatever stays open is filled in from the model's own file, top_k=20 for one.
    temperature, top_p, top_k = (how.temperature, how.top_p, 0) if how.sampled else (1.0, 1.0, 50)
    images = [model.config.image_token_id] if isinstance(processor, ProcessorMixin) else None
    return GenerationConfig(
        max_new_tokens=how.max_completion_length,
        do_sample=how.sampled,
        temperature=temperature,
        top_p=top_p,
        top_k=top_k,
        num_beams=1,
        repetition_penalty=1.0,
        no_repeat_ngram_size=0,
        eos_token_id=_eos_token_ids(model, processor),
        pad_token_id=tokenizer_of(processor).pad_token_id,
        suppress_tokens=images,  # a sampled image token would stand for an image that is not there
        disable_compile=True,
    )


def _eos_token_ids(model: Model, processor: Processor) -> list[int]:
    of_model = model.generation_config.eos_token_id
    listed = of_model if isinstance(of_model, list) else [of_model]
    return sorted({each for each in [*listed, tokenizer_of(processor).eos_token_id] if each is not None})


def _decoded(completion_ids: torch.Tensor, processor: Processor, eos_token_ids: list[int]) -> list[Decoded]:
    """Cut each row of `(batch, time)` after its first end-of-sequence token and decode it."""
    is_eos = torch.isin(completion_ids, torch.tensor(eos_token_ids, device=completion_ids.device))
    finished = is_eos.any(dim=1)
    counts = torch.where(finished, is_eos.int().argmax(dim=1) + 1, completion_ids.shape[1])
    rows = [ids[:count] for ids, count in zip(completion_ids.tolist(), counts.tolist(), strict=True)]
    texts = tokenizer_of(processor).batch_decode(rows, skip_special_tokens=True)
    return [
        Decoded(ids=ids, text=text, finished=ended)
        for text, ids, ended in zip(texts, rows, finished.tolist(), strict=True)
    ]
