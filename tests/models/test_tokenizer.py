import pytest
from transformers import PreTrainedTokenizerFast

from rlassay.models.tokenizer import EOS, TAGS, train_tokenizer

TEXTS = ["Which digit is larger?\n(A)3 (B)7 (C)1 (D)9", "<think>7 3</think><answer>B</answer>"]


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return train_tokenizer(TEXTS, vocab_size=320)


def test_an_option_is_split_so_that_its_letter_is_the_answers_letter(tokenizer):
    assert tokenizer.tokenize("(A)3") == ["(", "A", ")", "3"]
    assert tokenizer.tokenize("<answer>A</answer>") == ["<answer>", "A", "</answer>"]


def test_a_letter_after_a_space_is_still_the_same_token(tokenizer):
    assert tokenizer.tokenize("is A")[-1] == "A"
    assert tokenizer.tokenize("27")[-2:] == ["2", "7"]


def test_a_word_that_begins_with_an_option_letter_is_not_torn(tokenizer):
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
    assert train_tokenizer(TEXTS, 320).get_vocab() == train_tokenizer(TEXTS, 320).get_vocab()
    assert len(train_tokenizer(TEXTS, 310)) <= 310


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
