"""The process behind the reward `judge`: answers prompts, `python -m rlassay.models.servers OPTIONS`.

OPTIONS is a JSON object with `model`, `revision` and `max_new_tokens`.
"""

import inspect
import json
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase, ProcessorMixin

from rlassay.models.hub import Processor, load_classifier, load_pretrained, reward_device
from rlassay.rewards.sandbox.child_process import serve

# MERGED FROM models.batches: What the processes behind rewards share: small batches, and texts that are too
# long left out.

BATCH = 16
ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


def in_batches(
    work: Callable[[list[ItemT]], Sequence[ResultT]],
    fits: Callable[[ItemT], bool],
    items: Sequence[ItemT],
    size: int = BATCH,
) -> list[ResultT | None]:
    """The result of each item, worked out `size` at a time; None for an item that does not fit."""
    results: list[ResultT | None] = [None for _ in items]
    fitting = [index for index, item in enumerate(items) if fits(item)]
    for start in range(0, len(fitting), size):
        chosen = fitting[start : start + size]
        for index, result in zip(chosen, work([items[index] for index in chosen]), strict=True):
            results[index] = result
    return results


def longest_input(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int:
    """The most tokens that a model takes, as far as it or its tokenizer says so."""
    positions = model.config.get_text_config().to_dict().get("max_position_embeddings")
    return min(tokenizer.model_max_length, positions or tokenizer.model_max_length)


# MERGED FROM models.judge_server: The process behind the reward `judge`: answers prompts, `python -m
# rlassay.models.servers OPTIONS`. OPTIONS is a JSON object with `model`, `revision` and `max_new_tokens`.


def load_judge(model: str, revision: str | None, max_new_tokens: int) -> Callable[[list[str]], list[str | None]]:
    """A function from prompts to greedy replies, new tokens only; None for a prompt that is too long for the model.

    Errors: ValueError saying why the model cannot be loaded.
    """
    device, dtype = reward_device()
    network, processor = load_pretrained(model, dtype=dtype, attn_implementation="sdpa", revision=revision)
    network: Any = network.eval()
    network.to(device)
    tokenizer = processor.tokenizer if isinstance(processor, ProcessorMixin) else processor
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    room = longest_input(network, tokenizer) - max_new_tokens

    def reply(prompts: list[str]) -> list[str]:
        inputs = _encode(prompts, processor, tokenizer).to(device)
        with torch.inference_mode():
            ids = network.generate(
                **inputs,
                max_new_tokens=max_new_tokens,
                do_sample=False,
                num_beams=1,
                pad_token_id=tokenizer.pad_token_id,
            )
        return tokenizer.batch_decode(ids[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)

    def fits(prompt: str) -> bool:
        return _encode([prompt], processor, tokenizer)["input_ids"].shape[1] <= room

    return partial(in_batches, reply, fits)


def _encode(prompts: list[str], processor: Processor, tokenizer: PreTrainedTokenizerBase) -> Any:
    """Padded on the left, so that every reply begins in the same column."""
    how: dict[str, Any] = {"padding": True, "padding_side": "left", "return_tensors": "pt"}
    how["return_token_type_ids"] = False  # `generate` refuses them
    if not processor.chat_template:
        return tokenizer(prompts, **how)
    in_parts = isinstance(processor, ProcessorMixin)
    contents = [[{"type": "text", "text": prompt}] if in_parts else prompt for prompt in prompts]
    turns: Any = [[{"role": "user", "content": content}] for content in contents]
    texts: Any = processor.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    return tokenizer(texts, add_special_tokens=False, **how)


# MERGED FROM models.reward_server: The process behind `reward_model`: classifies completions, `python -m
# rlassay.models.servers OPTIONS`. OPTIONS is a JSON object with `model` and `revision`.

Pair = list[str]
"""A prompt and its completion."""


def load_scorer(model: str, revision: str | None) -> Callable[[list[Pair]], list[list[float] | None]]:
    """A function from pairs to logits, one per label; None for a pair that is too long for the model.

    Errors: ValueError saying why the model cannot be loaded.
    """
    device, dtype = reward_device()
    network, tokenizer = load_classifier(model, dtype=dtype, revision=revision)
    network: Any = network.eval()
    network.to(device)
    # A decoder reads its score at the last token that is no padding, so the padding must be the one that it knows.
    pad = network.config.get_text_config().pad_token_id
    if pad is not None:
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(pad)
    room = longest_input(network, tokenizer)
    known = set(inspect.signature(network.forward).parameters)  # not every model takes token types

    def logits(pairs: list[Pair]) -> list[list[float]]:
        inputs = _encode_pairs(pairs, tokenizer, padding=pad is not None).to(device)
        with torch.inference_mode():
            return network(**{name: inputs[name] for name in known & set(inputs)}).logits.float().tolist()

    def fits(pair: Pair) -> bool:
        return _encode_pairs([pair], tokenizer, padding=False)["input_ids"].shape[1] <= room

    return partial(in_batches, logits, fits, size=1 if pad is None else BATCH)


def _encode_pairs(pairs: list[Pair], tokenizer: PreTrainedTokenizerBase, *, padding: bool) -> Any:
    """A conversation of two turns where the tokenizer has a template for it, else a pair of texts."""
    how: dict[str, Any] = {"padding": padding, "padding_side": "right", "return_tensors": "pt"}
    if not tokenizer.chat_template:
        return tokenizer([prompt for prompt, _ in pairs], [completion for _, completion in pairs], **how)
    turns: Any = [
        [{"role": "user", "content": prompt}, {"role": "assistant", "content": completion}]
        for prompt, completion in pairs
    ]
    texts: Any = tokenizer.apply_chat_template(turns, tokenize=False)
    return tokenizer(texts, add_special_tokens=False, **how)


LOADERS = {"judge": load_judge, "reward": load_scorer}
"""The first argument of the command line -> the function that loads the server's model."""

if __name__ == "__main__":
    serve(partial(LOADERS[sys.argv[1]], **json.loads(sys.argv[2])))
