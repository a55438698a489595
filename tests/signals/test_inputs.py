"""Model inputs against the processor's own, and the system block under several chat templates."""

from typing import Any

import pytest
import torch
from PIL import Image

from rlassay.signals import model_inputs, with_images
from rlassay.signals.inputs import SampledPrompts, sampled_inputs, system_length, with_system_blocks
from tests.signals import make


def test_prompts_are_padded_on_the_left_and_completions_on_the_right():
    tokenizer = make.text_processor()
    ids = torch.tensor([[7, 8, 9, 1], [7, 1, 0, 0], [7, 8, 1, 0]])
    prompts = [[{"role": "user", "content": text}] for text in ("larger?", "Which digit is larger?", "3")]

    inputs = model_inputs(tokenizer, prompts, None, ids, (ids != 0).long())

    alone = [tokenizer(f"<|user|>{prompt[0]['content']}<|assistant|>")["input_ids"] for prompt in prompts]
    length = max(map(len, alone))
    for row, (prompt_ids, completion) in enumerate(zip(alone, ids.tolist(), strict=True)):
        padding = length - len(prompt_ids)
        assert inputs.by_token["input_ids"][row].tolist() == [0] * padding + prompt_ids + completion
        seen = [0] * padding + [1] * len(prompt_ids) + [int(each != 0) for each in completion]
        assert inputs.by_token["attention_mask"][row].tolist() == seen
    assert inputs.completion_length == 4
    assert inputs.has_image == [False, False, False]


def test_plain_text_gets_the_special_tokens_of_the_tokenizer_and_has_no_system_block():
    inputs = model_inputs(make.text_processor(), ["larger?"], None, torch.tensor([[7, 8]]), torch.tensor([[1, 1]]))

    assert inputs.by_token["input_ids"].tolist() == [[*make.text_processor()("larger?")["input_ids"], 7, 8]]
    assert inputs.system_lengths == (0,)


def test_a_repeated_prompt_is_processed_once_and_samples_keep_their_own_pixels():
    _, processor = make.tiny_vlm()
    inputs = make.vlm_inputs(processor)

    assert inputs.by_image[0] is inputs.by_image[3]
    assert inputs.has_image == [True, True, False, True]
    batch = inputs.batch([3, 2, 1], torch.device("cpu"))
    expected = torch.cat([inputs.by_image[3]["pixel_values"], inputs.by_image[1]["pixel_values"]])
    assert torch.equal(batch["pixel_values"], expected)
    assert torch.equal(batch["input_ids"], inputs.by_token["input_ids"][[3, 2, 1]])
    assert "pixel_values" not in inputs.batch([2], torch.device("cpu"))


def test_inputs_equal_those_of_the_processor_on_the_whole_batch():
    _, processor = make.tiny_vlm()
    inputs = make.vlm_inputs(processor, samples=(0, 1))
    image = Image.new("RGB", (16, 16), "red")
    image.paste("blue", (0, 0, 7, 9))
    texts = [
        "<|system|>Think first, then answer.<|user|><image>Which digit is larger?<|assistant|>",
        "<|user|><image>larger?<|assistant|>",
    ]
    images = [[image], [Image.new("RGB", (16, 16), "white")]]
    whole = processor(text=texts, images=images, padding=True, return_tensors="pt", add_special_tokens=False)

    batch = inputs.batch([0, 1], torch.device("cpu"))

    prompt_length = whole["input_ids"].shape[1]
    assert torch.equal(batch["input_ids"][:, :prompt_length], whole["input_ids"])
    assert torch.equal(batch["attention_mask"][:, :prompt_length], whole["attention_mask"])
    assert torch.equal(batch["pixel_values"], whole["pixel_values"])


def test_other_images_replace_the_pixels_and_nothing_else():
    _, processor = make.tiny_vlm()
    inputs = make.vlm_inputs(processor)
    black, grey = Image.new("RGB", (16, 16), "black"), Image.new("RGB", (16, 16), (127, 127, 127))

    other = with_images(processor, inputs, [[black], [grey], None, [grey]])

    assert other.by_token is inputs.by_token
    # Pixels are scaled to [-1, 1].
    values = [each["pixel_values"].unique().tolist() if each else [] for each in other.by_image]
    assert values == [[-1.0], pytest.approx([127 / 127.5 - 1]), [], pytest.approx([127 / 127.5 - 1])]


@pytest.mark.parametrize("images", [[None, [1], None, [1]], [[1], [1], [1], [1]], [[1, 1], [1], None, [1]]])
def test_samples_must_keep_their_number_of_images(images: list[list[int] | None]):
    _, processor = make.tiny_vlm()
    inputs = make.vlm_inputs(processor)
    black = [None if each is None else [Image.new("RGB", (16, 16))] * len(each) for each in images]

    with pytest.raises(ValueError, match=r"images of sample [02]: expected tensors of shapes"):
        with_images(processor, inputs, black)


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
        # The end marker and its line break precede every turn; the marker is a special token anyway.
        (CHATML, [SYSTEM, USER], f"<|system|>{SYSTEM['content']}"),
        (CHATML, [USER], "<|system|>You help."),
        (VICUNA, [SYSTEM, USER], SYSTEM["content"]),
        (VICUNA, [USER], ""),
    ],
)
def test_the_system_block_ends_where_the_first_turn_begins(
    template: str | None, prompt: list[dict[str, Any]], expected: str
):
    assert block(template, prompt).rstrip() == expected


def test_each_sampled_prompt_has_the_block_of_its_own_system_turn_and_rendering():
    tokenizer = make.text_processor()
    tokenizer.chat_template = "{% if terse %}<|system|>{% endif %}" + tokenizer.chat_template
    other = {"role": "system", "content": "then"}
    prompts: list[Any] = [[SYSTEM, USER], [USER], [other, USER], [SYSTEM, USER], [USER], "larger?"]
    rendering: list[dict[str, Any]] = [{}, {}, {}, {}, {"terse": True}, {}]
    texts = [
        each if isinstance(each, str) else tokenizer.apply_chat_template(each, tokenize=False, **how)
        for each, how in zip(prompts, rendering, strict=True)
    ]
    ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    sampled = SampledPrompts(token_ids=ids, rendering=rendering)
    answers = torch.ones((len(ids), 2), dtype=torch.long)
    inputs = sampled_inputs(tokenizer, prompts, None, answers, answers, sampled)

    lengths = with_system_blocks(tokenizer, inputs, prompts, sampled).system_lengths

    assert inputs.prompts[0] == inputs.prompts[3]
    blocks = [tokenizer.decode(row[:length]) for row, length in zip(ids, lengths, strict=True)]
    begun = [f"<|system|>{SYSTEM['content']}", "", "<|system|>then", f"<|system|>{SYSTEM['content']}", "<|system|>", ""]
    assert [each.rstrip() for each in blocks] == begun


def test_a_template_that_drops_turns_is_refused():
    with pytest.raises(ValueError, match=r"chat template: expected the text of 3 turns, got 1"):
        block("{{ messages[-1].content }}", [USER])
