"""Prompts of too many tokens are refused and counted, at any source."""

import io
import json

import pytest
from PIL import Image

from rlassay.config import StudyError
from rlassay.config.data import Conversations, Jsonl, JsonlPrompts, PromptLimit
from rlassay.models.hub import load_processor
from rlassay.models.prompt_length import count_tokens
from rlassay.records import PromptRow
from tests.data.taking import take
from tests.models.hubs import text_model, vision_model


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(vision_model(tmp_path_factory.mktemp("hub")))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Prompts of one to four digits, the last with an image of 16 tokens."""
    folder = tmp_path_factory.mktemp("in")
    encoded = io.BytesIO()
    Image.new("RGB", (5, 3), "red").save(encoded, "PNG")
    (folder / "red.png").write_bytes(encoded.getvalue())
    rows = [("7", []), ("7 3", []), ("7 3 1", []), ("7", ["red.png"])]
    prompts = [{"prompt": prompt, "answer": "1", "images": images} for prompt, images in rows]
    own = [{"question": prompt, "answer": "1", "media": [{"path": name} for name in images]} for prompt, images in rows]
    for name, records in (("test", own), ("train", prompts)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return folder


def shortest(model):
    """Tokens of the prompt `7`, all that the chat template adds included."""
    return count_tokens(PromptRow(prompt_id="p", question="7", answer="1"), [], load_processor(model))


# tokens beyond those of `7`: `7 3` has 2 more, `7 3 1` has 4, an image has 16
@pytest.mark.parametrize(("more", "kept"), [(-1, 0), (0, 1), (1, 1), (2, 2), (4, 3), (15, 3), (16, 4)])
def test_a_prompt_may_take_as_many_tokens_as_the_limit_says(folder, model, tmp_path, more, kept):
    limit = PromptLimit(tokens=shortest(model) + more, model=model)
    section = JsonlPrompts(kind="jsonl_prompts", folder=str(folder), splits={"train": None}, max_prompt_length=limit)
    rows, refused = take(section, tmp_path)
    assert len(rows["train"]) == kept
    assert refused["train"] == [f"prompt: more than {limit.tokens} tokens"] * (4 - kept)
    assert len(list((tmp_path / "out" / "images").iterdir())) == (kept == 4)


def test_a_strict_source_counts_them_too(folder, model, tmp_path):
    limit = PromptLimit(tokens=shortest(model), model=model)
    section = Jsonl(kind="jsonl", folder=str(folder), splits={"test": None}, max_prompt_length=limit)
    rows, refused = take(section, tmp_path)
    assert (len(rows["test"]), len(refused["test"])) == (1, 3)


def test_what_the_processor_cannot_do_is_said(folder, model, tmp_path):
    def section(**changes):
        limit = PromptLimit(tokens=1000, model=model).model_copy(update=changes)
        return JsonlPrompts(kind="jsonl_prompts", folder=str(folder), splits={"train": None}, max_prompt_length=limit)

    with pytest.raises(StudyError, match=r"data.max_prompt_length.model: there is no model folder"):
        take(section(model="./nowhere"), tmp_path)
    reader = str(text_model(tmp_path / "reader"))
    with pytest.raises(StudyError, match=r"data.max_prompt_length: a row shows images, but the model reads text only"):
        take(section(model=reader), tmp_path)
    (tmp_path / "clip.mp4").write_bytes(b"not decoded here")
    turns = [{"from": "human", "value": "Which?"}, {"from": "gpt", "value": "(1)"}]
    (tmp_path / "train.jsonl").write_text(json.dumps({"conversations": turns, "video": "clip.mp4"}) + "\n")
    clips = Conversations(
        kind="conversations",
        folder=str(tmp_path),
        splits={"train": None},
        max_prompt_length=section().max_prompt_length,
    )
    with pytest.raises(StudyError, match=r"data.max_prompt_length: the tokens of a clip cannot be counted"):
        take(clips, tmp_path)
