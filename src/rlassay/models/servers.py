"""The processes behind the rewards `judge` and `reward_model`: `python -m rlassay.models.servers SERVER OPTIONS`.

SERVER is `judge`, which replies to prompts, or `reward`, which classifies pairs of a prompt and a completion. OPTIONS
is a JSON object with the arguments of `load_judge` or `load_scorer`. Both servers work in small batches, and give no
result for a text that is too long for their model.
"""

import inspect
import json
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar, cast

import torch
from transformers import AutoModelForSequenceClassification, PreTrainedModel, PreTrainedTokenizerBase, ProcessorMixin

from rlassay.config.model import TinyLM
from rlassay.models.hub import Processor, load_classifier, load_pretrained, reward_device
from rlassay.models.policy import tokenizer_of
from rlassay.models.tiny import build_tiny_lm
from rlassay.rewards.judge import TEMPLATE
from rlassay.rewards.sandbox.child_process import serve

BATCH = 16
"""Texts in one forward pass."""
ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")
Pair = list[str]
"""A prompt and its completion."""
TINY = "tiny_lm"
"""Name of a small built-in model with random weights. With it a study can be tried without a download."""


def load_judge(model: str, revision: str | None, max_new_tokens: int) -> Callable[[list[str]], list[str | None]]:
    """A function from prompts to greedy replies, new tokens only; None for a prompt that is too long for the model.

    Errors: ValueError saying why the model cannot be loaded.
    """
    device, dtype = reward_device()
    if model == TINY:
        loaded, processor = _tiny_lm()
    else:
        loaded, processor = load_pretrained(model, dtype=dtype, attn_implementation="sdpa", revision=revision)
    network: Any = loaded.eval()
    network.to(device)
    tokenizer: Any = tokenizer_of(processor)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    room = _longest_input(network, tokenizer) - max_new_tokens

    def reply(prompts: list[str]) -> list[str]:
        inputs = _encode_prompts(prompts, processor).to(device)
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
        return _encode_prompts([prompt], processor)["input_ids"].shape[1] <= room

    return partial(_in_batches, reply, fits)


def _tiny_lm() -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    return build_tiny_lm(TinyLM(kind=TINY, layers=1, width=32), [TEMPLATE])


def _tiny_classifier() -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The built-in text model with one label in place of its vocabulary."""
    base, tokenizer = _tiny_lm()
    config: Any = base.config
    config.num_labels = 1
    auto_model: Any = AutoModelForSequenceClassification
    rng: Any = torch.random  # torch leaves types of these functions open
    with rng.fork_rng(devices=[]):
        rng.manual_seed(0)
        return auto_model.from_config(config), tokenizer


def _encode_prompts(prompts: list[str], processor: Processor) -> Any:
    """Encode prompts padded on the left, so that every reply begins in the same column."""
    template: Any = processor
    tokenizer: Any = tokenizer_of(processor)
    options: dict[str, Any] = {"padding": True, "padding_side": "left", "return_tensors": "pt"}
    options["return_token_type_ids"] = False  # `generate` refuses them
    if not template.chat_template:
        return tokenizer(prompts, **options)
    in_parts = isinstance(processor, ProcessorMixin)
    contents = [[{"type": "text", "text": prompt}] if in_parts else prompt for prompt in prompts]
    turns = [[{"role": "user", "content": content}] for content in contents]
    texts = template.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    return tokenizer(texts, add_special_tokens=False, **options)


def load_scorer(model: str, revision: str | None) -> Callable[[list[Pair]], list[list[float] | None]]:
    """A function from pairs to logits, one per label; None for a pair that is too long for the model.

    Errors: ValueError saying why the model cannot be loaded.
    """
    device, dtype = reward_device()
    loaded, tokenizer = _tiny_classifier() if model == TINY else load_classifier(model, dtype=dtype, revision=revision)
    network: Any = loaded.eval()
    network.to(device)
    # A decoder reads its score at the last token that is not padding, so it must recognise the padding.
    pad = network.config.get_text_config().pad_token_id
    if pad is not None:
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(pad)
    room = _longest_input(network, tokenizer)
    known = set(inspect.signature(network.forward).parameters)  # some models take no token types

    def logits(pairs: list[Pair]) -> list[list[float]]:
        inputs = _encode_pairs(pairs, tokenizer, padding=pad is not None).to(device)
        with torch.inference_mode():
            return network(**{name: inputs[name] for name in known & set(inputs)}).logits.float().tolist()

    def fits(pair: Pair) -> bool:
        return _encode_pairs([pair], tokenizer, padding=False)["input_ids"].shape[1] <= room

    return partial(_in_batches, logits, fits, size=1 if pad is None else BATCH)


def _encode_pairs(pairs: list[Pair], tokenizer: PreTrainedTokenizerBase, *, padding: bool) -> Any:
    """Encode pairs as conversations if the tokenizer has a chat template, else as text pairs."""
    encode: Any = tokenizer
    options: dict[str, Any] = {"padding": padding, "padding_side": "right", "return_tensors": "pt"}
    if not encode.chat_template:
        return encode([prompt for prompt, _ in pairs], [completion for _, completion in pairs], **options)
    turns = [
        [{"role": "user", "content": prompt}, {"role": "assistant", "content": completion}]
        for prompt, completion in pairs
    ]
    texts = encode.apply_chat_template(turns, tokenize=False)
    return encode(texts, add_special_tokens=False, **options)


def _longest_input(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int:
    """The most tokens that the model takes, as its config and its tokenizer state."""
    config: Any = model.config
    stated: int = cast(Any, tokenizer).model_max_length
    return min(stated, config.get_text_config().to_dict().get("max_position_embeddings") or stated)


def _in_batches(
    work: Callable[[list[ItemT]], Sequence[ResultT]],
    fits: Callable[[ItemT], bool],
    items: Sequence[ItemT],
    size: int = BATCH,
) -> list[ResultT | None]:
    """The result of each item, computed `size` at a time; None for an item that does not fit."""
    results: list[ResultT | None] = [None for _ in items]
    fitting = [index for index, item in enumerate(items) if fits(item)]
    for start in range(0, len(fitting), size):
        chosen = fitting[start : start + size]
        for index, result in zip(chosen, work([items[index] for index in chosen]), strict=True):
            results[index] = result
    return results


SERVERS: dict[str, Callable[..., Callable[[Any], Any]]] = {"judge": load_judge, "reward": load_scorer}
"""The first argument of the command line -> the function that loads the server's model."""


def main(arguments: Sequence[str]) -> None:
    """Serve until the parent process ends.

    Errors: SystemExit with the usage for an unknown server, or another number of arguments than two.
    """
    if len(arguments) != 2 or arguments[0] not in SERVERS:
        got = " ".join(arguments) or "no arguments"
        sys.exit(f"usage: python -m rlassay.models.servers {'|'.join(SERVERS)} OPTIONS (a JSON object); got {got}")
    serve(partial(SERVERS[arguments[0]], **json.loads(arguments[1])))


if __name__ == "__main__":
    main(sys.argv[1:])
