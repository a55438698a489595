from typing import Any

import pytest
import torch

from rlassay.signals.system_block import system_length
from tests.signals import make

CHATML = (
    "{% if messages[0].role != 'system' %}<|system|>You help.\n<eos>\n{% endif %}"
    "{% for message in messages %}{{ '<|' + message.role + '|>' + message.content + '\n<eos>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
VICUNA = (
    "{% for message in messages %}{% if message.role == 'system' %}{{ message.content + ' ' }}"
    "{% elif message.role == 'user' %}{{ 'USER: ' + message.content }}"
    "{% else %}{{ ' ASSISTANT: ' + message.content + '<eos>' }}{% endif %}{% endfor %}"
)
SYSTEM = {"role": "system", "content": "Think first, <answer>then</answer>"}
USER = {"role": "user", "content": "larger?"}


def block(template: str | None, prompt: list[dict[str, Any]]) -> str:
    tokenizer = make.text_processor()
    tokenizer.chat_template = template or tokenizer.chat_template
    text = tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    return tokenizer.decode(ids[: system_length(tokenizer, prompt, torch.tensor(ids))])


@pytest.mark.parametrize(
    ("template", "prompt", "expected"),
    [
        (None, [SYSTEM, USER], f"<|system|>{SYSTEM['content']}"),
        (None, [USER], ""),
        (None, [USER, {"role": "assistant", "content": "7"}, USER], ""),
        # The end marker and the line break after it come before every turn: the marker is special anyway.
        (CHATML, [SYSTEM, USER], f"<|system|>{SYSTEM['content']}"),
        (CHATML, [USER], "<|system|>You help."),
        (VICUNA, [SYSTEM, USER], SYSTEM["content"]),
        (VICUNA, [USER], ""),
    ],
)
def test_the_block_ends_where_the_first_turn_begins(template: str | None, prompt: list[dict[str, Any]], expected: str):
    assert block(template, prompt).rstrip() == expected


def test_a_template_that_leaves_words_out_is_refused():
    with pytest.raises(ValueError, match=r"chat template: expected the words of 3 turns, got 1"):
        block("{{ messages[-1].content }}", [USER])
