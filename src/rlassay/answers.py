"""Extracts the answer that a completion states; all rewards and metrics use these parsers.

`normalise` gives a text one spelling, and both `extract_choice` and `extract_answer` read that spelling.
`extract_choice` decides rewards and is therefore strict: a text that states no letter, or two different ones, has no
answer. `extract_choice_lenient` shares no rule with it and serves evaluation only; where the two disagree, a score
measures the parser and not the model.
"""

import re
import unicodedata
from collections.abc import Iterator
from functools import lru_cache
from itertools import pairwise

from rlassay.markup import BARE_BOX, answer_pieces, find_boxes, normalise, outside_thinking, unboxed

_LONGEST = 20_000  # characters of visible text that are searched for statements, from the end
_LONGER = 200_000  # searched instead if those state nothing
# Every quantifier below is bounded, or stops at a character that the next part needs, which keeps matching linear.
_TAG = re.compile(r"<[^<>]*>")
_JOINED = re.compile(r"[\s$.]{0,6}(?:,|;|and|or|和|或|、|\\text\{ ?(?:and|or) ?\})?[\s$]{0,6}(?:[A-Za-z]\s?=\s?)?")

_MARKDOWN = str.maketrans("", "", "*_`$")

# Statements of a free answer
_CUE_VERB = (
    r"(?:\s{0,3}(?:is|are|was|equals|will be|would be|must be|should be|comes to|comes out to)\b"
    r"(?:\s(?:therefore|thus|then|simply|just))?)"
)
_CUE = re.compile(
    r"\b(?:answers?|solution)(?:\s(?:to|of|for|in)(?:\s[\w'’]{1,20}){1,8}?)?"
    rf"(?:{_CUE_VERB}\s{{0,3}}[:=]?|\s{{0,3}}[:=])"
    r"|^\s{0,3}#{2,4}\s(?=\s{0,3}[-$\d\\])"
    r"|(?:答案|正解)(?:应该?|应当|就)?(?:是|为|等于|[:=])[:=]?",
    re.IGNORECASE | re.MULTILINE,
)
# The form in which published solutions of GSM8K end: steps line by line, then the answer.
_FINAL_LINE = re.compile(r"\n[ \t]*(?:A|Ans(?:wer)?|####)[ \t]*[:：]?[ \t]+(\S[^\n]*)\s*\Z")
_LEAD_IN = re.compile(
    r"(?:(?:so|thus|hence|therefore|finally|then|因此|所以|故|于是|综上)[,，:]?\s{0,3})?"
    r"(?:(?:the|my|our|a)\s)?(?:(?:final|correct|right|numerical|exact|最终|最后|正确)(?:的)?\s?)?"
    r"(?:(?:answer|result|solution|value|total|sum|product|number)s?(?:\s(?:of|to|for)(?:\s\w{1,20}){1,6}?)?"
    rf"(?:{_CUE_VERB}\s{{0,3}}[:=]?|\s{{0,3}}[:=])"
    r"|(?:答案|结果|正解|解|总数|总和)(?:应该?|应当|就)?(?:是|为|等于|[:=])[:=]?|(?:等于|[=＝]))\s{0,6}",
    re.IGNORECASE,
)
_SENTENCE_END = re.compile(
    r"[.?](?=\s|$)|[。？；]|\n|(?:,\s)?\b(?:because|since|as)\s|[,，]\s?(?:which|so|where|因为)|因为"
)
_NOT_STATED = re.compile(
    r"(?:\b(?:not|never|no|if|whether|unless|suppose|assume|doubt|wrong|incorrect)\b|n['’]t\b|不是|并非|如果|假如|若|错误)"
    r"(?:\s?(?:\w{1,12}\s){0,3})?(?:的)?$",
    re.IGNORECASE,
)

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

# A letter with its text or a Chinese classifier after it, inside a block: `b) 7`, `B选项`, `(B) (7)`.
_IN_BLOCK = re.compile(
    r"[\W_]{0,12}(?:(?:option|choice|letter|answer|选项|选择|选|答案)[\s:是为]{0,3}[\W_]{0,4})?([A-Za-z])"
    r"(?:[\W_]{0,4}(?:选项|选|项)[\W_]{0,4}"
    r"|[\s}\])]{0,4}[)\].:、][\s}\\]{0,4}(?![a-z]{2,9}\b)[^\n]{0,400}"
    r"|\s{0,3}[({\[\\=][^\n]{0,400})",
    re.IGNORECASE,
)

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
    of them must agree; a box without an option letter, such as a number, is none if there is another. Without any,
    implicit ones count: `I choose B`, a line of one letter. Negations, conditions and questions do not count, nor do
    lists of alternatives, the article A, the pronoun I, and tags that the text only mentions.

    Tags and boxes count wherever they are; sentences count in the last 20,000 characters, or in the last 200,000 if
    those state nothing.

    Args:
        text: the completion.
        letters: the option letters of its row, such as `ABCD`; only one of these is returned.

    Source: this project's own rules; `tests/test_answers.py` holds the sentences that simpler parsers misread.
    """
    visible = _visible(text)
    answers, boxes, prose = _blocks_and_prose(visible)
    found = _stated_in(answers, boxes, prose[-_LONGEST:], letters)
    if not found and len(prose) > _LONGEST:
        found = _stated_in(answers, boxes, prose[-_LONGER:], letters)
    answer = found.pop() if len(found) == 1 else None
    return answer if answer is not None and answer in letters else None


def _stated_in(answers: list[str], boxes: list[str], prose: str, letters: str) -> set[str | None]:
    """All letters that are stated, with None for a block that cannot be read; empty if nothing is stated."""
    stated: set[str | None] = {_read_block(block) for block in answers} | set(_found(_STATED + _CN_STATED, prose))
    for box in boxes:
        letter = _read_block(box)
        if letter is not None or not stated or _names_option(box, letters):
            stated.add(letter)
    if not stated:
        stated = set(_found(_IMPLIED + _CN_IMPLIED, prose)) or {_read_whole(prose)}
    return stated - {None} if not (answers or boxes) else stated


def _names_option(box: str, letters: str) -> bool:
    return any(word in letters for word in re.findall(r"(?<![A-Za-z\\])[A-Z](?![A-Za-z])", box))


def _visible(text: str) -> str:
    """The text outside of thinking, normalised and without markup."""
    return outside_thinking(normalise(text)).translate(_MARKDOWN)


def _blocks_and_prose(visible: str) -> tuple[list[str], list[str], str]:
    """Contents of the answer tags, contents of the boxes outside of them, and the rest."""
    answers: list[str] = []
    prose: list[str] = []
    boxes: list[str] = []
    for kind, piece in answer_pieces(visible):
        if kind == "prose":
            rest, found = _without_boxes(piece)
            prose.append(rest)
            boxes += found
        elif piece.strip():
            answers.append(unboxed(piece))
    return answers, [box for box in boxes if box.strip()], "\n".join(prose)


def _without_boxes(text: str) -> tuple[str, list[str]]:
    """The text with a line end for each box, and the contents of the boxes."""
    rest: list[str] = []
    found: list[str] = []
    last = 0
    for start, end, contents in find_boxes(text):
        rest.append(text[last:start])
        found.append(unboxed(contents))
        last = end
    rest.append(text[last:])
    text = "\n".join(rest)
    found += BARE_BOX.findall(text) if "boxed" in text else []
    return BARE_BOX.sub("\n", text) if "boxed" in text else text, found


def _read_block(block: str) -> str | None:
    """The letter inside an `<answer>` or `\\boxed`; a letter alone may be lower case."""
    block = _plain_block(block)
    whole = _read_whole(block)
    found: set[str] = {whole} if whole else set(_found(_STATED + _IMPLIED + _CN_STATED + _CN_IMPLIED, block))
    if not found:
        match = _IN_BLOCK.fullmatch(block)
        if match and not _ends_in_alternative(block, match.end(1)):
            found = {match[1].upper()}
    if not found and "\n" in block:
        return _read_whole(block.split("\n", 1)[0])
    return found.pop() if len(found) == 1 else None


def _plain_block(block: str) -> str:
    """A block without LaTeX blanks, font groups' braces and marks around mathematics."""
    if "\\" in block or "{" in block:
        block = re.sub(r"\\[,;:! ]|\\q?quad(?![A-Za-z])|\\(?:left|right)(?![A-Za-z])|\\[()\[\]]|~", " ", block)
        block = re.sub(r"\{\s{0,3}([(\[]?[A-Za-z][)\].:]{0,2})\s{0,3}\}", r" \1 ", block)
    return block.strip()


def _ends_in_alternative(text: str, position: int) -> bool:
    return bool(_ALTERNATIVE.match(text, position) or _CN_ALTERNATIVE.match(text, position))


def _read_whole(text: str) -> str | None:
    """The letter of a text that is nothing but `b`, `(B)` or `B) seven`."""
    match = _BARE.fullmatch(text.strip()) or _WITH_TEXT.fullmatch(text.strip())
    if match is None or _ends_in_alternative(text.strip(), match.end(1)):
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


@lru_cache(maxsize=256)  # several rewards read the same completion
def extract_answer(text: str) -> str:
    """The free answer that a completion states, normalised and without surrounding blanks.

    Outside of thinking (see `extract_choice`), it is the contents of the last closed `<answer>` that is not merely
    mentioned, else of an unclosed one, else all text. If that contains a `\\boxed`, the answer is the contents of the
    last one, or the boxes and the words between them where `and`, `or` or a comma joins several. Otherwise a lead-in
    (`the answer is`, `答案是`, or `A:` on the last of several lines) is removed, and the rest of its sentence is the
    answer.
    """
    visible = outside_thinking(normalise(text))
    closed, unclosed = None, None
    for kind, piece in answer_pieces(visible):
        if kind == "closed" and piece.strip():
            closed = piece
        elif kind == "open" and piece.strip():
            unclosed = piece
    block = unclosed if closed is None else closed
    answer = (visible if block is None else block)[-_LONGER:]
    boxed = _last_boxed(answer)
    return (_statement(answer, is_block=block is not None) if boxed is None else boxed).strip()


def _last_boxed(text: str) -> str | None:
    """The contents of the last box; from the first to the last box where they are joined; None without one."""
    boxes = list(find_boxes(text))
    if not boxes:
        bare = BARE_BOX.findall(text) if "boxed" in text else []
        return bare[-1] if bare else None
    first = len(boxes) - 1
    while first and _is_joined(text[boxes[first - 1][1] : boxes[first][0]]):
        first -= 1
    if first < len(boxes) - 1:
        return text[boxes[first][0] : boxes[-1][1]]
    return _last_boxed(boxes[-1][2]) or boxes[-1][2]


def _is_joined(between: str) -> bool:
    return len(between) <= 30 and bool(re.search("[,;和或、]|and|or", between)) and bool(_JOINED.fullmatch(between))


def _statement(text: str, *, is_block: bool) -> str:
    """The text after its last lead-in, to the end of the sentence; the whole text without a lead-in."""
    whole = text.strip().strip("`").strip()
    if len(whole) > 2 and whole[0] == whole[-1] and whole[0] in "*_" and whole[0] not in whole[1:-1]:
        whole = whole[1:-1]
    final_line = _FINAL_LINE.search(whole)
    if final_line:
        return _sentence(final_line[1]) or whole
    lead_in = _LEAD_IN.match(whole)
    if lead_in and (is_block or "\n" not in whole):
        return _sentence(whole[lead_in.end() :]) or whole
    if is_block:
        return whole
    last = None
    for match in _CUE.finditer(whole[-_LONGEST:]):
        last = match
    tail = whole[-_LONGEST:]
    if last is None or _NOT_STATED.search(tail, max(0, last.start() - 40), last.start()):
        return whole
    return _sentence(tail[last.end() :]) or whole


def _sentence(text: str) -> str:
    text = text.lstrip(" \t\r\n:*`")
    if "\\begin" in text[:400]:
        return text
    if text.startswith(("$$", "\\[")):
        closing = text.find("$$" if text[0] == "$" else "\\]", 2)
        return text[2:closing].strip() if closing > 0 else text
    end = _SENTENCE_END.search(text)
    return (text if end is None else text[: end.start()]).rstrip(" .*`")


def extract_choice_lenient(text: str, letters: str) -> str | None:
    """Evaluation only: the last option letter that is a separate word, preferring capitals.

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
