import pytest
import torch

from rlassay.config.model import TinyLM
from rlassay.models import build_policy, load_policy
from rlassay.models.chat import chat
from rlassay.models.tiny_lm import build_tiny_lm
from tests.models.hubs import TEXTS, row

SMALLEST = TinyLM(kind="tiny_lm", layers=1, width=32, vocab_size=300)


def test_the_seed_alone_decides_the_weights_whatever_the_global_rng_says():
    torch.manual_seed(1)
    first = build_tiny_lm(SMALLEST, TEXTS)[0].state_dict()
    torch.manual_seed(2)
    before = torch.get_rng_state()
    second = build_tiny_lm(SMALLEST, TEXTS)[0].state_dict()
    other = build_tiny_lm(SMALLEST.model_copy(update={"seed": 1}), TEXTS)[0].state_dict()

    assert all(torch.equal(first[name], second[name]) for name in first)
    assert torch.equal(before, torch.get_rng_state())
    assert not torch.equal(first["model.embed_tokens.weight"], other["model.embed_tokens.weight"])


def test_the_default_model_has_about_a_million_parameters():
    model, tokenizer = build_tiny_lm(TinyLM(kind="tiny_lm"), TEXTS)

    # Each of 4 layers: 4 x 128^2 of attention, 3 x 128 x 384 of MLP, 2 x 128 of norms; one norm; tied embeddings.
    expected = 4 * (65_536 + 147_456 + 256) + 128 + 128 * len(tokenizer)
    assert sum(weight.numel() for weight in model.parameters()) == expected


def test_a_saved_policy_answers_as_before(tmp_path):
    model, tokenizer = build_policy(SMALLEST, [row()])
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    loaded, again = load_policy(SMALLEST, tmp_path)
    inputs = again("3 + 7", return_tensors="pt")

    with torch.no_grad():
        assert torch.equal(loaded(**inputs).logits, model.eval()(**inputs).logits)


def test_the_prompt_is_the_question_between_the_turns():
    _, tokenizer = build_policy(SMALLEST, [row()])
    ids = tokenizer.apply_chat_template(
        chat(row(), tokenizer, told=False), add_generation_prompt=True, tokenize=True, return_dict=True
    )["input_ids"]

    assert tokenizer.decode(ids) == "<|user|>Which digit is larger?\n(A)3 (B)7 (C)1 (D)9<|assistant|>"


def test_rows_with_images_need_a_model_that_sees():
    with pytest.raises(ValueError, match=r"model.kind: 1 of 2 rows show images, but 'tiny_lm' reads text only"):
        build_policy(SMALLEST, [row(), row(image="x.png")])
