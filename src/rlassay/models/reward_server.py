"""The process behind `reward_model`: classifies completions, `python -m rlassay.models.reward_server OPTIONS`.

OPTIONS is a JSON object with `model` and `revision`.
"""

import inspect
import json
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from rlassay.models.batches import BATCH, in_batches, longest_input
from rlassay.models.device import reward_device
from rlassay.models.hub import load_classifier
from rlassay.rewards.serving import serve

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
        inputs = _encode(pairs, tokenizer, padding=pad is not None).to(device)
        with torch.inference_mode():
            return network(**{name: inputs[name] for name in known & set(inputs)}).logits.float().tolist()

    def fits(pair: Pair) -> bool:
        return _encode([pair], tokenizer, padding=False)["input_ids"].shape[1] <= room

    return partial(in_batches, logits, fits, size=1 if pad is None else BATCH)


def _encode(pairs: list[Pair], tokenizer: PreTrainedTokenizerBase, *, padding: bool) -> Any:
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


if __name__ == "__main__":
    serve(partial(load_scorer, **json.loads(sys.argv[1])))
