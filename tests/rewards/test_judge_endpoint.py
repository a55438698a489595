"""The chat-completions client against a real server on this machine."""

import socket
from collections.abc import Iterator

import pytest
from tenacity import wait_none

from rlassay.rewards import judge_endpoint
from rlassay.rewards.judge_endpoint import ATTEMPTS, KEY, PAUSE, Endpoint, EndpointError, ask_all
from tests.rewards.chat_server import ChatServer, chat_server

SECRET = "sk-never-written-down"


@pytest.fixture
def server(monkeypatch) -> Iterator[ChatServer]:
    monkeypatch.setattr(judge_endpoint, "PAUSE", wait_none())
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv(KEY, raising=False)
    with chat_server() as running:
        yield running


def ask(server: ChatServer, *prompts: str, timeout: float = 60.0) -> list[str | None]:
    return ask_all(Endpoint(url=server.url, model="j", max_tokens=7, timeout=timeout), list(prompts))


def test_replies_are_in_the_order_of_the_prompts(server):
    prompts = [f"say {number}" for number in range(20)]
    assert ask(server, *prompts) == [str(number) for number in range(20)]


def test_the_request_follows_the_protocol(server):
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
def test_transient_failures_are_tried_again(server, status):
    assert ask(server, f"busy {status}") == [str(status)]
    assert server.attempts(f"busy {status}") == 2


def test_a_lasting_failure_affects_its_own_prompt_and_is_logged(server, caplog):
    assert ask(server, "say 1", "status 500", "status 400", "say 2") == ["1", None, None, "2"]
    assert server.attempts("status 500") == ATTEMPTS
    assert server.attempts("status 400") == 1
    said = [record.getMessage() for record in caplog.records if record.name == judge_endpoint.__name__]
    assert said == [f"judge: {server.url} does not answer 2 of 4 prompts: 1 status 500, 1 status 400"]


@pytest.mark.parametrize(
    "body", ["", "not JSON", "[]", "3", "{}", '{"choices": []}', '{"choices": [{"message": {"content": null}}]}']
)
def test_garbage_gives_no_reply(server, body):
    assert ask(server, f"garbage {body}", "say 1") == [None, "1"]


def test_silence_gives_no_reply(server):
    with pytest.raises(EndpointError, match=r"does not answer 1 of 1 prompts: 1 (Read|Connect)Timeout"):
        ask(server, "sleep", timeout=0.05)
    assert ask(server, "say 1") == ["1"]


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_refused_endpoint_raises(server, status):
    with pytest.raises(EndpointError, match=rf"answers {status}: check endpoint, model, and the key in JUDGE_API_KEY"):
        ask(server, f"status {status}", "say 1")
    assert server.attempts(f"status {status}") == 1


def test_a_closed_port_raises(server):
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
