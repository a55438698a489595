"""Read the markup of a completion: normalised text, thinking, answer tags and boxes.

Every quantifier is bounded, or stops at a character that the next part needs, which keeps matching linear.
"""

import re
import unicodedata
from collections.abc import Iterator

_THINK_TAG = re.compile(r"(</?think>)", re.IGNORECASE)
_ANSWER_TAG = re.compile(r"(</?answer>)", re.IGNORECASE)
# Contents of a tag pair that the text only talks about: `between <answer> and </answer>`, `in <answer> tags`.
_MENTION = re.compile(
    r"[\s`'\"]{1,5}(?:and|or|to|和|与|或)[\s`'\"]{1,5}|\W{0,5}(?:your (?:final )?answer(?: here)?|\.\.\.)\W{0,5}"
    r"|[\s`'\"]{1,5}(?:tags?|blocks?|标签)\b.*",
    re.IGNORECASE | re.DOTALL,
)
_QUOTED_TAG = re.compile(r"[`'\"“‘](?:<answer>|</answer>|<answer></answer>)[`'\"”’]", re.IGNORECASE)
_BOX = re.compile(r"\\f?box(?:ed)?\s{0,4}\{")
BARE_BOX = re.compile(r"\\boxed\s{1,4}([A-Za-z0-9])(?![A-Za-z0-9])")
# Spelling
_FONT = (
    r"\\(?:text|mathrm|mathbf|mathsf|mathit|mathnormal|boldsymbol|bm|mbox|hbox|emph|underline)"
    r"(?:rm|bf|it|sf|tt|sc|normal)?"
)
_FONT_GROUP = re.compile(_FONT + r"\s?\{([^{}]{0,200})\}")
_FONT_COMMAND = re.compile(_FONT + r"(?=\s?\{)|\\(?:displaystyle|textstyle|bf|rm|it|large|Large)(?![A-Za-z])")
_BOLD = re.compile(r"(?<![A-Za-z0-9)\]}*])\*\*(?=[^\s*])([^*\n]{0,200}[^\s*])\*\*(?![A-Za-z0-9(*])")
_UNDERLINED = re.compile(r"(?<![A-Za-z0-9)\]}_])__(?=[^\s_])([^_\n]{0,200}[^\s_])__(?![A-Za-z0-9(_])")
_POWERS = "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁽⁾ⁿ"
_RAISED = re.compile(rf"[{_POWERS}]+")
_LOWERED = re.compile("[₀₁₂₃₄₅₆₇₈₉]+")
_UNRAISED = str.maketrans(_POWERS, "0123456789+-()n")
_LETTER_OF_FRACTION = re.compile(r"(\d?)([¼½¾⅐-⅞↉])")
_ONE_SIGN = str.maketrans(
    dict.fromkeys("−﹣‐‑", "-") | dict.fromkeys("\u200b\u200c\u200d\u2060\ufeff\u00ad\ufe0f") | {"⁄": "/"}
)


def normalise(text: str) -> str:
    """The text in one spelling: Unicode's NFKC form without bold marks and LaTeX font commands.

    Unlike plain NFKC it keeps mathematics: `5²` becomes `5^2`, `2½` becomes `2 1/2`, and the sign `−` becomes `-`.
    """
    if not text.isascii():
        text = _RAISED.sub(lambda match: f"^{_grouped(match[0].translate(_UNRAISED))}", text)
        text = _LOWERED.sub(lambda match: f"_{_grouped(unicodedata.normalize('NFKC', match[0]))}", text)
        text = _LETTER_OF_FRACTION.sub(lambda match: f"{match[1]} {match[2]}" if match[1] else match[2], text)
        text = unicodedata.normalize("NFKC", text).translate(_ONE_SIGN)
    if "\\" in text:
        text = _FONT_COMMAND.sub("", _FONT_GROUP.sub(r"\1", text))
    if "**" in text:
        text = _BOLD.sub(r"\1", text)
    if "__" in text:
        text = _UNDERLINED.sub(r"\1", text)
    return text


def _grouped(text: str) -> str:
    return text if len(text) == 1 else f"{{{text}}}"


def outside_thinking(text: str) -> str:
    """The text without thinking.

    An unclosed `<think>` removes all after it, a lone `</think>` all before it.
    """
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


def answer_pieces(visible: str) -> Iterator[tuple[str, str]]:
    """Split a text into `prose` and contents of answer tags, `closed` or `open`.

    An `open` tag lasts to the end of the text. A tag that the text only mentions is prose.
    """
    if "answer>" not in visible.lower():
        yield "prose", visible
        return
    parts: list[str] = _ANSWER_TAG.split(_QUOTED_TAG.sub(" ", visible))
    for i in range(0, len(parts), 2):
        before = parts[i - 1].lower() if i else ""
        after = parts[i + 1].lower() if i + 1 < len(parts) else ""
        is_answer = before == "<answer>" and after in ("</answer>", "") and not _MENTION.fullmatch(parts[i])
        yield ("prose" if not is_answer else "closed" if after else "open"), parts[i]


def find_boxes(text: str) -> Iterator[tuple[int, int, str]]:
    """Start, end and contents of each closed `\\boxed{...}`, with nested braces."""
    end = 0
    openings = [] if "box" not in text else [(match.start(), match.end()) for match in _BOX.finditer(text)]
    closings = _closing_braces(text) if openings else {}
    for start, inside in openings:
        closing = closings.get(inside - 1)
        if start >= end and closing is not None:
            end = closing + 1
            yield start, end, text[inside:closing]


def _closing_braces(text: str) -> dict[int, int]:
    """Position of each opening brace -> that of its closing brace."""
    pairs: dict[int, int] = {}
    open_at: list[int] = []
    for match in re.finditer(r"(?<!\\)[{}]", text):
        if match[0] == "{":
            open_at.append(match.start())
        elif open_at:
            pairs[open_at.pop()] = match.start()
    return pairs


def unboxed(text: str) -> str:
    """The text with each box replaced by its contents."""
    if "box" not in text:
        return text
    rest: list[str] = []
    last = 0
    for start, end, contents in find_boxes(text):
        rest += text[last:start], unboxed(contents) if len(contents) < 1_000 else contents
        last = end
    return BARE_BOX.sub(r"\1", "".join([*rest, text[last:]]))
