"""Reward that a language model gives as a number in words."""

import json
import logging
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from string import Formatter

import httpx
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_exponential

from rlassay.answers import extract_answer
from rlassay.prompts import question_text
from rlassay.records import Completion
from rlassay.rewards.options import configured
from rlassay.rewards.sandbox.child_process import LOADING, child_process

# MERGED FROM rewards.judge: Reward that a language model gives as a number in words.

SERVER = "rlassay.models.servers"
TEMPLATE = """Rate how well an answer solves a task.

Task:
{question}

Reference answer:
{reference}

Answer to rate:
{completion}

Reply with one number from {low} (worst) to {high} (best) and nothing else."""
_FIELDS = ("question", "reference", "completion", "low", "high")
_NUMBER = re.compile(r"(?<![A-Za-z0-9_.])[-+]?\d{1,9}(?:[.,]\d{1,9})?")
_NO_SCORE = re.compile(r"[A-Za-z0-9_]|\s?%")  # after a number: 5th, 5 %
_OF = re.compile(r"\s?/\s?(\d{1,9})")
_SHOWN = 80  # characters of a reply in a message

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class JudgeOptions:
    """Options of `judge`."""

    model: str
    """Hub name or path of a causal LM; with `endpoint`, the name that the endpoint knows it by."""
    endpoint: str | None = None
    """Base URL of a server that speaks `/chat/completions`, such as `http://localhost:8000/v1`."""
    revision: str | None = None
    """Commit, tag or branch on the hub; pin it, since a branch moves."""
    template: str = TEMPLATE
    """The prompt, with `{completion}` in it, and as wanted `{question}`, `{reference}`, `{low}` and `{high}`."""
    low: int | float = 0.0
    """Lowest number of the scale."""
    high: int | float = 1.0
    """Highest number of the scale."""
    max_new_tokens: int = 16
    """Longest reply, tokens; a judge that thinks first needs more."""
    timeout: int | float = 60.0
    """Seconds for each completion; with `endpoint`, seconds of silence in each of up to four attempts."""
    fallback: int | float | None = None
    """What a reply without a number of the scale counts as; null leaves the completion unjudged."""

    def __post_init__(self) -> None:
        if self.low >= self.high:
            raise ValueError(f"low: got {self.low:g}; expected less than high ({self.high:g})")
        if self.fallback is not None and not self.low <= self.fallback <= self.high:
            raise ValueError(f"fallback: got {self.fallback:g}; expected {self.low:g} to {self.high:g}, or null")
        if self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens: got {self.max_new_tokens}; expected at least 1")
        if not self.timeout > 0:
            raise ValueError(f"timeout: got {self.timeout}; expected more than 0 seconds")
        _check_origin(self)
        _check_template(self.template)


@configured(JudgeOptions)
def judge(completions: Sequence[Completion], options: JudgeOptions) -> list[float | None]:
    """The number that a language model gives a completion when asked to rate it, on the scale from `low` to `high`.

    The model decodes greedily, in a process of its own or behind `endpoint`, and only what it says anew is read, by
    `extract_answer`, so that it may think first. The first number counts; one outside of the scale, a percentage and
    `3/5` on a scale that does not end at 5 do not, and then the reply is unreadable: None, or `fallback`. No reply at
    all (the endpoint fails, the prompt is too long for the model) is always None. Unreadable and missing replies are
    logged with their number; without a `fallback` the reward's coverage is 1 - their rate.

    A run is identified by the names in its options, not by the weights behind them: an edited local folder, a branch
    of the hub or another model behind an endpoint goes unnoticed. A key of the endpoint stands in `JUDGE_API_KEY`.

    Args:
        completions: one prompt's group.
        options: see `JudgeOptions`.

    Raises:
        ValueError: an option is out of range.
        TimeoutError: the time for the group is up; the model is loaded again for the next one.
        RuntimeError: the model does not load, or the endpoint answers nothing of the group, or 401, 403 or 404.

    Source: the judge of LingjieBao1998/Unlimited-Learning. Departures: there, the prompt is decoded with the reply, so
    that no number is ever found; one failure gives the whole batch the fallback, 0.5; numbers outside are clipped.
    """
    if not completions:
        return []
    prompts = [_prompt(completion, options) for completion in completions]
    replies = _from_endpoint(prompts, options) if options.endpoint else _from_model(prompts, options)
    scores = [None if reply is None else read_score(reply, options.low, options.high) for reply in replies]
    unreadable = [reply for reply, score in zip(replies, scores, strict=True) if score is None and reply is not None]
    if unreadable:
        what = "no value" if options.fallback is None else f"{options.fallback:g}"
        example = f"no number from {options.low:g} to {options.high:g}, such as {unreadable[0][:_SHOWN]!r}"
        _log.warning("judge: %d of %d replies hold %s; they count as %s", len(unreadable), len(replies), example, what)
    fallback = None if options.fallback is None else float(options.fallback)
    return [
        fallback if score is None and reply is not None else score for reply, score in zip(replies, scores, strict=True)
    ]


def read_score(reply: str, low: int | float, high: int | float) -> float | None:
    """The first number of a reply if it lies on the scale, else None; see `judge`."""
    answer = unicodedata.normalize("NFKC", extract_answer(reply))
    match = _NUMBER.search(answer)
    if match is None or _NO_SCORE.match(answer, match.end()):
        return None
    denominator = _OF.match(answer, match.end())
    score = float(match[0].replace(",", "."))
    on_scale = low <= score <= high and (denominator is None or float(denominator[1]) == high)
    return score if on_scale else None


def _prompt(completion: Completion, options: JudgeOptions) -> str:
    return options.template.format(
        question=question_text(completion.row),
        reference=completion.row.answer,
        completion=completion.text,
        low=f"{options.low:g}",
        high=f"{options.high:g}",
    )


def _from_model(prompts: list[str], options: JudgeOptions) -> list[str | None]:
    loaded = {"model": options.model, "revision": options.revision, "max_new_tokens": options.max_new_tokens}
    process = child_process(SERVER, "judge", json.dumps(loaded), start_seconds=LOADING)
    return process.ask(prompts, float(options.timeout * len(prompts)))


def _from_endpoint(prompts: list[str], options: JudgeOptions) -> list[str | None]:

    assert options.endpoint is not None
    timeout = float(options.timeout)
    endpoint = Endpoint(url=options.endpoint, model=options.model, max_tokens=options.max_new_tokens, timeout=timeout)
    return ask_all(endpoint, prompts)


def _check_origin(options: JudgeOptions) -> None:
    if options.endpoint is None:
        return
    if not re.fullmatch(r"https?://[^\s/@?#]+(/[^\s@?#]*)?", options.endpoint):
        raise ValueError(
            f"endpoint: got {options.endpoint!r}; expected a URL such as http://localhost:8000/v1, "
            "without a key in it: that stands in the environment variable JUDGE_API_KEY"
        )
    if options.revision is not None:
        raise ValueError("revision: an endpoint serves the weights that it has; remove it")


def _check_template(template: str) -> None:
    try:
        fields = [field for _, field, _, _ in Formatter().parse(template) if field is not None]
    except ValueError as error:
        raise ValueError(f"template: {error}; write {{{{ and }}}} for braces that stand for themselves") from None
    unknown = [field for field in fields if field not in _FIELDS]
    if unknown:
        raise ValueError(f"template: unknown field {{{unknown[0]}}}; known: {', '.join(_FIELDS)}")
    if "completion" not in fields:
        raise ValueError("template: it has no {completion}, so that all completions would be rated alike")


# MERGED FROM rewards.judge_endpoint: Asks a judge behind an HTTP server that speaks the chat-completions
# protocol of OpenAI.

KEY = "JUDGE_API_KEY"
"""Environment variable with the server's key, which is sent to no other server and never logged."""
ATTEMPTS = 4
PAUSE = wait_exponential(multiplier=1, max=10)  # 1, 2 and 4 s between them
_AT_ONCE = 8  # requests
_PASSING = {408, 409, 425, 429, *range(500, 600)}
_REFUSED = {401, 403, 404}

_log = logging.getLogger(__name__)


class EndpointError(RuntimeError):
    """An endpoint is down, or refuses every request: a wrong key, address or model."""


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """Where to ask, and how."""

    url: str
    """Base URL, to which `/chat/completions` is added."""
    model: str
    """The model's name there."""
    max_tokens: int
    """Longest reply."""
    timeout: float
    """Seconds of silence after which a request counts as failed."""


def ask_all(endpoint: Endpoint, prompts: list[str]) -> list[str | None]:
    """The greedy reply to each prompt; None where it fails for good, which is logged by the reason.

    What may pass (no connection, silence, 408, 409, 425, 429, 5xx) is tried again, with growing pauses.

    Errors: EndpointError at 401, 403 and 404, and if every prompt fails.
    """
    key = os.environ.get(KEY)
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    with (
        httpx.Client(headers=headers, timeout=endpoint.timeout) as client,
        ThreadPoolExecutor(_AT_ONCE) as pool,
    ):
        replies = list(pool.map(partial(_ask, client, endpoint), prompts))
    failures = Counter(reason for _, reason in replies if reason is not None)
    said = f"judge: {endpoint.url} does not answer {failures.total()} of {len(prompts)} prompts: {_listed(failures)}"
    if failures.total() == len(prompts):
        raise EndpointError(said)
    if failures:
        _log.warning(said)
    return [reply for reply, _ in replies]


def _ask(client: httpx.Client, endpoint: Endpoint, prompt: str) -> tuple[str | None, str | None]:
    """The reply, or why there is none."""
    attempts = Retrying(
        stop=stop_after_attempt(ATTEMPTS), wait=PAUSE, retry=retry_if_exception(_may_pass), reraise=True
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


def _listed(failures: "Counter[str]") -> str:
    return ", ".join(f"{count} {reason}" for reason, count in failures.items())


def _post(client: httpx.Client, endpoint: Endpoint, prompt: str) -> httpx.Response:
    asked = {
        "model": endpoint.model,
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": endpoint.max_tokens,
        "temperature": 0,
    }
    return client.post(f"{endpoint.url.rstrip('/')}/chat/completions", json=asked).raise_for_status()


def _may_pass(error: BaseException) -> bool:
    if isinstance(error, httpx.HTTPStatusError):
        return error.response.status_code in _PASSING
    return isinstance(error, httpx.TransportError)
