# ruff: noqa: E501 - patterns that read better on one line
"""Read the score in a judge's reply: from a tag, JSON or a sentence; None if in doubt."""

import json
import re

from rlassay.markup import find_boxes, normalise, outside_thinking

_SCORE_TAG = re.compile(r"<(score|rating|answer)>([^<]{0,200})(?:</\1>|$)", re.IGNORECASE)
_OBJECT = re.compile(r"\{[^{}]{1,2000}\}")
_KEYS = ("score", "rating", "grade", "mark", "评分", "分数", "得分")
# A number with sign, grouped thousands and one decimal point or comma; not part of a word, date, version or number.
_PLAIN = r"(?:\d{1,3}(?:,\d{3})+(?:\.\d{1,9})?|\d{1,9}(?:[.,]\d{1,9})?|\.\d{1,9})"
_NUMBER = re.compile(rf"(?<![A-Za-z0-9_.,])[-+]?{_PLAIN}(?![A-Za-z0-9_])(?![.,]\d)")
_PERCENT = re.compile(r"\s?(?:%|percent\b)")
_OUT_OF = r"\s?(?:/|out of|of|over|from a (?:possible|maximum(?: of)?))\s?"
_FRACTION = re.compile(rf"({_NUMBER.pattern}){_OUT_OF}({_PLAIN})(?![A-Za-z0-9_%])(?!\s?(?:%|/))", re.IGNORECASE)
# Numbers of the scale itself
_INTERVAL = re.compile(rf"[\[(]\s?[-+]?{_PLAIN}\s?,\s?{_PLAIN}\s?[\])]")
_RANGE = re.compile(
    rf"(?:(?:between|from)\s)?(?<![\w.,])[-+]?{_PLAIN}\s?(?:\([a-z ]{{1,20}}\)\s?)?(?:-|–|—|~|to|and|through|until|到|至)\s?{_PLAIN}"
    r"(?![\d.]*\d)(?:\s?(?:scale|points?|range|\([a-z ]{1,20}\)|分制|分|之间))?",
    re.IGNORECASE,
)
_SCALE = re.compile(
    rf"(?:满分|总分|分制|最高|最低)(?:是|为|[:：])?\s?{_PLAIN}\s?分?|{_PLAIN}\s?分制|{_PLAIN}\s?分?\s?(?:满分|为满分|是满分)"
    rf"|(?:max(?:imum)?|min(?:imum)?|highest|lowest|best|worst|full marks?|possible)(?:\s(?:score|possible|rating|points?|is|of|=)){{0,3}}"
    rf"\s?[:=(]?\s?{_PLAIN}|(?:on|using|with|in)\s(?:a|the)\s{_PLAIN}[- ]?(?:point|pt)s?\s(?:scale|rubric)|{_PLAIN}[- ]point\s(?:scale|rubric)"
    rf"|{_PLAIN}\s(?:being|is|means?|=)\s(?:the\s)?(?:best|worst|perfect|highest|lowest|max(?:imum)?|min(?:imum)?|correct|wrong|bad|good)\b",
    re.IGNORECASE,
)
_CUE = re.compile(
    r"(?:\b(?:final\s)?(?:score|rating|grade|mark|verdict|rate(?:\s(?:it|this|the\s\w{1,20}))?|give(?:\s(?:it|this|the\s\w{1,20}))?|assign|award)(?:\b|s\b)"
    r"|得分|评分|分数|打分|给(?:出|予|它|他|个)?|打)[^\d\n+-]{0,24}$",
    re.IGNORECASE,
)
_DENIED = re.compile(
    r"(?:\b(?:not|never|cannot|can't|isn't|wasn't|would(?:n't| not)|instead of|rather than|less than|more than|at least|at most|above|below|over|under)\b|不是|不到|超过|低于|高于|至少)[^\d\n.]{0,20}$",
    re.IGNORECASE,
)


def read_score(reply: str, low: int | float, high: int | float) -> float | None:
    """The score of a reply if it states exactly one, on the scale, else None.

    Outside of thinking, the last `<score>` (or `<rating>`, `<answer>`, `\\boxed`), or else the last JSON object with a
    `score`, must hold a number of the scale, which may be a fraction of the whole scale such as `8/10`. In any other
    text, ranges (`0 to 1`, `0-10`) and words about the scale (`满分10分`) are removed. Of the numbers that are left,
    those after a word such as `score` or `给` count, or all if there is none; they must all be the same. A percentage,
    a number out of another one than `high`, and one that is denied or a bound (`not 8`, `at least 8`) make the reply
    unreadable.

    Args:
        reply: the reply of the judge.
        low: lowest number of the scale.
        high: highest number of the scale.

    Source: this project's own rules; `tests/rewards/test_judge_reply.py` holds the replies.
    """
    text = outside_thinking(normalise(reply)).strip()
    tags = [contents for _, contents in _SCORE_TAG.findall(text) if contents.strip()]
    boxes = [contents for _, _, contents in find_boxes(text)]
    objects = [value for value in map(_score_of_object, _OBJECT.findall(text)) if value is not None]
    stated = tags or boxes or objects
    score = _one_number(text, high) if not stated else _whole_number(stated[-1], high)
    return score if score is not None and low <= score <= high else None


def _score_of_object(text: str) -> str | None:
    """The score in a JSON object, as text; None for other objects and broken ones."""
    try:
        fields = json.loads(text.replace("'", '"'))
    except ValueError:
        return None
    values = [value for key, value in fields.items() if key.lower().strip() in _KEYS]
    return str(values[0]) if len(values) == 1 and not isinstance(values[0], bool | None) else None


def _whole_number(text: str, high: int | float) -> float | None:
    """The number that is the whole text.

    `/high`, a unit of points and a full stop may follow it.
    """
    text = re.sub(r"(?:\s?(?:points?|分))?\s?[.。]?\s*$", "", text.strip())
    fraction = _FRACTION.fullmatch(text)
    if fraction:
        return _value(fraction[1]) if _value(fraction[2]) == high else None
    return _value(text) if _NUMBER.fullmatch(text) else None


def _one_number(text: str, high: int | float) -> float | None:
    """The one number of a sentence that is its score."""
    whole = _whole_number(text, high)
    if whole is not None:
        return whole
    for fraction in _FRACTION.finditer(text):
        if _value(fraction[2]) != high:
            return None
    text = _FRACTION.sub(lambda match: match[1], text)
    text = _SCALE.sub(" ", _RANGE.sub(" ", _INTERVAL.sub(" ", text)))
    found = list(_NUMBER.finditer(text))
    if any(_PERCENT.match(text, number.end()) for number in found):
        return None
    cued = [number for number in found if _CUE.search(text[max(0, number.start() - 60) : number.start()])]
    counted = cued or found
    if any(_DENIED.search(text[max(0, number.start() - 40) : number.start()]) for number in counted):
        return None
    values = {_value(number[0]) for number in counted}
    return values.pop() if len(values) == 1 else None


def _value(text: str) -> float:
    text = text.replace(" ", "")
    grouped = re.fullmatch(r"[-+]?\d{1,3}(?:,\d{3})+(?:\.\d+)?", text) and not text.lstrip("+-").startswith("0,")
    return float(text.replace(",", "") if grouped else text.replace(",", "."))
