from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from rlassay.models.judge_server import load_judge
from tests.models.hubs import text_model, vision_model

PROMPTS = ["Which digit is larger?\n(A)3 (B)7", "digit", "x" * 60]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return text_model(tmp_path_factory.mktemp("judge"))


def greedy(folder: Path, text: str, new: int) -> str:
    """The most likely token again and again, worked out one by one; new tokens only."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    ids = tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
    length = ids.shape[1]
    while ids.shape[1] < length + new and ids[0, -1] != tokenizer.eos_token_id:
        ids = torch.cat([ids, model(ids).logits[:, -1:].argmax(-1)], dim=1)
    return tokenizer.decode(ids[0, length:], skip_special_tokens=True)


def test_replies_are_the_most_likely_new_tokens_after_the_chat_template(folder):
    replies = load_judge(str(folder), None, 5)(PROMPTS)
    assert replies == [greedy(folder, f"<|user|>{prompt}<|assistant|>", 5) for prompt in PROMPTS]
    assert len(set(replies)) > 1


def test_without_a_template_the_prompt_stands_alone(folder, tmp_path):
    bare = text_model(tmp_path)
    (bare / "chat_template.jinja").unlink()
    assert load_judge(str(bare), None, 5)(PROMPTS) == [greedy(folder, prompt, 5) for prompt in PROMPTS]


def test_a_prompt_that_leaves_no_room_for_the_reply_has_none(folder):
    # 256 positions: 2 role marks and 250 tokens leave room for 4 new ones; 251 tokens do not.
    judge = load_judge(str(folder), None, 4)
    fitting, too_long, short = judge(["x" * 250, "x" * 251, "x"])
    assert fitting is not None
    assert too_long is None
    assert short is not None


def test_a_model_that_sees_images_judges_texts(tmp_path):
    (reply,) = load_judge(str(vision_model(tmp_path)), None, 3)(["digit"])
    assert isinstance(reply, str)


def test_a_missing_model_is_named(tmp_path):
    with pytest.raises(ValueError, match="there is no model folder"):
        load_judge(str(tmp_path / "gone"), None, 3)
