"""The choice parser of JuncyLu/trl_DAPO (branch trl) as published, misreadings included."""

import re

_THINK = re.compile(r"<think>.*?</think>", re.IGNORECASE | re.DOTALL)
_THINK_END = re.compile(r"</think>", re.IGNORECASE)
_CUE = re.compile(r"answer|答案|选项|choice|option", re.IGNORECASE)
_LETTER = "[A-JＡ-Ｊ]"
# Whitespace is possessive: nothing after it could use what it gives back, and a megabyte of blanks stays linear.
_IS = r"\s*+(?:is|为|是)?\s*+[:：-]?\s*+"
_OF_A_LINE = [
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        rf"(?:final answer|answer|答案){_IS}(?:option|choice|选项)?\s*+[(\[\s]*+({_LETTER})",
        rf"(?:option|choice|选项){_IS}[(\[\s]*+({_LETTER})",
        rf"[（(]?({_LETTER})[）)]?\s*+$",
    )
]
_ALONE = re.compile(rf"\b({_LETTER})\b")
_ASCII = str.maketrans("ＡＢＣＤＥＦＧＨＩＪ", "ABCDEFGHIJ")


def extract_choice_as_published(text: str) -> str | None:
    """The letter A-J that the published patterns find, or None.

    Complete think blocks are deleted. Lines with a cue word are tried from the last to the first; without a hit the
    last capital letter that stands alone counts. A full-width small letter is found but stays one, hence no option.

    Source: JuncyLu/trl_DAPO, branch trl, at f0cbd71c.
    """
    text = _without_thoughts(text)
    found = _in_cued_lines(text)
    if found is None:
        alone = _ALONE.findall(text)
        found = alone[-1] if alone else None
    letter = None if found is None else found.translate(_ASCII).upper()
    return letter if letter is not None and "A" <= letter <= "J" else None


def _without_thoughts(text: str) -> str:
    """Only what comes before the last closing tag can hold a complete block; searching there stays linear."""
    ends = [match.end() for match in _THINK_END.finditer(text)]
    last = ends[-1] if ends else 0
    return _THINK.sub("", text[:last]) + text[last:]


def _in_cued_lines(text: str) -> str | None:
    for line in reversed(text.splitlines()):
        if _CUE.search(line):
            for pattern in _OF_A_LINE:
                match = pattern.search(line.strip())
                if match:
                    return match[1]
    return None
