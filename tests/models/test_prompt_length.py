"""Prompts counted in tokens: every image at its expanded length, words as the model's own tokenizer splits them."""

from pathlib import Path

import pytest
from PIL import Image

from rlassay.config.explain import StudyError
from rlassay.models.hub import Processor, load_processor
from rlassay.models.policy import ChatFormat, tokenizer_of
from rlassay.models.prompt_length import count_tokens, prompt_lengths, require_room
from rlassay.prompts import instruction
from rlassay.records import Media, PromptRow
from tests.models.hubs import text_model, vision_model

IMAGE_TOKENS = 16
"""The smallest built-in model sees 16 x 16 pixels in patches of 4 x 4."""


@pytest.fixture(scope="module")
def vision(tmp_path_factory: pytest.TempPathFactory) -> Processor:
    return load_processor(str(vision_model(tmp_path_factory.mktemp("vision"))))


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Processor:
    return load_processor(str(text_model(tmp_path_factory.mktemp("text"))))


def asking(question: str, images: int = 0) -> PromptRow:
    return PromptRow(prompt_id="p", question=question, answer="7", media=(Media(path="a.png"),) * images)


def of_instruction(processor: Processor) -> int:
    return len(tokenizer_of(processor)(instruction(asking("7")), add_special_tokens=False)["input_ids"])


@pytest.mark.parametrize("number", [0, 1, 2])
def test_an_image_counts_as_many_tokens_as_the_processor_makes_of_it(vision: Processor, number: int):
    images = [Image.new("RGB", (40 + place, 30)) for place in range(number)]
    # <|system|> instruction <|user|> images `7` ` ` `3` `?` <|assistant|>
    expected = 1 + of_instruction(vision) + 1 + number * IMAGE_TOKENS + 4 + 1
    assert count_tokens(asking("7 3?", number), images, vision) == expected


def test_each_frame_of_a_clip_counts(vision: Processor):
    clip = Media(kind="video", path="a.mp4", strip="a.png", times=(0.0, 1.0, 2.0))
    row = asking("7").model_copy(update={"media": (clip,)})
    frames = [Image.new("RGB", (4, 4))] * 3
    assert count_tokens(row, frames, vision) - count_tokens(asking("7"), [], vision) == 3 * IMAGE_TOKENS


def test_text_alone_has_the_length_that_its_tokenizer_gives(text: Processor):
    # the roles are no special tokens of this template's making alone: they are three of the same vocabulary
    expected = 1 + of_instruction(text) + 1 + 5 + 1
    assert count_tokens(asking("7 3 1"), [], text) == expected


def test_prompts_that_cannot_be_counted_are_errors(vision: Processor, text: Processor):
    with pytest.raises(ValueError, match="the model reads text only"):
        count_tokens(asking("7", 1), [Image.new("RGB", (4, 4))], text)


def test_a_processor_without_a_chat_template_is_named(tmp_path: Path):
    folder = text_model(tmp_path)
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(ValueError, match="no chat template"):
        count_tokens(asking("7"), [], load_processor(str(folder)))


def test_a_missing_processor_is_named(tmp_path: Path):
    with pytest.raises(ValueError, match="there is no model folder"):
        load_processor(str(tmp_path / "nowhere"))
    (tmp_path / "config.json").write_text('{"model_type": ')
    with pytest.raises(ValueError, match="cannot load the processor of"):
        load_processor(str(tmp_path))


def test_all_prompts_are_counted_by_blank_images_of_their_sizes(vision: Processor, text: Processor, tmp_path: Path):
    Image.new("RGB", (40, 30), "red").save(tmp_path / "a.png")
    Image.new("RGB", (12, 4), "red").save(tmp_path / "strip.png")
    clip = Media(kind="video", path="a.mp4", strip="strip.png", times=(0.0, 1.0, 2.0))
    rows = [asking("7"), asking("7 3?", 2), asking("7 3?").model_copy(update={"media": (clip,)})]
    files = [[], [Image.new("RGB", (40, 30))] * 2, [Image.new("RGB", (4, 4))] * 3]
    for states_format in (True, False):
        chat = ChatFormat(processor=vision, with_format_instruction=states_format)
        exact = [count_tokens(row, shown, vision) for row, shown in zip(rows, files, strict=True)]
        without = 0 if states_format else 1 + of_instruction(vision)  # the system turn
        assert prompt_lengths(rows, chat, tmp_path) == [length - without for length in exact]
    assert prompt_lengths(rows[:1], ChatFormat(processor=text, with_format_instruction=True), tmp_path) == [
        count_tokens(rows[0], [], text)
    ]
    assert prompt_lengths([], chat, tmp_path) == []


def test_prompts_that_leave_no_room_are_named_with_their_number_the_longest_and_the_remedies():
    rows = [asking("7").model_copy(update={"prompt_id": name}) for name in ("short", "long", "longest", "fits")]
    about = {"of": "the split 'train'", "key": "rl", "max_completion_length": 6}
    require_room(rows, [2, 10, 10, 10], 16, **about)
    with pytest.raises(StudyError) as error:
        require_room(rows, [2, 11, 14, 10], 16, **about)
    assert (
        "rl.engine: vLLM would cut completions: 2 of 4 prompts of the split 'train' leave too little room. The "
        "longest, longest, has 14 tokens, to which rl.max_completion_length adds 6; expected at most 16 together. "
        "Raise rl.engine.max_model_length to 20 "
    ) in str(error.value)
    assert "reject prompts of more than 10 tokens" in str(error.value)
