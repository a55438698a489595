"""HTTP client of the reward `judge`, for servers with OpenAI's chat-completions protocol.

It is a separate module because only `judge` with an endpoint needs httpx, which takes 0.1 s to import.
"""

import logging
import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import httpx
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_exponential

KEY = "JUDGE_API_KEY"
"""Environment variable with the server's key. It is sent to no other server and never logged."""
ATTEMPTS = 4
PAUSE = wait_exponential(multiplier=1, max=10)  # 1, 2 and 4 s between attempts
_CONCURRENT_REQUESTS = 8
_TRANSIENT = {408, 409, 425, 429, *range(500, 600)}
_REFUSED = {401, 403, 404}

_log = logging.getLogger(__name__)


class EndpointError(RuntimeError):
    """An endpoint is down, or refuses every request for a wrong key, address or model."""


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """A server and the model to ask there."""

    url: str
    """Base URL, to which `/chat/completions` is added."""
    model: str
    """The model's name there."""
    max_tokens: int
    """Longest reply."""
    timeout: float
    """Seconds of silence after which a request counts as failed."""


def ask_all(endpoint: Endpoint, prompts: list[str]) -> list[str | None]:
    """The greedy reply to each prompt; None for a prompt whose request fails.

    Transient failures (no connection, silence, 408, 409, 425, 429, 5xx) are tried again after growing pauses. Lasting
    ones are logged by reason.

    Raises:
        EndpointError: the server replies 401, 403 or 404, or all prompts fail.
    """
    key = os.environ.get(KEY)
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    with (
        httpx.Client(headers=headers, timeout=endpoint.timeout) as client,
        ThreadPoolExecutor(_CONCURRENT_REQUESTS) as pool,
    ):
        replies = list(pool.map(partial(_ask, client, endpoint), prompts))
    failures = Counter(reason for _, reason in replies if reason is not None)
    reasons = ", ".join(f"{count} {reason}" for reason, count in failures.items())
    message = f"judge: {endpoint.url} does not answer {failures.total()} of {len(prompts)} prompts: {reasons}"
    if failures.total() == len(prompts):
        raise EndpointError(message)
    if failures:
        _log.warning(message)
    return [reply for reply, _ in replies]


def _ask(client: httpx.Client, endpoint: Endpoint, prompt: str) -> tuple[str | None, str | None]:
    """The reply and None, or None and the reason of the failure."""
    attempts = Retrying(
        stop=stop_after_attempt(ATTEMPTS), wait=PAUSE, retry=retry_if_exception(_is_transient), reraise=True
    )
    try:
        response: httpx.Response = attempts(_post, client, endpoint, prompt)
        content = response.json()["choices"][0]["message"]["content"]
    except httpx.HTTPStatusError as error:
        status = error.response.status_code
        if status in _REFUSED:
            raise EndpointError(
                f"judge: {endpoint.url} answers {status}: check endpoint, model, and the key in {KEY} "
                f"(which is {'set' if KEY in os.environ else 'not set'})"
            ) from None
        return None, f"status {status}"
    except httpx.HTTPError as error:
        return None, type(error).__name__
    except (ValueError, LookupError, TypeError):
        return None, "no chat completion"
    return (content, None) if isinstance(content, str) else (None, "message without text")


def _post(client: httpx.Client, endpoint: Endpoint, prompt: str) -> httpx.Response:
    request = {
        "model": endpoint.model,
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": endpoint.max_tokens,
        "temperature": 0,
    }
    return client.post(f"{endpoint.url.rstrip('/')}/chat/completions", json=request).raise_for_status()


def _is_transient(error: BaseException) -> bool:
    if isinstance(error, httpx.HTTPStatusError):
        return error.response.status_code in _TRANSIENT
    return isinstance(error, httpx.TransportError)
