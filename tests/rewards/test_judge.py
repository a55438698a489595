import json
import logging
import socket
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tenacity import wait_none
from transformers import AutoModelForCausalLM, AutoTokenizer

from rlassay.models.servers import load_judge
from rlassay.rewards import REWARDS, check_reward_options
from rlassay.rewards.judge import ATTEMPTS, KEY, PAUSE, TEMPLATE, Endpoint, EndpointError, ask_all, read_score
from rlassay.rewards.sandbox.guard import guarded
from tests.models.hubs import text_model
from tests.rewards.chat_server import ChatServer, chat_server
from tests.rewards.make import completion

# MERGED FROM test_judge.py:

judge = REWARDS["judge"]
MODULE = import_module("rlassay.rewards.judge")  # the package has the function under this name


class FakeProcess:
    """Gives prepared replies, or raises; remembers what it was started and asked for."""

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
        ("我给8分", 10, 8.0),  # in Chinese no blank parts a number from its neighbours
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
def test_the_first_number_counts_if_it_lies_on_the_scale(reply, high, expected):
    assert read_score(reply, 0, high) == expected


@given(st.text(), st.floats(-5, 5), st.floats(0.1, 5))
def test_whatever_is_said_the_score_lies_on_the_scale(reply, low, width):
    score = read_score(reply, low, low + width)
    assert score is None or low <= score <= low + width


@given(st.integers(0, 1000))
def test_every_plain_number_is_read(thousandths):
    assert read_score(f"Score: {thousandths / 1000:.3f}.", 0, 1) == thousandths / 1000


def test_the_group_is_judged_at_once(monkeypatch):
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


def test_a_fallback_stands_for_unreadable_replies_alone_and_the_rate_is_logged(monkeypatch, caplog):
    FakeProcess(monkeypatch, ["0.5", "no idea", None, "2"])
    assert judge([completion() for _ in range(4)], model="j", fallback=0.25) == [0.5, 0.25, None, 0.25]
    said = "judge: 2 of 4 replies hold no number from 0 to 1, such as 'no idea'; they count as 0.25"
    assert [record.getMessage() for record in caplog.records] == [said]
    assert caplog.records[0].levelno == logging.WARNING


def test_when_the_time_is_up_the_group_has_failed(monkeypatch):
    FakeProcess(monkeypatch, TimeoutError("no reply within 2 s"))
    with pytest.raises(TimeoutError, match="no reply within 2 s"):
        judge([completion(), completion()], model="j", timeout=1, fallback=0.5)


def test_an_endpoint_is_asked_in_place_of_a_model(monkeypatch):
    process = FakeProcess(monkeypatch, [])
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with chat_server() as server:
        options = {"model": "j", "endpoint": server.url, "template": "{completion}", "max_new_tokens": 5}
        group = [completion(text) for text in ("say 0.5", "say maybe", "status 400")]
        assert judge(group, **options) == [0.5, None, None]
        assert {(asked["model"], asked["max_tokens"]) for _, _, asked in server.requests} == {("j", 5)}
    assert process.started == []


def test_a_group_without_any_reply_has_failed_and_is_counted(monkeypatch):
    FakeProcess(monkeypatch, TimeoutError("no reply within 120 s"))
    reward = guarded("judge", {"model": "j"}, timeout=10.0, max_failures=0.5)
    assert reward([completion(), completion()]) == [None, None]
    assert reward.summary() == "reward judge: 2 of 2 completions failed (2 error)"


def test_an_empty_group_starts_nothing(monkeypatch):
    process = FakeProcess(monkeypatch, [])
    assert judge([], model="j") == []
    assert process.started == []


def test_a_real_model_judges_in_its_own_process(tmp_path):
    folder = text_model(tmp_path)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    three, seven = tokenizer.convert_tokens_to_ids(["3", "7"])
    with torch.no_grad():  # the scores of these two tokens are opposite, all others 0: it says nothing else
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
        ({"model": "j", "endpoint": "http://host/v1", "revision": "a"}, "revision: an endpoint serves the weights"),
        ({"model": "j", "template": "{completion} {answer}"}, r"template: unknown field \{answer\}; known: question"),
        ({"model": "j", "template": "{question}"}, r"template: it has no \{completion\}"),
        ({"model": "j", "template": '{"score": {completion}}'}, "template: "),
        ({"model": "j", "template": "{completion"}, r"template: .*write \{\{ and \}\}"),
    ],
)
def test_wrong_options_are_named_before_anything_starts(options, message):
    with pytest.raises(ValueError, match=message):
        check_reward_options("judge", options)


def test_right_options_pass():
    check_reward_options("judge", {"model": "j", "endpoint": "https://host:8000/v1", "low": 1, "high": 5})


# MERGED FROM test_judge_endpoint.py:

SECRET = "sk-never-written-down"


@pytest.fixture
def server(monkeypatch) -> Iterator[ChatServer]:
    monkeypatch.setattr(MODULE, "PAUSE", wait_none())
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv(KEY, raising=False)
    with chat_server() as running:
        yield running


def ask(server: ChatServer, *prompts: str, timeout: float = 60.0) -> list[str | None]:
    return ask_all(Endpoint(url=server.url, model="j", max_tokens=7, timeout=timeout), list(prompts))


def test_replies_stand_in_the_order_of_the_prompts(server):
    prompts = [f"say {number}" for number in range(20)]
    assert ask(server, *prompts) == [str(number) for number in range(20)]


def test_what_is_asked(server):
    ask(server, "say 1")
    path, headers, asked = server.requests[0]
    assert path == "/v1/chat/completions"
    assert "Authorization" not in headers
    message = {"role": "user", "content": "say 1"}
    assert asked == {"model": "j", "messages": [message], "max_tokens": 7, "temperature": 0}


def test_the_key_comes_from_the_environment_and_is_not_logged(server, monkeypatch, caplog):
    monkeypatch.setenv(KEY, SECRET)
    assert ask(server, "say 1", "garbage x") == ["1", None]
    assert {headers["Authorization"] for _, headers, _ in server.requests} == {f"Bearer {SECRET}"}
    with pytest.raises(EndpointError) as caught:
        ask(server, "status 401")
    assert "(which is set)" in str(caught.value)
    assert SECRET not in caplog.text + str(caught.value)


@pytest.mark.parametrize("status", [429, 500, 503])
def test_what_passes_is_tried_again(server, status):
    assert ask(server, f"busy {status}") == [str(status)]
    assert server.attempts(f"busy {status}") == 2


def test_what_lasts_concerns_its_own_prompt_and_is_logged(server, caplog):
    assert ask(server, "say 1", "status 500", "status 400", "say 2") == ["1", None, None, "2"]
    assert server.attempts("status 500") == ATTEMPTS
    assert server.attempts("status 400") == 1
    said = [record.getMessage() for record in caplog.records if record.name == MODULE.__name__]
    assert said == [f"judge: {server.url} does not answer 2 of 4 prompts: 1 status 500, 1 status 400"]


@pytest.mark.parametrize(
    "body", ["", "not JSON", "[]", "3", "{}", '{"choices": []}', '{"choices": [{"message": {"content": null}}]}']
)
def test_garbage_is_no_reply(server, body):
    assert ask(server, f"garbage {body}", "say 1") == [None, "1"]


def test_silence_is_no_reply(server):
    with pytest.raises(EndpointError, match=r"does not answer 1 of 1 prompts: 1 (Read|Connect)Timeout"):
        ask(server, "sleep", timeout=0.05)
    assert ask(server, "say 1") == ["1"]


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_refusal_of_everything_stops(server, status):
    with pytest.raises(EndpointError, match=rf"answers {status}: check endpoint, model, and the key in JUDGE_API_KEY"):
        ask(server, f"status {status}", "say 1")
    assert server.attempts(f"status {status}") == 1


def test_nobody_there_stops(server):
    with socket.create_server(("127.0.0.1", 0)) as gone:
        url = f"http://127.0.0.1:{gone.getsockname()[1]}/v1"
    with pytest.raises(EndpointError, match="does not answer 2 of 2 prompts: 2 ConnectError"):
        ask_all(Endpoint(url=url, model="j", max_tokens=7, timeout=60.0), ["say 1", "say 2"])


def test_the_pauses_grow():
    class State:
        attempt_number = 0

    pauses = []
    for State.attempt_number in range(1, ATTEMPTS):
        pauses.append(PAUSE(State()))  # pyright: ignore[reportArgumentType]
    assert pauses == [1, 2, 4]
