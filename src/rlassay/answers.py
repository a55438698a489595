"""Extracts the answer that a completion states; all rewards and metrics use these parsers.

`extract_choice` decides rewards and is therefore strict: a text that states no letter, or two different ones, has no
answer. `extract_choice_lenient` shares no rule with it and serves evaluation only; where the two disagree, a score
measures the parser and not the model.
"""

import re
import unicodedata
from collections.abc import Iterator
from itertools import pairwise

_LONGEST = 20_000  # characters of visible text that are read, from the end
# Every quantifier below is bounded, or stops at a character that the next part needs, which keeps matching linear.
_THINK_TAG = re.compile(r"(</?think>)", re.IGNORECASE)
_TAG = re.compile(r"<[^<>]*>")
_ANSWER_BLOCK = re.compile(r"<answer>([^<]*)(?:</answer>|$)", re.IGNORECASE)
_FREE_ANSWER = re.compile(r"<answer>(.*?)(?:</answer>|$)", re.IGNORECASE | re.DOTALL)
_ANSWER_TAG = re.compile(r"</?answer>", re.IGNORECASE)
_BOXED = re.compile(r"\\boxed\s?\{([^{}]{0,200})\}")
_LATEX_STYLE = re.compile(r"\\(?:text|textbf|mathrm|mathbf)\s?\{([^{}]{0,200})\}")
_MARKDOWN = str.maketrans("", "", "*_`$")

# A letter that is not part of a word: not `dog`, `A-frame`, `I'm`, `C++`, `A.M.`, `A's`.
_LETTER = r"(?-i:([A-Za-z]))(?![\w+#]|['’]\w|-\w|\.\w\.)"
_CAPITAL = rf"(?-i:(?=[A-Z])){_LETTER}"
_GAP = r"[^\w.,;!?≠¬]{0,12}"  # spaces, line ends, brackets, quotes, arrows, emoji
_ADVERBS = r"(?:(?:\w{2,12}ly|most|then|thus|therefore|hence|indeed|just|only)\s{1,3}){0,2}"
_NOUN = r"(?:(?:the\s{1,3})?(?:option|choice|letter|answer)\b)?:?"
_VERB = r"(?:['’]s|\s{1,3}(?:is|must\s+be|should\s+be|has\s+to\s+be))\b"
_LINK = rf"(?:{_VERB}|{_GAP}(?:[:=→⇒–—-]))"
_END = r"(?=[)\]\"'’]{0,3}\s{0,3}(?:[.,;!]|$|\n|because\b|since\b))"


def _compile(*patterns: str) -> tuple[re.Pattern[str], ...]:
    return tuple(re.compile(pattern, re.IGNORECASE | re.MULTILINE) for pattern in patterns)


# Explicit statements of the answer; group 1 is the letter.
_STATED = _compile(
    rf"\b(?:answer|option|choice|letter)(?:\s(?:to|for)(?:\s\w{{1,20}}){{1,6}}?)?{_LINK}{_GAP}{_ADVERBS}{_NOUN}{_GAP}{_LETTER}",
    rf"(?<![\w'’-]){_CAPITAL}[)\]\"'’]{{0,3}}{_VERB}\s{_ADVERBS}(?:the\s)?{_ADVERBS}(?:correct|right|best|true|answer)\b(?!-)",
)
# Implicit statements, which count only without an explicit one.
_IMPLIED = _compile(
    rf"\b(?:choose|choosing|chose|pick|picked|select|selected|go\swith|going\swith|opt\sfor)\s{_NOUN}{_GAP}{_CAPITAL}",
    rf"\b(?:it|this|that){_VERB}\s{_ADVERBS}{_NOUN}{_GAP}{_CAPITAL}{_END}",
    rf"\bonly\s{_NOUN}{_GAP}{_CAPITAL}\s(?:remains|is\sleft|fits)\b",
    rf"\b(?:so|thus|therefore|hence|leaving|leaves|elimination),?\s(?:only\s)?{_NOUN}{_GAP}{_CAPITAL}{_END}",
    rf"^[^\w\n]{{0,12}}(?:(?:final\s)?(?:option|choice|letter|answer))?[^\w\n]{{0,12}}{_CAPITAL}[^\w\n]{{0,12}}$",
)
_BARE = re.compile(r"\W{0,12}([A-Za-z])\W{0,12}")
_WITH_TEXT = re.compile(r"[^\w\n]{0,12}([A-Z])[ ]?[).:][ )]?[^\n]+")

# The same in Chinese, which has no blank between a letter and the next word, and may negate afterwards: `选项A错误`.
_CN_GAP = r"[^\w.,;!?≠¬。、]{0,12}"
_CN_LETTER = (
    r"(?-i:([A-Za-z]))(?![A-Za-z0-9_+#])"
    r"(?![)\]\s】」]{0,3}(?:选?项)?(?:是|都|也|显然|可以?|被|应该?)?(?:错|不|有误|排除|吗|么|呢|还是))"
)
_CN_IS = r"(?:应该?|应当|就|只能|必须)?(?:是|为|选择?)?"
_CN_STATED = _compile(
    rf"(?:答案|正解|正确的?(?:选项|答案)|正确的是){_CN_IS}{_CN_GAP}(?:选项)?{_CN_GAP}{_CN_LETTER}",
    rf"(?<![A-Za-z0-9_])(?:选项\s?)?{_CN_LETTER}(?:选?项)?\s?(?:才?是|为)?\s?(?:正确|对的|正解)(?!吗|与否)",
)
_CN_IMPLIED = _compile(rf"选(?:择|项)?(?:是|为)?{_CN_GAP}(?:选项)?{_CN_GAP}{_CN_LETTER}")
_CN_ALTERNATIVE = re.compile(r"\W{0,3}(?:或者?|还是|和|与|及|、)(?:选项)?\W{0,3}[A-Za-z](?![A-Za-z])")
_CN_DENIED = re.compile(
    r"(?:不|没有?|并非|非|排除|如果|假如|若|假设|是否|难道|除了?)(?:能|应该?|会|可以?|是|要|再)?(?:选项?)?\s?$"
)

_CONNECTIVE = r"(?:because|since|as|for|which|due|given|so|but|and|or|not|rather|instead|is)\b"
_RUNS_ON = re.compile(rf"[ \t]+(?!{_CONNECTIVE}|[\u3400-\u9fff])\w", re.IGNORECASE)
_ALTERNATIVE = re.compile(
    r"[)\]\"'’]{0,3}\s{0,3}(?:,|/|&|\bor\b|\band\b)\s{0,3}(?:(?:or|and)\s)?(?:(?:option|choice)\s)?[(\[\"'‘]{0,3}"
    r"[A-Za-z](?!\w|['’]\w|[ \t]+(?!or\b|and\b)\w)"
)
_QUESTION = re.compile(r"[)\]\"'’]{0,3}\s?\?")
_ADJECTIVES = r"(?:(?:my|the|a|an|this|correct|right|best|true|final|single|only)\s){0,3}"
_DENIED = re.compile(
    r"(?:\b(?:not|never|neither|nor|or|no|if|whether|unless|suppose|supposing|assume|assuming|doubt|false|wrong|incorrect"
    r"|impossible|unlikely|eliminated|rejected|discarded)|n['’]t)\s"
    r"(?:\w{1,12}\s)?(?:(?:think|believe|say|agree|sure|certain|true|clear|case|mean)\s)?(?:that\s)?"
    rf"{_ADJECTIVES}$",
    re.IGNORECASE,
)


def extract_choice(text: str, letters: str) -> str | None:
    """The one option letter that a completion states as its answer, or None.

    First, thinking is removed: everything after an unclosed `<think>` and everything before a lone `</think>` as well.
    The contents of `<answer>` and `\\boxed`, and sentences such as `the answer is B`, are explicit statements, and all
    of them must agree. Without any, implicit ones count: `I choose B`, a line of one letter. Negations, conditions and
    questions do not count, nor do lists of alternatives, the article A and the pronoun I.

    Args:
        text: the completion.
        letters: the option letters of its row, such as `ABCD`; only one of these is returned.

    Source: this project's own rules; `tests/test_answers.py` holds the sentences that simpler parsers misread.
    """
    blocks, prose = _blocks_and_prose(_visible(text))
    stated = {_read_block(block) for block in blocks} | set(_found(_STATED + _CN_STATED, prose))
    if not stated:
        stated = set(_found(_IMPLIED + _CN_IMPLIED, prose)) or {_read_whole(prose)}
    answer = stated.pop() if len(stated) == 1 else None
    return answer if answer is not None and answer in letters else None


def _visible(text: str) -> str:
    """The end of the text outside of thinking, in NFKC form (plain letters) and without markup."""
    plain = unicodedata.normalize("NFKC", _outside_thinking(text)[-_LONGEST:])
    return _LATEX_STYLE.sub(r"\1", plain.translate(_MARKDOWN))


def _outside_thinking(text: str) -> str:
    """The text without thinking: an unclosed `<think>` removes all after it, a lone `</think>` all before it."""
    kept: list[str] = []
    thinking = False
    for part in _THINK_TAG.split(text):
        tag = part.lower()
        if tag == "</think>" and not thinking:
            kept.clear()
        if tag in ("<think>", "</think>"):
            thinking = tag == "<think>"
        elif not thinking:
            kept.append(part)
    return "\n".join(kept)


def _blocks_and_prose(visible: str) -> tuple[list[str], str]:
    blocks = [block for pattern in (_ANSWER_BLOCK, _BOXED) for block in pattern.findall(visible)]
    prose = _BOXED.sub("\n", _ANSWER_TAG.sub("\n", _ANSWER_BLOCK.sub("\n", visible)))
    return [block for block in blocks if block.strip()], prose


def _read_block(block: str) -> str | None:
    """The letter inside an `<answer>` or `\\boxed`; a letter alone may be lower case."""
    whole = _read_whole(block)
    found = {whole} if whole else set(_found(_STATED + _IMPLIED + _CN_STATED + _CN_IMPLIED, block))
    return found.pop() if len(found) == 1 else None


def _read_whole(text: str) -> str | None:
    """The letter of a text that is nothing but `b`, `(B)` or `B) seven`."""
    match = _BARE.fullmatch(text.strip()) or _WITH_TEXT.fullmatch(text.strip())
    if match is None or _ALTERNATIVE.match(text.strip(), match.end(1)):
        return None
    return match[1].upper()


def _found(patterns: tuple[re.Pattern[str], ...], text: str) -> Iterator[str]:
    for pattern in patterns:
        for match in pattern.finditer(text):
            letter, after = match[1], text[match.end(1) : match.end() + 40]
            is_word = letter in "AaIi" and _RUNS_ON.match(after)
            asked = _QUESTION.match(after) or text.startswith("?", match.end())
            before = text[max(0, match.start() - 60) : match.start()]
            denied = _DENIED.search(before) or _CN_DENIED.search(before)
            if not (is_word or asked or denied or _ALTERNATIVE.match(after) or _CN_ALTERNATIVE.match(after)):
                yield letter.upper()


def extract_answer(text: str) -> str:
    """The free answer that a completion states, without surrounding blanks.

    Outside of thinking (see `extract_choice`), it is the contents of the first `<answer>`, or all text without one.
    If that contains a `\\boxed`, the answer is the contents of the last one.
    """
    visible = _outside_thinking(text)[-_LONGEST:]
    block = _FREE_ANSWER.search(visible)
    answer = visible if block is None else block[1]
    boxed = _last_boxed(answer)
    return (answer if boxed is None else boxed).strip()


def _last_boxed(text: str) -> str | None:
    """The contents of the last `\\boxed{...}`, with nested braces; None without one, or if it is not closed."""
    _, opening, rest = text.rpartition(r"\boxed{")
    depth = 1
    for i, character in enumerate(rest if opening else ""):
        depth += (character == "{") - (character == "}")
        if depth == 0:
            return rest[:i]
    return None


def extract_choice_lenient(text: str, letters: str) -> str | None:
    """The last option letter that is a word of its own, a capital if there is one; for evaluation only.

    It searches after the last `</think>`, then the whole text if it finds nothing there. It ignores cue words.
    """
    plain = unicodedata.normalize("NFKC", text[-_LONGEST:])
    for part in (plain.rpartition("</think>")[2], plain):
        alone = [
            word
            for piece in _TAG.split(part)  # or the A of `A</answer>` would read as the article of "A answer"
            for word, following in pairwise([*re.sub(r"[^A-Za-z0-9'’]+", " ", piece).split(), ""])
            if len(word) == 1 and word.upper() in letters and not (word in "AaIi" and following.islower())
        ]
        capitals = [word for word in alone if word.isupper()]
        if alone:
            return (capitals or alone)[-1].upper()
    return None
