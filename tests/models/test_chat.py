import pytest

from rlassay.models.chat import chat
from rlassay.models.tiny_vlm import build_tiny_vlm
from tests.models.hubs import SMALLEST, TEXTS, row


@pytest.fixture(scope="module")
def processor():
    return build_tiny_vlm(SMALLEST, TEXTS)[1]


def test_a_processor_takes_parts(processor):
    (turn,) = chat(row(image="x.png"), processor, told=False)

    assert [part["type"] for part in turn["content"]] == ["image", "text"]


def test_a_tokenizers_template_takes_plain_text(processor):
    (turn,) = chat(row(), processor.tokenizer, told=False)

    assert turn == {"role": "user", "content": "Which digit is larger?\n(A)3 (B)7 (C)1 (D)9"}


def test_a_model_that_no_one_showed_the_format_is_told_it(processor):
    system, user = chat(row(), processor.tokenizer, told=True)

    assert system["role"] == "system"
    assert "<answer>" in system["content"]
    assert user["role"] == "user"
