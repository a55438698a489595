from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from rlassay.images import StudyImages
from rlassay.models.policy import ChatFormat, build_policy
from rlassay.records import PromptRow, read_rows
from rlassay.training.prompts import prompt_dataset, prompt_order
from tests.training.short_run import fresh_layout, load_short, policy_of
from tests.training.tiny_lm import tokenizer


def by_id(rows: list[PromptRow]) -> dict[str, PromptRow]:
    return {row.prompt_id: row for row in rows}


def test_rows_become_messages_and_images(tmp_path: Path):
    layout = fresh_layout(tmp_path)
    rows = list(read_rows(layout.split("train")))
    _, processor = build_policy(policy_of(load_short(tmp_path)).recipe.model, rows)
    dataset = prompt_dataset(
        by_id(rows),
        [row.prompt_id for row in rows],
        ChatFormat(processor=processor, with_format_instruction=False),
        StudyImages(layout.data),
    )
    drawn: dict[str, Any] = dataset[1]
    assert len(dataset) == len(rows)
    assert set(drawn) == {"prompt_id", "prompt", "images"}
    assert drawn["prompt_id"] == rows[1].prompt_id
    (image,) = drawn["images"]
    assert image.mode == "RGB"
    with Image.open(layout.data / rows[1].media[0].path) as stored:
        assert image.getpixel((0, 0)) == (stored.getpixel((0, 0)),) * 3
    assert drawn["prompt"][-1]["content"][0] == {"type": "image"}
    assert drawn["prompt"][-1]["content"][1]["text"].startswith(rows[1].question)


def test_a_batch_decodes_a_repeated_image_once(tmp_path: Path):
    layout = fresh_layout(tmp_path)
    rows = list(read_rows(layout.split("train")))
    _, processor = build_policy(policy_of(load_short(tmp_path)).recipe.model, rows)
    batch: list[dict[str, Any]] = prompt_dataset(
        by_id(rows),
        [row.prompt_id for row in rows],
        ChatFormat(processor=processor, with_format_instruction=False),
        StudyImages(layout.data),
    ).__getitems__([2, 2, 2])
    assert batch[0]["images"][0] is batch[1]["images"][0] is batch[2]["images"][0]


def test_text_rows_have_no_image_column(tmp_path: Path):
    rows = [PromptRow(prompt_id="a", question="How many?", answer="2")]
    processor = tokenizer()
    processor.chat_template = "{% for turn in messages %}{{ turn.role }}: {{ turn.content }}\n{% endfor %}"
    drawn = prompt_dataset(
        by_id(rows), ["a"], ChatFormat(processor=processor, with_format_instruction=True), StudyImages(tmp_path)
    )[0]
    assert set(drawn) == {"prompt_id", "prompt"}
    assert [turn["role"] for turn in drawn["prompt"]] == ["system", "user"]
    assert drawn["prompt"][1]["content"] == "How many?"


def test_rows_with_and_without_an_image_are_not_mixed(tmp_path: Path):
    layout = fresh_layout(tmp_path)
    rows = [*read_rows(layout.split("train")), PromptRow(prompt_id="blind", question="How many?", answer="2")]
    with pytest.raises(ValueError, match="1 rows without an image, such as blind, beside 4 with one"):
        prompt_dataset(
            by_id(rows),
            ["blind"],
            ChatFormat(processor=tokenizer(), with_format_instruction=True),
            StudyImages(layout.data),
        )


def test_each_pass_takes_every_prompt_once_in_a_new_order():
    ids = [f"p{index}" for index in range(12)]
    order = prompt_order(ids, batch_size=3, num_batches=10, seed=5)
    assert len(order) == 30
    assert sorted(order[:12]) == sorted(order[12:24]) == sorted(ids)
    assert order[:12] != order[12:24]
    assert order == prompt_order(ids, batch_size=3, num_batches=10, seed=5)
    assert order != prompt_order(ids, batch_size=3, num_batches=10, seed=6)


def test_prompts_that_do_not_fill_a_batch_wait_for_the_next_pass():
    # Seven prompts in batches of three: six per pass, no prompt twice in a batch.
    order = prompt_order([f"p{index}" for index in range(7)], batch_size=3, num_batches=4, seed=0)
    assert [len(set(order[start : start + 6])) for start in (0, 6)] == [6, 6]


def test_a_split_that_cannot_fill_a_batch_is_an_error():
    with pytest.raises(ValueError, match="the train split has 2 prompts, but a generation batch takes 3"):
        prompt_order(["a", "b"], batch_size=3, num_batches=1, seed=0)
