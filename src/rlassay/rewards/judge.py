"""Reward from a language model that is asked to rate a completion with a number."""

import json
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from string import Formatter

from rlassay.prompts import question_text
from rlassay.records import Completion
from rlassay.rewards.grading.judge_reply import read_score
from rlassay.rewards.reward import with_options
from rlassay.rewards.sandbox.child_process import MODEL_LOAD_SECONDS, child_process

SERVER = "rlassay.models.servers"
TEMPLATE = """Rate how well an answer solves a task.

Task:
{question}

Reference answer:
{reference}

Answer to rate:
{completion}

Rate it with one number from {low} (worst) to {high} (best).
Reply with the number between <score> and </score> and nothing else, such as <score>{high}</score>."""
_FIELDS = ("question", "reference", "completion", "low", "high")
_QUOTED = 80  # characters of a reply in a message

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class JudgeOptions:
    """Options of `judge`."""

    model: str
    """Hub name or path of a causal LM, or `tiny_lm`, built in with random weights; with `endpoint`, its name there."""
    endpoint: str | None = None
    """Base URL of a server with `/chat/completions`, such as `http://localhost:8000/v1`."""
    revision: str | None = None
    """Commit, tag or branch on the hub; pin it, since a branch moves."""
    template: str = TEMPLATE
    """The prompt; it contains `{completion}`, and optionally `{question}`, `{reference}`, `{low}` and `{high}`."""
    low: int | float = 0.0
    """Lowest number of the scale."""
    high: int | float = 1.0
    """Highest number of the scale."""
    max_new_tokens: int = 16
    """Longest reply, tokens; a judge that thinks first needs more."""
    timeout: int | float = 60.0
    """Seconds for each completion; with `endpoint`, seconds of silence in each of up to four attempts."""
    fallback: int | float | None = None
    """The value for a reply without a number of the scale; null gives no value."""

    def __post_init__(self) -> None:
        if self.low >= self.high:
            raise ValueError(f"low: got {self.low:g}; expected less than high ({self.high:g})")
        if self.fallback is not None and not self.low <= self.fallback <= self.high:
            raise ValueError(f"fallback: got {self.fallback:g}; expected {self.low:g} to {self.high:g}, or null")
        if self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens: got {self.max_new_tokens}; expected at least 1")
        if not self.timeout > 0:
            raise ValueError(f"timeout: got {self.timeout}; expected more than 0 seconds")
        _check_endpoint(self)
        _check_template(self.template)


@with_options(JudgeOptions)
def judge(completions: Sequence[Completion], options: JudgeOptions) -> list[float | None]:
    """Rate completions by a language model, which replies with a number from `low` to `high`.

    The model decodes greedily, in a process of its own or behind `endpoint`, and may think first. The default template
    asks for `<score>...</score>`; `rewards.grading.judge_reply.read_score` reads that, JSON, or a plain sentence. A
    reply without a score, with one outside of the scale, or with several is unreadable and gives None, or `fallback`.
    A missing reply (the endpoint fails, the prompt is too long for the model) always gives None. The numbers of
    unreadable and missing replies are logged; without a `fallback` the reward's coverage is 1 - their share.

    The names in the options identify a run, not the weights: a change of a local folder, a branch of the hub or
    the model behind an endpoint is not noticed. The endpoint's key is read from `JUDGE_API_KEY`.

    Args:
        completions: one prompt's group.
        options: see `JudgeOptions`.

    Raises:
        ValueError: an option is out of range.
        TimeoutError: the group took too long; the model is loaded again for the next group.
        RuntimeError: the model does not load, or the endpoint replies to no prompt of the group, or with 401, 403 or
            404.

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
        value = "no value" if options.fallback is None else f"{options.fallback:g}"
        example = f"no number from {options.low:g} to {options.high:g}, such as {unreadable[0][:_QUOTED]!r}"
        _log.warning("judge: %d of %d replies have %s; they count as %s", len(unreadable), len(replies), example, value)
    fallback = None if options.fallback is None else float(options.fallback)
    return [
        fallback if score is None and reply is not None else score for reply, score in zip(replies, scores, strict=True)
    ]


def _prompt(completion: Completion, options: JudgeOptions) -> str:
    return options.template.format(
        question=question_text(completion.row),
        reference=completion.row.answer,
        completion=completion.text,
        low=f"{options.low:g}",
        high=f"{options.high:g}",
    )


def _from_model(prompts: list[str], options: JudgeOptions) -> list[str | None]:
    arguments = {"model": options.model, "revision": options.revision, "max_new_tokens": options.max_new_tokens}
    process = child_process(SERVER, "judge", json.dumps(arguments), start_seconds=MODEL_LOAD_SECONDS)
    return process.ask(prompts, float(options.timeout * len(prompts)))


def _from_endpoint(prompts: list[str], options: JudgeOptions) -> list[str | None]:
    from rlassay.rewards.judge_endpoint import Endpoint, ask_all  # httpx takes a tenth of a second to import

    assert options.endpoint is not None
    timeout = float(options.timeout)
    endpoint = Endpoint(url=options.endpoint, model=options.model, max_tokens=options.max_new_tokens, timeout=timeout)
    return ask_all(endpoint, prompts)


def _check_endpoint(options: JudgeOptions) -> None:
    if options.endpoint is None:
        return
    if not re.fullmatch(r"https?://[^\s/@?#]+(/[^\s@?#]*)?", options.endpoint):
        raise ValueError(
            f"endpoint: got {options.endpoint!r}; expected a URL such as http://localhost:8000/v1, "
            "without a key in it: set the environment variable JUDGE_API_KEY for that"
        )
    if options.revision is not None:
        raise ValueError("revision: an endpoint chooses its weights itself; remove it")


def _check_template(template: str) -> None:
    try:
        fields = [field for _, field, _, _ in Formatter().parse(template) if field is not None]
    except ValueError as error:
        raise ValueError(f"template: {error}; write {{{{ and }}}} for literal braces") from None
    unknown = [field for field in fields if field not in _FIELDS]
    if unknown:
        raise ValueError(f"template: unknown field {{{unknown[0]}}}; known: {', '.join(_FIELDS)}")
    if "completion" not in fields:
        raise ValueError("template: it has no {completion}, so that all completions would be rated alike")
