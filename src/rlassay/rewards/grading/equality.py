"""Decide whether an answer equals the gold answer: numbers, quantities, lists, intervals, words or formulas.

Each rule that can accept an answer can also reject it.
"""

import re
from collections.abc import Callable, Iterable

from rlassay.rewards.grading.quantities import (
    COMMON,
    CURRENCY_SIGNS,
    DIGITS,
    SIZES,
    Quantity,
    close,
    first_quantity,
    quantity,
    rational,
    same_quantity,
)

Formulas = Callable[[str, str], bool | None]
"""Compares two formulas, gold first; None where it cannot."""

# Spelling of mathematics
_SPACING = re.compile(
    r"\\(?:[,;:! ]|q?quad(?![A-Za-z])|(?:left|right|big|Big|bigg|Bigg)[lr]?(?![A-Za-z]))|~|\u2009|\u202f"
)
_SPELLING = {
    r"\dfrac": r"\frac", r"\tfrac": r"\frac", r"\cfrac": r"\frac", r"\$": "$", r"\%": "%", r"\degree": "°",
    r"^{\circ}": "°", r"^\circ": "°", r"{,}": ",", r"\leq": r"\le", r"\geq": r"\ge", r"\neq": r"\ne", "≤": r"\le ",
    "、": ",", "\n": " ", "∞": r"\infty ", "∪": r"\cup ",
    "≥": r"\ge ", "≠": r"\ne ", "<=": r"\le ", ">=": r"\ge ", "!=": r"\ne ", "×": r"\times ", "÷": "/", "·": r"\cdot ",
    "∩": r"\cap ", "π": r"\pi ", "±": r"\pm ", "∈": r"\in ", "**": "^", r"\{": "{",
    r"\}": "}", r"\lbrace": "{", r"\rbrace": "}", "’": "'", "′": "'", "–": "-", "【": "[", "】": "]",
}  # fmt: skip
_SPELLED = re.compile("|".join(re.escape(key) for key in sorted(_SPELLING, key=len, reverse=True)))
_ROOT = re.compile(r"(?:\\?\bsqrt|√)\s?(?:\(([^()]{1,80})\)|(\d+|[A-Za-z]))")
_NAMED = re.compile(r"(?<![\\A-Za-z])(sin|cos|tan|log|ln|exp|pi|infty|theta|alpha|beta|pm)(?![A-Za-z])")
_POWER = re.compile(r"\^\s?(?:\((-?[\w+\-*/ ]{1,40})\)|(-?\d{2,}|-\d))")
_ENDS = " \t\n\r.。,;~"  # no `!`, which is a factorial
_LEAD = re.compile(
    r"(?:so|thus|hence|therefore|then|and|it(?:'s| is)|this is|that is|they are|there are|we (?:get|have)"
    r"|得|得到|是|为|有|共)[,:]?\s?(?![A-Za-z]\b)",
    re.IGNORECASE,
)

# Words
_COMMAND = re.compile(r"\\[A-Za-z]+")
_WORD = re.compile(r"[A-Za-z]{2,}|[\u3400-\u9fff]+")
_SHORT_WORDS = frozenset(
    """
    no yes on up in it is to at by he we us me my go do so if of or an am pm be as ok all any the one two six ten odd
    """.split()  # noqa: SIM905
)
_YES_NO = {"yes": "no", "no": "yes", "true": "false", "false": "true", "是": "否", "否": "是", "对": "错", "错": "对"}
_DENIAL = re.compile(
    r"(?:\b(?:not|never|neither|nor|except|cannot|wrong|incorrect)\b|n['’]t\b|≠|\\ne\b|\\neq\b|\\not\b|不是|不为|不等于"
    r"|并非|而非|除了|rather than|instead of|other than)"
    r"(?:[\s$]{1,3}(?!(?:but|so|and|thus|hence|therefore|because|since|instead|then)\b)[A-Za-z]{1,12}){0,5}[\s:$(]{0,4}$",
    re.IGNORECASE,
)
_STARTS_DENIED = re.compile(
    r"\W{0,3}(?:not\b|never\b|neither\b|n['’]t\b|≠|\\ne\b|\\neq\b|\\not\b|不是|不等于|不为|并非|非(?!常)|anything but"
    r"|no(?!\w)[ ,](?!\.))",
    re.IGNORECASE,
)
_ALTERNATIVES = re.compile(r"\d[^.\n]{0,25}(?:\b(?:or|and)\b|或者?|还是|和)[^\d]{0,12}$", re.IGNORECASE)
_COPULA = re.compile(
    r"\b(?:is|are|was|were|equals?|be|gives?|get)\b|[:=]|\\implies|\\Rightarrow|⇒|→|是|为|等于", re.IGNORECASE
)
_MATH_SPAN = re.compile(
    r"\$\$?([^$]{1,300})\$\$?|\\\(((?:[^\\]|\\(?!\))){0,300})\\\)|\\\[((?:[^\\]|\\(?!\])){0,300})\\\]"
)
_OPEN, _CLOSE = "([{", ")]}"
_DEEPEST = 50  # brackets of one kind in an answer that is read
_SYMBOL = r"\\?[A-Za-z]+(?:_\{?\w{1,6}\}?)?'{0,2}(?:\([A-Za-z](?:,\s?[A-Za-z]){0,3}\))?"
_ASSIGNED = re.compile(rf"\s?({_SYMBOL})\s?=(?!=)\s?(.+)", re.DOTALL)
_SEPARATOR = re.compile(
    r"\s*(?:,\s*(?:and|or)\b|;\s*(?:and|or)\b|\band\b|\bor\b|,|;|或者?|和|以及|与"
    r"|\\(?:lor|land|vee|wedge)(?![A-Za-z])(?=[^,]{0,80}[=<>]))\s*"
)
_POINTS = re.compile(r"(?:\\[A-Za-z]+\s?\{?)?\s?([A-Z]{2,6}'{0,2})\s?\}?")
_PROSE_NUMBER = re.compile(
    rf"(?<![\w.])[{CURRENCY_SIGNS}]?-?[{CURRENCY_SIGNS}]?(?:\d+\s?/\s?\d+|{DIGITS}(?:\.\d+)?|\.\d+)\s?%?(?!\w*[\^!(])"
)


def same_answer(gold: str, answer: str, formulas: Formulas) -> bool | None:
    """Whether an answer states all of the gold answer and nothing else; None where `formulas` decides and cannot.

    Compound answers are compared part by part: lists and sets in any order, tuples in order, intervals with their
    brackets, sums of quantities (`2 hours 30 minutes`) as one quantity. A number without a unit equals the same number
    with one; two units must agree. Thousands may be grouped by commas or blanks: `1 234` is 1234. Case counts in
    formulas and not in words. A denied answer (`not 3`) and one of several alternatives (`3 or 4`) are wrong.

    Args:
        gold: the gold answer, as `extract_answer` reads it.
        answer: the answer, likewise.
        formulas: compares two formulas that are not plain numbers.

    Source: this project's own rules; `tests/rewards/test_equality.py` holds the pairs.
    """
    if answer == gold:
        return True
    if COMMON.fullmatch(gold) and COMMON.fullmatch(answer):
        return int(gold.replace(",", "")) == int(answer.replace(",", ""))
    whole_gold, whole = spelled(gold), spelled(answer)
    if not (whole and whole_gold) or max(map(whole.count, _OPEN)) > _DEEPEST:
        return False
    decided = _decided_at_once(whole_gold, whole)
    return decided if decided is not None else _same_in_parts(whole_gold, whole, answer, formulas)


def _decided_at_once(gold: str, answer: str) -> bool | None:
    """The verdict on denials, plain numbers and words; None where the parts of the answers decide."""
    if _STARTS_DENIED.match(answer) and not _is_yes_no(gold):
        return _STARTS_DENIED.match(gold) is not None and _same_words(gold, answer)
    number, other = rational(gold), rational(answer)
    if number is not None and other is not None:
        return close(number, other)
    if _text_form(gold) == _text_form(answer):
        return True
    return _same_words(gold, answer) if _is_words(gold) else None


def _same_in_parts(gold: str, answer: str, unspelled: str, formulas: Formulas) -> bool | None:
    """The verdict on the whole answer, or else on the answer that its prose states."""
    verdict = _same_compound(gold, answer, formulas)
    if verdict is False:
        for candidate in _in_prose(answer, unspelled):
            verdict = _same_compound(gold, candidate, formulas)
            if verdict is not False:
                break
    return verdict


def spelled(text: str) -> str:
    """Normalise the spelling of mathematics: no delimiters, spacing commands or end punctuation."""
    text = _undelimited(text)
    if "box" in text:
        text = re.sub(r"\\f?box(?:ed)?\s?\{([^{}]*(?:\{[^{}]*\}[^{}]*)*)\}", r"\1", text)
    text = _SPELLED.sub(lambda match: _SPELLING[match[0]], _SPACING.sub(" ", text))
    text = _ROOT.sub(lambda match: rf"\sqrt{{{match[1] or match[2]}}}", text)
    text = _POWER.sub(lambda match: f"^{{{match[1] or match[2]}}}", text)
    text = " ".join(text.split()).strip(_ENDS)
    lead = _LEAD.match(text)
    return (text[lead.end() :].strip(_ENDS) if lead else "") or text


def _undelimited(text: str) -> str:
    """The text without `$`, `\\(` and the like around the whole of it."""
    text = text.strip(_ENDS)
    for opening, closing in (("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]")):
        inner = text[len(opening) : -len(closing)]
        if inner and text.startswith(opening) and text.endswith(closing) and opening not in inner:
            return inner.strip(_ENDS)
    return text


def _is_words(text: str) -> bool:
    """Whether a text has words and no mathematics, so that only text is compared."""
    if quantity(text) is not None or re.search(r"[\d=+^_<>$]", text):
        return False
    return any(_is_word(word) for word in _WORD.findall(_COMMAND.sub(" ", text)))


def _is_word(word: str) -> bool:
    if not word.isascii():
        return True
    lower = word.lower()
    if lower in ("and", "or", "sqrt", "sin", "cos", "tan", "log", "ln", "exp", "pi", "mod", "frac"):
        return False
    return (
        lower in _SHORT_WORDS
        or (len(word) > 2 and any(vowel in lower for vowel in "aeiouy") and word[1:].islower())
        or len(word) > 4
    )


def _is_yes_no(text: str) -> bool:
    return text.lower() in _YES_NO


def _same_words(gold: str, answer: str) -> bool:
    one, other = _text_form(gold), _text_form(answer)
    if one == other:
        return True
    if _is_yes_no(gold):
        first = re.match(r"([a-z]+|[\u3400-\u9fff])(?=[\s]?[,.;:!，。；]|$)", other)
        return bool(first and first[1] == one) and not re.search(rf"\b{_YES_NO[one]}\b", other)
    parts, others = (sorted(re.split(r",\s?(?:and )?|\s(?:and|or)\s|;\s?", text)) for text in (one, other))
    return len(parts) > 1 and parts == others


def _text_form(text: str) -> str:
    """A text for comparison: words in lower case, formulas without blanks."""
    if not re.search(r"[A-Za-z]{2}", _COMMAND.sub(" ", text)):
        return text.replace(" ", "")
    if not any(_is_word(word) for word in _WORD.findall(text)):
        return text.replace(" ", "")
    text = re.sub(r"[A-Za-z]+", lambda match: match[0].lower() if _is_foldable(match[0]) else match[0], text)
    return re.sub(r"^(?:the|an?)\s", "", " ".join(re.sub(r"[\"“”]", "", text).split()))


def _is_foldable(word: str) -> bool:
    return len(word) > 3 or word.lower() in _SHORT_WORDS or (len(word) == 3 and word[1:].islower())


def split(text: str) -> tuple[str, list[str]]:
    """Kind and parts: `list`, `set`, `union`, `single`, or a tuple's or interval's brackets (`(]`)."""
    text = text.strip()
    if text[:1] in _OPEN and text[-1:] in _CLOSE and text[:1] and _encloses(text):
        inner = _pieces(text[1:-1], strict=True)
        kind = "set" if text[0] == "{" else text[0] + text[-1]
        if len(inner) > 1 or kind == "set":
            return kind, inner
        return split(text[1:-1]) if kind in ("()", "[]") and text[1:-1].strip() else ("single", [text])
    union = _at_depth_zero(re.compile(r"\s?\\cup\s?"), text)
    if len(union) > 1:
        return "union", union
    parts = _pieces(text, strict=False)
    if len(parts) == 1 and text.count(r"\pm") == 1:
        return "list", [
            text.replace(r"\pm", "+").replace("+ ", "+").lstrip("+"),
            text.replace(r"\pm", "-").replace("- ", "-"),
        ]
    return ("list" if len(parts) > 1 else "single"), parts


def _encloses(text: str) -> bool:
    """Whether the first bracket closes at the end."""
    depth = 0
    for i, character in enumerate(text):
        depth += (character in _OPEN) - (character in _CLOSE)
        if depth == 0:
            return i == len(text) - 1
    return False


def _pieces(text: str, *, strict: bool) -> list[str]:
    """Parts between separators outside of brackets; in a bracket a comma always separates unless it groups digits."""
    if not strict and quantity(text) is not None:
        return [text]
    grouped = re.sub(r"(?<![\d,])(\d{1,3}(?:,\d{3})+)(?![\d,])", lambda match: match[0].replace(",", "\0"), text)
    return [part.replace("\0", ",") for part in _at_depth_zero(_SEPARATOR, grouped) if part.strip()]


def _at_depth_zero(separator: re.Pattern[str], text: str) -> list[str]:
    parts: list[str] = []
    start = depth = counted = 0
    for match in separator.finditer(text):
        between = text[counted : match.start()]
        depth += sum(map(between.count, _OPEN)) - sum(map(between.count, _CLOSE))
        counted = match.start()
        if depth <= 0:
            parts.append(text[start : match.start()].strip())
            start = match.end()
    return [*parts, text[start:].strip()]


def _same_compound(gold: str, answer: str, formulas: Formulas) -> bool | None:
    kind, parts = split(gold)
    other_kind, others = split(answer)
    if kind == "single" or other_kind == "single":
        if len(parts) != len(others) or len(parts) != 1:
            return _decimal_comma(gold, answer)
        return _same_part(parts[0], others[0], formulas)
    if len(parts) != len(others):
        return False
    if (
        kind in ("list", "set", "union")
        and other_kind in ("list", "set", kind)
        and (kind == "union") == (other_kind == "union")
    ):
        return _same_in_any_order(parts, others, formulas)
    if kind != other_kind and {kind, other_kind} not in (
        {"()", "list"},
        {"[]", "list"} if kind == "list" else {"()", "list"},
    ):
        return False
    return _all(_same_part(one, other, formulas) for one, other in zip(parts, others, strict=True))


def _all(verdicts: Iterable[bool | None]) -> bool | None:
    unknown = False
    for verdict in verdicts:
        if verdict is False:
            return False
        unknown = unknown or verdict is None
    return None if unknown else True


def _same_in_any_order(parts: list[str], others: list[str], formulas: Formulas) -> bool | None:
    left = list(others)
    unknown = False
    for part in sorted(parts, key=len, reverse=True):
        undecided: str | None = None
        for other in left:
            verdict = _same_part(part, other, formulas)
            if verdict:
                left.remove(other)
                break
            undecided = other if verdict is None else undecided
        else:
            if undecided is None:
                return False
            left.remove(undecided)
            unknown = True
    return None if unknown else True


def _decimal_comma(gold: str, answer: str) -> bool:
    """Whether `3,5` states the gold number 3.5."""
    value = rational(gold) if re.fullmatch(r"-?\d{1,20},\d{1,20}", answer) else None
    return value is not None and value.denominator > 1 and rational(answer.replace(",", ".")) == value


def _same_part(gold: str, answer: str, formulas: Formulas) -> bool | None:
    """Whether two single answers are equal."""
    assigned, other = _ASSIGNED.fullmatch(gold), _ASSIGNED.fullmatch(answer)
    if assigned and other and assigned[1] != other[1]:
        return False
    gold = assigned[2] if assigned else gold
    answer = other[2] if other else answer
    if "=" in answer and "=" not in gold:
        answer = answer.rpartition("=")[2].strip()
    if split(gold)[0] != "single" or split(answer)[0] != "single":
        return False if split(gold) == ("single", [gold]) else _same_compound(gold, answer, formulas)
    decided = _decided_without_formulas(gold, answer)
    return formulas(_formula(gold, quantity(gold)), _formula(answer, quantity(answer))) if decided is None else decided


def _decided_without_formulas(gold: str, answer: str) -> bool | None:
    if _text_form(gold) == _text_form(answer):
        return True
    one, other = quantity(gold), quantity(answer)
    if one and other:
        return same_quantity(one, other)
    points, others = _POINTS.fullmatch(gold), _POINTS.fullmatch(answer)
    if points and others:
        return points[1] == others[1]
    return _same_words(gold, answer) if _has_words(gold) or _has_words(answer) else None


def _formula(text: str, value: Quantity | None) -> str:
    """A formula as LaTeX; the number alone of one with a unit."""
    if value and value.dimension:
        return f"{value.number}" if value.dimension != "percent" else f"{value.number}\\%"
    text = re.sub(rf"^[{CURRENCY_SIGNS}]\s?", "", text)
    text = re.sub(
        r"(?<=[\d}\s)])\s?(?:°|\$|€|%|(?<=\s)(?:cm|km|mm|kg|units?|dollars?|inches|meters?|degrees?)(?:\^\{?[23]\}?)?)$",
        "",
        text,
    )
    return _NAMED.sub(r"\\\1 ", text)


def _has_words(text: str) -> bool:
    return any(_is_word(word) for word in _WORD.findall(_COMMAND.sub(" ", text)))


def _in_prose(text: str, answer: str) -> list[str]:
    """Candidate answers in a sentence: text after the last verb, the last formula or number."""
    found: list[str] = []
    lines = [line for line in answer.split("\n") if any(map(str.isdigit, line)) or "$" in line]
    if "\n" in answer and lines:
        answer, text = lines[-1], spelled(lines[-1])
    elif not (_has_words(text) or any(mark in answer for mark in ("$", "\\(", "\\["))):
        return []
    if quantity(text):
        return found
    spans = list(_MATH_SPAN.finditer(answer))
    for span in spans[-1:]:
        if not _is_denied(answer[: span.start()]):
            found.append(spelled(span[1] or span[2] or span[3] or ""))
    copulas = list(_COPULA.finditer(text[-400:]))
    for copula in copulas[-1:]:
        tail = spelled(text[-400:][copula.end() :])
        if tail and not _STARTS_DENIED.match(tail) and not _is_denied(text[-400:][: copula.end()]):
            found.append(tail)
    if not spans:
        numbers = list(_PROSE_NUMBER.finditer(text))
        for number in numbers[-1:]:
            before = text[: number.start()]
            if not (_is_denied(before) or _ALTERNATIVES.search(before[-60:])):
                found.append(_with_known_unit(text[number.start() :], number[0]).strip(_ENDS))
    return [candidate for candidate in dict.fromkeys(found) if candidate]


def _with_known_unit(text: str, number: str) -> str:
    """The number at the start of a text, with its unit if it is known."""
    pair, rest = first_quantity(text)
    return text[: len(text) - len(rest)] if pair and pair.dimension in SIZES else number


def _is_denied(before: str) -> bool:
    return _DENIAL.search(before[-60:]) is not None
