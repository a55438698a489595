import json
import logging
import subprocess
import sys
from importlib import import_module
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer

from rlassay.models.servers import load_judge
from rlassay.rewards import REWARDS, check_reward_options
from rlassay.rewards.judge import TEMPLATE, read_score
from rlassay.rewards.sandbox.guard import guarded
from tests.models.hubs import text_model
from tests.rewards.chat_server import chat_server
from tests.rewards.make import completion

judge = REWARDS["judge"]
MODULE = import_module("rlassay.rewards.judge")  # the package has the function under this name


class FakeProcess:
    """Gives prepared replies, or raises; records its arguments and its questions."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, replies: list[str | None] | Exception) -> None:
        self.replies = replies
        self.started: list[tuple[str, str, Any]] = []
        self.asked: list[tuple[list[str], float]] = []
        monkeypatch.setattr(MODULE, "child_process", self.start)

    def start(self, module: str, server: str, options: str, start_seconds: float) -> "FakeProcess":
        self.started.append((module, server, json.loads(options)))
        return self

    def ask(self, prompts: list[str], seconds: float) -> list[str | None]:
        self.asked.append((prompts, seconds))
        if isinstance(self.replies, Exception):
            raise self.replies
        return self.replies


@pytest.mark.parametrize(
    ("reply", "high", "expected"),
    [
        ("0.75", 1, 0.75),
        ("I give it 0.5 of 1", 1, 0.5),
        ("1", 1, 1.0),
        ("+0.25", 1, 0.25),
        ("0,8", 1, 0.8),
        ("０.8", 1, 0.8),  # NFKC
        ("Score:-0", 1, 0.0),
        ("<think>0.1 or 0.2?</think>0.9", 1, 0.9),
        ("<think>1 and 2 and", 1, None),  # it never came to an end
        ("7/10", 10, 7.0),
        ("7 / 10", 10, 7.0),
        ("我给8分", 10, 8.0),  # Chinese has no blanks around a number
        ("", 1, None),
        ("great", 1, None),
        ("1.5", 1, None),
        ("-0.1", 1, None),
        ("8/10 = 0.8", 1, None),  # the first number counts
        ("1/5", 1, None),
        ("5 %", 10, None),
        ("5.5%", 10, None),
        ("1st", 1, None),
        ("GPT4", 10, None),
        ("9" * 400, 1, None),
    ],
)
def test_the_first_number_counts_if_it_is_on_the_scale(reply, high, expected):
    assert read_score(reply, 0, high) == expected


@given(st.text(), st.floats(-5, 5), st.floats(0.1, 5))
def test_every_score_is_on_the_scale(reply, low, width):
    score = read_score(reply, low, low + width)
    assert score is None or low <= score <= low + width


@given(st.integers(0, 1000))
def test_every_plain_number_is_read(thousandths):
    assert read_score(f"Score: {thousandths / 1000:.3f}.", 0, 1) == thousandths / 1000


def test_the_group_is_sent_at_once(monkeypatch):
    process = FakeProcess(monkeypatch, ["0.5", "no idea", None, "1"])
    group = [completion(text) for text in "abcd"]
    assert judge(group, model="m/j", revision="abc", max_new_tokens=4, timeout=3) == [0.5, None, None, 1.0]
    loaded = {"model": "m/j", "revision": "abc", "max_new_tokens": 4}
    assert process.started == [("rlassay.models.servers", "judge", loaded)]
    assert [(len(prompts), seconds) for prompts, seconds in process.asked] == [(4, 12)]


def test_the_prompt_shows_question_options_reference_completion_and_scale(monkeypatch):
    process = FakeProcess(monkeypatch, ["1"])
    template = "{question}|{reference}|{completion}|{low}-{high}|{{}}"
    judge([completion("<answer>{B}</answer>")], model="j", template=template, low=1, high=10)
    assert process.asked[0][0] == ["Which digit is larger?\n(A)3 (B)7 (C)1 (D)9|B|<answer>{B}</answer>|1-10|{}"]


def test_the_default_prompt_shows_all_of_it():
    assert all(f"{{{field}}}" in TEMPLATE for field in ("question", "reference", "completion", "low", "high"))


def test_the_fallback_replaces_unreadable_replies_alone_and_their_number_is_logged(monkeypatch, caplog):
    FakeProcess(monkeypatch, ["0.5", "no idea", None, "2"])
    assert judge([completion() for _ in range(4)], model="j", fallback=0.25) == [0.5, 0.25, None, 0.25]
    said = "judge: 2 of 4 replies have no number from 0 to 1, such as 'no idea'; they count as 0.25"
    assert [record.getMessage() for record in caplog.records] == [said]
    assert caplog.records[0].levelno == logging.WARNING


def test_a_timeout_fails_the_group(monkeypatch):
    FakeProcess(monkeypatch, TimeoutError("no reply within 2 s"))
    with pytest.raises(TimeoutError, match="no reply within 2 s"):
        judge([completion(), completion()], model="j", timeout=1, fallback=0.5)


def test_an_endpoint_replaces_the_process(monkeypatch):
    process = FakeProcess(monkeypatch, [])
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with chat_server() as server:
        options = {"model": "j", "endpoint": server.url, "template": "{completion}", "max_new_tokens": 5}
        group = [completion(text) for text in ("say 0.5", "say maybe", "status 400")]
        assert judge(group, **options) == [0.5, None, None]
        assert {(asked["model"], asked["max_tokens"]) for _, _, asked in server.requests} == {("j", 5)}
    assert process.started == []


def test_a_timeout_of_the_group_is_counted(monkeypatch):
    FakeProcess(monkeypatch, TimeoutError("no reply within 120 s"))
    reward = guarded("judge", {"model": "j"}, timeout=10.0, max_failures=0.5)
    assert reward([completion(), completion()]) == [None, None]
    assert reward.summary() == "reward judge: 2 of 2 completions failed (2 error)"


def test_an_empty_group_starts_nothing(monkeypatch):
    process = FakeProcess(monkeypatch, [])
    assert judge([], model="j") == []
    assert process.started == []


def test_a_real_model_in_its_own_process(tmp_path):
    folder = text_model(tmp_path)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    three, seven = tokenizer.convert_tokens_to_ids(["3", "7"])
    with torch.no_grad():  # the logits of these two tokens are opposite, all others 0: it replies nothing else
        model.lm_head.weight.zero_()
        model.lm_head.weight[three], model.lm_head.weight[seven] = 1.0, -1.0
    model.save_pretrained(folder)
    group = [completion(letter * 5) for letter in "abcdefgh"]
    options = {"model": str(folder), "template": "{completion}", "max_new_tokens": 1, "high": 10}
    expected = [float(reply or "none") for reply in load_judge(str(folder), None, 1)([each.text for each in group])]
    assert judge(group, **options) == expected
    assert set(expected) == {3.0, 7.0}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "option 'model' is missing"),
        ({"model": 3}, "option 'model': got 3; expected str"),
        ({"model": "j", "modle": "k"}, "unknown option 'modle'.*did you mean 'model'"),
        ({"model": "j", "low": 1}, r"low: got 1; expected less than high \(1\)"),
        ({"model": "j", "fallback": 2}, "fallback: got 2; expected 0 to 1, or null"),
        ({"model": "j", "max_new_tokens": 0}, "max_new_tokens: got 0"),
        ({"model": "j", "timeout": 0}, "timeout: got 0; expected more than 0 seconds"),
        ({"model": "j", "endpoint": "localhost:8000"}, "endpoint: got 'localhost:8000'; expected a URL"),
        ({"model": "j", "endpoint": "http://key@host/v1"}, "without a key in it"),
        ({"model": "j", "endpoint": "http://host/v1?key=x"}, "without a key in it"),
        ({"model": "j", "endpoint": "http://host/v1", "revision": "a"}, "revision: an endpoint chooses its weights"),
        ({"model": "j", "template": "{completion} {answer}"}, r"template: unknown field \{answer\}; known: question"),
        ({"model": "j", "template": "{question}"}, r"template: it has no \{completion\}"),
        ({"model": "j", "template": '{"score": {completion}}'}, "template: "),
        ({"model": "j", "template": "{completion"}, r"template: .*write \{\{ and \}\} for literal braces"),
    ],
)
def test_invalid_options_are_named_before_anything_starts(options, message):
    with pytest.raises(ValueError, match=message):
        check_reward_options("judge", options)


def test_valid_options_pass():
    check_reward_options("judge", {"model": "j", "endpoint": "https://host:8000/v1", "low": 1, "high": 5})


def test_httpx_is_imported_only_for_an_endpoint():
    """It takes a tenth of a second, which every `--help` would pay."""
    code = "import rlassay.rewards, sys; sys.exit(bool({'httpx', 'tenacity'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
