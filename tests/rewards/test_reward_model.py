import math
from importlib import import_module

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from rlassay.rewards import REWARDS, check_reward_options
from tests.models.hubs import classifier
from tests.rewards.make import completion

reward_model = REWARDS["reward_model"]
MODULE = import_module("rlassay.rewards.reward_model")  # the package has the function under this name
GROUP = [completion("7"), completion("<think>7 3</think><answer>B</answer>")]


def replying(monkeypatch: pytest.MonkeyPatch, reply: object) -> None:
    """Replace the process by one with this reply; an exception is raised."""

    class Process:
        def ask(self, pairs: list[list[str]], seconds: float) -> object:
            if isinstance(reply, Exception):
                raise reply
            return reply

    monkeypatch.setattr(MODULE, "child_process", lambda *_, **__: Process())


def test_a_real_model_in_its_own_process(tmp_path):
    folder = classifier(tmp_path, 1)
    model, tokenizer = (kind.from_pretrained(folder) for kind in (AutoModelForSequenceClassification, AutoTokenizer))
    expected = []
    for each in GROUP:
        text = f"<|user|>Which digit is larger?\n(A)3 (B)7 (C)1 (D)9<|assistant|>{each.text}<eos>"
        with torch.no_grad():
            logits = model(**tokenizer(text, add_special_tokens=False, return_tensors="pt")).logits
        expected.append(logits.item())
    assert reward_model(GROUP, model=str(folder)) == pytest.approx(expected, abs=1e-5)
    assert expected[0] != expected[1]


@pytest.mark.parametrize(
    ("logits", "label", "expected"),
    [
        ([-1.5], 1, -1.5),
        ([0.25, 1.0], 1, 0.75),
        ([0.25, 1.0], 0, -0.75),
        ([900.0, -900.0], 1, -1800.0),  # no overflow
        ([0.0, 0.0, 0.0], 2, -math.log(2)),  # p = 1/3, odds 1:2
    ],
)
def test_one_logit_or_the_log_odds_of_a_label(monkeypatch, logits, label, expected):
    replying(monkeypatch, [logits, None])
    assert reward_model(GROUP, model="m", label=label) == [pytest.approx(expected), None]


def test_with_two_labels_the_logistic_of_the_value_is_the_probability(monkeypatch):
    replying(monkeypatch, [[0.3, -0.9], [2.0, 5.0]])
    for value, logits in zip(reward_model(GROUP, model="m"), ([0.3, -0.9], [2.0, 5.0]), strict=True):
        probability = torch.tensor(logits).softmax(0)[1].item()
        assert value is not None
        assert 1 / (1 + math.exp(-value)) == pytest.approx(probability)


def test_a_timeout_fails_the_group(monkeypatch):
    replying(monkeypatch, TimeoutError("no reply within 2 s"))
    with pytest.raises(TimeoutError, match="no reply within 2 s"):
        reward_model(GROUP, model="m", timeout=1)


def test_a_label_out_of_range_is_named(monkeypatch):
    replying(monkeypatch, [[0.0, 1.0], [0.0, 1.0]])
    with pytest.raises(ValueError, match="label: got 2, but the model has 2 labels, 0 to 1"):
        reward_model(GROUP, model="m", label=2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "option 'model' is missing"),
        ({"model": "m", "label": -1}, "label: got -1; expected 0 or more"),
        ({"model": "m", "label": "good"}, "option 'label': got 'good'; expected int"),
        ({"model": "m", "timeout": 0}, "timeout: got 0"),
    ],
)
def test_invalid_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        check_reward_options("reward_model", options)


def test_valid_options_pass_and_an_empty_group_starts_nothing():
    check_reward_options("reward_model", {"model": "m", "revision": "abc", "label": 0})
