"""The process behind the reward `judge`: answers prompts, `python -m rlassay.models.judge_server OPTIONS`.

OPTIONS is a JSON object with `model`, `revision` and `max_new_tokens`.
"""

import json
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase, ProcessorMixin

from rlassay.models.batches import in_batches, longest_input
from rlassay.models.device import reward_device
from rlassay.models.hub import Processor, load_pretrained
from rlassay.rewards.serving import serve


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


if __name__ == "__main__":
    serve(partial(load_judge, **json.loads(sys.argv[1])))
