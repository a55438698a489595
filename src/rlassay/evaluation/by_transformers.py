"""The engine `transformers`: `generate` of a loaded model."""

from collections.abc import Sequence
from typing import Any, cast

import torch
from transformers import GenerationConfig, ProcessorMixin

from rlassay.evaluation.decoding import Decoded, Decoding
from rlassay.models import seq2seq
from rlassay.models.hub import Model, Processor
from rlassay.models.policy import end_token_ids, tokenizer_of
from rlassay.models.seq2seq import is_encoder_decoder
from rlassay.models.video_input import images_and_clips, video_options
from rlassay.signals.segments import vision_token_ids


def decode_batch(
    model: Model,
    processor: Processor,
    conversations: Sequence[Any],
    images: Sequence[list[Any]],
    how: Decoding,
) -> list[Decoded]:
    """One completion per conversation, determined by the arguments alone.

    Args:
        conversations: chat messages of each prompt.
        images: PIL images of each prompt in their order, then its clips; empty lists for text.
    """
    config = _generation_config(model, processor, how)
    cast(Any, torch).manual_seed(how.seed)
    if is_encoder_decoder(model):
        ids, mask = _documents(model, processor, conversations)
        with torch.inference_mode():
            completions = seq2seq.generate(model, ids, mask, config, own_defaults=how.beams is not None)
        return _decoded(completions, processor, end_token_ids(model, processor))
    inputs = processor_inputs(processor, conversations, images).to(model.device)
    with torch.inference_mode():
        sequences = cast(Any, model).generate(**inputs, generation_config=config)
    return _decoded(sequences[:, inputs["input_ids"].shape[1] :], processor, end_token_ids(model, processor))


def _documents(model: Model, processor: Any, conversations: Sequence[Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and mask of the encoder's input, (batch, keys), padded on the right."""
    texts = [processor.apply_chat_template(each, tokenize=False, add_generation_prompt=True) for each in conversations]
    ids = seq2seq.document_ids(model, processor, texts)
    padded = processor.pad({"input_ids": ids}, return_tensors="pt").to(model.device)
    return padded["input_ids"], padded["attention_mask"]


def processor_inputs(processor: Processor, conversations: Sequence[Any], images: Sequence[list[Any]]) -> Any:
    """Ids, mask and pixels of prompts, padded."""
    template: Any = processor
    texts = [template.apply_chat_template(each, tokenize=False, add_generation_prompt=True) for each in conversations]
    # The template has already written the begin-of-sequence token where there is one.
    options: dict[str, Any] = {"padding": True, "return_tensors": "pt", "add_special_tokens": False}
    if not isinstance(processor, ProcessorMixin):
        return template(texts, **options)
    pictures, clips = zip(*(images_and_clips(each) for each in images), strict=True)
    options |= video_options([clip for of_prompt in clips for clip in of_prompt])
    return template(text=texts, images=list(pictures) if any(pictures) else None, **options)


def _generation_config(model: Model, processor: Processor, how: Decoding) -> GenerationConfig:
    # Every choice is given: transformers takes any other from the model's own file, such as top_k=20.
    temperature, top_p, top_k = (how.temperature, how.top_p, how.top_k) if how.sampled else (1.0, 1.0, 50)
    media = vision_token_ids(model.config) if isinstance(processor, ProcessorMixin) else None
    search: dict[str, Any] = {"num_beams": 1, "no_repeat_ngram_size": 0}
    if how.beams is not None:
        search = how.beams.model_dump(exclude_none=True)
    return GenerationConfig(
        max_new_tokens=how.max_completion_length,
        do_sample=how.sampled,
        temperature=temperature,
        top_p=top_p,
        top_k=top_k,
        min_p=how.min_p or None if how.sampled else None,
        repetition_penalty=1.0,
        **search,
        eos_token_id=end_token_ids(model, processor),
        pad_token_id=tokenizer_of(processor).pad_token_id,
        suppress_tokens=media,  # a sampled image or video token would have no pixels
        disable_compile=True,
    )


def _decoded(completion_ids: torch.Tensor, processor: Processor, eos_token_ids: list[int]) -> list[Decoded]:
    """Cut each row of `(batch, time)` after its first end-of-sequence token and decode it."""
    is_eos = torch.isin(completion_ids, torch.tensor(eos_token_ids, device=completion_ids.device))
    finished = is_eos.any(dim=1)
    counts = torch.where(finished, is_eos.int().argmax(dim=1) + 1, completion_ids.shape[1])
    columns: Any = (completion_ids, counts, finished)
    sampled, lengths, ended = (column.tolist() for column in columns)
    rows: list[list[int]] = [ids[:count] for ids, count in zip(sampled, lengths, strict=True)]
    texts: list[str] = cast(Any, tokenizer_of(processor)).batch_decode(rows, skip_special_tokens=True)
    return [
        Decoded(ids=ids, text=text, finished=by_itself) for text, ids, by_itself in zip(texts, rows, ended, strict=True)
    ]
