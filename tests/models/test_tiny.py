import pytest
import torch
from transformers import PreTrainedTokenizerFast

from rlassay.config.model import TinyLM, TinyVLM
from rlassay.models.policy import ChatFormat, build_policy, load_policy
from rlassay.models.tiny import EOS, TAGS, build_tiny_lm, build_tiny_vlm, train_tokenizer
from tests.models.hubs import SMALLEST, TEXTS, row


def weights(config: TinyVLM) -> dict[str, torch.Tensor]:
    return build_tiny_vlm(config, TEXTS)[0].state_dict()


def test_the_seed_alone_decides_the_weights_not_the_global_rng():
    torch.manual_seed(1)
    first = weights(SMALLEST)
    torch.manual_seed(2)
    before = torch.get_rng_state()
    second = weights(SMALLEST)

    assert all(torch.equal(first[name], second[name]) for name in first)
    assert torch.equal(before, torch.get_rng_state())


def test_another_seed_gives_other_weights():
    first, second = weights(SMALLEST), weights(SMALLEST.model_copy(update={"seed": 1}))

    assert not torch.equal(first["lm_head.weight"], second["lm_head.weight"])


def test_the_default_model_has_about_a_million_parameters():
    model, _ = build_tiny_vlm(TinyVLM(kind="tiny_vlm"), TEXTS)

    assert 0.8e6 < sum(weight.numel() for weight in model.parameters()) < 1.2e6


def test_an_image_must_divide_into_patches():
    with pytest.raises(ValueError, match=r"model.image_size: 16 is not a multiple of model.patch_size 5"):
        build_tiny_vlm(TinyVLM(kind="tiny_vlm", patch_size=5), TEXTS)


def test_an_image_of_any_size_becomes_as_many_tokens_as_the_model_has_patches():
    from PIL import Image

    _, processor = build_tiny_vlm(SMALLEST, TEXTS)
    inputs = processor(text="<image>Which?", images=[Image.new("L", (40, 10))], return_tensors="pt")

    assert inputs["pixel_values"].shape == (1, 3, 16, 16)
    assert int((inputs["input_ids"] == processor.image_token_id).sum()) == 16  # (16 / 4) ** 2


SMALLEST_LM = TinyLM(kind="tiny_lm", layers=1, width=32, vocab_size=300)


def test_the_seed_alone_decides_the_weights_of_the_text_model():
    torch.manual_seed(1)
    first = build_tiny_lm(SMALLEST_LM, TEXTS)[0].state_dict()
    torch.manual_seed(2)
    before = torch.get_rng_state()
    second = build_tiny_lm(SMALLEST_LM, TEXTS)[0].state_dict()
    other = build_tiny_lm(SMALLEST_LM.model_copy(update={"seed": 1}), TEXTS)[0].state_dict()

    assert all(torch.equal(first[name], second[name]) for name in first)
    assert torch.equal(before, torch.get_rng_state())
    assert not torch.equal(first["model.embed_tokens.weight"], other["model.embed_tokens.weight"])


def test_the_default_text_model_has_the_expected_parameters():
    model, tokenizer = build_tiny_lm(TinyLM(kind="tiny_lm"), TEXTS)

    # Each of 4 layers: 4 x 128^2 of attention, 3 x 128 x 384 of MLP, 2 x 128 of norms; one norm; tied embeddings.
    expected = 4 * (65_536 + 147_456 + 256) + 128 + 128 * len(tokenizer)
    assert sum(weight.numel() for weight in model.parameters()) == expected


def test_a_saved_policy_answers_as_before(tmp_path):
    model, tokenizer = build_policy(SMALLEST_LM, [row()])
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    loaded, again = load_policy(SMALLEST_LM, tmp_path)
    inputs = again("3 + 7", return_tensors="pt")

    with torch.no_grad():
        assert torch.equal(loaded(**inputs).logits, model.eval()(**inputs).logits)


def test_the_prompt_is_the_question_between_the_turns():
    _, tokenizer = build_policy(SMALLEST_LM, [row()])
    ids = tokenizer.apply_chat_template(
        ChatFormat(processor=tokenizer, with_format_instruction=False).prompt(row()),
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
    )["input_ids"]

    assert tokenizer.decode(ids) == "<|user|>Which digit is larger?\n(A)3 (B)7 (C)1 (D)9<|assistant|>"


def test_rows_with_images_need_a_vision_model():
    with pytest.raises(ValueError, match=r"model.kind: 1 of 2 rows show images, but 'tiny_lm' reads text only"):
        build_policy(SMALLEST_LM, [row(), row(image="x.png")])


OPTION_AND_ANSWER = ["Which digit is larger?\n(A)3 (B)7 (C)1 (D)9", "<think>7 3</think><answer>B</answer>"]


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return train_tokenizer(OPTION_AND_ANSWER, vocab_size=320)


def test_an_option_is_split_so_that_its_letter_is_the_answers_letter(tokenizer):
    assert tokenizer.tokenize("(A)3") == ["(", "A", ")", "3"]
    assert tokenizer.tokenize("<answer>A</answer>") == ["<answer>", "A", "</answer>"]


def test_a_letter_after_a_space_is_still_the_same_token(tokenizer):
    assert tokenizer.tokenize("is A")[-1] == "A"
    assert tokenizer.tokenize("27")[-2:] == ["2", "7"]


def test_a_word_that_begins_with_an_option_letter_stays_whole(tokenizer):
    words = train_tokenizer(["Digits are Digits are Digits"], vocab_size=320)

    assert words.tokenize("Digits") == ["Digits"]


def test_tags_are_single_tokens_that_decoding_keeps(tokenizer):
    ids = tokenizer("<think>7</think><answer>B</answer>" + EOS)["input_ids"]

    assert all(len(tokenizer(tag)["input_ids"]) == 1 for tag in TAGS)
    assert tokenizer.decode(ids, skip_special_tokens=True) == "<think>7</think><answer>B</answer>"


@pytest.mark.parametrize("text", ["plain", "zwei Wörter", "漢字 ½ 😀", "a\n\n  b\t", "Ab(C)D-7", ""])
def test_any_text_survives_a_round_trip(tokenizer, text):
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_the_same_texts_give_the_same_vocabulary():
    assert train_tokenizer(OPTION_AND_ANSWER, 320).get_vocab() == train_tokenizer(OPTION_AND_ANSWER, 320).get_vocab()
    assert len(train_tokenizer(OPTION_AND_ANSWER, 310)) <= 310


def test_the_prompt_is_a_prefix_of_prompt_and_completion(tokenizer):
    user = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Which?"}]}
    assistant = {"role": "assistant", "content": [{"type": "text", "text": "<answer>B</answer>"}]}

    prompt = tokenizer.apply_chat_template([user], tokenize=False, add_generation_prompt=True)
    whole = tokenizer.apply_chat_template([user, assistant], tokenize=False)

    assert prompt == "<|user|><image>Which?<|assistant|>"
    assert whole == prompt + "<answer>B</answer>" + EOS


def test_the_template_takes_plain_text_too(tokenizer):
    turns = [{"role": "system", "content": "Think."}, {"role": "user", "content": "Which?"}]

    assert tokenizer.apply_chat_template(turns, tokenize=False) == "<|system|>Think.<|user|>Which?"
