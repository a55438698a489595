from pathlib import Path

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    BertTokenizer,
)

from rlassay.models.servers import TINY, load_judge, load_scorer
from tests.models.hubs import classifier, text_model, vision_model

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


def test_without_a_template_the_prompt_is_the_whole_input(folder, tmp_path):
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


def test_a_vision_model_replies_to_texts(tmp_path):
    (reply,) = load_judge(str(vision_model(tmp_path)), None, 3)(["digit"])
    assert isinstance(reply, str)


def test_a_missing_model_is_named(tmp_path):
    with pytest.raises(ValueError, match="there is no model folder"):
        load_judge(str(tmp_path / "gone"), None, 3)


PAIRS = [["Which digit is larger?", "7"], ["digit", "<think>7 3</think><answer>B</answer>"], ["x", ""]]


def logits(folder: Path, *texts: str) -> list[float]:
    """Logits of transformers for one text, or for one pair."""
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        return model(**tokenizer(*texts, add_special_tokens=len(texts) > 1, return_tensors="pt")).logits[0].tolist()


def chat(prompt: str, completion: str) -> str:
    return f"<|user|>{prompt}<|assistant|>{completion}<eos>"


@pytest.mark.parametrize("pad", [True, False])
@pytest.mark.parametrize("labels", [1, 2, 3])
def test_logits_are_those_of_each_conversation_by_itself(tmp_path, labels, pad):
    folder = classifier(tmp_path, labels, pad=pad)
    scores = load_scorer(str(folder), None)(PAIRS)
    expected = [logits(folder, chat(*pair)) for pair in PAIRS]
    torch.testing.assert_close(scores, expected, atol=1e-5, rtol=1e-4)
    assert {len(each or ()) for each in scores} == {labels}
    assert len({each[0] for each in expected}) == len(PAIRS)


def test_without_a_template_prompt_and_completion_are_a_pair(tmp_path):
    folder = classifier(tmp_path, 1, template=False)
    expected = [logits(folder, *pair) for pair in PAIRS]
    torch.testing.assert_close(load_scorer(str(folder), None)(PAIRS), expected, atol=1e-5, rtol=1e-4)


def test_an_encoder_gets_token_types_of_prompt_and_completion(tmp_path):
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "which", "digit", "seven"]
    BertTokenizer(vocab={word: index for index, word in enumerate(words)}).save_pretrained(tmp_path)
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = BertForSequenceClassification(BertConfig(vocab_size=len(words), **sizes)).eval()
    model.bert.embeddings.token_type_embeddings.weight.data.normal_()
    model.save_pretrained(tmp_path)
    ids, types = torch.tensor([[2, 5, 6, 3, 7, 3]]), torch.tensor([[0, 0, 0, 0, 1, 1]])
    with torch.no_grad():
        expected = model(ids, token_type_ids=types).logits.tolist()
    (score, _) = load_scorer(str(tmp_path), None)([["which digit", "seven"], ["digit", "which which which which"]])
    torch.testing.assert_close([score], expected, atol=1e-5, rtol=1e-4)


def test_a_pair_that_is_too_long_has_no_score(tmp_path):
    # 256 positions; 3 marks, 1 token of the prompt
    scores = load_scorer(str(classifier(tmp_path, 1)), None)([["x", "x" * 252], ["x", "x" * 253], ["x", "x"]])
    assert [score is None for score in scores] == [False, True, False]


def test_a_model_without_a_head_for_classes_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"lack 1 tensors, the first being score\.weight"):
        load_scorer(str(text_model(tmp_path)), None)


def test_the_built_in_model_replies_and_scores_without_a_folder_always_alike():
    first, again = (load_judge(TINY, None, 4)(["Rate this.", "Rate that answer."]) for _ in range(2))
    assert first == again
    assert all(isinstance(reply, str) for reply in first)
    logits = [load_scorer(TINY, None)([["task", "short"], ["task", "a longer answer"]]) for _ in range(2)]
    assert logits[0] == logits[1]
    (one,), (other,) = (each for each in logits[0] if each is not None)
    assert one != other
