"""Rewards for the right answer."""

import re
import unicodedata

from rlassay.answers import extract_answer, extract_choice
from rlassay.records import Completion
from rlassay.rewards.options import lift

# MERGED FROM rewards.action_set: Reward for naming the right actions by their numbers.

_ANSWER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)
_ACTION = re.compile(r"\((\d+)\)")


@lift
def action_set_iou(completion: Completion) -> float | None:
    """1 if the answer lists exactly the gold actions, else the intersection over union of the two sets.

    Actions are the numbers in round brackets inside the first `<answer>` block; without such a block it is 0. The gold
    actions stand in the row's answer, inside `<answer>` or not. Lists are compared in sorted order, repeats counted;
    sets forget repeats, so that (1)(1)(2) against (1)(2) is 1 as well. No action against none is 1 only where the gold
    answer is blank.

    Source: the accuracy reward of ChristianLin0420/Qwen2.5-VL-Video. Departure: there, none against none is
    always 1, also when the gold answer has no brackets.
    """
    block = _first_block(completion.text)
    if block is None:
        return 0.0
    gold_text = _gold_text(completion.row.answer)
    named, gold = _ACTION.findall(block), _ACTION.findall(gold_text)
    if not gold:
        return float(not named and not gold_text.strip())
    if sorted(named) == sorted(gold):
        return 1.0
    return len(set(named) & set(gold)) / len(set(named) | set(gold))


def names_actions(answer: str) -> bool:
    """Whether a gold answer names an action, as this reward reads it."""
    return _ACTION.search(_gold_text(answer)) is not None


def _gold_text(answer: str) -> str:
    inside = _first_block(answer)
    return answer if inside is None else inside


def _first_block(text: str) -> str | None:
    """What the first `<answer>` block holds; without a closing tag nothing is searched, which keeps this linear."""
    match = _ANSWER.search(text, 0, text.rfind("</answer>") + len("</answer>")) if "</answer>" in text else None
    return None if match is None else match[1]


# MERGED FROM rewards.source_choice: The choice parser of JuncyLu/trl_DAPO (branch trl) as published,
# misreadings included.

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


# MERGED FROM rewards.accuracy: Rewards for the right answer.


@lift
def choice_accuracy(completion: Completion, *, strict_source: bool = False) -> float | None:
    """1 if the stated option letter is the gold one, else 0; None for a row without choices.

    Nothing stated and conflicting statements are 0; `rlassay.answers.extract_choice` reads the text.

    Args:
        completion: the completion.
        strict_source: read the letter exactly as JuncyLu/trl_DAPO, branch trl does, misreadings included.

    Source: `strict_source` is the accuracy reward of JuncyLu/trl_DAPO, branch trl; the default is this project's own.
    """
    row = completion.row
    if not row.choices:
        return None
    text = completion.text
    choice = extract_choice_as_published(text) if strict_source else extract_choice(text, row.letters)
    return float(choice == row.answer)


@lift
def exact_match(completion: Completion) -> float | None:
    """1 if the stated answer is the gold one, letter by letter, else 0; None for a row whose gold answer is blank.

    Both are read by `extract_answer`, so that a gold answer may stand in `<answer>` or `\\boxed`, and compared in
    Unicode's NFKC form, runs of whitespace made one space; capitals count.
    """
    gold = _normal(extract_answer(completion.row.answer))
    if not gold:
        return None
    return float(_normal(extract_answer(completion.text)) == gold)


def _normal(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).split())
